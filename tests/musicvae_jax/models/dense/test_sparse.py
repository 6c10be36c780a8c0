"""Sums of kernel rows and the likelihood of cells, compared with their dense forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models.dense import rolls, sparse
from musicvae_jax.models.dense.cells import read_cells
from musicvae_jax.models.dense.layers import DenseStack
from musicvae_jax.models.dense.sparse import CellsOn
from musicvae_jax.models.registry import build_vae
from musicvae_jax.tasks import get_task
from tests.musicvae_jax.models.dense.test_dense_vae import cells as one_hots
from tests.musicvae_jax.models.dense.test_rolls import SIZES, TASK, rows_of
from tests.support.model_cases import random_tokens

ROWS, PARTS, SIZE, WIDTH = 5, 3, 11, 4


def some_cells() -> CellsOn:
    """Return cells of which the first row has none and the second all that fit."""
    rng, num_cells = np.random.default_rng(0), PARTS * SIZE
    cells = np.stack([rng.permutation(num_cells)[:9] for _ in range(ROWS)])
    cells[0] = num_cells
    cells[2, ::2] = num_cells
    return CellsOn(jnp.asarray(cells, jnp.int32), num_cells)


@pytest.mark.parametrize("at_once", [1, 3 * WIDTH, 2**17])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sums_of_rows_are_the_product(
    dtype: jnp.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "_NUMBERS_AT_ONCE", at_once)
    on, rng = some_cells(), np.random.default_rng(1)
    dense = np.asarray(on.dense()).reshape(ROWS * PARTS, SIZE)
    assert dense.sum() == 3 * 9 + 4
    kernel = jnp.asarray(rng.normal(size=(SIZE, WIDTH)), jnp.float32)
    grad = jnp.asarray(rng.normal(size=(ROWS * PARTS, WIDTH)), jnp.float32)

    @jax.jit
    def run(kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, pull = jax.vjp(lambda kernel: sparse.multiply(on, kernel, dtype), kernel)
        return found, pull(grad)[0]

    found, pulled = run(kernel, grad)
    factors = [np.asarray(x.astype(dtype), np.float64) for x in (kernel, grad)]
    np.testing.assert_allclose(found, dense @ factors[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pulled, dense.T @ factors[1], rtol=1e-5, atol=1e-6)


def test_sums_of_rows_of_several_kernels_side_by_side() -> None:
    on = some_cells()
    kernels = jnp.asarray(np.random.default_rng(1).normal(size=(2, SIZE, WIDTH)), jnp.float32)

    def total(kernel: jax.Array) -> jax.Array:
        return (sparse.multiply(on, kernel) ** 2).sum()

    grad = jax.grad(total)
    found, alone = jax.jit(lambda kernels: (jax.vmap(grad)(kernels), [*map(grad, kernels)]))(
        kernels
    )
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_the_others() -> None:
    on = some_cells()
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(SIZE, WIDTH)), jnp.float32)
    found = sparse.multiply(on, kernel).reshape(ROWS, -1)
    for n in range(ROWS):
        alone = sparse.multiply(CellsOn(on.cells[n : n + 1], on.num_cells), kernel)
        np.testing.assert_array_equal(found[n], alone.ravel())


def test_likelihood_of_cells_and_its_gradient_are_the_dense_ones() -> None:
    on, rng = some_cells(), np.random.default_rng(2)
    logits = jnp.asarray(rng.normal(size=(ROWS, on.num_cells)) * 8, jnp.float32)
    weights = jnp.asarray(rng.normal(size=ROWS), jnp.float32)
    dense = on.dense()

    @jax.jit
    def cost(logits: jax.Array) -> jax.Array:
        return (sparse.bernoulli_nats(logits, on.cells) * weights).sum()

    exact = np.asarray(logits, np.float64)
    probability = 1 / (1 + np.exp(-exact))
    # Of a cell that is off: -log(1 - p) = log(1 + exp(logit)).
    expected = np.log1p(np.exp(np.where(np.asarray(dense) > 0, -exact, exact))).sum(axis=1)
    np.testing.assert_allclose(sparse.bernoulli_nats(logits, on.cells), expected, rtol=1e-5)
    grad = jax.jit(jax.grad(cost))(logits)
    np.testing.assert_allclose(grad, (probability - dense) * weights[:, None], rtol=1e-4, atol=1e-6)
    step = jnp.asarray(rng.normal(size=logits.shape), jnp.float32) * 0.01
    moved = (cost(logits + step) - cost(logits - step)) / 2
    np.testing.assert_allclose(moved, (grad * step).sum(), rtol=1e-2, atol=1e-3)
    extreme = jnp.array([[200.0, -200.0, 200.0, -200.0]])
    np.testing.assert_allclose(
        sparse.bernoulli_nats(extreme, jnp.array([[0, 1]])), [400.0], rtol=1e-6
    )


@pytest.mark.parametrize("task_name", ["mel_2bar", "trio_16bar"])
def test_tokens_are_listed_cells(task_name: str) -> None:
    task = get_task(task_name)
    tokens = random_tokens(task, np.random.default_rng(0))
    lengths = np.array([task.num_steps, 3, 0])
    expected = one_hots(task_name, tokens)
    whole = read_cells(task.tracks, jnp.asarray(tokens), None)
    assert isinstance(whole, CellsOn)
    assert whole.cells.shape == (3, task.num_steps * len(task.tracks))
    np.testing.assert_array_equal(whole.dense(), expected.reshape(3, -1))
    part = read_cells(task.tracks, jnp.asarray(tokens), jnp.asarray(lengths))
    assert isinstance(part, CellsOn)
    read = np.arange(task.num_steps)[None, :, None] < lengths[:, None, None]
    np.testing.assert_array_equal(part.dense(), (expected * read).reshape(3, -1))


def test_a_value_that_is_no_token_is_no_cell() -> None:
    tracks = get_task("mel_2bar").tracks
    found = read_cells(tracks, jnp.array([[90, -1, 5]]), None)
    assert isinstance(found, CellsOn)
    assert np.flatnonzero(found.dense()).tolist() == [2 * 90 + 5]


def test_layers_read_both_forms() -> None:
    on = some_cells()
    for sizes in ((6, 2), (6,), ()):
        stack = DenseStack(SIZE, sizes)
        params = jax.jit(lambda key, stack=stack: stack.init(key, on))(jax.random.key(0))
        both = jax.jit(lambda p, s=stack: [s.apply(p, cells) for cells in (on, on.dense())])
        found = [np.asarray(result) for result in both(params)]
        assert found[0].shape == (ROWS * PARTS, sizes[-1] if sizes else SIZE)
        np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_model_of_rolls_has_the_gradients_of_its_dense_form() -> None:
    config = TASK.config.replace(**SIZES)
    model, bar = build_vae(config), 96 * 96
    rows = jnp.asarray(rows_of([3, 700, 5 * bar, 16 * bar - 1], [], [bar - 1, bar, bar + 1]))
    params = jax.jit(model.init)(jax.random.key(0))
    dense = np.asarray(rolls.dense(rows, TASK))

    def plain(params: dict[str, dict[str, dict[str, dict[str, jax.Array]]]]) -> jax.Array:
        first, rest = params["encoder"]["bars"]["dense_0"], params["encoder"]
        x = jax.nn.relu(dense.reshape(-1, bar) @ first["kernel"] + first["bias"][None])
        x = jax.nn.relu(
            x @ rest["bars"]["dense_1"]["kernel"] + rest["bars"]["dense_1"]["bias"][None]
        )
        below = rest["rows"]["dense_0"]
        x = jax.nn.relu(x.reshape(len(rows), -1) @ below["kernel"] + below["bias"][None])
        mu = x @ rest["posterior"]["mu"]["kernel"] + rest["posterior"]["mu"]["bias"][None]
        logits = model.logits(params, mu, None)[0].reshape(len(rows), -1)
        return (jax.nn.softplus(logits) - logits * dense).sum()

    def ours(params: dict[str, dict[str, dict[str, dict[str, jax.Array]]]]) -> jax.Array:
        mu = model.encode(params, rows).mu
        return model.nats(model.logits(params, mu, None), rows).sum()

    values = [jax.jit(jax.value_and_grad(loss))(params) for loss in (ours, plain)]
    np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()),
        *(value[1] for value in values),
    )
