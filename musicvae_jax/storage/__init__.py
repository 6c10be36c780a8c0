"""Run folders and checkpoints on disk. Orbax is used only in `checkpoints`."""
