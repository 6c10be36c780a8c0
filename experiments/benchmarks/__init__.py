"""Scripts that measure speed, memory, learning and robustness; README.md lists them."""
