"""Segments of notes to rows of tokens and back.

`codec` has the interface, `Codec`, and the table of kinds; `melody` and `drums` are the two kinds;
`trio` combines them; `windows` cuts tracks into windows.
"""
