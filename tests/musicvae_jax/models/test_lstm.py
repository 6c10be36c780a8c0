"""The recurrence: its own backward pass against autodiff, and how it is built."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models import lstm, products

T, N, B, H = 5, 2, 3, 4


def plain(
    gate_inputs: jax.Array | None, constant: jax.Array, kernel: jax.Array, start: lstm.State
) -> jax.Array:
    """The recurrence written for reading, step by step."""
    c, h, outputs = start.c, start.h, []
    for t in range(T):
        gates = jnp.einsum("nbh,nhg->nbg", h, kernel) + constant
        if gate_inputs is not None:
            gates = gates + gate_inputs[:, t]
        i, j, f, o = jnp.split(gates, 4, axis=-1)
        c = jnp.tanh(j) * jax.nn.sigmoid(i) + c * jax.nn.sigmoid(f + 1.0)
        h = jnp.tanh(c) * jax.nn.sigmoid(o)
        outputs.append(h)
    return jnp.stack(outputs, axis=1)


def arguments(key: jax.Array, *, has_inputs: bool = True, per_example: bool = True) -> Any:
    keys = jax.random.split(key, 5)
    gate_inputs = jax.random.normal(keys[0], (N, T, B, 4 * H)) if has_inputs else None
    constant = jax.random.normal(keys[1], (N, B if per_example else 1, 4 * H))
    kernel = jax.random.normal(keys[2], (N, H, 4 * H))
    c, h = (jax.random.normal(k, (N, B, H)) for k in keys[3:])
    return gate_inputs, constant, kernel, lstm.State(c, h)


def assert_trees_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    def close(a: jax.Array, b: jax.Array) -> None:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    jax.tree.map(close, actual, expected)


@pytest.mark.parametrize(
    ("has_inputs", "per_example", "keep_sequence"),
    [(True, True, True), (True, False, False), (False, True, True)],
)
def test_equals_autodiff_of_the_plain_recurrence(
    key: jax.Array, has_inputs: bool, per_example: bool, keep_sequence: bool
) -> None:
    args = arguments(key, has_inputs=has_inputs, per_example=per_example)
    weights = jax.random.normal(key, (N, T, B, H) if keep_sequence else (N, B, H))

    def expected(*args: Any) -> jax.Array:
        sequence = plain(*args)
        return jnp.sum((sequence if keep_sequence else sequence[:, -1]) * weights)

    def actual(*args: Any) -> jax.Array:
        hidden = lstm.recur(*args, num_steps=T, keep_sequence=keep_sequence)
        return jnp.sum(hidden * weights)

    which = (0, 1, 2, 3) if has_inputs else (1, 2, 3)
    value, grads = jax.jit(jax.value_and_grad(actual, which))(*args)
    expected_value, expected_grads = jax.jit(jax.value_and_grad(expected, which))(*args)
    assert_trees_close((value, grads), (expected_value, expected_grads))


def test_one_step_by_hand() -> None:
    # One unit, h = 0.5, c = 2, kernel 0: the gates are the constant (i, j, f, o).
    gates = jnp.array([0.0, 1.0, -1.0, 0.0]).reshape(1, 1, 4)
    start = lstm.State(jnp.full((1, 1, 1), 2.0), jnp.full((1, 1, 1), 0.5))
    hidden = lstm.recur(None, gates, jnp.zeros((1, 1, 4)), start, num_steps=1)
    c = np.tanh(1.0) * 0.5 + 2.0 * 0.5  # the forget gate is sigmoid(-1 + 1)
    np.testing.assert_allclose(hidden[0, 0, 0, 0], np.tanh(c) * 0.5, rtol=1e-6)


def test_gate_order_of_the_kernel() -> None:
    # Only the column of j sees h: from c = 0, h = 1 the new c is tanh(w) * sigmoid(0).
    kernel = jnp.array([0.0, 0.7, 0.0, 0.0]).reshape(1, 1, 4)
    start = lstm.State(jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)))
    hidden = lstm.recur(None, jnp.zeros((1, 1, 4)), kernel, start, num_steps=1)
    expected = np.tanh(0.5 * np.tanh(0.7)) * 0.5
    np.testing.assert_allclose(hidden[0, 0, 0, 0], expected, rtol=1e-6)


def loops(jaxpr: Any) -> list[Any]:
    """All scan bodies in a jaxpr, at any depth."""
    found = []
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += [inner] * (equation.primitive.name == "scan") + loops(inner)
    return found


def count(jaxpr: Any, name: str) -> int:
    return sum(equation.primitive.name == name for equation in jaxpr.eqns)


def test_one_product_in_each_loop(key: jax.Array) -> None:
    # Weight gradients are one product after the loop, so the backward loop has one, too.
    gate_inputs, constant, kernel, start = arguments(key)

    def loss(kernel: jax.Array) -> jax.Array:
        return jnp.sum(lstm.recur(gate_inputs, constant, kernel, start, num_steps=T))

    bodies = loops(jax.make_jaxpr(jax.grad(loss))(kernel).jaxpr)
    assert [count(body, "dot_general") for body in bodies] == [1, 1]


def test_bfloat16_products_and_float32_sums(key: jax.Array) -> None:
    args = arguments(key)

    def loss(dtype: Any, *args: Any) -> jax.Array:
        return jnp.sum(lstm.recur(*args, num_steps=T, dtype=dtype))

    grad = jax.grad(loss, (1, 2, 3, 4))
    run = jax.jit(grad, static_argnums=0)
    exact, rounded = run(jnp.float32, *args), run(jnp.bfloat16, *args)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rounded), strict=True):
        assert b.dtype == jnp.float32
        assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()


@pytest.mark.parametrize("keep_sequence", [True, False])
def test_bits_in_the_buffers_are_the_numbers(
    key: jax.Array, monkeypatch: pytest.MonkeyPatch, keep_sequence: bool
) -> None:
    options = {"num_steps": T, "dtype": jnp.bfloat16, "keep_sequence": keep_sequence}

    def gradients() -> Any:
        def loss(*args: Any) -> jax.Array:
            return jnp.sum(lstm.recur(*args, **options).astype(jnp.float32) ** 2)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*arguments(key))

    as_bits = gradients()
    monkeypatch.setattr(lstm, "_stored", lambda static, x: x)
    for a, b in zip(jax.tree.leaves(as_bits), jax.tree.leaves(gradients()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("platform", "as_bits"), [("cpu", True), ("cuda", False)])
def test_the_lowered_platform_decides_what_is_kept(
    key: jax.Array, platform: str, as_bits: bool
) -> None:
    def loss(*args: Any) -> jax.Array:
        hidden = lstm.recur(*args, num_steps=T, dtype=jnp.bfloat16)
        return jnp.sum(hidden.astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, (0, 1, 2, 3))).trace(*arguments(key))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("ui16" in text) == as_bits


def test_products_round_their_operands(key: jax.Array) -> None:
    x, y = jax.random.normal(key, (3, 5)), jax.random.normal(key, (5, 2))
    found = products.contract("bi,io->bo", x, y, jnp.bfloat16)
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, y)]
    np.testing.assert_allclose(found, rounded[0] @ rounded[1], rtol=1e-5)
    assert found.dtype == jnp.float32
    # Elsewhere than on a CPU the operands of the product itself have the type asked for.
    run = jax.jit(lambda x, y: products.contract("bi,io->bo", x, y, jnp.bfloat16))
    lowered = run.trace(x, y).lower(lowering_platforms=("cuda",)).as_text()
    (product,) = [line for line in lowered.splitlines() if "dot_general" in line]
    assert "(tensor<3x5xbf16>, tensor<5x2xbf16>) -> tensor<3x2xf32>" in product


@pytest.mark.parametrize("size_one", ["", "n", "b", "nb", "o", "nboi"])
@pytest.mark.parametrize(
    "subscripts", ["nbi,nio->nbo", "bi,nio->nbo", "bi,nbo->nio", "bo,nio->nbi"]
)
@pytest.mark.parametrize("by_instruction", sorted({False, products.cpu_multiplies_bfloat16()}))
def test_bfloat16_products_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
    subscripts: str,
    size_one: str,
    by_instruction: bool,
) -> None:
    monkeypatch.setattr(products, "cpu_multiplies_bfloat16", lambda: by_instruction)
    sizes = {"n": 2, "b": 3, "i": 64, "o": 48} | dict.fromkeys(size_one, 1)
    left, right = subscripts.split("->")[0].split(",")
    # Drawn by NumPy: JAX would compile a draw of each shape.
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=[sizes[c] for c in t]).astype(jnp.bfloat16) for t in (left, right))
    found = jax.jit(functools.partial(products.multiply, subscripts))(x, y)
    exact = np.einsum(subscripts, np.asarray(x, np.float64), np.asarray(y, np.float64))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


# Every form that the models use, those of gradients included.
FORMS = [
    "nbh,nhg->nbg",
    "nbg,ngh->nbh",
    "ntbh,ntbg->nhg",
    "ntbi,nig->ntbg",
    "ntbg,nig->ntbi",
    "ntbi,ntbg->nig",
    "tbh,hv->btv",
    "btv,hv->tbh",
    "tbh,btv->hv",
    "bi,io->bo",
    "bo,io->bi",
    "bi,bo->io",
    "bc,ncg->nbg",
    "nbg,ncg->bc",
    "bc,nbg->ncg",
]


@pytest.mark.parametrize("points", ["neither", "left", "right", "both"])
@pytest.mark.parametrize("size_one", ["", "n", "b", "nb"])
def test_bfloat16_products_of_real_size_run_on_a_cpu(size_one: str, points: str) -> None:
    # What XLA cannot run, and says only then, depends on the size and on a grid's axis.
    sizes = {"n": 3, "t": 4, "b": 64, "v": 90} | dict.fromkeys("ihc", 256) | {"g": 512, "o": 512}
    sizes |= dict.fromkeys(size_one, 1)
    run: dict[str, Callable[..., jax.Array]] = {}
    arguments, expected = {}, {}
    for subscripts in FORMS:
        terms = subscripts.split("->")[0].split(",")
        x, y = (
            np.ones((2,) * (points in (side, "both")) + tuple(sizes[c] for c in term), np.float32)
            for side, term in zip(("left", "right"), terms, strict=True)
        )

        def product(x: jax.Array, y: jax.Array, subscripts: str = subscripts) -> jax.Array:
            # Scaled first: what comes before a product decides how it is run, too.
            return products.contract(subscripts, x * 2, y * 2, jnp.bfloat16)

        if points != "neither":
            axes = (0 if points != "right" else None, 0 if points != "left" else None)
            product = jax.vmap(product, axes)
        out = subscripts.split("->")[1]
        summed = (sizes[c] for c in set(terms[0]) & set(terms[1]) - set(out))
        run[subscripts], arguments[subscripts] = product, (x, y)
        expected[subscripts] = 4.0 * math.prod(summed)
    # In one program: compiling each form by itself takes longer than running it.
    found = jax.jit(lambda given: {form: run[form](*xy) for form, xy in given.items()})(arguments)
    assert {form: np.asarray(values).max() for form, values in found.items()} == expected


@pytest.mark.parametrize("subscripts", ["ntbi,nio->ntbo", "bi,nio->nbo", "tbi,io->bto"])
def test_contract_equals_einsum(key: jax.Array, subscripts: str) -> None:
    sizes = {"t": 4, "n": 2, "b": 3, "i": 5, "o": 6}
    operands, out = subscripts.split("->")
    shapes = [tuple(sizes[letter] for letter in term) for term in (*operands.split(","), out)]
    x, y, weights = (jax.random.normal(jax.random.fold_in(key, len(s)), s) for s in shapes)

    def actual(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(products.contract(subscripts, x, y, jnp.float32) * weights)

    def expected(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(jnp.einsum(subscripts, x, y) * weights)

    found, wanted = (jax.jit(jax.value_and_grad(f, (0, 1)))(x, y) for f in (actual, expected))
    assert_trees_close(found, wanted)


def test_lookup_equals_one_hot_product(key: jax.Array) -> None:
    table = jax.random.normal(key, (6, 3))
    rows = jnp.array([[0, 5, 5], [6, 2, 0]])  # 6 is "none": a row of zeros
    weights = jax.random.normal(key, (2, 3, 3))

    def actual(table: jax.Array) -> jax.Array:
        return jnp.sum(products.lookup(table, rows) * weights)

    def expected(table: jax.Array) -> jax.Array:
        return jnp.sum((jax.nn.one_hot(rows, 6) @ table) * weights)

    found, wanted = (jax.jit(jax.value_and_grad(f))(table) for f in (actual, expected))
    assert_trees_close(found, wanted)
    np.testing.assert_array_equal(products.lookup(table, rows)[1, 0], np.zeros(3))


def test_lookup_stacked_takes_from_each_table(key: jax.Array) -> None:
    tables = jax.random.normal(key, (2, 4, 3))
    rows = jnp.array([[[0, 3]], [[4, 1]]])  # [N=2, T=1, B=2]; 4 is "none"
    found = products.lookup_stacked(tables, rows)
    np.testing.assert_array_equal(found[0, 0], tables[0][jnp.array([0, 3])])
    np.testing.assert_array_equal(found[1, 0], jnp.stack([jnp.zeros(3), tables[1, 1]]))


def test_steps_one_by_one_equal_the_sequence(key: jax.Array) -> None:
    keys = jax.random.split(key, 6)
    draw = jax.random.normal
    layers = (
        lstm.Layer(None, draw(keys[0], (N, H, 4 * H)), draw(keys[1], (N, 4 * H))),
        lstm.Layer(
            draw(keys[2], (N, H, 4 * H)), draw(keys[3], (N, H, 4 * H)), draw(keys[4], (N, 4 * H))
        ),
    )
    constant = layers[0].bias[:, None, :]
    gate_inputs = draw(keys[5], (N, T, B, 4 * H))
    starts = lstm.split_states(draw(keys[0], (N, B, 4 * H)), (H, H))
    sequence = lstm.run_stack(layers, lambda: gate_inputs, constant, starts, T, jnp.float32)
    states = starts
    for t in range(T):
        states, hidden = lstm.step_stack(layers, gate_inputs[:, t] + constant, states)
        np.testing.assert_allclose(hidden, sequence[:, t], atol=1e-6)


def test_split_states_order() -> None:
    flat = jnp.arange(10.0).reshape(1, 1, 10)
    first, second = lstm.split_states(flat, (2, 3))
    assert [x.ravel().tolist() for x in (*first, *second)] == [[0, 1], [2, 3], [4, 5, 6], [7, 8, 9]]
