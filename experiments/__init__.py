"""The commands: each module here is one, run as `python -m experiments.NAME`.

They read flags, call the libraries and write files; the folders hold what a single command needs.
"""
