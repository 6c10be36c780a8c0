"""Training. Start reading at `step` (one update as a pure function), then `loop`."""
