"""What the commands do with models of sound."""
