"""Many runs in one program, their states stacked on a leading axis."""
