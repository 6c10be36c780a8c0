"""Which General MIDI programs melodies are taken from, when it is not the task's own choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task, get_task

ANY = "any"
NUM_PROGRAMS = 128


def parse_programs(text: str) -> tuple[int, ...] | None:
    """Read programs such as 0-31,40: ascending numbers from 0, or None for "any".

    Raises:
      InputError: the text is something else.
    """
    if text == ANY:
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        is_number = first.isdecimal() and (last.isdecimal() if dash else True)
        numbers = range(int(first), int(last or first) + 1) if is_number else range(0)
        if not numbers or numbers[-1] >= NUM_PROGRAMS:
            raise InputError(
                f"programs: {text!r} must be any, or numbers and ranges from 0 to "
                f"{NUM_PROGRAMS - 1} separated by commas, for example 0-31,40"
            )
        found.update(numbers)
    return tuple(sorted(found))


def has_choice(task: Task) -> bool:
    """Tell whether the programs of a task can be chosen: its rows are melodies alone."""
    return len(task.tracks) == 1 and task.tracks[0].is_pitched


def tasks_with(task_names: Iterable[str], programs: str | None) -> list[Task]:
    """Look up tasks, and put the programs given in place of those of melody tasks.

    Raises:
      InputError: no task has this name, or `programs` cannot be read.
    """
    tasks = [get_task(name) for name in task_names]
    if programs is None:
        return tasks
    chosen = parse_programs(programs)
    return [
        dataclasses.replace(task, tracks=(dataclasses.replace(task.tracks[0], programs=chosen),))
        if has_choice(task)
        else task
        for task in tasks
    ]


def describe(numbers: Iterable[int], between: str = "..") -> str:
    """Write ascending numbers, such as programs, as runs: 0..31, 40."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}{between}{high}" for low, high in runs)
