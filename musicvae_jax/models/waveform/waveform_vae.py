"""`waveform_vae`: a row of samples through strided convolutions to z, and back.

    samples [B, T] -> residual blocks, each of half the length -> dense -> mu, sigma
    z -> dense -> residual blocks, each of twice the length -> mean and scale of each sample

A sample is Gaussian, with a mean of its own and one scale for all, both learned; 1 is full scale.

Reference: a course project of 2024: residual blocks of two convolutions, stride 2 in the first,
leaky ReLU of slope 0.4, instance normalisation and a skip connection; z of 2. Channels, widths and
the number of blocks are not known; the fields `encoder_sizes`, `decoder_sizes` and `conv_width`
set them.

Differences from the reference: a Gaussian likelihood in place of sigmoid cross-entropy, which does
not fit a signal between -1 and 1; the KL in closed form; the decoder normalises over the time steps
and channels of a row, not over the batch, so that a row's result does not depend on others.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.config import Config, InputError
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.waveform.convolutions import Conv, TransposedConv
from musicvae_jax.tasks import get_task

FULL_SCALE = 2**15
SLOPE = 0.4  # of the leaky ReLU
FIRST_SCALE = 0.1  # initial standard deviation of a sample
LEAST_LOG_SCALE = math.log(1.0 / FULL_SCALE)


def _leaky(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, SLOPE)


class DownBlock(nn.Module):
    """A residual block of half the length.

    Attributes:
      channels: of the output.
      width: samples that a convolution spans.
      dtype: type of the products.
    """

    channels: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Run the block: [B, T, C] -> [B, T / 2, channels]."""

        def conv(width: int, stride: int, name: str) -> Conv:
            return Conv(self.channels, width, stride, self.dtype, name=name)

        y = nn.GroupNorm(None, group_size=1, name="norm_0")(conv(self.width, 2, "conv_0")(x))
        y = conv(self.width, 1, "conv_1")(_leaky(y))
        y = nn.GroupNorm(None, group_size=1, name="norm_1")(y)
        return _leaky(y + conv(1, 2, "skip")(x))


class UpBlock(nn.Module):
    """A residual block of twice the length; the attributes are those of `DownBlock`."""

    channels: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Run the block: [B, T, C] -> [B, 2 * T, channels]."""
        above = TransposedConv(self.channels, self.width, self.dtype, name="conv_0")
        y = _leaky(nn.GroupNorm(1, name="norm_0")(above(x)))
        y = Conv(self.channels, self.width, dtype=self.dtype, name="conv_1")(y)
        skip = Conv(self.channels, 1, dtype=self.dtype, name="skip")(x)
        return _leaky(nn.GroupNorm(1, name="norm_1")(y) + jnp.repeat(skip, 2, axis=1))


class WaveformEncoder(nn.Module):
    """q(z | samples).

    Attributes:
      sizes: channels of each block.
      width: samples that a convolution spans.
      z_size: Z.
      dtype: type of the products.
    """

    sizes: tuple[int, ...]
    width: int
    z_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, samples: jax.Array) -> Posterior:
        """Encode samples [B, T] integer."""
        x = samples.astype(jnp.float32)[..., None] / FULL_SCALE
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 2 ** len(self.sizes)), (0, 0)))
        for n, channels in enumerate(self.sizes):
            x = DownBlock(channels, self.width, self.dtype, name=f"block_{n}")(x)
        x = x.reshape(len(x), -1)
        mu = nn.Dense(self.z_size, dtype=self.dtype, name="mu")(x)
        log_variance = nn.Dense(self.z_size, dtype=self.dtype, name="log_variance")(x)
        return Posterior(mu.astype(jnp.float32), jnp.exp(0.5 * log_variance.astype(jnp.float32)))


class WaveformDecoder(nn.Module):
    """p(samples | z).

    Attributes:
      num_steps: T.
      sizes: channels at the input of each block.
      width: samples that a convolution spans.
      dtype: type of the products.
    """

    num_steps: int
    sizes: tuple[int, ...]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array) -> Columns:
        """Compute mean and log scale of each sample, one array [B, T, 2] float32."""
        length = -(-self.num_steps // 2 ** len(self.sizes))
        x = nn.Dense(length * self.sizes[0], dtype=self.dtype, name="input")(z)
        x = _leaky(x).reshape(len(z), length, self.sizes[0])
        for n, channels in enumerate((*self.sizes[1:], self.sizes[-1])):
            x = UpBlock(channels, self.width, self.dtype, name=f"block_{n}")(x)
        mean = Conv(1, self.width, dtype=self.dtype, name="output")(x)
        mean = jnp.tanh(mean[:, : self.num_steps].astype(jnp.float32))
        first = nn.initializers.constant(math.log(FIRST_SCALE))
        log_scale = jnp.maximum(self.param("log_scale", first, ()), LEAST_LOG_SCALE)
        return (jnp.concatenate([mean, jnp.full_like(mean, log_scale)], axis=-1),)


class WaveformVAE(nn.Module):
    """The encoder and the decoder of rows of samples."""

    encoder: WaveformEncoder
    decoder: WaveformDecoder

    def declare(self) -> None:
        """Create all parameters."""
        row = jnp.zeros((1, self.decoder.num_steps), jnp.int32)
        self.decoder(self.encoder(row).mu)

    def encode(self, samples: jax.Array) -> Posterior:
        """Encode samples [B, T] integer."""
        return self.encoder(samples)

    def distribution(self, z: jax.Array) -> Columns:
        """Compute mean and log scale of each sample given z [B, Z]: one array [B, T, 2]."""
        return self.decoder(z)

    def generate(self, z: jax.Array) -> jax.Array:
        """Decode z [B, Z] to the mean of each sample: [B, T] int32."""
        mean = self.decoder(z)[0][..., 0] * FULL_SCALE
        return jnp.clip(jnp.rint(mean), -FULL_SCALE, FULL_SCALE - 1).astype(jnp.int32)


def gaussian_nats(
    distribution: Columns, samples: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Compute -log p of samples [B, T] given their mean and log scale [B, T, 2]: [B, 1] nats.

    The density is that of samples between -1 and 1; the first `lengths` [B] samples count.
    """
    mean, log_scale = distribution[0][..., 0], distribution[0][..., 1]
    error = (samples / FULL_SCALE - mean) * jnp.exp(-log_scale)
    nats = 0.5 * error**2 + log_scale + 0.5 * math.log(2.0 * math.pi)
    if lengths is not None:
        nats = jnp.where(jnp.arange(nats.shape[1])[None, :] < lengths[:, None], nats, 0.0)
    return nats.sum(axis=1, keepdims=True)


