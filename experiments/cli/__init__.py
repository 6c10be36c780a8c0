"""What commands share: flags, progress, signals, run records and the compilation cache."""
