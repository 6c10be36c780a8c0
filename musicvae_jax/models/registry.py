"""From a configuration to a model: the one place that chooses by the name of an architecture.

A model is a `VAE` or a `Forecaster`, a record of pure functions of its parameters. To add one,
write a function that builds it from a configuration, and add a line to `ARCHITECTURES`. Training,
evaluation and generation call the functions of these records and nothing else.
Equal modules share one record, so JAX compiles its functions once for all models of a process that
differ only in their parameters.
Longer than 400 lines because the records of all models are made here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax import objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.models import cudnn, draws, lstm_models, native
from musicvae_jax.models.decoders import Dropout, Sampling
from musicvae_jax.models.dense import dense_vae, stacked_vae
from musicvae_jax.models.dense.cells import CellVAE
from musicvae_jax.models.dense.layers import UnitDropout
from musicvae_jax.models.dense.rolls import Likelihood
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.forecasters import (
    conv_forecaster,
    fields,
    gru_attention,
    lstm_attention,
    lstm_forecaster,
)
from musicvae_jax.models.forecasters.forecast import ForecasterModule
from musicvae_jax.models.hierarchical import HierarchicalDecoder
from musicvae_jax.models.lstm_models import Backend
from musicvae_jax.models.variational_autoencoder import VariationalAutoencoder
from musicvae_jax.models.waveform import waveform_vae
from musicvae_jax.tasks import get_task

Params = dict[str, Any]
# Records that are kept. Few: what JAX compiled of their functions is kept with them.
_KEPT = 8


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
        are hidden with that probability. Decoders that read no tokens take both and do nothing.
      generate: `generate(params, z, key, temperature) -> tokens` [B, T] or [B, T, K] int32;
        temperature 0 takes the best token.
      conductor: `conductor(params, z) -> [B, U, H]` float32, the bar embeddings; None in models
        without a conductor.
      nats: `nats(logits, tokens, lengths=None) -> [B, K]` float32, -log p(tokens | z) of each
        track. By default a token is a draw from the softmax of its logits.
      scores: `scores(logits, tokens) -> {name: [B]}`, how well the tokens are reconstructed; None
        for the accuracy of the most likely tokens.
      counts: `counts(predicted, tokens) -> {name: [B, K]}`, what `metrics.prediction_counts` counts
        of predicted rows; None if that function can, because rows have a token a step.
      best: `best(logits) -> tokens` [B, T] or [B, T, K] int32, the most likely row of each z. By
        default the most likely token of each step.

    Models of sound take samples [B, T] as tokens; their logits are the mean and the log scale of
    each sample, [B, T, 2]. Models of piano rolls take lists of note starts [B, T]; their logits are
    those of the cells, [B, ticks, pitches].

    An architecture that uses the field `dropout` also takes `dropout`, a probability, and
    `dropout_key` in `encode` and `logits`.
    """

    init: Callable[..., Params]
    encode: Callable[..., Posterior]
    logits: Callable[..., Columns]
    generate: Callable[..., jax.Array]
    conductor: Callable[..., jax.Array] | None = None
    nats: Callable[..., jax.Array] = objectives.reconstruction_nats_per_track
    scores: Callable[..., dict[str, jax.Array]] | None = None
    counts: Callable[[jax.Array, jax.Array], dict[str, jax.Array]] | None = None
    best: Callable[[Columns], jax.Array] = draws.best_tokens


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
      operations: counts the operations of encoding and of decoding one row; None for LSTMs, which
        are counted layer by layer (`experiments/cli/operation_counts.py`).
      in_magenta: Magenta has models of this architecture, so its formats can hold one.
      reads: the contents of rows that it models: "tokens", "sound" or "note starts".
    """

    build: Callable[[Config], Model]
    unused_fields: tuple[str, ...] = ()
    encodes_bars: bool = False
    operations: Callable[[Config], tuple[int, int]] | None = None
    in_magenta: bool = False
    reads: tuple[str, ...] = ("tokens",)


def build_model(config: Config) -> Model:
    """Return the model that a configuration describes.

    Raises:
      InputError: the task or the architecture is unknown, something is asked for that it does not
        have, or cuDNN is asked for and cannot run here.
    """
    name, train = config.model.architecture, config.train
    found = find_architecture(name)
    if train.dropout > 0 and "dropout" in found.unused_fields:
        raise InputError(
            f"dropout: {name} drops no units; use 0 (--input_dropout hides tokens from a decoder)"
        )
    if config.run.lstm_backend == "cudnn" and "lstm_backend" in found.unused_fields:
        raise InputError(f"lstm_backend: {name} has no LSTM; use auto")
    if config.optimiser == "muon" and "optimiser" in found.unused_fields:
        raise InputError(f"optimiser: muon is for LSTMs, and {name} has none; use adam")
    fitting = architectures_of(config.task)
    if name not in fitting:
        raise InputError(
            f"architecture: {name} models {' and '.join(found.reads)}, the task is {config.task}; "
            f"use one of {', '.join(fitting)}"
        )
    return found.build(config)


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


def architectures_of(task_name: str) -> tuple[str, ...]:
    """List the architectures that model rows of a task."""
    content = get_task(task_name).content
    return tuple(name for name, entry in ARCHITECTURES.items() if content in entry.reads)


def _functions(module: nn.Module) -> tuple[Callable[[jax.Array], Params], Callable[..., Any]]:
    """Return `init(key)` and `apply(method, params, ...)` of a module that has `declare()`."""

    def init(key: jax.Array) -> Params:
        return module.init(key, method="declare")["params"]

    def apply(method: str, params: Params, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    return init, apply


@functools.lru_cache(_KEPT)
def functions_of(module: VariationalAutoencoder) -> VAE:
    """Return the pure functions of a Flax module that has an encoder and a decoder."""
    init, apply = _functions(module)

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


@functools.lru_cache(_KEPT)
def forecaster_of(module: ForecasterModule) -> Forecaster:
    """Return the pure functions of a Flax module that forecasts."""
    init, apply = _functions(module)

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


def _lstm(build: Callable[[Config, Backend], VariationalAutoencoder]) -> Callable[[Config], VAE]:
    """Return what builds a model of LSTMs."""

    def build_model(config: Config) -> VAE:
        run_layer = None
        if config.run.lstm_backend == "cudnn":
            cudnn.check_device()
            run_layer = cudnn.run_layer
        dtype = compute_dtype(config.train.dtype)
        return functions_of(build(config, Backend(dtype, run_layer, native.uses_native(config))))

    return build_model


def _dense(
    build: Callable[[Config, jax.typing.DTypeLike], CellVAE],
) -> Callable[[Config], VAE]:
    """Return what builds a model of dense layers."""
    return lambda config: dense_functions(build(config, compute_dtype(config.train.dtype)))


@functools.lru_cache(_KEPT)
def dense_functions(module: CellVAE) -> VAE:
    """Return the pure functions of a Flax module of dense layers."""
    init, apply = _functions(module)

    def encode(
        params: Params,
        tokens: jax.Array,
        lengths: jax.Array | None = None,
        *,
        dropout: float = 0.0,
        dropout_key: jax.Array | None = None,
    ) -> Posterior:
        return apply("encode", params, tokens, lengths, _unit_dropout(dropout, dropout_key))

    def logits(
        params: Params,
        z: jax.Array,
        tokens: jax.Array,
        *,
        dropout: float = 0.0,
        dropout_key: jax.Array | None = None,
        **teacher_forcing: Any,
    ) -> Columns:
        del tokens, teacher_forcing
        return apply("logits", params, z, _unit_dropout(dropout, dropout_key))

    def generate(
        params: Params, z: jax.Array, key: jax.Array, temperature: jax.Array | float
    ) -> jax.Array:
        return apply("generate", params, z, key, temperature)

    return VAE(init, encode, logits, generate, nats=objectives.bernoulli_nats_per_track)


def _unit_dropout(probability: float, key: jax.Array | None) -> UnitDropout | None:
    """Return the dropout of a training step, None outside of training."""
    if probability == 0:
        return None
    if key is None:
        raise ValueError("dropout_key: dropped units need a random key")
    return UnitDropout(probability, key)


def _stacked(config: Config) -> VAE:
    """Build a model of bars; of piano rolls with the likelihood of their cells."""
    module = stacked_vae.build(config, compute_dtype(config.train.dtype))
    likelihood = stacked_vae.likelihood(config)
    return _roll_functions(module, likelihood) if likelihood else dense_functions(module)


@functools.lru_cache(_KEPT)
def _roll_functions(module: CellVAE, likelihood: Likelihood) -> VAE:
    """Return the pure functions of a Flax module that reads and writes piano rolls."""
    model = dense_functions(module)
    return model._replace(
        nats=likelihood.nats,
        scores=likelihood.scores,
        counts=likelihood.counts,
        best=likelihood.best,
        generate=lambda params, z, key, temperature: likelihood.drawn(
            model.logits(params, z, None), key, temperature
        ),
    )


def _waveform(config: Config) -> VAE:
    """Build a model of rows of samples."""
    return _sound_functions(waveform_vae.build(config, compute_dtype(config.train.dtype)))


@functools.lru_cache(_KEPT)
def _sound_functions(module: waveform_vae.WaveformVAE) -> VAE:
    """Return the pure functions of a Flax module of sound; a sample's noise is not drawn."""
    init, apply = _functions(module)
    return VAE(
        init=init,
        encode=lambda params, samples, lengths=None: apply("encode", params, samples),
        logits=lambda params, z, samples, **options: apply("distribution", params, z),
        generate=lambda params, z, key, temperature: apply("generate", params, z),
        nats=waveform_vae.gaussian_nats,
        scores=waveform_vae.snr_db,
    )


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

    own = ("decoder_sizes", "optimiser", *fields.FORECASTER)
    unused = [name for name in (*fields.VAE, *own) if name not in used]
    return Architecture(build_model, tuple(unused))


