"""From a configuration to a model: the one place that chooses by the name of an architecture.

To add a model, write a function that builds its `Model` from a configuration, and add a line to
`ARCHITECTURES`. Training, evaluation and generation call the functions of `Model` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from musicvae_jax.config import Config, InputError
from musicvae_jax.models import cudnn
from musicvae_jax.models.decoders import CategoricalDecoder, Dropout, Sampling
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import (
    BidirectionalStack,
    Encoder,
    HierarchicalStack,
    Posterior,
)
from musicvae_jax.models.flat import FlatDecoder
from musicvae_jax.models.hierarchical import Conductor, HierarchicalDecoder
from musicvae_jax.models.initialisation import INITIALISATIONS
from musicvae_jax.models.musicvae import VariationalAutoencoder
from musicvae_jax.tasks import get_task

Params = dict[str, Any]


class Model(NamedTuple):
    """A variational autoencoder as pure functions of its parameters; jit what you call often.

    A model must give the first four; `conductor` is optional. T, K and V_k are those of the task.

    Attributes:
      init: `init(key) -> params`, a nested dict of float32 arrays.
      encode: `encode(params, tokens, lengths=None) -> Posterior`, mu and sigma [B, Z] float32, of
        tokens [B, T] or [B, T, K] integer. The first `lengths` [B] steps of each example count;
        None: all T. Hierarchical encoders also take lengths of each bar, [B, U].
      logits: `logits(params, z, tokens, *, sampling_probability=None, key=None,
        temperature=1.0, input_dropout=None, drop_key=None)` -> K arrays [B, T, V_k] float32.
        Teacher forced by default: step t sees the tokens before t. With `sampling_probability`
        (needs `key`), scheduled sampling. With `input_dropout` (needs `drop_key`), previous tokens
        are hidden with that probability.
      generate: `generate(params, z, key, temperature) -> tokens` [B, T] or [B, T, K] int32;
        temperature 0 takes the best token.
      conductor: `conductor(params, z) -> [B, U, H]` float32, the bar embeddings; None in models
        without a conductor.
    """

    init: Callable[..., Params]
    encode: Callable[..., Posterior]
    logits: Callable[..., Columns]
    generate: Callable[..., jax.Array]
    conductor: Callable[..., jax.Array] | None = None


class Architecture(NamedTuple):
    """An entry of `ARCHITECTURES`.

    Attributes:
      build: returns the model of a configuration.
      unused_fields: fields of `ModelConfig` that have no effect.
    """

    build: Callable[[Config], Model]
    unused_fields: tuple[str, ...] = ()


def build_model(config: Config) -> Model:
    """Return the model that a configuration describes.

    Raises:
      InputError: the task or the architecture is unknown, or cuDNN is asked for and cannot run
        here.
    """
    return find_architecture(config.model.architecture).build(config)


def find_architecture(name: str) -> Architecture:
    """Look up an architecture.

    Raises:
      InputError: none has this name.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"architecture: {name!r} is not one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def architectures_with(field: str) -> tuple[str, ...]:
    """List the architectures in which a field of `ModelConfig` has an effect."""
    return tuple(name for name, entry in ARCHITECTURES.items() if field not in entry.unused_fields)


def functions_of(module: VariationalAutoencoder) -> Model:
    """Return the pure functions of a Flax module that has an encoder and a decoder."""

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
    return Model(init, encode, logits, generate, conductor if has_conductor else None)


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


def _stack(config: Config, inputs: int, num_steps: int) -> BidirectionalStack:
    """Build the layers of an encoder that reads `num_steps` steps of `inputs` features."""
    return BidirectionalStack(
        inputs,
        config.model.encoder_sizes,
        INITIALISATIONS[config.model.init],
        num_steps,
        compute_dtype(config.train.dtype),
        config.run.remat,
        _run_layer(config),
    )


def _flat_stack(config: Config) -> BidirectionalStack:
    """Build encoder layers over all steps of a row."""
    task = get_task(config.task)
    return _stack(config, task.encoder_depth, task.num_steps)


def _bar_stack(config: Config) -> HierarchicalStack:
    """Build encoder layers over the steps of a bar, and others over the bars."""
    task = get_task(config.task)
    bars = _stack(config, task.encoder_depth, task.num_steps // task.num_bars)
    rows = _stack(config, bars.embedding_size, task.num_bars)
    return HierarchicalStack(bars, rows, task.num_bars)


def _vae(
    config: Config,
    stack: BidirectionalStack | HierarchicalStack,
    decoder: FlatDecoder | HierarchicalDecoder,
) -> Model:
    """Build the model with these encoder layers and this decoder."""
    task, model = get_task(config.task), config.model
    encoder = Encoder(
        task.tracks,
        stack,
        model.z_size,
        INITIALISATIONS[model.init],
        compute_dtype(config.train.dtype),
    )
    return functions_of(VariationalAutoencoder(encoder, decoder, task.num_steps))


def _core(
    config: Config, depths: tuple[tuple[int, ...], ...], context_size: int
) -> CategoricalDecoder:
    """Build the LSTM decoder; `depths` has the V_k of the columns of each stream."""
    return CategoricalDecoder(
        depths,
        context_size,
        config.model.decoder_sizes,
        INITIALISATIONS[config.model.init],
        compute_dtype(config.train.dtype),
        config.run.remat,
        _run_layer(config),
    )


def _flat_decoder(config: Config) -> FlatDecoder:
    """Build one decoder over all steps, with one stream for all tracks."""
    task = get_task(config.task)
    depths = (tuple(track.num_classes for track in task.tracks),)
    return FlatDecoder(_core(config, depths, config.model.z_size))


def _bar_decoder(config: Config) -> HierarchicalDecoder:
    """Build a conductor over bars, and a decoder of each bar with a stream for each track."""
    task, model = get_task(config.task), config.model
    sizes = model.resolved_conductor_sizes
    conductor = Conductor(
        model.z_size,
        sizes,
        INITIALISATIONS[model.init],
        task.num_bars,
        compute_dtype(config.train.dtype),
        _run_layer(config),
    )
    core = _core(config, tuple((track.num_classes,) for track in task.tracks), sizes[-1])
    return HierarchicalDecoder(conductor, core, task.num_bars)


def _flat(config: Config) -> Model:
    """Build a model that reads and writes rows step by step."""
    return _vae(config, _flat_stack(config), _flat_decoder(config))


def _hierdec(config: Config) -> Model:
    """Build a model that reads rows step by step and writes them bar by bar."""
    return _vae(config, _flat_stack(config), _bar_decoder(config))


def _hier(config: Config) -> Model:
    """Build a model that reads and writes rows bar by bar."""
    return _vae(config, _bar_stack(config), _bar_decoder(config))


ARCHITECTURES = {
    "flat": Architecture(_flat, unused_fields=("conductor_sizes",)),
    "hierdec": Architecture(_hierdec),
    "hier": Architecture(_hier),
}
