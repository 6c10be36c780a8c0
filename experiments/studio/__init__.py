"""The studio: a page on one's own machine that plays with a model's latent space."""
