"""cuDNN's LSTM, with JAX's reference of it in its place, against the loop; what is refused."""

from __future__ import annotations

import functools
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from experiments.cli.progress import Silent
from musicvae_jax import data, objectives
from musicvae_jax.config import Config, InputError, differing_fields
from musicvae_jax.models import cudnn, lstm
from musicvae_jax.models.registry import VAE, build_vae
from musicvae_jax.storage import checkpoints
from musicvae_jax.sweep import runs
from musicvae_jax.tasks import get_task
from tests.support.commands import run_command
from tests.support.model_cases import BATCH, case
from tests.support.synthetic_store import write_store

N, T, B, D, H = 2, 5, 3, 4, 2


def reference(
    x: jax.Array, h: jax.Array, c: jax.Array, weights: jax.Array, lengths: jax.Array, *sizes: Any
) -> Any:
    """Compute on any device what `rnn.lstm` computes on an NVIDIA GPU."""
    inputs, units, layers, _, both = sizes
    unpacked = rnn.unpack_lstm_weights(weights, inputs, units, layers, both)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, *sizes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """Let models run with the reference in the place of cuDNN; shapes of x, layer by layer."""
    shapes: list[list[tuple[int, ...]]] = []
    run = functools.partial(cudnn.run_layer, lstm=reference)

    def watched(x: Any, *args: Any) -> jax.Array:
        x = list(x)
        shapes.append([inputs.shape for inputs in x])
        return run(x, *args)

    monkeypatch.setattr(cudnn, "run_layer", watched)
    monkeypatch.setattr(cudnn, "check_device", lambda: None)
    return shapes


def arguments(key: jax.Array) -> Any:
    keys = jax.random.split(key, 5)
    shapes = ((N, T, B, D), (N, D + H, 4 * H), (N, 4 * H), (N, B, H), (N, B, H))
    x, kernel, bias, c, h = map(jax.random.normal, keys, shapes)
    return x, kernel, bias, lstm.State(c, h)


def test_weights_lie_where_cudnn_looks_for_them() -> None:
    # Entry (row, gate, unit) of the kernel is 100 row + 10 gate + unit, gates i, j, f, o; the
    # bias is row 9.
    kernel = jnp.array(
        [[100.0 * r + 10 * g + u for g in range(4) for u in range(H)] for r in range(3)]
    )
    bias = jnp.array([900.0 + 10 * g + u for g in range(4) for u in range(H)])
    packed = cudnn.pack(kernel, bias)  # one input, two units
    assert packed.shape == (rnn.get_num_params_in_lstm(1, H, 1, False),)
    of_input, recurrent, first, second = (
        part[0] for part in rnn.unpack_lstm_weights(packed, 1, H, 1, False)
    )
    gates = [0, 1, 20, 21, 10, 11, 30, 31]  # i, f, g, o: our j is g
    np.testing.assert_array_equal(of_input, [[g] for g in gates])
    np.testing.assert_array_equal(recurrent, [[100 + g, 200 + g] for g in gates])
    np.testing.assert_array_equal(first, [900, 901, 921, 922, 910, 911, 930, 931])
    np.testing.assert_array_equal(second, np.zeros(4 * H))


