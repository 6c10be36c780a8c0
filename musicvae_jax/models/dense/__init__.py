"""Variational autoencoders of dense layers, without recurrence."""
