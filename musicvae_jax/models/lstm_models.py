"""Build the models of LSTMs from a configuration: "flat", "hierdec" and "hier"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from musicvae_jax.config import Config
from musicvae_jax.models.decoders import CategoricalDecoder
from musicvae_jax.models.encoders import BidirectionalStack, Encoder, HierarchicalStack
from musicvae_jax.models.flat import FlatDecoder
from musicvae_jax.models.hierarchical import Conductor, HierarchicalDecoder
from musicvae_jax.models.initialisation import Initialisation, of_bars, of_rows
from musicvae_jax.models.variational_autoencoder import VariationalAutoencoder
from musicvae_jax.tasks import get_task


class Backend(NamedTuple):
    """What runs the layers.

    Attributes:
      dtype: type of the products.
      run_layer: runs a layer from its dense inputs (`cudnn.run_layer`); None: `lstm.recur`.
      use_native: whether `lstm.recur` uses the kernel of `native.py`.
    """

    dtype: Any
    run_layer: Callable[..., jax.Array] | None
    use_native: bool


def _initial(config: Config) -> Initialisation:
    """Return the initialisation of a configuration's rows."""
    task = get_task(config.task)
    return of_rows(config.model.init, task.num_steps * len(task.tracks))


def _stack(config: Config, backend: Backend, inputs: int, num_steps: int) -> BidirectionalStack:
    """Build the layers of an encoder that reads `num_steps` steps of `inputs` features."""
    return BidirectionalStack(
        inputs,
        config.model.encoder_sizes,
        _initial(config),
        num_steps,
        backend.dtype,
        config.run.remat,
        backend.run_layer,
        backend.use_native,
    )


def _flat_stack(config: Config, backend: Backend) -> BidirectionalStack:
    """Build encoder layers over all steps of a row."""
    task = get_task(config.task)
    return _stack(config, backend, task.encoder_depth, task.num_steps)


def _bar_stack(config: Config, backend: Backend) -> HierarchicalStack:
    """Build encoder layers over the steps of a bar, and others over the bars."""
    task = get_task(config.task)
    bars = _stack(config, backend, task.encoder_depth, task.num_steps // task.num_bars)
    rows = _stack(config, backend, bars.embedding_size, task.num_bars)
    return HierarchicalStack(bars, rows, task.num_bars)


def _vae(
    config: Config,
    backend: Backend,
    stack: BidirectionalStack | HierarchicalStack,
    decoder: FlatDecoder | HierarchicalDecoder,
) -> VariationalAutoencoder:
    """Build the model with these encoder layers and this decoder."""
    task, model = get_task(config.task), config.model
    encoder = Encoder(
        task.tracks,
        stack,
        model.z_size,
        _initial(config),
        backend.dtype,
    )
    return VariationalAutoencoder(encoder, decoder, task.num_steps)


def _core(
    config: Config,
    backend: Backend,
    depths: tuple[tuple[int, ...], ...],
    context_size: int,
    initial: Initialisation,
) -> CategoricalDecoder:
    """Build the LSTM decoder; `depths` has the V_k of the columns of each stream."""
    return CategoricalDecoder(
        depths,
        context_size,
        config.model.decoder_sizes,
        initial,
        backend.dtype,
        config.run.remat,
        backend.run_layer,
        backend.use_native,
    )


def _flat_decoder(config: Config, backend: Backend) -> FlatDecoder:
    """Build one decoder over all steps, with one stream for all tracks."""
    task, model = get_task(config.task), config.model
    depths = (tuple(track.num_classes for track in task.tracks),)
    return FlatDecoder(_core(config, backend, depths, model.z_size, _initial(config)))


def _bar_decoder(config: Config, backend: Backend) -> HierarchicalDecoder:
    """Build a conductor over bars, and a decoder of each bar with a stream for each track."""
    task, model = get_task(config.task), config.model
    sizes, initial = model.resolved_conductor_sizes, _initial(config)
    conductor = Conductor(
        model.z_size,
        sizes,
        initial,
        task.num_bars,
        backend.dtype,
        backend.run_layer,
        backend.use_native,
    )
    depths = tuple((track.num_classes,) for track in task.tracks)
    num_tokens = task.num_steps * len(task.tracks)
    of_bar = of_bars(initial, num_tokens, sizes[-1])
    core = _core(config, backend, depths, sizes[-1], of_bar)
    return HierarchicalDecoder(conductor, core, task.num_bars)


def flat(config: Config, backend: Backend) -> VariationalAutoencoder:
    """Build a model that reads and writes rows step by step."""
    return _vae(config, backend, _flat_stack(config, backend), _flat_decoder(config, backend))


def hierdec(config: Config, backend: Backend) -> VariationalAutoencoder:
    """Build a model that reads rows step by step and writes them bar by bar."""
    return _vae(config, backend, _flat_stack(config, backend), _bar_decoder(config, backend))


def hier(config: Config, backend: Backend) -> VariationalAutoencoder:
    """Build a model that reads and writes rows bar by bar."""
    return _vae(config, backend, _bar_stack(config, backend), _bar_decoder(config, backend))
