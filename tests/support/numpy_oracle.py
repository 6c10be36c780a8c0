"""The reference's models in NumPy, step by step in float64: an oracle for the JAX ones.

It works on the reference's variables by their TensorFlow names, and shares no code with the
library. The golden models check it; it then checks what has no golden vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Variables = Mapping[str, np.ndarray]
State = list[tuple[np.ndarray, np.ndarray]]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def lstm_cell(
    x: np.ndarray, c: np.ndarray, h: np.ndarray, variables: Variables, name: str
) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = variables[f"{name}/kernel"], variables[f"{name}/bias"]
    i, j, f, o = np.split(np.concatenate([x, h], axis=1) @ kernel + bias[None, :], 4, axis=1)
    c = np.tanh(j) * sigmoid(i) + c * sigmoid(f + 1.0)
    return c, np.tanh(c) * sigmoid(o)


def dense(x: np.ndarray, variables: Variables, name: str) -> np.ndarray:
    return x @ variables[f"{name}/kernel"] + variables[f"{name}/bias"][None, :]


def one_hot(tokens: np.ndarray, depth: int) -> np.ndarray:
    return (tokens[..., None] == np.arange(depth)).astype(np.float64)


def encoder_input(tokens: np.ndarray, depths: Sequence[int], drum_roll: bool) -> np.ndarray:
    """One-hot columns side by side, or for drums alone 9 bits and "nothing": [B, T, D]."""
    columns = tokens.reshape(*tokens.shape[:2], -1)
    if drum_roll:
        bits = [(columns[..., 0] // 2**n) % 2 for n in range(9)]
        return np.stack([*bits, columns[..., 0] == 0], axis=-1).astype(np.float64)
    parts = [one_hot(columns[..., k], depth) for k, depth in enumerate(depths)]
    return np.concatenate(parts, axis=-1)


def encode(
    variables: Variables, inputs: np.ndarray, lengths: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Example by example, on its own steps only: mu and sigma [B, Z].

    A hierarchical encoder takes the lengths of each bar.
    """
    pairs = zip(inputs, lengths, strict=True)
    if any(name.startswith("encoder/hierarchical_level_0/") for name in variables):
        embedding = np.stack([embed_bars(variables, x, n) for x, n in pairs])
    else:
        embedding = np.stack([embed(variables, "encoder", x[:n]) for x, n in pairs])
    sigma = np.log1p(np.exp(dense(embedding, variables, "encoder/sigma")))
    return dense(embedding, variables, "encoder/mu"), sigma


