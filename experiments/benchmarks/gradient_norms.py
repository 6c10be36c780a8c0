r"""Global gradient norm of the first step from the default start, by task and width.

Example:
  python -m experiments.benchmarks.gradient_norms --stores=data --tasks=mel_2bar,trio_16bar
  python -m experiments.benchmarks.gradient_norms --stores=data --tasks=trio_16bar --width=0 \
    --presets=trio_16bar_hierdec

Gradients whose norm reaches `grad_norm_clip_to_zero` are replaced by zero, so a start near that
threshold stands still. The norm should be a tenth of it at most, at every width. `--stores` is a
folder with a token store per task, named like the task. Widths are the units of the encoder, of the
decoder and of z; the presets have the published sizes and architectures, here with the default
initialisation. Each number is one training step on rows that are spread over the training split.
A step at a published size takes several gigabytes; compiled with
`XLA_FLAGS=--xla_backend_optimization_level=0`, the whole table takes less time.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from data_pipeline import cli
from experiments.benchmarks.support import machine
from experiments.cli import operation_counts
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import TASKS, get_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, make_train_step

WIDTHS = (64, 128, 256, 512)


def first_norm(config: Config, rows: np.ndarray) -> float:
    """Return the gradient norm of the first step on a batch of rows."""
    model = build_model(config)
    state = jax.jit(functools.partial(init_state, model, config))()
    step = jax.jit(make_train_step(model, config), donate_argnums=0)
    _, measured = step(state, Batch(jnp.asarray(rows)))
    return float(measured["gradient_norm"])


def chosen_configs(
    task: str, names: Sequence[str], widths: Sequence[int] = WIDTHS
) -> dict[str, Config]:
    """Return the configurations of a task: each width, then the presets of these names.

    Raises:
      InputError: there is no such preset or task.
    """
    found = {}
    for units in widths:
        sizes = {"encoder_sizes": (units,), "decoder_sizes": (units,), "z_size": units}
        found[f"{units} units"] = get_task(task).config.replace(**sizes)
    presets = operation_counts.published()
    for name in names:
        if name not in presets:
            raise InputError(f"--presets: {name!r} is not one of {', '.join(presets)}")
    found |= {name: presets[name] for name in names if presets[name].task == task}
    return found


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_string("stores", None, "Folder of token stores, each named like its task.")
    flags.DEFINE_list("tasks", list(TASKS), "Tasks.")
    flags.DEFINE_multi_integer(
        "width", list(WIDTHS), "Units; may be repeated, 0: presets alone.", 0
    )
    flags.DEFINE_list("presets", sorted(operation_counts.published()), "Presets, by name.")
    flags.DEFINE_integer("batch_size", 8, "Rows per step.", 1)
    flags.mark_flag_as_required("stores")


def main(argv: Sequence[str]) -> None:
    """Print a line per configuration."""
    del argv
    values = flags.FLAGS
    print(machine.describe("jaxlib", "flax"))
    print(f"gradient norm of the first step, default start, batch {values.batch_size}, float32")
    print(f"{'task':14}{'architecture':14}{'sizes':22}{'norm':>8}{'/ threshold':>13}", flush=True)
    for task in values.tasks:
        rows = data.open_store(pathlib.Path(values.stores) / task).splits["train"]
        rows = np.asarray(rows[data.spread_rows(len(rows), values.batch_size)])
        widths = [units for units in values.width if units]
        for name, config in chosen_configs(task, values.presets, widths).items():
            config = config.replace(
                init="default", dtype="float32", batch_size=values.batch_size, accumulation=1
            )
            norm = first_norm(config, rows)
            share = norm / config.train.grad_norm_clip_to_zero
            print(f"{task:14}{config.model.architecture:14}{name:22}{norm:8,.0f}{share:13.3f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    define_flags()
    cli.run(main)
