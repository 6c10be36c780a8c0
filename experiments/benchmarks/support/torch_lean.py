"""An LSTM layer in PyTorch whose token inputs are looked up instead of multiplied as one-hots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

# Steps of a loop that torch.compile may take as one graph; with more, compiling takes minutes.
_UNROLLED = 32


def tables(kernel: torch.Tensor, depths: Sequence[int]) -> list[torch.Tensor]:
    """Return the rows [V + 1, 4H] of an input kernel [4H, D] for each column; the last is 0."""
    rows = kernel[:, : sum(depths)].t().split(list(depths))
    return [functional.pad(part, (0, 0, 0, 1)) for part in rows]


def look_up(tokens: torch.Tensor, tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum the rows that tokens [..., K] select, [..., 4H]."""
    rows = [functional.embedding(tokens[..., k], table) for k, table in enumerate(tables)]
    return torch.stack(rows).sum(0) if len(rows) > 1 else rows[0]


def bias(layer: nn.Module, suffix: str) -> torch.Tensor:
    """Return the sum of an LSTM layer's two biases."""
    return layer.get_parameter("bias_ih" + suffix) + layer.get_parameter("bias_hh" + suffix)


def cell(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (h, c) after one step from its gates [..., 4H]."""
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def recur(
    gates: torch.Tensor,
    kernels: torch.Tensor,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run one LSTM layer in D directions from its input gates.

    Args:
      gates: [D, B, T, 4H], biases included, each direction in its own order of time.
      kernels: recurrent kernels, [D, 4H, H].
      start: h and c before the first step, [D, B, H] each; None for zeros.

    Returns:
      Outputs [D, B, T, H].
    """
    if gates.shape[2] > _UNROLLED:
        return _excluded(gates, kernels, start)
    return _loop(gates, kernels, start)


def _loop(
    gates: torch.Tensor,
    kernels: torch.Tensor,
    start: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Run the loop of `recur`."""
    D, B, _, width = gates.shape
    zeros = gates.new_zeros(D, B, width // 4)
    h, c = start if start is not None else (zeros, zeros)
    turned, out = kernels.transpose(1, 2), []
    for step in gates.unbind(2):
        h, c = cell(step + torch.bmm(h, turned), c)
        out.append(h)
    return torch.stack(out, 2)


_excluded = torch.compiler.disable(_loop)
