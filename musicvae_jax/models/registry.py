"""From a configuration to a model: the one place that chooses by the name of an architecture.

A model is a `VAE` or a `Forecaster`, a record of pure functions of its parameters. To add one,
write a function that builds it from a configuration, and add a line to `ARCHITECTURES`. Training,
evaluation and generation call the functions of these records and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from musicvae_jax.config import Config, InputError
from musicvae_jax.models import cudnn, native
from musicvae_jax.models.decoders import CategoricalDecoder, Dropout, Sampling
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import (
    BidirectionalStack,
    Encoder,
    HierarchicalStack,
    Posterior,
)
from musicvae_jax.models.flat import FlatDecoder
from musicvae_jax.models.forecasters import (
    conv_forecaster,
    fields,
    gru_attention,
    lstm_attention,
    lstm_forecaster,
)
from musicvae_jax.models.forecasters.forecast import ForecasterModule
from musicvae_jax.models.hierarchical import Conductor, HierarchicalDecoder
from musicvae_jax.models.initialisation import INITIALISATIONS
from musicvae_jax.models.musicvae import VariationalAutoencoder
from musicvae_jax.tasks import get_task

Params = dict[str, Any]


class VAE(NamedTuple):
    """A variational autoencoder as pure functions of its parameters; jit what you call often.

    The first four are required, `conductor` is optional. T, K and V_k are those of the task.

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


class Forecaster(NamedTuple):
    """A next-step forecaster, p(token | tokens before it), as pure functions of its parameters.

    T, K and V_k are those of the task. A forecaster has no latent space.

    Attributes:
      init: `init(key) -> params`, a nested dict of float32 arrays.
      next_logits: `next_logits(params, tokens)` -> K arrays [B, T, V_k] float32, all steps in one
        pass: step t sees the tokens before t. Tokens are [B, T] or [B, T, K] integer, for any T.
      continuation: `continuation(params, seed, num_steps, key, temperature) -> tokens`
        [B, num_steps] or [B, num_steps, K] int32, what follows the tokens `seed` [B, S(, K)], with
        every output fed back. S may be 0; `num_steps` is static; temperature 0 takes the best
        token.
    """

    init: Callable[..., Params]
    next_logits: Callable[..., Columns]
    continuation: Callable[..., jax.Array]


Model = VAE | Forecaster


class Architecture(NamedTuple):
    """An entry of `ARCHITECTURES`.

    Attributes:
      build: returns the model of a configuration.
      unused_fields: configuration fields that have no effect.
      encodes_bars: the encoder reads bars, then the sequence of bars.
    """

    build: Callable[[Config], Model]
    unused_fields: tuple[str, ...] = ()
    encodes_bars: bool = False


def build_model(config: Config) -> Model:
    """Return the model that a configuration describes.

    Raises:
      InputError: the task or the architecture is unknown, or cuDNN is asked for and cannot run
        here.
    """
    return find_architecture(config.model.architecture).build(config)


def build_vae(config: Config) -> VAE:
    """Return the variational autoencoder that a configuration describes.

    Raises:
      InputError: see `build_model`; or the model has no latent space.
    """
    model = build_model(config)
    if isinstance(model, Forecaster):
        raise InputError(
            f"architecture: {config.model.architecture} has no latent space: generate with it by "
            "--mode=continue or --mode=sample"
        )
    return model


