"""The neural networks; the only package that uses Flax.

Begin with `registry`, which turns a configuration into a record of pure functions.
"""
