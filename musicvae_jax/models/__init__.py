"""The networks. Flax is used only here.

Begin with `registry`, which turns a configuration into a record of pure functions.
"""
