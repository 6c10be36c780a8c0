"""What `experiments.generate` does with a model of piano rolls: its options, threshold, melody."""

from __future__ import annotations

import numpy as np

from data_pipeline.codecs import piano_roll
from experiments.generation.modes import Music
from experiments.generation.options import Options
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.tasks import Task

MODES = ("sample", "reconstruct", "interpolate", "grid", "similar")
_FORMATS = ("midi", "png", "wav")


def check_options(options: Options, task: Task) -> None:
    """Check that piano rolls are asked for what they can do, and nothing else for theirs.

    Raises:
      InputError: they are not.
    """
    own = {
        "threshold": options.threshold is not None,
        "melody": options.melody,
        "note_length": options.note_length != "held",
    }
    if task.has_steps:
        for flag, given in own.items():
            if given:
                raise InputError(f"{flag}: only for models of piano rolls, this is of {task.name}")
        return
    if options.mode not in MODES:
        raise InputError(f"mode: a model of piano rolls has the modes {', '.join(MODES)}")
    wrong = [name for name in options.formats if name not in _FORMATS]
    if wrong:
        formats = " and ".join(_FORMATS)
        raise InputError(
            f"format: {', '.join(wrong)} needs note lengths; piano rolls are written as {formats}"
        )
    if options.track is not None:
        raise InputError("track: piano rolls take all tracks together")


def with_threshold(vae: MusicVAE, threshold: float | None) -> MusicVAE:
    """Return the model with another threshold; None keeps its own."""
    if threshold is None:
        return vae
    config = vae.config.replace(threshold=threshold)
    return MusicVAE(config, vae.params, prior=vae.prior, attributes=vae.attributes, step=vae.step)


def melodies(music: Music, task: Task) -> Music:
    """Keep the highest notes of generated rows."""
    rows = [piano_roll.melody_of(row, task) for row in music.tokens]
    return music._replace(tokens=np.stack(rows).astype(music.tokens.dtype))