def find_architecture(name: str) -> Architecture:
    """Look up an architecture.

    Raises:
      InputError: none has this name.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"architecture: {name!r} is not one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def architectures_with(field: str) -> tuple[str, ...]:
    """List the architectures in which a configuration field has an effect."""
    return tuple(name for name, entry in ARCHITECTURES.items() if field not in entry.unused_fields)


def functions_of(module: VariationalAutoencoder) -> VAE:
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
    return VAE(init, encode, logits, generate, conductor if has_conductor else None)


def forecaster_of(module: ForecasterModule) -> Forecaster:
    """Return the pure functions of a Flax module that forecasts."""

    def init(key: jax.Array) -> Params:
        return module.init(key, method="declare")["params"]

    def apply(method: str, params: Params, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def next_logits(params: Params, tokens: jax.Array) -> Columns:
        return apply("next_logits", params, tokens)

    def continuation(
        params: Params,
        seed: jax.Array,
        num_steps: int,
        key: jax.Array,
        temperature: jax.Array | float,
    ) -> jax.Array:
        return apply("continuation", params, seed, num_steps, key, temperature)

    return Forecaster(init, next_logits, continuation)


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


def uses_native(config: Config) -> bool:
    """Tell whether this process runs the LSTMs of a model by the kernel of `native.py`.

    "auto" takes it for float32 on a CPU that is one device: XLA cannot divide a call of it.

    Raises:
      InputError: it is asked for and cannot run here.
    """
    backend = config.run.lstm_backend
    if backend not in ("auto", "native"):
        return False
    if backend == "auto":
        dtype = compute_dtype(config.train.dtype)
        on_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
        return on_one_cpu and dtype == jnp.float32 and native.load() > 0
    instead = "lstm_backend=xla runs everywhere"
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        raise InputError(
            f"lstm_backend: native runs on one CPU device (--cpu_devices=1), JAX has "
            f"{jax.device_count()} of kind {jax.devices()[0].device_kind}; {instead}"
        )
    if not native.load():
        raise InputError(
            "lstm_backend: native needs a C++ compiler (g++ or clang++) and an x86-64 processor "
            f"with AVX2; {instead}"
        )
    return True


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
        uses_native(config),
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
) -> VAE:
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
        uses_native(config),
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
        uses_native(config),
    )
    core = _core(config, tuple((track.num_classes,) for track in task.tracks), sizes[-1])
    return HierarchicalDecoder(conductor, core, task.num_bars)


def _flat(config: Config) -> VAE:
    """Build a model that reads and writes rows step by step."""
    return _vae(config, _flat_stack(config), _flat_decoder(config))


def _hierdec(config: Config) -> VAE:
    """Build a model that reads rows step by step and writes them bar by bar."""
    return _vae(config, _flat_stack(config), _bar_decoder(config))


def _hier(config: Config) -> VAE:
    """Build a model that reads and writes rows bar by bar."""
    return _vae(config, _bar_stack(config), _bar_decoder(config))


class _BuildModule(Protocol):
    def __call__(
        self, config: Config, depths: tuple[int, ...], dtype: jax.typing.DTypeLike
    ) -> ForecasterModule: ...


def _forecaster(build: _BuildModule, *used: str) -> Architecture:
    """Return the entry of a forecaster whose module uses these fields of the configuration."""

    def build_model(config: Config) -> Forecaster:
        fields.check(config)
        depths = tuple(track.num_classes for track in get_task(config.task).tracks)
        return forecaster_of(build(config, depths, compute_dtype(config.train.dtype)))

    own = ("decoder_sizes", *fields.FORECASTER)
    unused = [name for name in (*fields.VAE, *own) if name not in used]
    return Architecture(build_model, tuple(unused))


ARCHITECTURES = {
    "flat": Architecture(_flat, ("conductor_sizes", *fields.FORECASTER)),
    "hierdec": Architecture(_hierdec, fields.FORECASTER),
    "hier": Architecture(_hier, fields.FORECASTER, encodes_bars=True),
    "lstm_forecaster": _forecaster(lstm_forecaster.build, "decoder_sizes"),
    "conv_forecaster": _forecaster(
        conv_forecaster.build, "conv_filters", "conv_width", "conv_pool"
    ),
    "gru_attention": _forecaster(gru_attention.build, "decoder_sizes", "attention_size"),
    "lstm_attention": _forecaster(lstm_attention.build, "decoder_sizes", "attention_heads"),
}
