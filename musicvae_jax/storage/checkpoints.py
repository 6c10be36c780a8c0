"""Checkpoints of a run: the latest and the best, each with its configuration.

A run folder's `checkpoints/<step>/` holds `params`, `state` (what training needs beside
them), `config` (with the validation loss) and the checksums of all that. A step folder appears
under its name only when it is complete, and counts only with its checksums, which come last.
One that is damaged or half-written is named in a warning, and the last good one is taken in its
place.

Several processes that train one model write one checkpoint together, on a file system that they
share; the first of them decides which is good.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from orbax import checkpoint as ocp

from musicvae_jax.config import Config, InputError, config_from_json
from musicvae_jax.devices import processes
from musicvae_jax.storage import checksums
from musicvae_jax.storage.full_disk import DiskFullError, held_stderr, is_disk_full

Tree = Any
FOLDER = "checkpoints"
# Where training puts what it does not go on from.
ASIDE = "damaged_checkpoints"
_REMOVED = ".removed_checkpoint"
# How orbax names a checkpoint until it is complete.
_UNFINISHED = "*.orbax-checkpoint-tmp*"


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
        if create and processes.is_first():
            # What a process that was killed, or a full disk, left behind.
            for path in (self.run_dir / _REMOVED, *folder.glob(_UNFINISHED)):
                shutil.rmtree(path, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(
            # Nothing is read of a checkpoint before it is known to be whole, and nothing is
            # dropped before its successor is: which is best, and what to drop, is decided here.
            lightweight_initialize=True,
            create=create,
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
        return self._best(self._manager.all_steps())

    def best_loss(self) -> float:
        """Return the lowest validation loss of the saved steps, infinite without one."""
        best = self.best_step()
        return math.inf if best is None else self._loss(best)

    def last_good_step(self) -> int | None:
        """Return the step to go on from, None for none, and put aside what is not whole.

        A later checkpoint that is damaged or half-written goes to `damaged_checkpoints`, with a
        warning.

        Raises:
          InputError: checkpoints were damaged after they were written, and none is good.
        """
        found = self._put_aside() if processes.is_first() else None
        step = processes.broadcast_from_first(-1 if found is None else found)
        self._manager.reload()
        return None if step == -1 else step

    def _put_aside(self) -> int | None:
        """Move what is not whole out of the way, latest first; return the first that is."""
        faults = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            fault = self._fault(step)
            if fault is None:
                break
            faults[step] = fault
        good = [step for step in self._manager.all_steps() if step not in faults]
        if not good and any(fault.startswith("damaged") for fault in faults.values()):
            raise InputError(
                f"run_dir: {_listed(faults)}: no checkpoint of {self.run_dir} is good; train into "
                f"another folder, or remove {self.run_dir / FOLDER} to start anew"
            )
        for step in faults:
            aside = self.run_dir / ASIDE / str(step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            os.replace(self._folder(step), aside)
        if faults:
            then = f"going on from step {max(good)}" if good else "starting anew"
            warnings.warn(f"{_listed(faults)}: moved to {ASIDE}; {then}", stacklevel=2)
        return max(good, default=None)

    def _folder(self, step: int) -> pathlib.Path:
        """Return the folder of a step."""
        return self.run_dir / FOLDER / str(step)

    def _fault(self, step: int) -> str | None:
        """Say what is wrong with a checkpoint; None where nothing is, as far as one can tell."""
        try:
            about = self._about(step)
        except FileNotFoundError:
            return "half-written, it has no configuration"
        except (OSError, ValueError):
            return "damaged, its configuration cannot be read"
        # Those of earlier versions have none.
        return checksums.fault(self._folder(step)) if about.get("checksums") else None

    def _about(self, step: int) -> dict[str, Any]:
        """Read what is saved beside a checkpoint's configuration."""
        path = self._folder(step) / "config" / "metadata"
        return json.loads(path.read_text(encoding="utf-8"))

    def _is_readable(self, step: int) -> bool:
        """Return whether what is saved beside the configuration can be read."""
        try:
            return bool(self._about(step))
        except (OSError, ValueError):
            return False

    def _loss(self, step: int) -> float:
        """Read the validation loss of a step; infinite where there is none."""
        try:
            about = self._about(step)
            if "validation_loss" not in about:  # earlier versions kept it in a file of its own
                path = self._folder(step) / "metrics" / "metrics"
                about = json.loads(path.read_text(encoding="utf-8"))
            return float(about["validation_loss"])
        except (OSError, ValueError, KeyError, TypeError):
            return math.inf

    def _best(self, steps: Sequence[int]) -> int | None:
        """Return the step of the lowest validation loss, the latest of equal ones."""
        return min(steps, key=lambda step: (self._loss(step), -step), default=None)

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

        Raises:
          DiskFullError: the disk is full; the checkpoints there were are still there.
        """
        if step in self._manager.all_steps():
            return
        loss = validation_loss if math.isfinite(validation_loss) else math.inf
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            state=ocp.args.StandardSave(state),
            config=ocp.args.JsonSave(
                {"config": config.to_json(), "validation_loss": loss, "checksums": True}
            ),
        )
        self._check_space(step, (params, state))
        with held_stderr():
            try:
                self._manager.save(step, args=items, force=True)
                if processes.is_first():
                    checksums.write(self._folder(step))
            except (OSError, ValueError, RuntimeError) as error:
                if not is_disk_full(error):
                    raise
                self._remove_unfinished(step)
                raise self._disk_full(step) from error
        self._drop_others()

    def _check_space(self, step: int, trees: Tree) -> None:
        """Refuse what would fill the disk before anything is written."""
        needed = sum(getattr(leaf, "nbytes", 8) for leaf in jax.tree.leaves(trees))
        if processes.is_first() and shutil.disk_usage(self.run_dir).free < needed:
            raise self._disk_full(step)

    def _disk_full(self, step: int) -> DiskFullError:
        """Say what could not be saved and what still is."""
        last = self.latest_step()
        kept = "none was saved before" if last is None else f"that of step {last} is kept"
        return DiskFullError(
            f"run_dir: no space left for the checkpoint of step {step} in {self.run_dir}, "
            f"{kept}; free some, then run the same command again"
        )

    def _drop_others(self) -> None:
        """Remove what is neither the latest nor the best."""
        if processes.is_first():
            steps = self._manager.all_steps()
            for step in set(steps) - {max(steps), self._best(steps)}:
                # Renamed first: half of a checkpoint must not be found under its name.
                shutil.rmtree(self.run_dir / _REMOVED, ignore_errors=True)
                os.replace(self._folder(step), self.run_dir / _REMOVED)
                shutil.rmtree(self.run_dir / _REMOVED)
        processes.wait_for_all("checkpoints dropped")
        self._manager.reload()

    def _remove_unfinished(self, step: int) -> None:
        """Give the space of a checkpoint back that did not become complete."""
        folder = self.run_dir / FOLDER
        for path in folder.iterdir():
            is_whole = path.name == str(step) and (path / checksums.CHECKSUMS).exists()
            if re.match(rf"{step}(\D|$)", path.name) and not is_whole:
                # What threads that still write leave there goes when training starts again.
                shutil.rmtree(path, ignore_errors=True)
        self._manager.reload()

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
        """Read the configuration and the parameters of a step, whole on one device."""
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(self._saved_shapes(step, "params")),
            config=ocp.args.JsonRestore(),
        )
        found = self._manager.restore(step, args=items)
        return config_from_json(found["config"]["config"]), found["params"]

    def restore_state(self, step: int) -> Tree:
        """Read what was saved beside the parameters, in dicts and lists, whole on one device."""
        shapes = self._saved_shapes(step, "state")
        items = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        return self._manager.restore(step, args=items)["state"]

    def _saved_shapes(self, step: int, item: str) -> Tree:
        """Return the shapes that an item of a checkpoint was saved with, for one device."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(self._manager.item_metadata(step)[item].items()),
        )

    def find(self, which: str | int | None) -> int:
        """Return the step that "best", "latest" (or None) or a number names.

        In the place of a best or latest that is damaged or half-written it gives the best or
        latest of the others, with a warning.

        Raises:
          InputError: there is no such checkpoint, or it is not whole.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(f"run_dir: {self.run_dir} holds no checkpoint yet; train first")
        if which in ("best", "latest", None):
            order = steps[::-1]
            if which == "best":
                # What cannot be read may have been the best: it comes first, to be named.
                order.sort(key=lambda step: (self._is_readable(step), self._loss(step)))
            return self._first_good(order)
        if not str(which).isdecimal() or int(which) not in steps:
            known = ", ".join(map(str, steps))
            raise InputError(f"checkpoint: {which!r} is not best, latest or one of {known}")
        fault = self._fault(int(which))
        if fault:
            others = [str(step) for step in steps if step != int(which) and not self._fault(step)]
            raise InputError(
                f"checkpoint: {which} of {self.run_dir} is {fault}; "
                f"good ones: {', '.join(others) or 'none'}"
            )
        return int(which)

    def _first_good(self, order: list[int]) -> int:
        """Return the first of these steps that is whole, and warn of those before it."""
        faults: dict[int, str] = {}
        for step in order:
            fault = self._fault(step)
            if fault is None:
                break
            faults[step] = fault
        else:
            raise InputError(f"run_dir: {_listed(faults)}: no checkpoint of {self.run_dir} is good")
        if faults:
            warnings.warn(
                f"{_listed(faults)}: skipped; step {step} of {self.run_dir} is taken", stacklevel=4
            )
        return step


def _listed(faults: Mapping[int, str]) -> str:
    """Name checkpoints and what is wrong with each."""
    return "; ".join(f"checkpoint {step} is {fault}" for step, fault in faults.items())


def restore_params(
    run_dir: str | pathlib.Path, which: str | int | None = "best"
) -> tuple[Config, Tree, int]:
    """Read what use after training needs: (configuration, parameters, step).

    The back end of the LSTMs is "auto": the machine that uses a model may not have the one that
    it was trained with.

    Args:
      run_dir: a run folder.
      which: "best" (lowest validation loss), "latest" or a saved step.

    Raises:
      InputError: the folder has no such checkpoint, or it is not whole. In the place of a best
        or latest that is not, another one is read, with a warning.
    """
    with Checkpoints(run_dir) as checkpoints:
        step = checkpoints.find(which)
        config, params = checkpoints.restore_params(step)
    return config.replace(lstm_backend="auto"), params, step
