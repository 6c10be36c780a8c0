"""One file to the rows of every task, and why anything was dropped.

`extract` uses note-seq; `engines` chooses between it and `data_pipeline.fast`; `excerpts` also says
which tracks and bars a row comes from.
"""
