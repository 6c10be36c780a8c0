"""Windows of notes to rows of tokens, one module per kind of track.

`melody`, `drums` and `trio` say what the tokens mean; `windows` cuts tracks into windows.
"""
