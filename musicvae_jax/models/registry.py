"""From a configuration to a model: the one place that chooses by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from musicvae_jax.config import Config
from musicvae_jax.models import cudnn
from musicvae_jax.models.decoders import (
    CategoricalDecoder,
    Columns,
    Dropout,
    FlatDecoder,
    Sampling,
)
from musicvae_jax.models.encoders import BidirectionalEncoder, Posterior
from musicvae_jax.models.hierarchical import Conductor, HierarchicalDecoder
from musicvae_jax.models.initialisation import INITIALISATIONS, Initialisation
from musicvae_jax.models.musicvae import VariationalAutoencoder
from musicvae_jax.tasks import Task, get_task

Params = dict[str, Any]


class Model(NamedTuple):
    """Pure functions of a params dict; jit what you call often.

    Attributes:
      init: `init(key) -> params`, a nested dict of float32 arrays.
      encode: `encode(params, tokens, lengths=None) -> Posterior`, mu and sigma [B, Z] float32;
        of each example the first `lengths` [B] steps count.
      conductor: `conductor(params, z) -> [B, U, H]`, the bar embeddings; None for flat models.
      logits: `logits(params, z, tokens, *, sampling_probability=None, key=None,
        temperature=1.0, input_dropout=None, drop_key=None)` -> K arrays [B, T, V_k] float32;
        teacher forced, or with a probability with scheduled sampling; inputs are dropped where
        `input_dropout` says with which probability.
      generate: `generate(params, z, key, temperature) -> tokens` [B, T] or [B, T, K] int32;
        temperature 0 takes the best token.
    """

    init: Callable[..., Params]
    encode: Callable[..., Posterior]
    conductor: Callable[..., jax.Array] | None
    logits: Callable[..., Columns]
    generate: Callable[..., jax.Array]


def build_model(config: Config) -> Model:
    """Return the model that a configuration describes.

    Raises:
      InputError: the task is unknown, or cuDNN is asked for and cannot run here.
    """
    module = _module(config)

    def init(key: jax.Array) -> Params:
        return module.init(key, method="declare")["params"]

    def apply(method: str, params: Params, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def encode(params: Params, tokens: jax.Array, lengths: jax.Array | None = None) -> Posterior:
        return apply("encode", params, tokens, lengths)

    def conductor(params: Params, z: jax.Array) -> jax.Array:
        return apply("conductor", params, z)

    def logits(
        params: Params,
        z: jax.Array,
        tokens: jax.Array,
        *,
        sampling_probability: jax.Array | float | None = None,
        key: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
        input_dropout: jax.Array | float | None = None,
        drop_key: jax.Array | None = None,
    ) -> Columns:
        sampling, dropout = None, None
        if sampling_probability is not None:
            if key is None:
                raise ValueError("key: scheduled sampling needs a random key")
            sampling = Sampling(sampling_probability, key, temperature)
        if input_dropout is not None:
            if drop_key is None:
                raise ValueError("drop_key: dropped inputs need a random key")
            dropout = Dropout(input_dropout, drop_key)
        return apply("logits", params, z, tokens, sampling, dropout)

    def generate(
        params: Params, z: jax.Array, key: jax.Array, temperature: jax.Array | float
    ) -> jax.Array:
        return apply("generate", params, z, key, temperature)

    has_conductor = isinstance(module.decoder, HierarchicalDecoder)
    return Model(init, encode, conductor if has_conductor else None, logits, generate)


def compute_dtype(name: str) -> Any:
    """Return the type of the products: "auto" is bfloat16 on an accelerator, else float32."""
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(name)


def _run_layer(config: Config) -> cudnn.RunLayer | None:
    """Return what runs a layer from its dense inputs; None for the loop of `lstm.recur`."""
    if config.run.lstm_backend != "cudnn":
        return None
    cudnn.check_device()
    return cudnn.run_layer


def _module(config: Config) -> VariationalAutoencoder:
    """Build the Flax module."""
    task, model = get_task(config.task), config.model
    dtype = compute_dtype(config.train.dtype)
    initial = INITIALISATIONS[model.init]
    encoder = BidirectionalEncoder(
        task.tracks,
        model.encoder_sizes,
        model.z_size,
        initial,
        task.num_steps,
        dtype,
        config.run.remat,
        _run_layer(config),
    )
    make = _flat if model.architecture == "flat" else _hierarchical
    decoder = make(config, task, initial)
    return VariationalAutoencoder(encoder, decoder, task.num_steps)


def _flat(config: Config, task: Task, initial: Initialisation) -> FlatDecoder:
    """Build a decoder with one stream for all tracks."""
    depths = (tuple(track.num_classes for track in task.tracks),)
    dtype = compute_dtype(config.train.dtype)
    sizes = config.model.decoder_sizes
    core = CategoricalDecoder(
        depths, config.model.z_size, sizes, initial, dtype, config.run.remat, _run_layer(config)
    )
    return FlatDecoder(core)


def _hierarchical(config: Config, task: Task, initial: Initialisation) -> HierarchicalDecoder:
    """Build a conductor, and a decoder with a stream for each track."""
    depths = tuple((track.num_classes,) for track in task.tracks)
    dtype = compute_dtype(config.train.dtype)
    model = config.model
    sizes = model.resolved_conductor_sizes
    run_layer = _run_layer(config)
    core = CategoricalDecoder(
        depths, sizes[-1], model.decoder_sizes, initial, dtype, config.run.remat, run_layer
    )
    conductor = Conductor(model.z_size, sizes, initial, task.num_bars, dtype, run_layer)
    return HierarchicalDecoder(conductor, core, task.num_bars)
