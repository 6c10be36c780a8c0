"""The device mesh and array shardings, and coordination between processes."""
