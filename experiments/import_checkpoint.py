"""Turn a Magenta checkpoint or a safetensors file into a run folder.

python -m experiments.import_checkpoint --checkpoint=mel_2bar_big.ckpt.tar --run_dir=runs/mel_big

All commands read the run folder. `train --flagfile=RUN/train.flags` continues the training, with
Adam's moments if the checkpoint has them. docs/interop.md lists the published checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.command_line import shell_line
from experiments.cli import config_flags, presets
from musicvae_jax.config import Config, InputError, ModelConfig
from musicvae_jax.interop.new_folder import new_folder
from musicvae_jax.interop.task_inference import infer_task
from musicvae_jax.interop.tensor_bundle import TensorBundle
from musicvae_jax.storage import full_disk
from musicvae_jax.tasks import RECIPES, TASKS, get_task

if TYPE_CHECKING:
    from musicvae_jax.interop.reference import ReferenceCheckpoint
    from musicvae_jax.interop.safetensors_file import SavedModel

IMPORTED = "imported.json"
TRAIN_FLAGS = "train.flags"
_SMALL_BYTES = 1 << 26  # up to this size, all is read first, so that damage is reported early


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to import."""

    checkpoint: str = option(
        help="Checkpoint of TensorFlow (prefix, .index file, folder with its newest checkpoint, or "
        "tar file), or a .safetensors file that experiments.export wrote."
    )
    run_dir: str = option(help="Run folder to write; it must not exist yet.")
    task: str | None = option(
        None,
        help=f"Task: {', '.join(TASKS)}. Default: inferred from names and shapes where possible.",
    )


def import_checkpoint(checkpoint: str, run_dir: str, task: str | None = None) -> str:
    """Write the run folder and return a summary of what was inferred.

    Raises:
      InputError: the checkpoint cannot be read or is not of a supported model, or the folder
        exists and is not empty.
    """
    folder = pathlib.Path(run_dir).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"run_dir: {folder} exists; name a new folder")
    if checkpoint.endswith(".safetensors"):
        saved = _read_safetensors(checkpoint, task)
        found, origin = _as_checkpoint(checkpoint, saved), "read from its header"
        _write(folder, found, found.config, checkpoint, saved)
    else:
        with _opened_tensorflow(checkpoint, task) as found:
            origin = "inferred from names and shapes"
            config = train_config(found.config.task, found.config.model)
            _write(folder, found, config, checkpoint)
    return _summary(found, run_dir, origin)


def _write(
    folder: pathlib.Path,
    found: ReferenceCheckpoint,
    config: Config,
    checkpoint: str,
    saved: SavedModel | None = None,
) -> None:
    """Write the run folder completely or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as partial:
            _write_run(partial, found, config, checkpoint)
            if saved is not None:
                _write_extras(partial, saved)
            if folder.exists():
                folder.rmdir()
    except full_disk.DiskFullError as error:
        raise InputError(f"run_dir: no space left for {folder}; nothing was written") from error
    except OSError as error:
        raise InputError(f"run_dir: {folder} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _opened_tensorflow(checkpoint: str, task: str | None) -> Iterator[ReferenceCheckpoint]:
    """Open a checkpoint of the reference, with Adam's state."""
    task = _checked_task(checkpoint, task)
    # jax takes seconds to import: most wrong input is answered before.
    from musicvae_jax.interop import reference

    with reference.open_checkpoint(checkpoint, task, with_adam=True) as found:
        yield found if found.is_seekable else reference.read(found)


def _read_safetensors(path: str, task: str | None) -> SavedModel:
    """Read a file that `experiments.export` wrote."""
    from musicvae_jax.interop import safetensors_file

    saved = safetensors_file.read(path)
    if task not in (None, saved.config.task):
        raise InputError(f"task: {path} is a model of {saved.config.task}, not of {task}")
    return saved


def _as_checkpoint(path: str, saved: SavedModel) -> ReferenceCheckpoint:
    """Return a model without Adam's state."""
    import jax

    from musicvae_jax.interop import reference

    params = jax.tree.map(lambda leaf: leaf.astype("float32"), saved.params)
    return reference.ReferenceCheckpoint(path, saved.config, params, saved.step, None)


