"""Where music files come from: folders, archives, single files, named corpora, downloads.

Begin with `sources`.
"""
