"""Training: begin with `step`, one update as a pure function, then `loop`, which repeats it."""
