"""Attributes worked out by hand, and what vectors and their effects are made of."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
from musicvae_jax.tasks import FIRST_NOTE_ON, MIN_PITCH, NOTE_OFF, TASKS

MELODY, DRUMS, TRIO = (TASKS[name] for name in ("mel_2bar", "drums_2bar", "trio_16bar"))
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH = 1, 2, 4, 8, 128


def melody_row(*notes: tuple[int, int], offs: tuple[int, ...] = ()) -> np.ndarray:
    """A row of (step, MIDI pitch)."""
    row = np.zeros(32, np.uint8)
    for step, pitch in notes:
        row[step] = pitch - MIN_PITCH + FIRST_NOTE_ON
    row[list(offs)] = NOTE_OFF
    return row


def drum_row(**hits: int) -> np.ndarray:
    """A row of s<step>=hits."""
    row = np.zeros(32, np.uint16)
    for name, value in hits.items():
        row[int(name[1:])] = value
    return row


def test_a_melody_by_hand() -> None:
    # C4 on the beat, C#4 on an off 16th after a note, E4 on an off 16th after silence,
    # G3 on an off 8th without a note on the beat before, A3 on an off 8th with one.
    notes = ((0, 60), (1, 61), (7, 64), (14, 55), (20, 57), (22, 57))
    found = attributes.measure(melody_row(*notes, offs=(9, 13))[None], MELODY)
    assert list(found) == list(attributes.MELODY)
    assert found["c_diatonic"].tolist() == [pytest.approx(5 / 6)]
    assert found["note_density"].tolist() == [6 / 32]
    # 1, 3, 9, 2 and 0 semitones.
    assert found["average_interval"].tolist() == [pytest.approx(15 / 5)]
    # Off 16ths: steps 1 (a note before) and 7 (none).
    assert found["syncopation_16th"].tolist() == [pytest.approx(1 / 6)]
    # Off 8ths: steps 14 (none on 12) and 22 (one on 20).
    assert found["syncopation_8th"].tolist() == [pytest.approx(1 / 6)]


def test_the_first_steps_have_nothing_before_them() -> None:
    rows = np.stack([melody_row((1, 60)), melody_row((2, 60)), melody_row((0, 60))])
    found = attributes.measure(rows, MELODY)
    assert found["syncopation_16th"].tolist() == [1, 0, 0]
    assert found["syncopation_8th"].tolist() == [0, 1, 0]


def test_drums_by_hand() -> None:
    row = drum_row(
        s0=KICK + CLOSED_HAT,
        s2=CLOSED_HAT + OPEN_HAT,
        s3=KICK,  # an off 16th: only a hat before
        s4=SNARE + CRASH,
        s5=SNARE,  # an off 16th after a snare
        s31=KICK + SNARE,  # an off 16th, both at once
    )
    found = attributes.measure(row[None], DRUMS)
    assert {name: value.tolist() for name, value in found.items()} == {
        "hat_density": [2 / 32],
        "kick_density": [3 / 32],
        "snare_density": [3 / 32],
        "syncopation": [2 / 5],
    }


def test_rows_are_measured_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    rows = rng.choice([0, 0, 1, 30, 40, 41], (20, 32)).astype(np.uint8)
    together = attributes.measure(rows, MELODY)
    for n, row in enumerate(rows):
        for name, value in attributes.measure(row[None], MELODY).items():
            np.testing.assert_array_equal(value[0], together[name][n])


def test_what_cannot_be_measured_is_nan() -> None:
    found = attributes.measure(np.stack([melody_row(), melody_row((4, 61))]), MELODY)
    assert np.isnan(found["c_diatonic"]).tolist() == [True, False]
    assert np.isnan(found["average_interval"]).tolist() == [True, True]
    assert found["note_density"].tolist() == [0, 1 / 32]
    assert np.isnan(attributes.measure(drum_row(s0=CLOSED_HAT)[None], DRUMS)["syncopation"]).all()


def test_a_trio_has_those_of_each_track() -> None:
    rows = np.zeros((1, 256, 3), np.uint16)
    rows[0, :2, 0], rows[0, 8, 1], rows[0, ::4, 2] = 40, 30, SNARE
    found = attributes.measure(rows, TRIO)
    assert tuple(found) == attributes.names(TRIO)
    assert len(found) == 14
    assert found["melody_note_density"].tolist() == [2 / 256]
    assert found["bass_note_density"].tolist() == [1 / 256]
    assert found["drums_snare_density"].tolist() == [0.25]


def test_an_unknown_attribute_is_refused() -> None:
    attributes.check_name("hat_density", DRUMS)
    with pytest.raises(InputError, match="mel_2bar has no 'hat_density'; it has c_diatonic, note_"):
        attributes.check_name("hat_density", MELODY)


@pytest.mark.parametrize(
    ("values", "bottom", "top"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], [0, 1], [6, 7]),
        ([0, 0, 0, 0, 0, 0, 0, 5], [0, 1, 2, 3, 4, 5, 6], [7]),
        ([9, 9, 9, 9, 9, 9, 9, 5], [7], [0, 1, 2, 3, 4, 5, 6]),
        ([1, 2, np.nan, 3, 4], [0], [4]),
    ],
)
def test_quartiles(values: list[float], bottom: list[int], top: list[int]) -> None:
    found = attributes.quartiles(np.array(values, float))
    assert [np.flatnonzero(part).tolist() for part in found] == [bottom, top]


def test_vectors_are_the_difference_of_means() -> None:
    mu = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0], [10.0, 2.0]], np.float32)
    found = attributes.vectors(mu, {"density": np.array([0.1, 0.2, 0.3, 0.4])})
    assert found["density"].tolist() == [10.0, 1.0]
    with pytest.raises(InputError, match="attribute: density: all rows have the same value"):
        attributes.vectors(mu, {"density": np.ones(4)})


def test_matched_vectors_leave_the_matched_attribute_alone() -> None:
    rng = np.random.default_rng(0)
    density = rng.normal(size=4000)
    syncopation = -density + rng.normal(size=4000)
    mu = np.stack([density, syncopation], axis=1)
    values = {"syncopation": syncopation}
    plain = attributes.vectors(mu, values)["syncopation"]
    matched = attributes.vectors(mu, values, match=density)["syncopation"]
    assert plain[0] / plain[1] == pytest.approx(
        -0.5, abs=0.05
    )  # the regression of one on the other
    assert abs(matched[0] / matched[1]) < 0.1
    # Within a stratum all rows have a few values only: those without quartiles are left out.
    few = attributes.vectors(mu[:4], {"x": np.array([0.0, 1.0, 2.0, 2.0])}, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(few["x"], mu[1] - mu[0], rtol=1e-6)


def test_rows_without_the_matched_attribute_are_left_out() -> None:
    rng = np.random.default_rng(0)
    match = np.append(rng.normal(size=200), np.full(100, np.nan))
    values = {"x": rng.normal(size=300)}
    mu = rng.normal(size=(300, 3))
    mu[200:] += 50.0
    expected = attributes.vectors(mu[:200], {"x": values["x"][:200]}, match[:200])
    np.testing.assert_array_equal(attributes.vectors(mu, values, match)["x"], expected["x"])
    with pytest.raises(InputError, match="attribute: x: all rows have the same value"):
        attributes.vectors(mu, values, np.full(300, np.nan))


def test_a_percent_change_by_hand() -> None:
    before, after = np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 3.0, 4.0, 1.0])
    found = attributes.percent_change(before, after)
    assert found.percent == pytest.approx(50)
    # The residuals of after - 1.5 before are 0.5, 0, -0.5: deviation 0.5, mean before 2.
    assert found.standard_error == pytest.approx(100 * 0.5 / np.sqrt(3) / 2)
    assert attributes.percent_change(before, 2 * before) == (pytest.approx(100), pytest.approx(0))
    assert np.isnan(attributes.percent_change(np.zeros(3), np.ones(3)).percent)
    assert np.isnan(attributes.percent_change(before, after, min_pairs=4).percent)


def test_the_standard_error_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(0)
    before = rng.gamma(4.0, 1.0, (2000, 64))
    after = before + rng.gamma(2.0, 1.0, before.shape)
    found = [attributes.percent_change(b, a) for b, a in zip(before, after, strict=True)]
    spread = np.std([change.percent for change in found])
    assert np.mean([change.standard_error for change in found]) == pytest.approx(spread, rel=0.05)


def test_vectors_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    made = {name: rng.normal(size=5).astype(np.float32) for name in attributes.MELODY}
    saved = attributes.Vectors("mel_2bar", 7, made, {"rows": 3})
    assert attributes.save_vectors(tmp_path, saved) == tmp_path / attributes.VECTORS
    assert [path.name for path in tmp_path.iterdir()] == [attributes.VECTORS]
    found = attributes.load_vectors(tmp_path)
    assert found[:2] == ("mel_2bar", 7)
    for name, vector in found.vectors.items():
        np.testing.assert_array_equal(vector, made[name])


@pytest.mark.parametrize("record", [[], {"format": "other"}, {"format": attributes.FORMAT}])
def test_a_wrong_file_of_vectors_is_refused(tmp_path: pathlib.Path, record: Any) -> None:
    with pytest.raises(InputError, match=r"there is no .*json; make it with musicvae attributes"):
        attributes.load_vectors(tmp_path)
    (tmp_path / attributes.VECTORS).write_text(json.dumps(record))
    with pytest.raises(InputError, match="is not of format musicvae-attributes-1"):
        attributes.load_vectors(tmp_path)
