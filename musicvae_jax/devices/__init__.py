"""Devices and processes: the mesh that arrays are laid out on, and how processes agree."""
