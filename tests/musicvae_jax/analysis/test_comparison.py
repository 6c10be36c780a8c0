"""Distances between sets of rows, and whether real rows are found as close as real rows."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from musicvae_jax.analysis import comparison, distances, latent, originality, sets
from musicvae_jax.analysis.comparison import Interval
from musicvae_jax.analysis.families import FAMILIES
from musicvae_jax.analysis.sets import Rows
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, Task
from tests.support.example_rows import random_rows

C4 = 60 - 21 + 2


def test_overlap_and_divergence_by_hand() -> None:
    a, b = np.array([2, 2, 0, 0]), np.array([0, 3, 1, 0])
    assert distances.overlap(a, b) == pytest.approx(0.5)
    assert distances.overlap(a, a * 7) == 1.0
    assert distances.overlap(a, np.zeros(4)) == 0.0
    assert math.isnan(float(distances.overlap(np.zeros(4), np.zeros(4))))
    p, q = np.array([2.5, 2.5, 0.5, 0.5]) / 6, np.array([0.5, 3.5, 1.5, 0.5]) / 6
    assert distances.kl_nats(a, b) == pytest.approx((p * np.log(p / q)).sum())
    assert distances.kl_nats(a, a) == 0.0


def test_pairs_within_and_between_sets_are_counted() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 6, 9), draw.integers(0, 6, 5)
    a, b = (np.bincount(x, minlength=6) for x in (one, other))
    inside = np.abs(one[:, None] - one[None, :])[~np.eye(9, dtype=bool)]
    across = np.abs(one[:, None] - other[None, :]).ravel()
    expected = np.bincount(inside, minlength=6) / len(inside) * 9
    np.testing.assert_allclose(distances.within(a), expected)
    expected = np.bincount(across, minlength=6) / len(across) * 9
    np.testing.assert_allclose(distances.between(a, b), expected)


def test_halves_are_disjoint_and_keep_blocks_together() -> None:
    blocks = np.repeat(np.arange(20), 5)
    halves = comparison.draw_halves(blocks, 50, np.random.default_rng(0), 30)
    assert np.array_equal(halves.first + halves.second, np.ones((30, 100)))
    by_block = halves.first.reshape(30, 20, 5)
    assert set(by_block.sum(axis=2).ravel()) == {0.0, 5.0}
    assert len({tuple(weights) for weights in halves.first.tolist()}) == 30
    uneven = comparison.draw_halves(blocks, 33, np.random.default_rng(0), 4)
    assert np.array_equal(uneven.first.sum(axis=1), [33] * 4)
    assert not (uneven.first * uneven.second).any()


def test_blocks_are_neighbours_in_the_store() -> None:
    assert np.unique(comparison.block_numbers(np.arange(3200))).tolist() == list(range(100))
    # Spread rows keep the blocks of their places.
    assert len(np.unique(comparison.block_numbers(np.arange(0, 3200, 7)))) == 100
    # Few rows: smaller blocks, so that there are enough to draw from.
    assert len(np.unique(comparison.block_numbers(np.arange(160)))) == 16
    assert comparison.rows_per_side(41, 900) == 20
    with pytest.raises(InputError, match="num: 15 rows are too few to compare, 16 are needed"):
        comparison.rows_per_side(100, 15)


def test_an_interval_is_the_draws_quantiles() -> None:
    draws = np.linspace(0.0, 1.0, 201)
    assert comparison.interval(draws) == pytest.approx((0.5, 0.025, 0.975))
    most_unknown = np.where(np.arange(201) < 120, np.nan, draws)
    assert math.isnan(comparison.interval(most_unknown).value)
    assert Interval(0.5, 0.4, 0.6).holds(0.45)
    assert not Interval(0.5, 0.4, 0.6).holds(0.3)


def songs(task: Task, count: int, seed: int) -> np.ndarray:
    """Rows in neighbourhoods of 8 that resemble each other, as windows of songs do."""
    draw = np.random.default_rng(seed)
    base = random_rows(task, -(-count // 8), seed).repeat(8, axis=0)[:count]
    other = random_rows(task, count, seed + 1)
    changed = draw.random((count, *([1] * (base.ndim - 1)))) < 0.3
    return np.where(changed, other, base)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mel_2bar", "drums_2bar"])
def test_one_half_of_real_rows_is_as_close_as_real_and_random_rows_are_not(name: str) -> None:
    task = TASKS[name]
    everything = songs(task, 1280, 5)
    known = originality.know(songs(task, 400, 99), task)
    stored = np.arange(len(everything))
    draw = np.random.default_rng(3)
    shares = []
    for _ in range(2):
        half = comparison.draw_halves(comparison.block_numbers(stored), 640, draw, 1)
        a, b = (np.flatnonzero(weights[0]) for weights in half)
        others = {
            "other half": Rows(everything[a], a),
            "random": Rows(draw.integers(0, task.tracks[0].num_classes, (640, 32))),
        }
        found = sets.analyse(Rows(everything[b], b), others, known, task, draws=100)
        shares.append(sets.coverage(found.findings, "other half"))
        for family in FAMILIES:
            if family in found.families:
                compared = found.families[family]
                random = compared.others["random"]["overlap"]
                assert random.high < compared.real["overlap"].low
    assert np.mean(shares) >= 0.9


def test_a_set_made_of_the_real_rows_is_compared_with_their_other_half() -> None:
    task = TASKS["mel_2bar"]
    real = songs(task, 320, 0)
    rows = Rows(real, np.arange(320))
    found = sets.analyse(rows, {"same": Rows(real, is_paired=True)}, None, task, draws=50)
    assert found.rows_per_side == 160
    assert not found.nearest
    for finding in found.findings:
        assert finding.compared.others["same"] == finding.compared.real
        np.testing.assert_array_equal(finding.shares["same"], finding.shares["real"])


def test_equal_seeds_give_equal_analyses() -> None:
    task = TASKS["drums_2bar"]
    rows, other = Rows(songs(task, 64, 0), np.arange(64)), Rows(songs(task, 64, 1))
    one, again = (sets.analyse(rows, {"o": other}, None, task, seed=4, draws=20) for _ in "12")
    assert repr([f.compared for f in one.findings]) == repr([f.compared for f in again.findings])


def brute_longest(tokens: np.ndarray, train: np.ndarray, is_drums: bool) -> float:
    """Longest run of one melody or drum row in training rows, by trying all."""

    def moves(line: np.ndarray) -> list[tuple[int, ...]]:
        steps = np.flatnonzero(line >= (1 if is_drums else 2))
        pairs = zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True)
        if is_drums:
            return [(int(line[a]), int(line[b]), b - a) for a, b in pairs]
        return [(int(line[b]) - int(line[a]), b - a) for a, b in pairs]

    if not np.any(tokens >= (1 if is_drums else 2)):
        return math.nan
    own, best = moves(tokens), 1
    for other in map(moves, train):
        for i in range(len(own)):
            for j in range(len(other)):
                length = 0
                while (
                    i + length < len(own)
                    and j + length < len(other)
                    and own[i + length] == other[j + length]
                ):
                    length += 1
                best = max(best, length + 1 if length else 1)
    return float(best)


@pytest.mark.parametrize("name", ["mel_2bar", "drums_2bar"])
def test_the_longest_run_is_found(name: str) -> None:
    task = TASKS[name]
    is_drums = name == "drums_2bar"
    draw = np.random.default_rng(0)
    values = [1, 2, 3] if is_drums else [1, 40, 41, 42]
    train = np.where(draw.random((20, 32)) < 0.4, draw.choice(values, (20, 32)), 0)
    tokens = np.where(draw.random((12, 32)) < 0.4, draw.choice(values, (12, 32)), 0)
    tokens[0, :20] = train[3, 12:]  # a long run at another place of the bar
    tokens[1] = 0
    if not is_drums:
        tokens[2] = np.where(train[5] >= 2, train[5] + 7, train[5])  # transposed
    known = originality.know(train, task)
    found = originality.longest_runs(tokens, known.moves[0], task.tracks[0])
    expected = [brute_longest(line, train, is_drums) for line in tokens]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[1])


def test_copies_up_to_transposition_are_found() -> None:
    task = TASKS["mel_2bar"]
    train = random_rows(task, 40, 1).clip(max=70)
    tokens = np.where(train[[7, 30]] >= 2, train[[7, 30]] + 5, train[[7, 30]])
    near = originality.nearest(tokens, originality.know(train, task))
    assert near.distance.tolist() == [0.0, 0.0]
    assert near.row.tolist() == [7, 30]
    at = np.flatnonzero(tokens[1] >= 2)[2]
    tokens[1, at] += 1  # its interval, and that of the next note
    near = originality.nearest(tokens, originality.know(train, task))
    assert near.distance.tolist() == [0.0, 2 / 32]
    found, _ = originality.measures(tokens, originality.know(train, task))
    (copies,) = [m for m in found if m.name == "copies of a training row"]
    assert copies.values is not None
    assert copies.values.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["drums_16bar", "trio_16bar"])
def test_the_nearest_row_is_the_nearest(name: str) -> None:
    task = TASKS[name]
    train, tokens = random_rows(task, 30, 1), random_rows(task, 5, 2)
    train[11] = tokens[3]
    train[11, :20] = 0
    near = originality.nearest(tokens, originality.know(train, task))
    assert near.row[3] == 11
    if name == "drums_16bar":
        differ = (tokens[:, None] != train[None]).mean(axis=2)
        np.testing.assert_allclose(near.distance, differ.min(axis=1))


def test_frechet_distances_by_hand() -> None:
    mean, cov = np.zeros(2), np.eye(2)
    other = np.array([3.0, 4.0])
    assert latent.frechet(mean, cov, other, cov) == pytest.approx(25.0)
    assert latent.frechet(mean, cov, mean, 9 * cov) == pytest.approx(8.0)
    draw = np.random.default_rng(0)
    a, b = (x @ x.T for x in draw.standard_normal((2, 4, 4)))
    at = np.zeros(4)
    assert latent.frechet(at, a, at, b) == pytest.approx(float(latent.frechet(at, b, at, a)))
    assert latent.frechet(at, a, at, a) == pytest.approx(0.0, abs=1e-6)
    spread = np.concatenate([np.eye(3) * 3, -np.eye(3) * 3])  # covariance 18 / 5
    expected = 3 * (math.sqrt(18 / 5) - 1) ** 2
    assert latent._from_standard(spread) == pytest.approx(expected)


def test_discrepancies_are_those_of_all_pairs() -> None:
    draw = np.random.default_rng(0)
    points = draw.standard_normal((9, 3))
    a, b = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    k = latent.kernel(points, points, 2.0)
    found = latent.mmd(a[None, :], b[None, :], (k, k, k))
    one, two = k[:4, :4], k[5:, 5:]
    off = ~np.eye(4, dtype=bool)
    expected = one[off].mean() + two[off].mean() - 2 * k[:4, 5:].mean()
    assert found == pytest.approx([expected])
    squares = ((points[0] - points[1]) ** 2).sum()
    expected = (math.exp(-squares) + math.exp(-squares / 2) + math.exp(-squares / 4)) / 3
    assert k[0, 1] == pytest.approx(expected)


def test_posteriors_that_are_the_prior_are_as_close_as_the_prior() -> None:
    draw = np.random.default_rng(1)
    halves = comparison.draw_halves(np.arange(400), 200, draw)
    for shift, is_close in ((0.0, True), (1.0, False)):
        found = latent.against_prior(draw.standard_normal((400, 8)) + shift, halves, draw)
        for values in found.values():
            inside = values["posterior"].low <= values["prior"].high
            assert inside == is_close


def test_units_and_their_effects() -> None:
    mu, sigma = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0.5, 1.0], [0.5, 1.0]])
    found = latent.units(mu, sigma)
    assert found.variance.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(found.kl_nats, [0.5 * (1 + 0.25 - 1) - math.log(0.5), 0.0])
    probes = latent.unit_probes(np.ones((4, 3)), np.array([2, 0]), 2.5)
    assert probes.shape == (2, 2, 4, 3)
    assert probes[0, 0].tolist() == [[1, 1, -2.5]] * 4
    assert probes[1, 1].tolist() == [[2.5, 1, 1]] * 4
    tokens = np.zeros((2, 2, 4, 32), int)
    tokens[1, 1, :, :8] = 1
    assert latent.unit_effects(tokens).tolist() == [0.0, 0.25]
    assert latent.unit_effects(tokens[..., None]).tolist() == [0.0, 0.25]


def test_principal_components_are_the_directions_of_most_variance(key: jax.Array) -> None:
    points = np.asarray(jax.random.normal(key, (50, 4))) * np.array([5.0, 1.0, 0.1, 0.1])
    found = latent.principal_components(points, 2)
    assert abs(found.directions[0, 0]) > 0.98
    assert found.variance_share.sum() > 0.98
    placed = found.place(points)
    np.testing.assert_allclose(placed.mean(axis=0), 0, atol=1e-9)
    assert placed[:, 0].std() > placed[:, 1].std()
