"""The model of sound."""
