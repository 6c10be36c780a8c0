"""Trained models in use: the class `MusicVAE`, and operations in the latent space.

`musicvae` has the class, `paths` points in z, `operations` their decoding as pure functions,
`attributes` the attribute vectors.
"""
