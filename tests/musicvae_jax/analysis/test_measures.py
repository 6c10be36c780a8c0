"""Measures of rows: values worked out by hand, and muspy's where it measures the same thing."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest

from data_pipeline.render.sequences import decode
from musicvae_jax.analysis import events, melody, rhythm, structure
from musicvae_jax.analysis.families import measure_rows
from musicvae_jax.analysis.measures import Measure, of_events, of_values, row_means
from musicvae_jax.tasks import TASKS, Task
from tests.support.example_rows import random_rows
from tests.support.note_lists import row

MELODY, DRUMS = TASKS["mel_2bar"].tracks[0], TASKS["drums_2bar"].tracks[0]
C4 = 60 - 21 + 2


def named(found: list[Measure], name: str) -> Measure:
    (one,) = [measure for measure in found if measure.name == name]
    return one


def values_of(found: list[Measure]) -> dict[str, np.ndarray]:
    """The values of all measures that have one per row."""
    return {one.name: one.values for one in found if one.values is not None}


def test_rhythm_by_hand() -> None:
    # Onsets at 1, 1 and a 16th, 2 and the half of the first bar; one on the second bar's 4th.
    tokens = np.array([row(32, s0=C4, s1=C4, s4=C4, s8=1, s28=C4), row(32)])
    found = rhythm.measures(tokens, MELODY)
    levels = named(found, "onsets by metrical level")
    assert levels.labels == ("bar", "half", "quarter", "eighth", "uneven 16th")
    assert levels.counts.tolist() == [[1, 0, 2, 0, 1], [0] * 5]
    places = named(found, "onsets by 16th of the bar").counts
    assert np.flatnonzero(places[0]).tolist() == [0, 1, 4, 12]
    per_bar = named(found, "notes per bar").counts
    assert (per_bar[0, 3], per_bar[0, 1], per_bar[1, 0]) == (1, 1, 2)
    uneven = named(found, "share of onsets on uneven 16ths").values
    assert uneven is not None
    assert uneven[0] == 0.25
    assert np.isnan(uneven[1])
    lengths = named(found, "note length, 16ths").counts
    assert {int(i) + 1: int(lengths[0, i]) for i in np.flatnonzero(lengths[0])} == {
        1: 1,
        3: 1,
        4: 2,
    }
    # Of 16 steps those of 0, 1, 4 and 12 differ.
    groove = named(found, "groove consistency")
    assert groove.values is not None
    assert groove.values.tolist() == [0.75, 1.0]
    assert np.flatnonzero(groove.counts.sum(axis=0)).tolist() == [12, 16]


def test_drum_classes_are_measured_apart() -> None:
    tokens = np.array([row(32, s0=5, s8=2, s16=1)])
    found = rhythm.measures(tokens, DRUMS)
    assert named(found, "steps with hits per bar").counts[0].tolist()[:3] == [0, 1, 1]
    assert named(found, "kick: 16th of the bar").counts[0, 0] == 2
    assert named(found, "kick: hits per bar").counts[0, 1] == 2
    assert named(found, "snare: 16th of the bar").counts[0, 8] == 1
    assert named(found, "closed hat: hits per bar").counts[0].tolist()[:2] == [1, 1]
    assert not named(found, "ride: 16th of the bar").counts.any()


def test_melody_by_hand() -> None:
    # C4 C4 G4 C#5: a repeated note, a fifth, a tritone; C sharp is not in C, F or G major.
    tokens = np.array([row(32, s0=C4, s4=C4, s8=C4 + 7, s12=C4 + 13), row(32, s3=C4), row(32)])
    found = melody.measures(tokens, "melody")
    values = values_of(found)
    np.testing.assert_allclose(values["pitch range, semitones"], [13, 0, np.nan])
    np.testing.assert_allclose(values["pitch-class entropy, bits"], [1.5, 0, np.nan])
    # A flat major holds C, G and C sharp.
    np.testing.assert_allclose(values["share of notes in the best major key"], [1, 1, np.nan])
    np.testing.assert_allclose(values["share of repeated notes"], [1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(values["share of jumps larger than a fifth"], [0, np.nan, np.nan])
    steps = named(found, "intervals, semitones")
    assert [steps.labels[i] for i in np.flatnonzero(steps.counts[0])] == ["+0", "+6", "+7"]
    jump = melody.measures(np.array([row(32, s0=C4, s4=C4 + 8, s8=C4)]), "melody")
    assert named(jump, "share of jumps larger than a fifth").values == [1.0]


def test_structure_by_hand() -> None:
    task = TASKS["mel_16bar"]
    one, other = row(16, s0=C4, s4=C4 + 2, s8=1), row(16, s0=C4, s4=C4 + 4)
    tokens = np.array([(one + other) * 8, one * 16, row(256)])
    distances = structure.bar_distances(tokens, task)
    # Of three steps where something happens in either, one is the same.
    np.testing.assert_allclose(distances[0, 0, :3], [0, 2 / 3, 0], rtol=1e-6)
    assert not distances[1:].any()
    found = values_of(structure.measures(tokens, task))
    np.testing.assert_allclose(found["distance of adjacent bars"], [2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found["distance of bars four apart"], [0, 0, 0])
    # 64 of the 120 pairs are one of each.
    np.testing.assert_allclose(found["distance of any two bars"][0], 2 / 3 * 64 / 120, rtol=1e-6)
    mean = structure.mean_similarity(tokens[:1], task)
    np.testing.assert_allclose(mean, 1 - distances[0], rtol=1e-6)
    assert structure.measures(tokens[:, :32], TASKS["mel_2bar"]) == []


def test_bars_of_drums_differ_by_their_hits() -> None:
    tokens = np.array([row(32, s0=7, s16=1) + row(224)])
    distances = structure.bar_distances(tokens, TASKS["drums_16bar"])
    assert distances[0, 0, 1] == pytest.approx(2 / 3)
    assert distances[0, 0, 2] == 1.0
    assert distances[0, 2, 3] == 0.0


def test_variety_by_hand() -> None:
    # Of the hits in either bar, two rows share all, none, or 1 of 2.
    tokens = np.array([row(32, s0=1), row(32, s0=2), row(32, s0=3), row(32, s0=1)])
    task = TASKS["drums_2bar"]
    # Rows 1 and 2 apart, in a circle: a-b 1, b-c 1/2, c-a 1/2, a-a 0; a-c 1/2, b-a 1, twice each.
    assert structure.mean_row_distance(tokens, task) == pytest.approx((0.5 + 0.75) / 2)
    assert structure.mean_row_distance(tokens[[0, 0, 0]], task) == 0.0
    assert structure.mean_bar_distance(tokens, task) == 1.0  # every second bar is empty
    assert structure.mean_bar_distance(np.concatenate([tokens[:, :16]] * 2, 1), task) == 0.0
    # Of three steps with an event of a melody in either row, one is the same.
    task = TASKS["mel_2bar"]
    rows = np.array([row(32, s0=C4, s4=C4 + 2, s8=1), row(32, s0=C4, s4=C4 + 4)])
    assert structure.mean_row_distance(rows, task) == pytest.approx(2 / 3)


def muspy_music(tokens: np.ndarray, task: Task) -> Any:
    """The row as muspy's music, 4 time steps to the quarter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import muspy

    music = muspy.Music(resolution=4)
    notes = decode(tokens, task)
    track = muspy.Track(is_drum=task.tracks[0].kind == "drums")
    track.notes = [
        muspy.Note(int(n["start_step"]), int(n["pitch"]), int(n["end_step"] - n["start_step"]))
        for n in notes
    ]
    music.tracks.append(track)
    return music


