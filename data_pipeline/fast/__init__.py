"""The same rows as `extraction`, read from the bytes of a MIDI file by compiled code.

Begin with `rows`; the others are its steps, in order: `midi`, `events`, `tempo`, `cut`, `trio`.
"""
