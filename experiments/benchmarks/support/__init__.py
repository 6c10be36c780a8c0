"""What benchmarks share: operation counts, timing, and the PyTorch models."""
