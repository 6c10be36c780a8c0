"""The run folder and its files.

RUN/config.json       the configuration
RUN/data.json         path and fingerprint of the token store (not in an imported run)
RUN/starts.jsonl      one line per start: command, versions, commit, data hashes, machine
RUN/init_from.json    source of the initial parameters, if they are not random
RUN/metrics.jsonl     one line per record
RUN/tensorboard/      the same records for TensorBoard
RUN/samples/          what the model generated after some steps (--sample_every)
RUN/checkpoints/      the latest and the best checkpoint
"""

from __future__ import annotations

import json
import os
import pathlib

from musicvae_jax.config import Config, InputError, config_from_json, differing_fields
from musicvae_jax.data import Store

CONFIG = "config.json"
DATA = "data.json"
INIT_FROM = "init_from.json"
CHECKPOINTS = "checkpoints"


def open_run_folder(run_dir: str | pathlib.Path, config: Config, store: Store) -> pathlib.Path:
    """Create the folder of a new run, or check that an existing one belongs to this run.

    The configuration of a run that has done more steps than `config` asks for is kept.

    Returns:
      the absolute path of the folder.

    Raises:
      InputError: the folder is not a run folder, or it belongs to another configuration (the
        message names the fields that differ) or to other data.
    """
    folder = pathlib.Path(run_dir).resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run_dir: {folder} is a file; name a folder")
    if (folder / CONFIG).is_file():
        _check_same_run(folder, config, store)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"run_dir: {folder} holds files that are not of a run; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    data = {"path": str(store.path), "fingerprint": store.fingerprint}
    write_text(folder / DATA, json.dumps(data, indent=1) + "\n")
    if _steps_done(folder) <= config.run.train_steps:
        # Written last, because its presence marks the folder as a run.
        write_text(folder / CONFIG, config.to_json())
    return folder


def _steps_done(folder: pathlib.Path) -> int:
    """Return the step of the latest checkpoint, 0 without one."""
    steps = (place.name for place in (folder / CHECKPOINTS).glob("*"))
    return max((int(name) for name in steps if name.isdecimal()), default=0)


def _check_same_run(folder: pathlib.Path, config: Config, store: Store) -> None:
    """Check that the folder has this configuration and data."""
    differing = differing_fields(read_config(folder), config)
    if "task" in differing:
        old, new = differing["task"]
        raise InputError(
            f"run_dir: {folder} holds a run of task {old}, the data is of {new}; "
            "name another folder"
        )
    if differing:
        named = ", ".join(f"{name} {old!r} (now {new!r})" for name, (old, new) in differing.items())
        raise InputError(
            f"run_dir: {folder} holds a run with another configuration: {named}; "
            "name another folder, or give those values to resume it"
        )
    # An imported run has no data until its training is continued.
    has_data = (folder / DATA).is_file()
    if has_data and read_data(folder)["fingerprint"] != store.fingerprint:
        raise InputError(
            f"run_dir: {folder} was trained on other data: {store.path} has changed, or is "
            "another store; name another folder"
        )


def read_config(run_dir: str | pathlib.Path) -> Config:
    """Read a run's configuration.

    Raises:
      InputError: the folder is not a run folder, or its configuration is damaged.
    """
    folder = pathlib.Path(run_dir)
    try:
        return config_from_json(_read(folder, CONFIG))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"run_dir: {folder / CONFIG} is damaged and cannot be read; name another folder"
        ) from error


def read_data(run_dir: str | pathlib.Path) -> dict[str, str]:
    """Read the "path" and "fingerprint" of a run's data.

    Raises:
      InputError: the folder is not a run folder, or the run was imported and not yet trained.
    """
    folder = pathlib.Path(run_dir)
    if (folder / CONFIG).is_file() and not (folder / DATA).is_file():
        raise InputError(f"data_dir: {folder} was imported and has no data yet; give --data_dir")
    try:
        found: dict[str, str] = json.loads(_read(folder, DATA))
        return {name: found[name] for name in ("path", "fingerprint")}
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"run_dir: {folder / DATA} is damaged and cannot be read") from error


def _read(folder: pathlib.Path, name: str) -> str:
    """Read one of the folder's files."""
    file = folder / name
    if not file.is_file():
        raise InputError(f"run_dir: {folder} is not a run folder, it has no {name}")
    return file.read_text()


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file atomically.

    Raises:
      OSError: the file cannot be written; it names the file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        # Errors of a full disk come without the file's name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