def _write_extras(folder: pathlib.Path, saved: SavedModel) -> None:
    """Write the fitted prior and the attribute vectors, if the file has them."""
    from musicvae_jax.latent import attributes, fitted_prior

    about: dict[str, Any] = {"attributes": {}, "prior": {}}
    about |= {name: value for name, value in saved.about.items() if isinstance(value, dict)}
    if saved.prior is not None:
        fitted_prior.save(folder, fitted_prior.Record(saved.prior, saved.step, about["prior"]))
    if saved.attributes:
        found = (saved.config.task, saved.step, saved.attributes, about["attributes"])
        attributes.save_vectors(folder, attributes.Vectors(*found))


def _checked_task(checkpoint: str, task: str | None) -> str:
    """Return the task, given or inferred, after the checkpoint was opened.

    Raises:
      InputError: the checkpoint is damaged or no task fits. In a large one, tensors are not read.
    """
    with TensorBundle(checkpoint) as bundle:
        if sum(entry.size for entry in bundle.entries.values()) <= _SMALL_BYTES:
            for name in bundle.entries:
                bundle.read(name)
        try:
            return get_task(task).name if task else infer_task(bundle.entries)
        except InputError as error:
            if task:
                raise
            raise InputError(f"checkpoint: {bundle.name}: {error}") from error


def train_config(task: str, model: ModelConfig) -> Config:
    """Return the published configuration of these sizes, else the task's with the same recipe."""
    for name in presets.names():
        config = config_flags.config_from_flagfile(presets.path_of(name))
        if config.task == task and config.model == model:
            return config
    fields = RECIPES["reference"] | {
        name: value for name, value in vars(model).items() if name != "init"
    }
    return get_task(task).config.replace(**fields)


def _write_run(
    folder: pathlib.Path, found: ReferenceCheckpoint, config: Config, checkpoint: str
) -> None:
    """Write the files of a run."""
    from musicvae_jax.storage import run_folder
    from musicvae_jax.storage.checkpoints import Checkpoints
    from musicvae_jax.storage.staging import Staging
    from musicvae_jax.training.imported_state import state_at

    state = state_at(found.step, found.params, config, found.adam)
    rest = {name: value for name, value in vars(state).items() if name != "params"}
    with Staging(folder / "arrays") as staging:
        staged = staging.stage({"params": found.params, "rest": rest})
        with Checkpoints(folder, create=True, staging=staging) as saved:
            saved.save(found.step, staged["params"], staged["rest"], config)
    about: dict[str, Any] = {"checkpoint": str(pathlib.Path(checkpoint).resolve())}
    about |= {"file": found.source, "step": found.step, "has_adam": found.adam is not None}
    run_folder.write_text(folder / IMPORTED, json.dumps(about, indent=1) + "\n")
    run_folder.write_text(folder / TRAIN_FLAGS, "\n".join(config_flags.as_flags(config)) + "\n")
    run_folder.write_text(folder / run_folder.CONFIG, config.to_json())


def _summary(found: ReferenceCheckpoint, run_dir: str, origin: str) -> str:
    """Say what the checkpoint holds, and which command continues."""
    model = found.config.model
    sizes = f"z {model.z_size}, encoder {model.encoder_sizes}, decoder {model.decoder_sizes}"
    if model.conductor_sizes:
        sizes += f", conductor {model.conductor_sizes}"
    arguments = [f"--flagfile={run_dir}/{TRAIN_FLAGS}", f"--run_dir={run_dir}", "--data_dir=DATA"]
    adam = "with Adam's moments" if found.adam else "without Adam's moments, so Adam starts afresh"
    return (
        f"{found.source}\n"
        f"{found.config.task}, {model.architecture}: {sizes} ({origin})\n"
        f"step {found.step:,}, {adam}; continue training with\n"
        f"  {shell_line('experiments.train', arguments)}"
    )


def main(options: Options) -> None:
    """Import a checkpoint."""
    print(import_checkpoint(options.checkpoint, options.run_dir, options.task))


if __name__ == "__main__":
    cli.run(main, Options)
