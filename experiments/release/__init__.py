"""Trained runs to models of the package: their scores, their cards, the table of all models."""
