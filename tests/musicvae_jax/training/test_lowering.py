"""The training step of every published configuration lowers for devices that are not here."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import rnn
from jax.interpreters import mlir

from experiments.cli import operation_counts
from musicvae_jax.config import Config
from musicvae_jax.models import cudnn
from musicvae_jax.models.registry import build_model, find_architecture
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, make_train_step

PUBLISHED = operation_counts.published()
# cuDNN runs the LSTMs of VAEs only.
VAES = [
    name
    for name, config in PUBLISHED.items()
    if not {"z_size", "lstm_backend"}
    & {*find_architecture(config.model.architecture).unused_fields}
]
CUDNN_CALLS = ("cudnn_rnn_ffi", "cudnn_rnn_bwd_ffi")


def lowered(config: Config, *platforms: str) -> str:
    """Lower one training step at its real size; nothing is compiled or run."""
    model, task = build_model(config), get_task(config.task)
    shape = (config.train.batch_size, *task.row_shape)
    batch = jax.eval_shape(lambda: Batch(jnp.zeros(shape, task.token_dtype)))
    state = jax.eval_shape(lambda: init_state(model, config))
    traced = jax.jit(make_train_step(model, config)).trace(state, batch)
    return traced.lower(lowering_platforms=platforms).as_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_loop_lowers_for_cuda_and_tpu(name: str) -> None:
    text = lowered(PUBLISHED[name].replace(dtype="bfloat16"), "cuda", "tpu")
    assert "xbf16>" in text


@pytest.fixture
def cudnn_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let JAX lower calls of cuDNN: what it asks the library for is made up."""
    gpu_rnn: Any = rnn.gpu_rnn
    lowerings: dict[Any, tuple[Any, Any]] = {
        rnn.rnn_fwd_p: (gpu_rnn._rnn_fwd_lowering, gpu_rnn.cudnn_rnn_lowering),
        rnn.rnn_bwd_p: (gpu_rnn._rnn_bwd_lowering, gpu_rnn.cudnn_rnn_bwd_lowering),
    }
    sizes = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(gpu_rnn, sizes, lambda *_: (7, 9), raising=False)
    monkeypatch.setattr(cudnn, "check_device", lambda: None)
    library = types.SimpleNamespace(build_rnn_descriptor=lambda *_: b"")
    for primitive, (lower, _) in lowerings.items():
        rule = functools.partial(lower, library, "cu")
        mlir.register_lowering(primitive, rule, platform="cuda")
    yield
    for primitive, (_, own) in lowerings.items():
        mlir.register_lowering(primitive, own, platform="cuda")


@pytest.mark.slow
@pytest.mark.usefixtures("cudnn_library")
@pytest.mark.parametrize("name", VAES)
def test_cudnn_lowers_for_cuda(name: str) -> None:
    config = PUBLISHED[name].replace(dtype="float32", lstm_backend="cudnn", remat=False)
    text = lowered(config, "cuda")
    forward, backward = (text.count(f"@{call}(") for call in CUDNN_CALLS)
    assert forward == backward > 0
