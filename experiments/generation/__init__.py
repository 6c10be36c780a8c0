"""What `experiments.generate` needs: options, input rows, the modes, and output files."""
