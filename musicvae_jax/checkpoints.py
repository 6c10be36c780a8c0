"""Checkpoints of a run: the latest and the best, each with the configuration. Only orbax's home.

A run folder's `checkpoints/<step>/` holds `params`, `state` (what training needs beside
them), `config` and `metrics`. A step folder appears under its name only when it is complete.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from orbax import checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from musicvae_jax.config import Config, InputError, config_from_json

Tree = Any
FOLDER = "checkpoints"


def _validation_loss(metrics: Mapping[str, float]) -> float:
    return metrics["validation_loss"]


class Checkpoints:
    """The checkpoints of one run folder; close it, or use it in a `with` statement.

    Attributes:
      run_dir: the run folder, absolute.
    """

    def __init__(self, run_dir: str | pathlib.Path, *, create: bool = False) -> None:
        self.run_dir = pathlib.Path(run_dir).resolve()
        folder = self.run_dir / FOLDER
        if not create and not folder.is_dir():
            raise InputError(f"run_dir: {self.run_dir} holds no checkpoints; train first")
        best = checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1)
        keep = [checkpoint_managers.LatestN(1), best]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
            best_fn=_validation_loss,
            best_mode="min",
            create=create,
            cleanup_tmp_directories=create,
            # The state is donated to the next step: it is written before that begins.
            enable_async_checkpointing=False,
        )
        handlers: dict[str, ocp.CheckpointHandler] = {
            "params": ocp.StandardCheckpointHandler(),
            "state": ocp.StandardCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()

    def latest_step(self) -> int | None:
        """Return the last saved step, None before the first."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Return the step of the lowest validation loss; without validations, the latest."""
        return self._manager.best_step()

    def save(
        self,
        step: int,
        params: Tree,
        state: Tree,
        config: Config,
        validation_loss: float = math.inf,
    ) -> None:
        """Write a checkpoint and drop those that are neither the latest nor the best.

        Args:
          step: optimiser steps done; a step that is saved already is left as it is.
          params: model parameters.
          state: all else that training needs to go on, any tree of arrays.
          config: the run's configuration.
          validation_loss: nats per example; infinite for a step that was not validated, which
            makes it the best only when no other step was.
        """
        if step in self._manager.all_steps():
            return
        loss = validation_loss if math.isfinite(validation_loss) else math.inf
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            state=ocp.args.StandardSave(state),
            config=ocp.args.JsonSave({"config": config.to_json()}),
        )
        self._manager.save(step, args=items, metrics={"validation_loss": loss}, force=True)

    def restore(self, step: int, params: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Read a checkpoint.

        Args:
          step: a saved step.
          params: what to read, as `jax.ShapeDtypeStruct` leaves with their shardings.
          state: likewise.

        Returns:
          (params, state), shaped and placed as asked.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params), state=ocp.args.StandardRestore(state)
        )
        found = self._manager.restore(step, args=items)
        return found["params"], found["state"]

    def state_names(self, step: int) -> dict[str, tuple[str, ...]]:
        """Return the fields that a saved state has, each with the names of its parts, if any."""
        fields = dict(self._manager.item_metadata(step)["state"].items())
        return {k: tuple(v) if isinstance(v, dict) else () for k, v in fields.items()}

    def restore_params(self, step: int) -> tuple[Config, Tree]:
        """Read the configuration and the parameters of a step, whole on the first device."""
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(self._manager.item_metadata(step)["params"].items()),
        )
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(shapes), config=ocp.args.JsonRestore()
        )
        found = self._manager.restore(step, args=items)
        return config_from_json(found["config"]["config"]), found["params"]

    def find(self, which: str | int | None) -> int:
        """Return the step that "best", "latest" (or None) or a number names.

        Raises:
          InputError: there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(f"run_dir: {self.run_dir} holds no checkpoint yet; train first")
        if which in ("latest", None):
            return steps[-1]
        if which == "best":
            return int(self._manager.best_step() or steps[-1])
        if not str(which).isdecimal() or int(which) not in steps:
            known = ", ".join(map(str, steps))
            raise InputError(f"checkpoint: {which!r} is not best, latest or one of {known}")
        return int(which)


def restore_params(
    run_dir: str | pathlib.Path, which: str | int | None = "best"
) -> tuple[Config, Tree, int]:
    """Read what use after training needs: (configuration, parameters, step).

    Args:
      run_dir: a run folder.
      which: "best" (lowest validation loss), "latest" or a saved step.

    Raises:
      InputError: the folder has no such checkpoint.
    """
    with Checkpoints(run_dir) as checkpoints:
        step = checkpoints.find(which)
        config, params = checkpoints.restore_params(step)
    return config, params, step
