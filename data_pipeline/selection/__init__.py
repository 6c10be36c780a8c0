"""Which rows are kept, in which split, and the token store they are written to.

`songs` finds files of the same song, `splits` assigns files and removes duplicates, `store` writes.
"""