ARCHITECTURES = {
    "flat": Architecture(
        _lstm(lstm_models.flat),
        ("conductor_sizes", *fields.DENSE, *fields.FORECASTER),
        in_magenta=True,
    ),
    "hierdec": Architecture(
        _lstm(lstm_models.hierdec), (*fields.DENSE, *fields.FORECASTER), in_magenta=True
    ),
    "hier": Architecture(
        _lstm(lstm_models.hier),
        (*fields.DENSE, *fields.FORECASTER),
        encodes_bars=True,
        in_magenta=True,
    ),
    "dense_vae": Architecture(
        _dense(dense_vae.build),
        (*fields.RECURRENT, *fields.STACKED, *fields.FORECASTER),
        operations=dense_vae.operations,
    ),
    "stacked_vae": Architecture(
        _stacked,
        (*fields.RECURRENT, *fields.FORECASTER),
        operations=stacked_vae.operations,
        reads=("tokens", "note starts"),
    ),
    "waveform_vae": Architecture(
        _waveform,
        (
            *fields.RECURRENT,
            *fields.DENSE,
            *[name for name in fields.FORECASTER if name != "conv_width"],
            "init",
            "transpose",
        ),
        operations=waveform_vae.operations,
        reads=("sound",),
    ),
    "lstm_forecaster": _forecaster(lstm_forecaster.build, "decoder_sizes", "optimiser"),
    "conv_forecaster": _forecaster(
        conv_forecaster.build, "conv_filters", "conv_width", "conv_pool"
    ),
    "gru_attention": _forecaster(gru_attention.build, "decoder_sizes", "attention_size"),
    "lstm_attention": _forecaster(
        lstm_attention.build, "decoder_sizes", "optimiser", "attention_heads"
    ),
}
