from __future__ import annotations

import json
import pathlib
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from experiments import interpolation
from experiments.interpolation import DATA, LATENT, Options
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from tests.support.synthetic_store import write_store
from tests.support.untrained_run import make_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of melodies."""
    return make_run(tmp_path_factory.mktemp("interpolation"), "mel_2bar")


@pytest.fixture(scope="module")
def made(run_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pathlib.Path]:
    """What was printed, and the folder of both files."""
    folder = tmp_path_factory.mktemp("made") / "new"
    return interpolation.run(Options(run_dir, num=5, steps=3, output=str(folder))), folder


def test_the_files_and_the_table_say_the_same(made: tuple[str, pathlib.Path]) -> None:
    text, folder = made
    found = json.loads((folder / "interpolation.json").read_text())
    assert found["fractions"] == [0.0, 0.5, 1.0]
    assert set(found["ways"]) == {LATENT, DATA}
    assert (found["pairs"], found["train_rows"]) == (5, 64)
    way = found["ways"][DATA]
    assert way["from_a"]["mean"][0] == way["from_b"]["mean"][2] == 0.0
    assert way["from_a"]["mean"][2] == way["from_b"]["mean"][0] > 0.0
    (line,) = [line for line in text.splitlines() if line.startswith("0.50")]
    assert f"{way['cost']['mean'][1]:.3f}" in line
    root = ElementTree.fromstring((folder / "interpolation.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = set(root.itertext())
    assert {f"{way}, to {end}" for way in (LATENT, DATA) for end in "AB"} <= words
    # The legend was cut off at the top once.
    heights = [
        float(e.attrib["y"]) for e in root.iter() if e.tag.endswith("text") and "y" in e.attrib
    ]
    assert min(heights) > 0


def test_the_ends_of_the_latent_way_are_the_reconstructions(
    made: tuple[str, pathlib.Path], run_dir: str
) -> None:
    rows = np.load(pathlib.Path(run_dir).parent / "store" / "test.npy")
    a, b = interpolation.draw_pairs(rows, 5, 0)
    vae = MusicVAE.restore(run_dir)
    found = json.loads((made[1] / "interpolation.json").read_text())["ways"][LATENT]
    for end, name, place in ((a, "from_a", 0), (b, "from_b", 2)):
        expected = (vae.reconstruct(end) != end).mean()
        assert found[name]["mean"][place] == pytest.approx(expected, abs=1e-3)


def test_pairs_are_of_different_rows_and_drawn_by_the_seed() -> None:
    rows = np.arange(20)[:, None].repeat(32, axis=1)
    a, b = interpolation.draw_pairs(rows, 50, 3)
    assert sorted([*a[:, 0], *b[:, 0]]) == list(range(20))
    again = interpolation.draw_pairs(rows, 50, 3)
    assert np.array_equal(again[0], a)
    assert not np.array_equal(interpolation.draw_pairs(rows, 50, 4)[0], a)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num": 1}, "num: 1 is out of range"),
        ({"steps": 1}, "steps: 1 is out of range"),
        ({"split": "train"}, "split: 'train' is not one of validation, test"),
        ({"temperature": -1.0}, "temperature: -1.0 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"checkpoint": "8"}, "is not best, latest or one of 7"),
    ],
)
def test_what_cannot_be_done_is_refused(run_dir: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interpolation.run(Options(run_dir, **given))


def test_data_that_does_not_fit_is_refused(run_dir: str, tmp_path: pathlib.Path) -> None:
    other = write_store(tmp_path / "drums", "drums_2bar")
    with pytest.raises(InputError, match="holds rows of drums_2bar, the model is of mel_2bar"):
        interpolation.run(Options(run_dir, data_dir=str(other)))
    few = write_store(tmp_path / "few", "mel_2bar", {"train": 9, "validation": 9, "test": 3})
    with pytest.raises(InputError, match="split: it holds 3 rows, at least 4 are needed"):
        interpolation.run(Options(run_dir, data_dir=str(few)))
