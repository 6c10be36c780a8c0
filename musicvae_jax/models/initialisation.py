"""Initial parameters: the reference's, or scales that make the decoder use z from the start.

The reference draws every kernel that touches z with standard deviation 0.001: mu is near 0, sigma
near 0.7, and z has no effect on the decoder, which then learns to ignore it and stays on that
plateau for hundreds of steps. The default scales each part by the size of its inputs:

    mu       reads LSTM outputs of about 0.15; its scale gives mu about the variance of the prior
    sigma    starts at softplus(-1) = 0.31, below the spread of mu, so that z separates examples
    context  rows of the decoder's kernel for z (or a bar's embedding); Glorot's rule for the whole
             kernel, most of whose rows are for tokens, makes them too small
    state    kernels of the initial states
    memory   forget biases of the encoder and the conductor for time scales up to the length of the
             sequence; with bias 1 a cell keeps 0.73 per step, which is nothing after 16 steps

Chosen by examples needed and by the ELBO on validation rows
(`python -m experiments.benchmarks.time_to_accuracy`).

Reference: initial values in magenta/models/music_vae/lstm_models.py and lstm_utils.py;
forget biases: Tallec and Ollivier 2018, "Can recurrent neural networks warp time?", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer: TypeAlias = Callable[..., jax.Array]  # (key, shape, dtype)
GLOROT = nn.initializers.glorot_uniform()
ZEROS = nn.initializers.zeros


class Initialisation(NamedTuple):
    """Initialisers that differ between the two schemes; other kernels are Glorot, biases 0.

    Attributes:
      mu: kernel of mu.
      sigma: kernel of sigma before its softplus.
      sigma_bias: bias of sigma before its softplus.
      state: kernels of initial states.
      context_gain: standard deviation of the contribution of z ~ N(0, 1) to each gate; 0 uses
        Glorot's rule for the whole kernel.
      has_memory: whether forget biases grow with the length of the sequence.
    """

    mu: Initializer
    sigma: Initializer
    sigma_bias: Initializer
    state: Initializer
    context_gain: float
    has_memory: bool

    def context_kernel(self, first_row: int, num_rows: int) -> Initializer:
        """Initialise an LSTM kernel whose `num_rows` rows from `first_row` read a context."""
        if self.context_gain == 0:
            return GLOROT
        scale = self.context_gain / math.sqrt(num_rows)

        def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
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
            return jnp.zeros(shape, dtype).at[2 * H : 3 * H].set(jnp.log(time) - 1.0)

        return draw


REFERENCE = Initialisation(
    mu=nn.initializers.normal(0.001),
    sigma=nn.initializers.normal(0.001),
    sigma_bias=ZEROS,
    state=nn.initializers.normal(0.001),
    context_gain=0.0,
    has_memory=False,
)


def _by_inputs(gain: float) -> Initializer:
    """Draw with standard deviation `gain / sqrt(inputs)`."""
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


DEFAULT = Initialisation(
    mu=_by_inputs(6.0),
    sigma=_by_inputs(1.0),
    sigma_bias=nn.initializers.constant(-1.0),
    state=_by_inputs(2.0),
    context_gain=1.5,
    has_memory=True,
)
INITIALISATIONS = {"reference": REFERENCE, "default": DEFAULT}
