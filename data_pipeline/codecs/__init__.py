"""Pieces of music to rows of tokens and back.

`codec` has the interface, `Codec`, and the table of kinds; `melody`, `drums` and `piano_roll` are
the kinds; `trio` combines the first two; `pieces` goes from a piece to rows with their origin,
`windows` cuts tracks into windows; `figures` is what a report counts.
"""
