"""Rows of tokens to MIDI, scores, sound and pictures.

Every writer is called through `files`.
"""
