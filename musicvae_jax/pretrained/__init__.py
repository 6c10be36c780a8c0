"""Trained models that are part of this package: NAME.safetensors and their cards, NAME.md."""
