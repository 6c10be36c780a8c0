"""Tests of experiments.release."""
