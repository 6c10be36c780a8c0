"""Initial parameters: the reference's, or scales that make the decoder use z from the start.

The reference draws every kernel that touches z with standard deviation 0.001: mu is near 0, sigma
near 0.7, and z has no effect on the decoder, which then learns to ignore it and stays on that
plateau for hundreds of steps. The default scales each part by the size of its inputs:

    mu       reads LSTM outputs that are small at first; without a gain mu would hardly vary
    sigma    starts at softplus(-1) = 0.31, below the standard deviation 1 of the prior
    context  rows of the decoder's kernel for z (or a bar's embedding); Glorot's rule for the whole
             kernel, most of whose rows are for tokens, makes them too small
    state    kernels of the initial states
    bar      the decoder of a bar reads the conductor's output, whose values have a root mean square
             of 0.25, 0.2 and 0.13 with 64, 256 and 1,024 units; its gains for context and state
             are divided by that
    memory   gate biases of the encoder and the conductor for time scales up to the length of the
             sequence; with bias 1 a cell keeps 0.73 per step, which is nothing after 16 steps

Gradients stay bounded as sequences and layers grow, by three rules:

    length   Two bars, 32 steps, start with open input gates. In a longer sequence, of T steps, a
             cell that remembers longer takes in less: its input bias loses the share
             1 - (32 / T)^2 of what its forget bias gains, 98% in 16 bars. With open input gates
             the cell states grow with the length, and the gradient of 256 steps explodes (norms
             of 14,000 to 800,000 at step 0).
    tokens   The gain of mu is 6 for rows of up to 256 tokens, 16 bars of one track. Beyond, it
             falls with the square root of the tokens, as the loss is their sum: 3.5 for trios. The
             gain of a bar's embedding falls with the tokens, to a third for trios.
    width    The gains are those of 64 units, or of two layers of 128 for rows of two bars. With
             more units they fall with the square root of their number, because the gradient of a
             part is a sum over its units.

Reference: initial values in magenta/models/music_vae/lstm_models.py and lstm_utils.py;
biases of the gates: Tallec and Ollivier 2018, "Can recurrent neural networks warp time?",
section 3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer: TypeAlias = Callable[..., jax.Array]  # (key, shape, dtype)
GLOROT = nn.initializers.glorot_uniform()
ZEROS = nn.initializers.zeros
# Layers of up to so many units take the gains as they are, and the initial states of all layers
# together up to so many. In models of rows of up to SHORT_SEQUENCE tokens: two layers of 128.
FULL_GAIN_UNITS = 64
SHORT_FULL_GAIN_UNITS, SHORT_FULL_GAIN_STATES = 128, 256
# Rows of up to so many tokens take the gains as they are: 16 bars of one track.
FULL_GAIN_TOKENS = 256
# Steps of a sequence that needs no closed input gates: two bars.
SHORT_SEQUENCE = 32
MU_GAIN, STATE_GAIN = 6.0, 2.0  # of the kernels of mu and of initial states
# Root mean square of a bar's embedding of so many units at the start. It falls with the fifth root
# of their number.
BAR_EMBEDDING_RMS, BAR_EMBEDDING_UNITS = 0.2, 256


class Initialisation(NamedTuple):
    """Initialisers that differ between the two schemes; other kernels are Glorot, biases 0.

    Attributes:
      mu: kernel of mu.
      sigma: kernel of sigma before its softplus.
      sigma_bias: bias of sigma before its softplus.
      state: kernels of initial states.
      context_gain: standard deviation of the contribution of z ~ N(0, 1) to each gate; 0 uses
        Glorot's rule for the whole kernel.
      has_memory: whether gate biases depend on the length of the sequence.
      full_gain_units: layers of more units have smaller gains.
    """

    mu: Initializer
    sigma: Initializer
    sigma_bias: Initializer
    state: Initializer
    context_gain: float
    has_memory: bool
    full_gain_units: int = FULL_GAIN_UNITS

    def context_kernel(self, first_row: int, num_rows: int) -> Initializer:
        """Initialise an LSTM kernel whose `num_rows` rows from `first_row` read a context."""
        if self.context_gain == 0:
            return GLOROT

        def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            gain = _gain(self.context_gain, shape[1] // 4, self.full_gain_units)
            scale = gain / math.sqrt(num_rows)
            rest_key, rows_key = jax.random.split(key)
            rows = scale * jax.random.normal(rows_key, (num_rows, shape[1]), dtype)
            kernel = GLOROT(rest_key, shape, dtype)
            return jax.lax.dynamic_update_slice_in_dim(kernel, rows, first_row, axis=0)

        return draw

    def cell_bias(self, num_steps: int) -> Initializer:
        """Initialise the bias [4H] of an LSTM that must remember up to `num_steps` steps."""
        if not self.has_memory or num_steps < 3:
            return ZEROS

        def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            H = shape[0] // 4
            # The forget bias 1 is added at run time; no gate forgets faster than with it alone.
            longest = float(num_steps - 1)
            time = jax.random.uniform(key, (H,), dtype, minval=math.e, maxval=max(longest, 3.0))
            longer = jnp.log(time) - 1.0
            closed = max(1.0 - (SHORT_SEQUENCE / num_steps) ** 2, 0.0)
            bias = jnp.zeros(shape, dtype).at[2 * H : 3 * H].set(longer)
            return bias.at[:H].set(-closed * longer)

        return draw


REFERENCE = Initialisation(
    mu=nn.initializers.normal(0.001),
    sigma=nn.initializers.normal(0.001),
    sigma_bias=ZEROS,
    state=nn.initializers.normal(0.001),
    context_gain=0.0,
    has_memory=False,
)


def _gain(gain: float, units: int, full_gain_units: int) -> float:
    """Return the gain of a part with so many units."""
    return gain * math.sqrt(min(full_gain_units / units, 1.0))


def _by_inputs(
    gain: float, full_gain_units: int, units_of: Callable[[tuple[int, ...]], int]
) -> Initializer:
    """Draw with standard deviation `gain / sqrt(inputs)`, less for many units of the shape."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        scale = _gain(gain, units_of(shape), full_gain_units) / math.sqrt(shape[0])
        return scale * jax.random.normal(key, shape, dtype)

    return draw


