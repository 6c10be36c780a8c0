"""The recorded norms of the default start: complete, and far below the threshold."""

from __future__ import annotations

import pathlib

import pytest

from experiments.benchmarks import gradient_norms
from musicvae_jax.tasks import TASKS, get_task

TABLE = pathlib.Path(gradient_norms.__file__).with_suffix(".txt")


def recorded() -> dict[tuple[str, str], float]:
    """Read the table: task and sizes to the norm."""
    lines = [line.split() for line in TABLE.read_text().splitlines()]
    cells = [line for line in lines if line[1:2] in (["flat"], ["hier"], ["hierdec"])]
    return {(line[0], " ".join(line[2:-2])): float(line[-2].replace(",", "")) for line in cells}


@pytest.mark.parametrize("task", list(TASKS))
def test_norms_are_recorded_at_four_widths_and_at_sizes_of_presets(task: str) -> None:
    sizes = [size for of, size in recorded() if of == task]
    assert sizes[:4] == [f"{units} units" for units in gradient_norms.WIDTHS]
    assert list(gradient_norms.chosen_configs(task, sizes[4:], ())) == sizes[4:]


def test_recorded_norms_are_below_a_tenth_of_the_threshold() -> None:
    for (task, sizes), norm in recorded().items():
        threshold = get_task(task).config.train.grad_norm_clip_to_zero
        assert norm < threshold / 10, f"{task}, {sizes}"
