"""How the studio's models are loaded and found."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from experiments.studio.errors import NOT_FOUND, RefusedError
from experiments.studio.models.forecasters import ForecasterModel
from experiments.studio.models.latent import StudioModel
from experiments.studio.models.played import PlayedModel
from experiments.studio.models.worker import Worker
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.tasks import get_task


def load(names: Sequence[str], run_dirs: Sequence[str], worker: Worker) -> Iterator[PlayedModel]:
    """Load models of this package, then the best checkpoints of run folders.

    A run's name is that of its folder, with a number where another model has it.

    Raises:
      InputError: there is no such model or run, a file of it is damaged, or it is of sound.
    """
    taken: list[str] = []
    for name in names:
        yield StudioModel(name, MusicVAE.from_pretrained(name), worker)
        taken.append(name)
    for run_dir in run_dirs:
        base = pathlib.Path(run_dir).resolve().name
        candidates = (f"{base}-{n}" if n > 1 else base for n in itertools.count(1))
        name = next(candidate for candidate in candidates if candidate not in taken)
        yield _restored(name, run_dir, worker)
        taken.append(name)


def _restored(name: str, run_dir: str, worker: Worker) -> PlayedModel:
    """Load the best checkpoint of a run, whether it has a latent space or not."""
    from musicvae_jax.storage import checkpoints  # orbax takes seconds to import

    config = checkpoints.restore_config(run_dir)
    if get_task(config.task).is_sound:
        raise InputError(f"run_dir: {run_dir} is a model of sound, the studio plays notes")
    model = build_model(config)
    if not isinstance(model, Forecaster):
        return StudioModel(name, MusicVAE.restore(run_dir), worker)
    config, params, _ = checkpoints.restore_params(run_dir)
    return ForecasterModel(name, config, params, model, worker)


def find(models: Mapping[str, PlayedModel], name: str) -> PlayedModel:
    """Return a model by its name.

    Raises:
      RefusedError: there is none; the message lists those there are.
    """
    if name not in models:
        raise RefusedError(NOT_FOUND, f"model: there is no {name!r}; models: {', '.join(models)}")
    return models[name]
