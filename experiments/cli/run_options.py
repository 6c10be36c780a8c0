"""Flags shared by all commands that use a trained run."""

from __future__ import annotations

from typing import Any, TypeVar

from absl import flags

from musicvae_jax.config import InputError

T = TypeVar("T")


def define() -> None:
    """Define which run, which of its checkpoints, and which rows."""
    # The flags are the caller's, so that its --help lists them.
    flags.disclaim_key_flags()
    flags.DEFINE_string("run_dir", None, "Folder of the run.")
    flags.DEFINE_string("checkpoint", "best", "Checkpoint: best, latest or a saved step.")
    flags.DEFINE_string("data_dir", None, "Token store. Default: the run's own.")
    flags.DEFINE_boolean("allow_changed_data", False, "Accept data that changed since it was used.")


def given(options: type[T]) -> T:
    """Make a command's options, a NamedTuple, from the flags of the same names.

    Raises:
      InputError: --run_dir is missing.
    """
    if not flags.FLAGS.run_dir:
        raise InputError("run_dir: --run_dir is needed")
    fields: tuple[str, ...] = getattr(options, "_fields", ())
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in fields}
    return options(**values)