def snr_db(distribution: Columns, samples: jax.Array) -> dict[str, jax.Array]:
    """Compute the signal-to-noise ratio of the means, "snr_db" [B]."""
    signal = samples / FULL_SCALE
    noise = signal - distribution[0][..., 0]
    tiny = 1e-12  # of silence
    ratio = (jnp.sum(signal**2, axis=1) + tiny) / (jnp.sum(noise**2, axis=1) + tiny)
    return {"snr_db": 10.0 * jnp.log10(ratio)}


def build(config: Config, dtype: jax.typing.DTypeLike) -> WaveformVAE:
    """Build the module of a configuration.

    Raises:
      InputError: early stopping or the learning rate watches an accuracy.
    """
    task, model, run = get_task(config.task), config.model, config.run
    is_plateau = config.train.learning_rate_schedule == "plateau"
    watched = {"stop_metric": run.stop_patience > 0 and run.stop_metric}
    watched["plateau_metric"] = is_plateau and config.train.plateau_metric
    for field, metric in watched.items():
        if metric == "accuracy":
            raise InputError(f"{field}: {model.architecture} has no accuracy; use loss")
    encoder = WaveformEncoder(model.encoder_sizes, model.conv_width, model.z_size, dtype)
    decoder = WaveformDecoder(task.num_steps, model.decoder_sizes, model.conv_width, dtype)
    return WaveformVAE(encoder, decoder)


def operations(config: Config) -> tuple[int, int]:
    """Count the operations of encoding and of decoding one row; a multiply-add is two."""
    num_steps, model = get_task(config.task).num_steps, config.model
    width, down, up = model.conv_width, model.encoder_sizes, model.decoder_sizes
    encoding = decoding = 0
    for n, (outer, inner) in enumerate(itertools.pairwise((1, *down))):
        length = -(-num_steps // 2 ** (n + 1))  # after the block
        encoding += 2 * length * inner * (width * (outer + inner) + outer)
    encoding += 2 * length * down[-1] * 2 * model.z_size
    length = -(-num_steps // 2 ** len(up))
    decoding += 2 * model.z_size * length * up[0]
    for inner, outer in itertools.pairwise((*up, up[-1])):
        decoding += 2 * length * outer * (width * (inner + 2 * outer) + inner)
        length *= 2
    return encoding, decoding + 2 * num_steps * up[-1] * width
