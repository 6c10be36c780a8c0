"""Configuration fields as command-line flags, and back.

Each field of the dataclasses in `musicvae_jax.config` is a flag whose default is None: not
given. Precedence: defaults of the task < preset < flagfile < command line.
"""

from __future__ import annotations

import functools
import pathlib
import re
from typing import Any

from absl import flags

from experiments.cli import presets
from musicvae_jax.config import PARTS, Config, InputError, field_types
from musicvae_jax.tasks import TASKS, get_task


class _SizesParser(flags.ArgumentParser):
    """Reads layer sizes: 256,256."""

    syntactic_help = "whole numbers with commas between, for example 256,256"

    def parse(self, argument: str | tuple[int, ...]) -> tuple[int, ...]:
        """Turn the text into a tuple; an empty text is an empty tuple."""
        if isinstance(argument, tuple):
            return argument
        parts = [part.strip() for part in argument.split(",")] if argument.strip() else []
        if not all(part.isdecimal() for part in parts):
            raise ValueError(f"must be {self.syntactic_help}")
        return tuple(int(part) for part in parts)

    def flag_type(self) -> str:
        """Name the type in --help."""
        return "whole numbers"


def define(values: flags.FlagValues = flags.FLAGS) -> tuple[str, ...]:
    """Define --task, --preset and a flag per configuration field; return all names but --preset."""
    # The flags are the caller's, so that its --help lists them.
    flags.disclaim_key_flags()
    parsers: dict[Any, flags.ArgumentParser] = {
        str: flags.ArgumentParser(),
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
        tuple[int, ...]: _SizesParser(),
    }
    names = ", ".join(TASKS)
    text = f"Task: {names}. Default: the task of the data."
    flags.DEFINE_string("task", None, text, flag_values=values)
    text = "Start from the settings of this preset (`musicvae presets` lists them)."
    flags.DEFINE_string("preset", None, text, flag_values=values)
    help_texts = _field_help()
    for name, field_type in field_types().items():
        text = f"{help_texts[name]} Default: {_default(name)}."
        if field_type is bool:
            flags.DEFINE_boolean(name, None, text, flag_values=values)
            continue
        serializer = flags.CsvListSerializer(",") if field_type == tuple[int, ...] else None
        flags.DEFINE(parsers[field_type], name, None, text, values, serializer)
    return ("task", *help_texts)


@functools.cache
def _default(name: str) -> str:
    """Write a field's default; where tasks differ, each value with its tasks."""
    tasks: dict[str, list[str]] = {}
    for task in TASKS.values():
        tasks.setdefault(_shown(task.config.flat()[name]), []).append(task.name)
    if len(tasks) == 1:
        return next(iter(tasks))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in tasks.items())


def _shown(value: Any) -> str:
    """Write a value as its flag takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _field_help() -> dict[str, str]:
    """Read each field's help text from the `Attributes:` of its dataclass."""
    texts: dict[str, str] = {}
    for part in PARTS.values():
        attributes = (part.__doc__ or "").split("Attributes:")[1]
        for name, text in re.findall(
            r"^ {6}(\w+): (.*?)(?=^ {6}\w+: |\Z)", attributes, re.M | re.S
        ):
            words = " ".join(text.split())
            texts[name] = words[0].upper() + words[1:]
    return texts


def given(values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Return the configuration fields that the user gave, by name; --preset gives its own.

    Raises:
      InputError: there is no such preset.
    """
    fields = {name: values[name].value for name in field_types()}
    own = {name: value for name, value in fields.items() if value is not None}
    return given(_read_flagfile(presets.path_of(values.preset))) | own if values.preset else own


def task_name(values: flags.FlagValues = flags.FLAGS) -> str | None:
    """Return the task that --task or else --preset names, None without both.

    Raises:
      InputError: there is no such preset, or it is of another task.
    """
    if not values.preset:
        return values.task
    own = _read_flagfile(presets.path_of(values.preset)).task
    if values.task not in (None, own):
        raise InputError(
            f"preset: {values.preset} is of {own}, --task says {values.task}; `musicvae presets "
            f"--task={values.task}` lists those of that task"
        )
    return own


def config_for(task_name: str, values: flags.FlagValues = flags.FLAGS) -> Config:
    """Return the task's configuration with what the user gave in place of its defaults.

    Raises:
      InputError: a field is out of range, or there is no such task.
    """
    return get_task(task_name).config.replace(**given(values))


def as_flags(config: Config) -> list[str]:
    """Return the flags that make a configuration: its task, and what differs from its defaults."""
    default = get_task(config.task).config.flat()
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in config.flat().items()
        if value != default[name]
    }
    return [f"--task={config.task}", *(f"--{name}={text}" for name, text in texts.items())]


def config_from_flagfile(path: str | pathlib.Path) -> Config:
    """Return the configuration that a flagfile alone describes; it must name its task.

    Raises:
      InputError: a flag is unknown or out of range, or --task is missing.
    """
    values = _read_flagfile(path)
    if values.task is None:
        raise InputError(f"{path}: --task is missing")
    return config_for(values.task, values)


def _read_flagfile(path: str | pathlib.Path) -> flags.FlagValues:
    """Return the flags that a flagfile alone sets."""
    values = flags.FlagValues()
    define(values)
    try:
        values(["", *values.read_flags_from_files([f"--flagfile={path}"])])
    except flags.Error as error:
        raise InputError(f"{path}: {error}") from error
    return values
