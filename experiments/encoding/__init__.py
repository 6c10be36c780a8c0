"""What `experiments.encode` needs: rows of a store or of files, and shards of latents."""