def test_a_layer_equals_the_loop(key: jax.Array) -> None:
    args = arguments(key)
    weights = jax.random.normal(key, (N, T, B, H))

    def dense(*args: Any) -> jax.Array:
        return jnp.sum(cudnn.run_layer(*args, lstm=reference) * weights)

    def loop(x: jax.Array, kernel: jax.Array, bias: jax.Array, start: lstm.State) -> jax.Array:
        gates = jnp.einsum("ntbi,nig->ntbg", x, kernel[:, :D])
        hidden = lstm.recur(gates, bias[:, None], kernel[:, D:], start, num_steps=T)
        return jnp.sum(hidden * weights)

    found, wanted = (jax.jit(jax.value_and_grad(f, (0, 1, 2, 3)))(*args) for f in (dense, loop))
    assert_close(found, wanted)


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Compare each array, by the size of its difference."""

    def close(path: Any, a: jax.Array, b: jax.Array) -> None:
        difference = np.linalg.norm(np.subtract(a, b))
        assert difference <= tolerance * np.linalg.norm(b), jax.tree_util.keystr(path)

    jax.tree_util.tree_map_with_path(close, found, wanted)


def dense_model(config: Config) -> VAE:
    return build_vae(config.replace(lstm_backend="cudnn"))


V, Z = 90, 4
# What each layer reads, from the encoder's lowest to the decoder's highest: T, rows, features.
SHAPES: dict[tuple[str, str], list[list[tuple[int, int, int]]]] = {
    ("mel_2bar", "flat"): [
        [(32, BATCH, V)] * 2, [(32, BATCH, 12)] * 2, [(32, BATCH, V + Z)], [(32, BATCH, 7)],
    ],
    ("drums_2bar", "flat"): [
        [(32, BATCH, 10)] * 2, [(32, BATCH, 12)] * 2, [(32, BATCH, 512 + Z)], [(32, BATCH, 7)],
    ],
    ("mel_16bar", "hierdec"): [
        [(256, BATCH, V)] * 2, [(256, BATCH, 12)] * 2, [(16, BATCH, 1)], [(16, BATCH, 5)],
        [(16, 16 * BATCH, V + 6)], [(16, 16 * BATCH, 7)],
    ],
    ("trio_16bar", "hierdec"): [
        [(256, BATCH, 2 * V + 512)] * 2, [(256, BATCH, 12)] * 2,
        [(16, BATCH, 1)], [(16, BATCH, 5)],
        [(16, 16 * BATCH, depth + 6) for depth in (V, V, 512)], [(16, 16 * BATCH, 7)] * 3,
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES, ids="_".join)
def test_loss_and_gradients_are_those_of_the_loop(
    name: tuple[str, str], calls: list[list[tuple[int, ...]]]
) -> None:
    small = case(*name)

    def loss(model: VAE, params: Any) -> jax.Array:
        posterior = model.encode(params, small.tokens)
        z = posterior.mu + posterior.sigma * small.z
        logits = model.logits(params, z, small.tokens)
        nats = objectives.reconstruction_nats(logits, small.tokens)
        return jnp.mean(nats + objectives.kl_nats(posterior))

    found, wanted = (
        jax.jit(jax.value_and_grad(functools.partial(loss, model)))(small.params)
        for model in (dense_model(small.config), small.model)
    )
    assert calls == SHAPES[name]
    assert_close(found, wanted)


def test_rows_of_different_lengths(calls: list[list[tuple[int, ...]]]) -> None:
    small = case("mel_2bar", "flat")
    lengths = jnp.array([32, 1, 19])
    found, wanted = (
        jax.jit(model.encode)(small.params, small.tokens, lengths)
        for model in (dense_model(small.config), small.model)
    )
    assert len(calls) == 2
    assert_close(found, wanted)


def test_scheduled_sampling_feeds_back_the_same_tokens(
    key: jax.Array, calls: list[list[tuple[int, ...]]]
) -> None:
    small = case("trio_16bar", "flat")
    found, wanted = (
        jax.jit(functools.partial(model.logits, sampling_probability=0.5, key=key))(
            small.params, small.z, small.tokens
        )
        for model in (dense_model(small.config), small.model)
    )
    assert calls == [[(256, BATCH, 2 * V + 512 + Z)], [(256, BATCH, 7)]]
    assert_close(found, wanted)


def test_what_cudnn_is_called_with(monkeypatch: pytest.MonkeyPatch, key: jax.Array) -> None:
    # JAX asks the GPU for these sizes; the rest of a call can be traced without one.
    sizes = types.SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=lambda *_: (7, 9))
    monkeypatch.setattr(rnn, "gpu_rnn", sizes)

    def loss(*args: Any) -> jax.Array:
        return jnp.sum(cudnn.run_layer(*args))

    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2, 3)))(*arguments(key))
    forward = [e for e in jaxpr.eqns if e.primitive is rnn.rnn_fwd_p]
    backward = [e for e in jaxpr.eqns if e.primitive is rnn.rnn_bwd_p]
    assert len(forward) == len(backward) == N
    num_weights = rnn.get_num_params_in_lstm(D, H, 1, False)
    for call in forward:
        shapes = [v.aval.shape for v in call.invars]
        assert shapes == [(B, T, D), (1, B, H), (1, B, H), (num_weights,), (B,)]
        assert [str(v.aval.dtype) for v in call.invars] == ["float32"] * 4 + ["int32"]
        assert call.params == {
            "input_size": D,
            "hidden_size": H,
            "num_layers": 1,
            "dropout": 0.0,
            "bidirectional": False,
            "cudnn_allow_tf32": True,
        }


def test_no_back_end_given_is_the_loop() -> None:
    config = get_task("mel_2bar").config
    assert config.run.lstm_backend == "auto"
    for name in ("auto", "xla"):
        build_vae(config.replace(lstm_backend=name))


def test_a_run_may_change_its_back_end() -> None:
    config = get_task("mel_2bar").config.replace(dtype="float32")
    assert differing_fields(config, config.replace(lstm_backend="cudnn")) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"lstm_backend": "CUDNN"},
            "lstm_backend: 'CUDNN' is out of range, it must be one of auto",
        ),
        ({"dtype": "bfloat16"}, "dtype: 'bfloat16' .* must be float32 with lstm_backend=cudnn"),
        ({"dtype": "auto"}, "dtype: 'auto' .* must be float32 with lstm_backend=cudnn"),
        ({"remat": True}, "remat: True .* must be false with lstm_backend=cudnn"),
    ],
)
def test_what_cudnn_cannot_do_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}.*$"):
        get_task("mel_2bar").config.replace(
            **{"lstm_backend": "cudnn", "dtype": "float32"} | fields
        )


@pytest.mark.parametrize(
    ("version", "count", "message"),
    [
        ("cuda 13000", 1, None),
        ("cuda 13000", 2, "lstm_backend: cudnn runs on one GPU, JAX has 2; set CUDA_VISIBLE"),
        ("rocm 60000", 1, "lstm_backend: cudnn needs an NVIDIA GPU, JAX runs on some kind; lstm_"),
    ],
)
def test_only_one_nvidia_gpu_will_do(
    monkeypatch: pytest.MonkeyPatch, version: str, count: int, message: str | None
) -> None:
    client = types.SimpleNamespace(platform_version=version)
    device = types.SimpleNamespace(client=client, device_kind="some kind")
    monkeypatch.setattr(jax, "devices", lambda: [device] * count)
    if message is None:
        cudnn.check_device()
        return
    with pytest.raises(InputError, match=f"^{message}.*$"):
        cudnn.check_device()


def test_points_in_one_program_are_refused(tmp_path: pathlib.Path) -> None:
    config = get_task("mel_2bar").config.replace(lstm_backend="cudnn", dtype="float32")
    write_store(tmp_path, "mel_2bar")
    point = runs.Point(config, str(tmp_path / "run"), Silent())
    with pytest.raises(
        InputError, match=r"^lstm_backend: cudnn cannot train several points in one program.*$"
    ):
        runs.fit_points([point], data.open_store(tmp_path))


def test_a_model_trained_with_it_is_used_without(tmp_path: pathlib.Path) -> None:
    config = case("mel_2bar", "flat").config.replace(lstm_backend="cudnn")
    with checkpoints.Checkpoints(tmp_path, create=True) as saved:
        saved.save(1, {"a": np.ones(1)}, {"count": np.zeros(1)}, config)
    assert checkpoints.restore_params(tmp_path)[0] == config.replace(lstm_backend="auto")


def test_without_a_gpu_training_ends_with_one_line_and_exit_code_2(tmp_path: pathlib.Path) -> None:
    write_store(tmp_path / "store", "mel_2bar")
    flags = ["--lstm_backend=cudnn", "--dtype=float32", "--batch_size=2"]
    folders = [f"--data_dir={tmp_path / 'store'}", f"--run_dir={tmp_path / 'run'}"]
    done = run_command("experiments.train", *folders, *flags, JAX_PLATFORMS="cpu")
    assert done.returncode == 2
    assert done.stderr == (
        "error: lstm_backend: cudnn needs an NVIDIA GPU, JAX runs on cpu; lstm_backend=xla runs "
        "everywhere\n"
    )
    assert not (tmp_path / "run").exists()
