"""Points in z: arcs and lines, grids, variations of a piece, paths through several points.

Pure geometry; `operations` decodes what these functions return. Samples from the prior lie near a
sphere of radius sqrt(Z). Points on a straight line between two of them lie inside it, where the
decoder has seen little training data; an arc, the default, stays near the sphere.

Reference: `_slerp` in magenta/models/music_vae/trained_model.py.

Differences from the reference: `slerp` is defined for equal, opposite and zero ends, and gives
its ends exactly.

The functions are compiled: their first call would compile each of their operations otherwise.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import InputError

KINDS = ("slerp", "linear")

# Below this sine the arc is a straight line to float32 precision, or has no direction.
_MIN_SINE = 1e-3


def slerp(a: jax.Array, b: jax.Array, fractions: jax.Array) -> jax.Array:
    """Interpolate between a and b along the arc, at constant angular speed.

    Where the angle is 0 or 180 degrees or an end is 0, the arc has no direction and the path
    is the straight line. Fractions 0 and 1 give a and b to the bit.

    Args:
      a: [Z] float32, at fraction 0.
      b: [Z] float32, at fraction 1.
      fractions: [N] float32.

    Returns:
      [N, Z] float32.

    Reference: `_slerp` in magenta/models/music_vae/trained_model.py.
    """
    unit_a, unit_b = _unit(a), _unit(b)
    # arccos of the product loses all digits of small angles in float32.
    chord, sum_length = jnp.linalg.norm(unit_a - unit_b), jnp.linalg.norm(unit_a + unit_b)
    angle = 2.0 * jnp.arctan2(chord, sum_length)
    sine = jnp.sin(angle)
    has_ends = (jnp.linalg.norm(unit_a) > 0.5) & (jnp.linalg.norm(unit_b) > 0.5)
    # At the ends both paths meet, and the line's weights are 0 and 1 without rounding.
    inside = (fractions != 0.0) & (fractions != 1.0)
    is_arc = (sine > _MIN_SINE) & has_ends & inside
    safe = jnp.where(sine > _MIN_SINE, sine, 1.0)
    weight_a = jnp.where(is_arc, jnp.sin((1.0 - fractions) * angle) / safe, 1.0 - fractions)
    weight_b = jnp.where(is_arc, jnp.sin(fractions * angle) / safe, fractions)
    return weight_a[:, None] * a[None, :] + weight_b[:, None] * b[None, :]


def linear(a: jax.Array, b: jax.Array, fractions: jax.Array) -> jax.Array:
    """Interpolate linearly between a [Z] and b [Z]: [N, Z] at `fractions` [N]."""
    return (1.0 - fractions)[:, None] * a[None, :] + fractions[:, None] * b[None, :]


@functools.partial(jax.jit, static_argnames="kind")
def between(a: jax.Array, b: jax.Array, fractions: jax.Array, kind: str = "slerp") -> jax.Array:
    """Interpolate between a [Z] and b [Z] by `slerp` or `linear`: [N, Z] at `fractions` [N].

    Raises:
      InputError: `kind` is neither.
    """
    if kind not in KINDS:
        raise InputError(f"path: {kind!r} is not one of {', '.join(KINDS)}")
    return (slerp if kind == "slerp" else linear)(a, b, fractions)


def grid(corners: jax.Array, rows: int, columns: int, kind: str = "slerp") -> jax.Array:
    """Fill a grid between four points: along the upper and lower edge, then from edge to edge.

    Args:
      corners: [4, Z] float32: upper left, upper right, lower left, lower right.
      rows: R, 2 or more.
      columns: C, 2 or more.
      kind: "slerp" or "linear".

    Returns:
      [R, C, Z] float32; its corners are `corners`.

    Raises:
      InputError: there are not four corners, or the grid is too small or its kind unknown.
    """
    if len(corners) != 4:
        raise InputError(f"corners: {len(corners)} given, a grid has 4")
    for name, size in (("rows", rows), ("columns", columns)):
        if size < 2:
            raise InputError(f"{name}: {size!r} is out of range, it must be 2 or more")
    across, down = jnp.linspace(0.0, 1.0, columns), jnp.linspace(0.0, 1.0, rows)
    return grid_at(corners, across, down, kind)


@functools.partial(jax.jit, static_argnames="kind")
def grid_at(
    corners: jax.Array, across: jax.Array, down: jax.Array, kind: str = "slerp"
) -> jax.Array:
    """Fill a grid like `grid`, at given fractions.

    Args:
      corners: [4, Z] float32: upper left, upper right, lower left, lower right.
      across: [C] float32, fractions of the way from left to right.
      down: [R] float32, fractions of the way from the upper to the lower edge.
      kind: "slerp" or "linear".

    Returns:
      [R, C, Z] float32.
    """
    upper = between(corners[0], corners[1], across, kind)
    lower = between(corners[2], corners[3], across, kind)
    return jax.vmap(lambda a, b: between(a, b, down, kind), out_axes=1)(upper, lower)


@jax.jit
def similar(z: jax.Array, noise: jax.Array, amount: jax.Array | float) -> jax.Array:
    """Move each point along the arc towards its own noise.

    Noise from N(0, 1) is nearly orthogonal to z in many dimensions. The correlation with z then
    falls as the cosine of amount * 90 degrees, and the length changes smoothly from that of z to
    that of the noise, so variations stay where the decoder has been trained.

    Args:
      z: [B, Z] float32.
      noise: [B, Z] float32.
      amount: scalar or [B], 0 (z itself, to the bit) to 1 (the noise itself).

    Returns:
      [B, Z] float32.
    """
    amounts = jnp.broadcast_to(jnp.asarray(amount, jnp.float32), z.shape[:1])
    return jax.vmap(lambda a, b, fraction: slerp(a, b, fraction[None])[0])(z, noise, amounts)


@jax.jit
def shifted(z: jax.Array, vector: jax.Array, amounts: jax.Array) -> jax.Array:
    """Add multiples of one vector to each point.

    Args:
      z: [B, Z] float32.
      vector: [Z] float32.
      amounts: [N] float32.

    Returns:
      [B, N, Z] float32.
    """
    return z[:, None, :] + amounts[None, :, None] * vector[None, None, :]


@functools.partial(jax.jit, static_argnames=("num", "kind"))
def through(points: jax.Array, num: int, kind: str = "slerp") -> jax.Array:
    """Follow a path through several points in order, with equally many steps between neighbours.

    Args:
      points: [P, Z] float32; a single point is repeated.
      num: N, points of the path, the first and the last of `points` included.
      kind: "slerp" or "linear".

    Returns:
      [N, Z] float32.
    """
    last = len(points) - 1
    # Integers, so that a step that falls on a point falls on it exactly.
    segment, rest = np.divmod(np.arange(num) * last, max(num - 1, 1))
    fractions = rest / max(num - 1, 1)
    beyond = np.minimum(segment + 1, last)
    walk = jax.vmap(lambda a, b, fraction: between(a, b, fraction[None], kind)[0])
    return walk(points[segment], points[beyond], jnp.asarray(fractions, jnp.float32))


def _unit(x: jax.Array) -> jax.Array:
    """Return x at length 1, or 0 if x is 0."""
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0.0, norm, 1.0)
