"""Checkpoints of a run: the latest and the best, each with its configuration.

The folder `checkpoints/<step>/` of a run holds `params`, `state` (the rest of the training state),
`config` (with the validation loss) and checksums of all files. A step folder gets its final name
only when it is complete. The checksums are written last, and a checkpoint without them is invalid.
If a checkpoint is damaged or half-written, a warning names it and the last good one is used.

Processes that train a model together write each checkpoint together, on a shared file system. The
first process decides which checkpoints are good.

Training waits for a save: the next step donates the buffers of the state, so a save beside it would
copy them first, and win less than 1% of a training. In seconds of processor time on two cores of an
AMD EPYC (Zen 4) that other programs used too, one run each, a save every 1,000 steps:

    parameters, state    step of rows    save          copy   share
    0.57 M,   7 MB       0.07 of  64     0.15 to 0.18  0.005  0.2%
    2.8 M,   33 MB       0.65 of 128     0.17 to 0.19  0.018  0.03%
    48.5 M, 582 MB       2.6  of  64     1.0  to 1.8   0.49   0.05%

By the clock, which also counts waiting for the busy disk, the shares were 0.2%, 0.02% and 0.2%.
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
import numpy as np
from orbax import checkpoint as ocp

from musicvae_jax.config import Config, InputError, config_from_json
from musicvae_jax.devices import processes
from musicvae_jax.storage import checksums, run_folder
from musicvae_jax.storage.full_disk import DiskFullError, is_disk_full, unlogged_errors
from musicvae_jax.storage.staging import ITEMS, Staging

Tree = Any
_Path = str | pathlib.Path
FOLDER = run_folder.CHECKPOINTS
# Folder for the damaged checkpoints that training skips.
ASIDE = "damaged_checkpoints"
_REMOVED = ".removed_checkpoint"
# Orbax's names for incomplete checkpoints.
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """The checkpoints of one run folder; call `close`, or use a `with` statement.

    With `create`, it may be written to; with `staging`, all arrays to save were staged there.

    Attributes:
      run_dir: absolute path of the run folder.
    """

    def __init__(self, run_dir: _Path, *, create: bool = False, staging: Staging | None = None):
        self.run_dir = pathlib.Path(run_dir).resolve()
        folder = self.run_dir / FOLDER
        if not create and not folder.is_dir():
            raise InputError(f"run_dir: {self.run_dir} holds no checkpoints; train first")
        if create and processes.is_first():
            # Remove the leftovers of a killed process or a full disk.
            for path in (self.run_dir / _REMOVED, *folder.glob(_UNFINISHED)):
                shutil.rmtree(path, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(
            # This class verifies checkpoints before reading them, and their successors before
            # dropping any, so orbax must neither read metrics nor remove old checkpoints.
            lightweight_initialize=True,
            create=create,
            enable_async_checkpointing=False,
        )
        # Compressing would save 6% of the disk, double the time, and need as much memory again.
        self._trees = ocp.PyTreeCheckpointHandler(use_compression=False)
        handlers: dict[str, ocp.CheckpointHandler] = {
            **(staging.handlers() if staging else dict.fromkeys(ITEMS, self._trees)),
            "config": ocp.JsonCheckpointHandler(),
        }
        self._digests = staging.digests if staging else {}
        self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the checkpoint manager."""
        self._manager.close()

    def latest_step(self) -> int | None:
        """Return the last saved step, or None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Return the step with the lowest validation loss, or the latest without validations."""
        return self._best(self._manager.all_steps())

    def best_loss(self) -> float:
        """Return the lowest validation loss of the saved steps, or infinity if there is none."""
        best = self.best_step()
        return math.inf if best is None else self._loss(best)

    def last_good_step(self) -> int | None:
        """Return the step to resume from, or None, and set damaged checkpoints aside.

        Later checkpoints that are damaged or half-written are moved to `damaged_checkpoints`, with
        a warning.

        Raises:
          InputError: checkpoints were damaged after they were written, and none is good.
        """
        found = self._put_aside() if processes.is_first() else None
        step = processes.broadcast_from_first(-1 if found is None else found)
        self._manager.reload()
        return None if step == -1 else step

    def _put_aside(self) -> int | None:
        """Move bad checkpoints aside, latest first, up to the first good one; return its step."""
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
                f"another folder, or remove {self.run_dir / FOLDER} to start from scratch"
            )
        for step in faults:
            aside = self.run_dir / ASIDE / str(step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            os.replace(self._folder(step), aside)
        if faults:
            then = f"resuming from step {max(good)}" if good else "starting from scratch"
            warnings.warn(f"{_listed(faults)}: moved to {ASIDE}; {then}", stacklevel=2)
        return max(good, default=None)

    def _folder(self, step: int) -> pathlib.Path:
        """Return the folder of a step."""
        return self.run_dir / FOLDER / str(step)

    def _fault(self, step: int, without: str | None = None) -> str | None:
        """Describe what is wrong with a checkpoint, or return None; one item may be left out."""
        try:
            self._metadata(step)
        except FileNotFoundError:
            return "half-written, it has no configuration"
        except (OSError, ValueError):
            return "damaged, its configuration cannot be read"
        return checksums.fault(self._folder(step), without)

    def _metadata(self, step: int) -> dict[str, Any]:
        """Read the JSON file with a checkpoint's configuration and validation loss."""
        path = self._folder(step) / "config" / "metadata"
        return json.loads(path.read_text(encoding="utf-8"))

    def _loss(self, step: int, unreadable: float = math.inf) -> float:
        """Read the validation loss of a step: infinite if it has none, another if it is damaged."""
        try:
            return float(self._metadata(step).get("validation_loss", math.inf))
        except (OSError, ValueError, TypeError, AttributeError):
            return unreadable

    def _best(self, steps: Sequence[int]) -> int | None:
        """Return the step with the lowest validation loss; of equal ones, the latest."""
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
          step: number of optimiser steps done; nothing happens if this step is already saved.
          params: model parameters: JAX, NumPy or staged arrays.
          state: the rest of the training state, any tree of such arrays.
          config: the run's configuration.
          validation_loss: nats per example; infinite for a step that was not validated, which is
            the best only if no step was validated.

        Raises:
          DiskFullError: the disk is full; existing checkpoints are kept.
        """
        if step in self._manager.all_steps():
            return
        loss = validation_loss if math.isfinite(validation_loss) else math.inf
        items = ocp.args.Composite(
            params=ocp.args.PyTreeSave(_on_device(params)),
            state=ocp.args.PyTreeSave(_on_device(state)),
            config=ocp.args.JsonSave(
                {"config": config.to_json(), "validation_loss": loss, "checksums": True}
            ),
        )
        self._check_space(step, (params, state))
        with unlogged_errors():
            try:
                self._manager.save(step, args=items, force=True)
                if processes.is_first():
                    checksums.write(self._folder(step), self._digests)
            except (OSError, ValueError, RuntimeError) as error:
                if not is_disk_full(error):
                    raise
                self._remove_unfinished(step)
                raise self._disk_full(step) from error
        self._drop_others()

    def _check_space(self, step: int, trees: Tree) -> None:
        """Raise before anything is written if the checkpoint does not fit on the disk."""
        needed = sum(getattr(leaf, "nbytes", 8) for leaf in jax.tree.leaves(trees))
        if processes.is_first() and shutil.disk_usage(self.run_dir).free < needed:
            raise self._disk_full(step)

    def _disk_full(self, step: int) -> DiskFullError:
        """Return the error that names the unsaved checkpoint and the last one kept."""
        last = self.latest_step()
        kept = "none was saved before" if last is None else f"that of step {last} is kept"
        return DiskFullError(
            f"run_dir: no space left for the checkpoint of step {step} in {self.run_dir}, "
            f"{kept}; free some, then run the same command again"
        )

    def _drop_others(self) -> None:
        """Remove the checkpoints that are neither the latest nor the best."""
        if processes.is_first():
            steps = self._manager.all_steps()
            for step in set(steps) - {max(steps), self._best(steps)}:
                # Rename first, so that a partly removed checkpoint never has a valid name.
                shutil.rmtree(self.run_dir / _REMOVED, ignore_errors=True)
                os.replace(self._folder(step), self.run_dir / _REMOVED)
                shutil.rmtree(self.run_dir / _REMOVED)
        processes.wait_for_all("checkpoints dropped")
        self._manager.reload()

    def _remove_unfinished(self, step: int) -> None:
        """Remove the files of an incomplete checkpoint to free their space."""
        folder = self.run_dir / FOLDER
        for path in folder.iterdir():
            is_whole = path.name == str(step) and (path / checksums.CHECKSUMS).exists()
            if re.match(rf"{step}(\D|$)", path.name) and not is_whole:
                # Files that other threads are still writing are removed at the next start.
                shutil.rmtree(path, ignore_errors=True)
        self._manager.reload()

    def restore(self, step: int, params: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Read a checkpoint.

        Args:
          step: a saved step.
          params: tree of `jax.ShapeDtypeStruct` with shardings.
          state: likewise.

        Returns:
          (params, state) with these shapes and shardings.
        """
        items = ocp.args.Composite(params=_restore_args(params), state=_restore_args(state))
        found = self._manager.restore(step, args=items)
        return found["params"], found["state"]

    def state_names(self, step: int) -> dict[str, tuple[str, ...]]:
        """Return the fields of a saved state, each with the names of its subfields, if any."""
        fields = dict(self._trees.metadata(self._folder(step) / "state").items())
        return {k: tuple(v) if isinstance(v, dict) else () for k, v in fields.items()}

    def restore_params(self, step: int) -> tuple[Config, Tree]:
        """Read the configuration and the parameters of a step onto one device."""
        return self.restore_config(step), self._restore_item(step, "params")

    def restore_config(self, step: int) -> Config:
        """Read the configuration of a step."""
        return config_from_json(self._metadata(step)["config"])

    def restore_state(self, step: int) -> Tree:
        """Read the rest of the training state onto one device, as dicts and lists.

        Raises:
          InputError: the checkpoint is damaged or half-written.
        """
        fault = self._fault(step)
        if fault:
            raise InputError(f"checkpoint: {step} of {self.run_dir} is {fault}")
        return self._restore_item(step, "state")

    def _restore_item(self, step: int, item: str) -> Tree:
        """Read a saved item onto one device."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(self._trees.metadata(self._folder(step) / item).items()),
        )
        items = ocp.args.Composite(**{item: _restore_args(shapes)})
        return self._manager.restore(step, args=items)[item]

    def find(self, which: str | int | None) -> int:
        """Return the step that `which` names: "best", "latest" (or None), or a number.

        Configuration and parameters are verified; the rest of the training state, which is larger,
        is not. If the best or latest checkpoint is damaged or half-written, the next one in that
        order is chosen, with a warning.

        Raises:
          InputError: there is no such checkpoint, or it is damaged or half-written.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(f"run_dir: {self.run_dir} holds no checkpoint yet; train first")
        if which in ("best", "latest", None):
            order = steps[::-1]
            if which == "best":
                # Damaged ones first: each may have been the best, and the warning names it.
                order.sort(key=lambda step: self._loss(step, unreadable=-math.inf))
            return self._first_good(order)
        if not str(which).isdecimal() or int(which) not in steps:
            known = ", ".join(map(str, steps))
            raise InputError(f"checkpoint: {which!r} is not best, latest or one of {known}")
        fault = self._fault(int(which), "state")
        if fault:
            others = [str(s) for s in steps if s != int(which) and not self._fault(s, "state")]
            raise InputError(
                f"checkpoint: {which} of {self.run_dir} is {fault}; "
                f"undamaged ones: {', '.join(others) or 'none'}"
            )
        return int(which)

    def _first_good(self, order: list[int]) -> int:
        """Return the first of these steps that is good, with a warning about those before it."""
        faults: dict[int, str] = {}
        for step in order:
            fault = self._fault(step, "state")
            if fault is None:
                break
            faults[step] = fault
        else:
            raise InputError(f"run_dir: {_listed(faults)}: no checkpoint of {self.run_dir} is good")
        if faults:
            warnings.warn(
                f"{_listed(faults)}: skipped; step {step} of {self.run_dir} is used", stacklevel=4
            )
        return step


def _restore_args(tree: Tree) -> ocp.args.PyTreeRestore:
    """Ask for a tree of `jax.ShapeDtypeStruct` with shardings."""
    return ocp.args.PyTreeRestore(tree, ocp.checkpoint_utils.construct_restore_args(tree))


def _on_device(tree: Tree) -> Tree:
    """Turn NumPy arrays into JAX arrays, because orbax copies NumPy arrays before it writes."""
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf, tree
    )


def _listed(faults: Mapping[int, str]) -> str:
    """List checkpoints and their faults."""
    return "; ".join(f"checkpoint {step} is {fault}" for step, fault in faults.items())


def restore_params(
    run_dir: str | pathlib.Path, which: str | int | None = "best"
) -> tuple[Config, Tree, int]:
    """Read a trained model: (configuration, parameters, step).

    The LSTM backend is set to "auto", because the one used for training may not exist on this
    machine. If the best or latest checkpoint is damaged, another one is read, with a warning.

    Args:
      run_dir: a run folder.
      which: "best" (lowest validation loss), "latest" or a saved step.

    Raises:
      InputError: the folder has no such checkpoint, or it is damaged or half-written.
    """
    with Checkpoints(run_dir) as checkpoints:
        step = checkpoints.find(which)
        config, params = checkpoints.restore_params(step)
    return config.replace(lstm_backend="auto"), params, step


def restore_config(run_dir: str | pathlib.Path, which: str | int | None = "best") -> Config:
    """Read the configuration of a trained model; arguments and errors as in `restore_params`."""
    with Checkpoints(run_dir) as checkpoints:
        config = checkpoints.restore_config(checkpoints.find(which))
    return config.replace(lstm_backend="auto")
