"""One file to notes, and notes to segments in 4/4, quantised to sixteenths.

`notes` reads files with note-seq; `segments` splits and quantises.
"""
