"""MusicVAE in JAX: rows of integer tokens to a latent space and back.

The letters that name array dimensions everywhere in this package:

    B  example of a batch           U  segment (a bar: one step of the conductor)
    T  time step (a 16th note)      S  steps per segment, T = U * S
    K  track (a trio has 3)         H  hidden unit
    V  token value                  Z  latent dimension
    G  sweep point                  L  layer

Tokens are integers `[B, T]`, or `[B, T, K]` for several tracks. The public names below load
what they need when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicvae_jax.config import Config, InputError, ModelConfig, RunConfig, TrainConfig
    from musicvae_jax.latent.musicvae import MusicVAE
    from musicvae_jax.tasks import TASKS, Task, get_task

__all__ = [
    "TASKS",
    "Config",
    "InputError",
    "ModelConfig",
    "MusicVAE",
    "RunConfig",
    "Task",
    "TrainConfig",
    "get_task",
]

_MODULES = {
    "musicvae_jax.config": ("Config", "InputError", "ModelConfig", "RunConfig", "TrainConfig"),
    "musicvae_jax.latent.musicvae": ("MusicVAE",),
    "musicvae_jax.tasks": ("TASKS", "Task", "get_task"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names beside what is already loaded."""
    return sorted({*globals(), *__all__})
