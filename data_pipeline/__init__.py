"""Music files to rows of tokens, and rows back to music. No jax.

`prepare` is the command. A file passes through `inputs`, `reading`, `codecs` (or `fast`, the
compiled route to the same rows), `extraction`, `conversion` and `selection`; `render` goes the
other way.
"""