def _mu(gain: float, full_gain_units: int = FULL_GAIN_UNITS) -> Initializer:
    """Draw the kernel of mu, which reads h of both directions."""
    return _by_inputs(gain, full_gain_units, lambda shape: shape[0] // 2)


def _state(gain: float, full_gain_units: int = FULL_GAIN_UNITS) -> Initializer:
    """Draw a kernel of initial states: h and c of all layers."""
    return _by_inputs(gain, full_gain_units, lambda shape: shape[1] // 2)


DEFAULT = Initialisation(
    mu=_mu(MU_GAIN),
    sigma=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    sigma_bias=nn.initializers.constant(-1.0),
    state=_state(STATE_GAIN),
    context_gain=1.5,
    has_memory=True,
)
INITIALISATIONS = {"reference": REFERENCE, "default": DEFAULT}


# Kept, so that equal models have the same functions and share what is compiled.
@functools.lru_cache
def of_rows(name: str, num_tokens: int) -> Initialisation:
    """Return the scheme of a name in `INITIALISATIONS` for rows of so many tokens, T * K."""
    initial = INITIALISATIONS[name]
    if initial.context_gain == 0:
        return initial
    if num_tokens <= SHORT_SEQUENCE:
        return initial._replace(
            mu=_mu(MU_GAIN, SHORT_FULL_GAIN_UNITS),
            state=_state(STATE_GAIN, SHORT_FULL_GAIN_STATES),
            full_gain_units=SHORT_FULL_GAIN_UNITS,
        )
    return initial._replace(mu=_mu(MU_GAIN * math.sqrt(min(FULL_GAIN_TOKENS / num_tokens, 1.0))))


@functools.lru_cache
def of_bars(initial: Initialisation, num_tokens: int, conductor_units: int) -> Initialisation:
    """Adapt a scheme to a decoder whose context is the embedding of a bar.

    Args:
      initial: the scheme of a decoder that reads z; the reference's stays as it is.
      num_tokens: tokens per row, T * K.
      conductor_units: size of the embedding.
    """
    if initial.context_gain == 0:
        return initial
    rms = BAR_EMBEDDING_RMS * (BAR_EMBEDDING_UNITS / conductor_units) ** 0.2
    gain = initial.context_gain / rms * min(FULL_GAIN_TOKENS / num_tokens, 1.0)
    return initial._replace(state=_state(STATE_GAIN / rms), context_gain=gain)