@pytest.mark.parametrize("seed", range(3))
def test_melody_measures_are_muspys(seed: int) -> None:
    import muspy

    task = TASKS["mel_2bar"]
    tokens = random_rows(task, 12, seed)
    tokens[:, -1] = 1  # muspy takes a bar more where the last note ends with the last bar
    found = values_of(measure_rows(tokens, task))
    music = [muspy_music(some, task) for some in tokens]
    same = {
        "pitch range, semitones": muspy.pitch_range,
        "pitch-class entropy, bits": muspy.pitch_class_entropy,
        "share of notes in the best major key": muspy.scale_consistency,
        "groove consistency": functools.partial(muspy.groove_consistency, measure_resolution=16),
    }
    for name, metric in same.items():
        np.testing.assert_allclose(found[name], [metric(m) for m in music], rtol=1e-12)


def test_the_groove_of_drums_is_muspys() -> None:
    import muspy

    task = TASKS["drums_16bar"]
    tokens = random_rows(task, 6)
    tokens[:, -1] = 0
    tokens[:, -3] = 1
    found = named(measure_rows(tokens, task), "groove consistency").values
    expected = [muspy.groove_consistency(muspy_music(some, task), 16) for some in tokens]
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_measured_of_rows_is_the_sum_of_each(task: Task) -> None:
    tokens = random_rows(task, 7)
    whole = measure_rows(tokens, task)
    apart = [measure_rows(tokens[i : i + 1], task) for i in range(7)]
    for i, measure in enumerate(whole):
        assert measure.counts.shape == (7, len(measure.labels))
        joined = np.concatenate([one[i].counts for one in apart])
        np.testing.assert_allclose(measure.counts, joined)
        if measure.values is not None:
            assert set(measure.counts.sum(axis=1)) <= {0.0, 1.0}
    tracks = {measure.track for measure in whole}
    assert tracks == {t.name for t in task.tracks} | ({"all"} if task.num_bars > 2 else set())


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_empty_rows_are_measured(task: Task) -> None:
    for measure in measure_rows(np.zeros((2, *task.row_shape), task.token_dtype), task):
        assert np.isfinite(measure.counts).all()


def test_relative_events_are_equal_for_transposed_rows() -> None:
    tokens = np.array([row(32, s0=C4, s4=1, s8=C4 + 7, s12=C4 - 3), row(32)])
    moved = np.where(tokens >= 2, tokens + 5, tokens)
    task = TASKS["mel_2bar"]
    found = events.relative_events(tokens, task)
    assert np.array_equal(found, events.relative_events(moved, task))
    assert found.dtype == np.uint8
    zero = events.INTERVAL_ZERO
    assert found[0, [0, 4, 8, 12]].tolist() == [events.FIRST_NOTE, 1, zero + 7, zero - 10]
    tokens[0, 8] += 1
    assert np.count_nonzero(events.relative_events(tokens, task) != found) == 2


def test_values_fall_into_the_nearest_bin() -> None:
    made = of_values("x", "f", "t", np.array([-1.0, 0.0, 0.3, 1.0, 9.0, np.nan]), 0, 1, 10)
    assert [np.flatnonzero(c).tolist() for c in made.counts] == [[0], [0], [3], [9], [9], []]
    made = of_events("x", "f", "t", (np.array([0, 0, 2]), np.array([1, 1, 0])), 3, ("a", "b"))
    assert made.counts.tolist() == [[0, 2], [0, 0], [1, 0]]
    means = row_means(np.array([0, 0, 2]), np.array([1.0, 2.0, 5.0]), 3)
    np.testing.assert_allclose(means, [1.5, np.nan, 5.0])
