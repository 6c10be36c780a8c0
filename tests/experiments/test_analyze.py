from __future__ import annotations

import json
import pathlib
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from experiments import analyze
from experiments.analysis.inputs import Options
from musicvae_jax.analysis import structure
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store
from tests.support.untrained_run import make_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of 2-bar melodies."""
    return make_run(tmp_path_factory.mktemp("analyze"), "mel_2bar")


@pytest.fixture(scope="module")
def analysed(run_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pathlib.Path]:
    """What was printed of it, and the folder of both files."""
    folder = tmp_path_factory.mktemp("analysed") / "new"
    return analyze.analyze(Options(run_dir, num=24, output=str(folder))), folder


@pytest.mark.slow
def test_the_summary_names_every_family_and_the_files(analysed: tuple[str, pathlib.Path]) -> None:
    text, folder = analysed
    assert "mel_2bar, checkpoint best, 24 samples from N(0, I) at temperature 1\n" in text
    assert "24 test rows, 64 train rows; distances between 12 rows and 12\n" in text
    families = ["rhythm", "melody", "originality"]
    assert re.findall(r"^(\w+) +[\d.]+ \[", text, re.MULTILINE) == [*families, "frechet", "mmd"]
    counts = re.findall(r"^(\w+) +\d+ of \d+ +\d+ of \d+$", text, re.MULTILINE)
    assert counts == families
    assert max(map(len, text.split("\n\n" + str(folder))[0].splitlines())) <= 100
    assert re.search(r"^two bars of a row( +[01]\.\d{3}){3}$", text, re.MULTILINE)
    assert re.search(r"active units +\d of 4, KL [\d.]+ bits per row", text)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["analysis.html", "analysis.json"]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_rows(
    analysed: tuple[str, pathlib.Path], run_dir: str
) -> None:
    found = json.loads((analysed[1] / "analysis.json").read_text())
    measures = {(m["track"], m["name"]): m for m in found["measures"]}
    rows = np.load(pathlib.Path(run_dir).parent / "store" / "test.npy")
    places = np.nonzero(rows >= 2)[1] % 16
    expected = np.bincount(places, minlength=16) / len(places)
    shares = measures["melody", "onsets by 16th of the bar"]["shares"]
    np.testing.assert_allclose(shares["real"], expected, atol=1e-6)
    assert sum(shares["samples"]) == pytest.approx(1.0, abs=1e-4)
    # Rows of the store have events on quarters only, those of an untrained model anywhere.
    overlap = measures["melody", "onsets by 16th of the bar"]["distances"]["overlap"]
    assert overlap["samples"]["high"] < overlap["real"]["low"]
    assert overlap["samples"]["holds_real_value"] is False
    assert found["rows_per_side"] == 12
    distance = structure.mean_row_distance(rows, TASKS["mel_2bar"])
    assert found["variety"]["two rows"]["real"] == distance
    assert set(found["variety"]["two bars of a row"]) == {"real", "samples", "reconstructions"}
    assert len(found["latent"]["kl_nats"]) == 4
    assert set(found["latent"]["against_prior"]) == {"frechet", "mmd"}


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_nothing_else(
    analysed: tuple[str, pathlib.Path],
) -> None:
    page = (analysed[1] / "analysis.html").read_text()
    ElementTree.fromstring(page.split("\n", 1)[1])
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in page
    for heading in ("Rhythm", "Melody", "Originality", "Latent space", "Some rows"):
        assert f"<h2>{heading}" in page
    explained = " ".join(re.findall("<dt>(.*?)</dt>", page))
    for word in ("overlap", "KL", "frechet", "mmd", "samples", "reconstructions"):
        assert word in explained


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes(
    analysed: tuple[str, pathlib.Path], run_dir: str, tmp_path: pathlib.Path
) -> None:
    analyze.analyze(Options(run_dir, num=24, output=str(tmp_path)))
    for path in analysed[1].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_long_rows_have_a_structure(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "drums_16bar")
    text = analyze.analyze(Options(run, num=16, train_rows=10))
    assert "10 train rows" in text
    assert "structure  " in text
    page = (pathlib.Path(run) / "analysis.html").read_text()
    assert "<h3>Similarity of bars" in page
    assert "kick: hits per bar" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num": 15}, "num: 15 is out of range, it must be from 16"),
        ({"split": "train"}, "split: 'train' is not one of validation, test"),
        ({"temperature": -1.0}, "temperature: -1.0 is out of range"),
        ({"train_rows": -1}, "train_rows: -1 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"checkpoint": "8"}, "is not best, latest or one of 7"),
        ({"data_dir": "nowhere"}, "is not a token store"),
    ],
)
def test_what_cannot_be_analysed_is_refused(
    run_dir: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        analyze.analyze(Options(run_dir, **given))


def test_data_that_does_not_fit_is_refused(run_dir: str, tmp_path: pathlib.Path) -> None:
    other = write_store(tmp_path / "drums", "drums_2bar")
    with pytest.raises(InputError, match="holds rows of drums_2bar, the model is of mel_2bar"):
        analyze.analyze(Options(run_dir, data_dir=str(other)))
    few = write_store(tmp_path / "few", "mel_2bar", {"train": 64, "validation": 0, "test": 15})
    with pytest.raises(InputError, match="num: 15 rows are too few"):
        analyze.analyze(Options(run_dir, data_dir=str(few)))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file, it must be a folder"):
        analyze.analyze(Options(run_dir, output=str(tmp_path / "file")))
