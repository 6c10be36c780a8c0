"""Piano rolls: lists and cells, likelihood by hand, learning, measures."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import evaluation, metrics, tokens
from musicvae_jax.analysis import families, structure
from musicvae_jax.config import InputError
from musicvae_jax.models.dense import rolls
from musicvae_jax.models.registry import architectures_of, build_model, build_vae
from musicvae_jax.tasks import NOTE_TASKS, ROLL_SKIP
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import make_run_steps, make_train_step, take_from_device
from tests.support.example_rows import ROLL_TASK as TASK
from tests.support.example_rows import piano_rolls as rows_of
from tests.support.model_cases import OPTIMISED

SIZES = {
    "bar_sizes": (48, 12),
    "encoder_sizes": (48,),
    "decoder_sizes": (48,),
    "z_size": 8,
    "dtype": "float32",
    "batch_size": 16,
}


def test_lists_and_cells_are_the_same_rows() -> None:
    # No note start, the first and last cell, and gaps that need an entry without a note start.
    last = TASK.num_cells - 1
    rows = rows_of([], [0], [last], [ROLL_SKIP - 2], [ROLL_SKIP - 1], [5, last], [0, 1, 2, 96])
    assert rows[2].tolist()[:4] == [ROLL_SKIP, ROLL_SKIP, last + 1 - 2 * (ROLL_SKIP - 1), 0]
    index, cells = tokens.roll_starts(rows)
    assert cells.tolist() == [0, last, ROLL_SKIP - 2, ROLL_SKIP - 1, 5, last, 0, 1, 2, 96]
    assert np.bincount(index).tolist() == [0, 1, 1, 1, 1, 2, 4]
    dense = rolls.dense(jnp.asarray(rows), TASK)
    np.testing.assert_array_equal(np.nonzero(dense), (index, cells))
    np.testing.assert_array_equal(rolls.listed(dense, 0.5, TASK), rows)
    bits = tokens.roll_bits(rows, TASK)
    assert np.bitwise_count(bits).sum(axis=(1, 2)).tolist() == [0, 1, 1, 1, 1, 2, 4]


def test_more_cells_than_a_row_holds_leave_the_likeliest() -> None:
    logits = np.full((1, TASK.num_cells), -1.0, np.float32)
    logits[0, :2000] = np.arange(2000) + 1
    (row,) = np.asarray(rolls.listed(jnp.asarray(logits), 0.0, TASK))
    assert tokens.roll_starts(row[None])[1].tolist() == list(range(2000 - TASK.most_starts, 2000))
    with pytest.raises(InputError, match="pianoroll_16bar holds 958"):
        tokens.roll_row(np.arange(961), TASK)
    with pytest.raises(InputError, match="ends at cell"):
        tokens.check_row(np.full(4, 60_000), TASK)


def test_likelihood_scores_and_draws_by_hand() -> None:
    likelihood = rolls.Likelihood(TASK, 0.5)
    rows = jnp.asarray(rows_of([3, 700]))
    logits = np.full((1, TASK.num_cells), -30.0, np.float32)
    logits[0, [3, 9]] = np.log(3.0)  # probability 3/4
    columns = rolls.as_ticks(jnp.asarray(logits))
    expected = -np.log(3 / 4) - np.log(1 / 4) + 30.0  # found, too many, missing
    np.testing.assert_allclose(likelihood.nats(columns, rows), [[expected]], rtol=1e-5)
    scores = likelihood.scores(columns, rows)
    np.testing.assert_allclose(scores["accuracy"], [1 / 3])
    np.testing.assert_allclose(scores["f1"], [1 / 2])
    counts = likelihood.counts(likelihood.best(columns), rows)
    assert {name: float(value[0, 0]) for name, value in counts.items()} == {
        "steps": 3, "correct": 1, "onsets": 2, "onsets_correct": 1,
        "true_notes": 2, "predicted_notes": 2, "found_notes": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="rows of pianoroll_16bar are lists"):
        metrics.prediction_counts(rows, rows, TASK)
    strict = rolls.Likelihood(TASK, 0.8).best(columns)
    assert not np.asarray(strict).any()


def test_draws_have_the_probabilities_of_the_cells() -> None:
    task = dataclasses.replace(TASK, num_bars=1, num_entries=40)
    logits = jnp.full((300, task.num_cells), -30.0).at[:, jnp.array([3, 9])].set(jnp.log(3.0))
    likelihood = rolls.Likelihood(task, 0.5)
    drawn = likelihood.drawn(rolls.as_ticks(logits), jax.random.key(0), 1.0)
    on = np.asarray(rolls.dense(drawn, task)).mean(axis=0)
    np.testing.assert_allclose(on[[3, 9]], 0.75, atol=0.09)
    assert on.sum() == pytest.approx(on[[3, 9]].sum())


@pytest.mark.slow
def test_it_overfits_16_rows_and_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    task = dataclasses.replace(TASK, name="tiny", num_bars=2, num_entries=40)
    monkeypatch.setitem(NOTE_TASKS, "tiny", task)
    config = TASK.config.replace(task="tiny", **SIZES, beta=0.0, learning_rate=5e-3)
    rng = np.random.default_rng(0)
    cells = [rng.choice(task.num_cells, 12, replace=False) for _ in range(16)]
    rows = np.stack([tokens.roll_row(own, task) for own in cells])
    model = build_vae(config)
    state = jax.jit(functools.partial(init_state, model, config))()
    steps = make_run_steps(make_train_step(model, config), take_from_device)
    run = jax.jit(steps, compiler_options=OPTIMISED)
    chunk = jnp.broadcast_to(jnp.arange(16), (50, 16))
    best = 0.0
    for _ in range(16):
        state, record = run(state, jnp.asarray(rows), chunk, jnp.int32(50))
        best = float(record["f1"][-1])
        if best > 0.98:
            break
    assert best > 0.95
    found = evaluation.evaluate(config, state.params, rows, draws=2)
    assert found.greedy["f1"]["overall"] > 0.95
    assert found.teacher_forced == found.greedy
    assert found.kl_bits is not None
    with pytest.raises(InputError, match="seed_bars: rows of piano rolls"):
        evaluation.evaluate(config, state.params, rows, draws=2, seed_bars=1)


def test_the_sources_sizes() -> None:
    shapes = jax.eval_shape(build_model(TASK.config).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == pytest.approx(48e6, rel=0.03)
    assert architectures_of(TASK.name) == ("stacked_vae",)
    with pytest.raises(InputError, match="architecture: flat models tokens"):
        build_model(TASK.config.replace(architecture="flat"))
    with pytest.raises(InputError, match="threshold"):
        TASK.config.replace(threshold=1.0)


def test_measures_of_bars_by_hand() -> None:
    bar = 96 * 96
    alike = rows_of([n * bar + 5 for n in range(16)])
    assert structure.mean_bar_distance(alike, TASK) == 0.0
    other = rows_of([n * bar + 5 + n for n in range(16)])
    assert structure.mean_bar_distance(other, TASK) == 1.0
    assert structure.mean_row_distance(np.concatenate([alike, other]), TASK) == pytest.approx(
        30 / 31
    )
    measured = {one.name: one for one in families.measure_rows(alike, TASK)}
    assert measured["note starts per bar"].values is not None
    assert measured["note starts per bar"].values.tolist() == [1.0]
    assert measured["pitch class"].counts[0].tolist() == [0] * 5 + [16] + [0] * 6