def embed(variables: Variables, scope: str, steps: np.ndarray) -> np.ndarray:
    """A stack of bidirectional layers over the steps [T, D] of one example: [2H]."""
    cells, n = scope + "/cell_{}/bidirectional_rnn/{}/multi_rnn_cell/cell_0/lstm_cell", 0
    if len(steps) == 0:
        while f"{cells.format(n + 1, 'fw')}/kernel" in variables:
            n += 1
        return np.zeros(2 * variables[f"{cells.format(n, 'fw')}/bias"].shape[0] // 4)
    while f"{cells.format(n, 'fw')}/kernel" in variables:
        forward = run_cell(steps, variables, cells.format(n, "fw"))
        backward = run_cell(steps[::-1], variables, cells.format(n, "bw"))[::-1]
        steps, n = np.concatenate([forward, backward], axis=1), n + 1
    return np.concatenate([forward[-1], backward[0]])


def embed_bars(variables: Variables, steps: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """A stack within each bar, then one over the bars; `lengths` of each bar: [2H]."""
    bars = np.split(steps, len(lengths))
    level = "encoder/hierarchical_level_{}"
    pairs = zip(bars, lengths, strict=True)
    embeddings = [embed(variables, level.format(0), bar[:n]) for bar, n in pairs]
    return embed(variables, level.format(1), np.stack(embeddings))


def run_cell(steps: np.ndarray, variables: Variables, name: str) -> np.ndarray:
    units = variables[f"{name}/bias"].shape[0] // 4
    c, h, outputs = np.zeros((1, units)), np.zeros((1, units)), []
    for x in steps:
        c, h = lstm_cell(x[None], c, h, variables, name)
        outputs.append(h[0])
    return np.stack(outputs)


def initial_state(context: np.ndarray, variables: Variables, dense_name: str, cells: str) -> State:
    """tanh(dense(context)) cut into c0, h0, c1, h1, ..."""
    flat = np.tanh(dense(context, variables, dense_name))
    state: State = []
    column = 0
    while f"{cells.format(len(state))}/bias" in variables:
        units = variables[f"{cells.format(len(state))}/bias"].shape[0] // 4
        state.append((flat[:, column : column + units], flat[:, column + units :][:, :units]))
        column += 2 * units
    assert column == flat.shape[1]
    return state


def stack_step(
    x: np.ndarray, state: State, variables: Variables, cells: str
) -> tuple[np.ndarray, State]:
    after = []
    for n, (c, h) in enumerate(state):
        c, x = lstm_cell(x, c, h, variables, cells.format(n))
        after.append((c, x))
    return x, after


def conductor(variables: Variables, z: np.ndarray, num_bars: int) -> np.ndarray:
    """Bar embeddings [B, U, H]; the input of every step is a single zero."""
    scope = "decoder/hierarchical_level_0"
    cells = scope + "/cell_{}/lstm_cell"
    state = initial_state(z, variables, f"{scope}/initial_state", cells)
    outputs = []
    for _ in range(num_bars):
        h, state = stack_step(np.zeros((len(z), 1)), state, variables, cells)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def decode(
    variables: Variables,
    context: np.ndarray,
    depths: Sequence[int],
    scope: str,
    *,
    first: np.ndarray,
    targets: np.ndarray | None,
    num_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Run one categorical decoder whose token is K columns of one-hots side by side.

    Args:
      variables: by name.
      context: [B, C].
      depths: V of each column.
      scope: what its variables' names begin with.
      first: [B, sum(V)], the previous token's one-hots at the first step.
      targets: [B, T, K] to feed, or None to feed back the best token.
      num_steps: T.

    Returns:
      logits [B, T, sum(V)] and the tokens fed after each step [B, T, K].
    """
    cells = scope + "/multi_rnn_cell/cell_{}/lstm_cell"
    state = initial_state(context, variables, f"{scope}/z_to_initial_state", cells)
    previous, all_logits, all_tokens = first, [], []
    edges = np.cumsum(depths)[:-1]
    for t in range(num_steps):
        h, state = stack_step(np.concatenate([previous, context], 1), state, variables, cells)
        logits = dense(h, variables, f"{scope}/output_projection")
        best = np.stack([part.argmax(1) for part in np.split(logits, edges, axis=1)], axis=1)
        tokens = best if targets is None else targets[:, t]
        previous = encoder_input(tokens[:, None], depths, drum_roll=False)[:, 0]
        all_logits.append(logits)
        all_tokens.append(tokens)
    return np.stack(all_logits, axis=1), np.stack(all_tokens, axis=1)


def decode_flat(
    variables: Variables,
    z: np.ndarray,
    depths: Sequence[int],
    targets: np.ndarray | None,
    num_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One decoder for all columns: logits [B, T, sum(V)], tokens [B, T, K]."""
    first = np.zeros((len(z), sum(depths)))
    return decode(
        variables, z, depths, "decoder", first=first, targets=targets, num_steps=num_steps
    )


def decode_hierarchical(
    variables: Variables,
    z: np.ndarray,
    depths: Sequence[int],
    targets: np.ndarray | None,
    num_steps: int,
    num_bars: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """A decoder per column, bar after bar: logits [B, T, sum(V)], tokens [B, T, K]."""
    embeddings = conductor(variables, z, num_bars)
    bar_steps = num_steps // num_bars
    logits_by_column, tokens_by_column = [], []
    for k, depth in enumerate(depths):
        several = f"core_decoder/core_decoder_{k}/decoder"
        scope = several if len(depths) > 1 else "core_decoder/decoder"
        previous, logits, tokens = np.zeros((len(z), depth)), [], []
        for u in range(num_bars):
            bar = slice(u * bar_steps, (u + 1) * bar_steps)
            fed = None if targets is None else targets[:, bar, k : k + 1]
            bar_logits, bar_tokens = decode(
                variables,
                embeddings[:, u],
                [depth],
                scope,
                first=previous,
                targets=fed,
                num_steps=bar_steps,
            )
            previous = one_hot(bar_tokens[:, -1, 0], depth)
            logits.append(bar_logits)
            tokens.append(bar_tokens)
        logits_by_column.append(np.concatenate(logits, axis=1))
        tokens_by_column.append(np.concatenate(tokens, axis=1))
    return np.concatenate(logits_by_column, axis=2), np.concatenate(tokens_by_column, axis=2)


def reconstruction_nats(
    logits: np.ndarray, tokens: np.ndarray, depths: Sequence[int], lengths: Sequence[int]
) -> np.ndarray:
    """Cross-entropy summed over the steps that count and the columns: [B]."""
    total = np.zeros(len(logits))
    for k, part in enumerate(np.split(logits, np.cumsum(depths)[:-1], axis=2)):
        best = part.max(axis=2, keepdims=True)
        log_p = part - best - np.log(np.exp(part - best).sum(axis=2, keepdims=True))
        costs = -(log_p * one_hot(tokens[:, :, k], depths[k])).sum(axis=2)
        total += (costs * (np.arange(costs.shape[1]) < np.array(lengths)[:, None])).sum(axis=1)
    return total


def kl_nats(mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return (0.5 * (mu**2 + sigma**2 - 1.0) - np.log(sigma)).sum(axis=1)
