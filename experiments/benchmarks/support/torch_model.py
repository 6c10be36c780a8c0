"""The same computation in PyTorch: the baseline of the benchmarks, in two forms.

*Plain*, as users write it: `torch.nn.LSTM` over whole sequences (cuDNN on a GPU), bars batched
under teacher forcing, one-hot tokens concatenated with z at every step. *Lean*, with the savings
of our model: rows of the input kernel are looked up by token, and z is multiplied once per
sequence. `nn.LSTM` cannot take such inputs, so the first layer is then a loop (`torch_lean`).

Both take the reference's variable names; equal parameters give equal losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.support import torch_lean
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_vae
from musicvae_jax.tasks import NUM_DRUM_CLASSES, Task, get_task

_ENCODER = "encoder/cell_{layer}/bidirectional_rnn/{direction}/multi_rnn_cell/cell_0/lstm_cell"


States = list[tuple[torch.Tensor, torch.Tensor]]  # (h, c) of every layer, [1, B, H] each


class TorchMusicVAE(nn.Module):
    """MusicVAE with a bidirectional encoder and a flat or hierarchical decoder.

    Args:
      config: its sizes and objective.
      lean: look token inputs up and multiply z once, instead of the plain form.
    """

    def __init__(self, config: Config, lean: bool = False) -> None:
        super().__init__()
        self.lean = lean
        task, model = get_task(config.task), config.model
        self.task, self.beta = task, config.train.beta
        self.free_nats = config.train.free_bits * float(np.log(2.0))
        self.roll = task.tracks[0].encoder_roll
        self.depths = [track.num_classes for track in task.tracks]
        depth = sum(track.encoder_depth for track in task.tracks)
        widths = [depth, *(2 * size for size in model.encoder_sizes)]
        self.encoder = nn.ModuleList(
            nn.LSTM(width, size, batch_first=True, bidirectional=True)
            for width, size in zip(widths, model.encoder_sizes, strict=False)
        )
        self.mu = nn.Linear(widths[-1], model.z_size)
        self.sigma = nn.Linear(widths[-1], model.z_size)
        self.conductor: _Decoder | None = None
        context = model.z_size
        self.groups = [tuple(range(len(task.tracks)))]
        if build_vae(config).conductor is not None:
            sizes = model.resolved_conductor_sizes
            self.conductor = _Decoder(1, context, sizes, None)
            context = sizes[-1]
            self.groups = [(k,) for k in range(len(task.tracks))]
        self.decoders = nn.ModuleList()
        for group in self.groups:
            depth = sum(task.tracks[k].num_classes for k in group)
            self.decoders.append(_Decoder(depth + context, context, model.decoder_sizes, depth))
            self.decoders[-1].depths = [task.tracks[k].num_classes for k in group]

    def forward(self, tokens: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Return the loss (nats, mean over the batch) of tokens [B, T, K] with noise [B, Z]."""
        B, T, _ = tokens.shape
        embedding = self._embed(tokens)
        mu, sigma = self.mu(embedding), functional.softplus(self.sigma(embedding))
        z = mu + sigma * eps
        contexts = self._contexts(z)
        segments, context = contexts.shape[1], contexts.flatten(0, 1)
        loss = torch.zeros(B, dtype=torch.float32, device=tokens.device)
        for group, decoder in zip(self.groups, self.decoders, strict=True):
            columns = tokens[..., list(group)].reshape(B, T, -1)
            if self.lean:
                # One past the last token has a row of zeros: nothing comes before the first step.
                starts = torch.tensor([self.depths[k] for k in group], device=tokens.device)
                before = torch.cat([starts.expand(B, 1, -1), columns[:, :-1]], 1)
                before = before.reshape(B * segments, T // segments, -1)
                hidden = decoder.run_lean(before, context)
            else:
                onehots = self._onehots(tokens, group)
                before = functional.pad(onehots, (0, 0, 1, 0))[:, :-1]
                before = before.reshape(B * segments, T // segments, -1)
                repeated = context[:, None, :].expand(-1, before.shape[1], -1)
                hidden = decoder.run(torch.cat([before, repeated], -1), context)
            logits = decoder.project(hidden).reshape(B, T, -1).float()
            parts = logits.split([self.depths[k] for k in group], -1)
            for k, part in zip(group, parts, strict=True):
                nats = functional.cross_entropy(
                    part.transpose(1, 2), tokens[..., k], reduction="none"
                )
                loss = loss + nats.sum(-1)
        mu, sigma = mu.float(), sigma.float()
        kl = 0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1).sum(-1)
        return loss.mean() + self.beta * (kl - self.free_nats).clamp(min=0).mean()

    def _onehots(self, tokens: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
        """Return the one-hot vectors of some columns of tokens [B, T, K], concatenated."""
        parts = [functional.one_hot(tokens[..., k], self.depths[k]) for k in columns]
        return torch.cat(parts, -1).to(self.mu.weight.dtype)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last outputs of both directions of the encoder, [B, 2H]."""
        if self.roll:
            x = _roll(tokens[..., 0], self.mu.weight.dtype)
        elif not self.lean:
            x = self._onehots(tokens, range(len(self.depths)))
        layers = list(self.encoder)
        if self.lean and not self.roll:
            first = layers.pop(0)
            both = []
            for suffix, read in (("_l0", tokens), ("_l0_reverse", tokens.flip(1))):
                tables = torch_lean.tables(first.get_parameter("weight_ih" + suffix), self.depths)
                both.append(torch_lean.look_up(read, tables) + torch_lean.bias(first, suffix))
            kernels = [
                first.get_parameter("weight_hh" + suffix) for suffix in ("_l0", "_l0_reverse")
            ]
            hidden = torch_lean.recur(torch.stack(both), torch.stack(kernels))
            x, last = torch.cat([hidden[0], hidden[1].flip(1)], -1), hidden[:, :, -1]
        for layer in layers:
            x, (last, _) = layer(x)
        return torch.cat([last[0], last[1]], -1)

    def _contexts(self, z: torch.Tensor) -> torch.Tensor:
        """Return what each segment is decoded from, [B, U, D]: z, or an embedding per bar."""
        if self.conductor is None:
            return z[:, None]
        inputs = torch.zeros_like(z[:, None, :1]).expand(-1, self.task.num_bars, -1)
        return self.conductor.run(inputs, z)

    @torch.no_grad()
    def sample(self, z: torch.Tensor, temperature: float) -> torch.Tensor:
        """Decode z [B, Z] in a loop over the steps; tokens [B, T, K].

        A temperature of 0 takes the best token. The plain form is the loop that PyTorch users
        write; the lean form compiles its step.
        """
        contexts = self._contexts(z)
        steps = self.task.num_steps // contexts.shape[1]
        bars = [self._sample_segment(contexts[:, bar], steps, temperature)
                for bar in range(contexts.shape[1])]  # fmt: skip
        return torch.cat(bars, 1)

    def _sample_segment(
        self, context: torch.Tensor, steps: int, temperature: float
    ) -> torch.Tensor:
        """Decode one bar, or a whole row of a flat model, from its context [B, D]."""
        step = self._lean_step if self.lean else self._plain_step
        fixed = [decoder.fixed(context) if self.lean else context for decoder in self.decoders]
        states = [decoder.start(context) for decoder in self.decoders]
        tokens = torch.tensor(self.depths, device=context.device).repeat(len(context), 1)
        out = []
        for _ in range(steps):
            tokens, states = step(tokens, fixed, states, temperature)
            out.append(tokens)
        return torch.stack(out, 1)

    def _plain_step(
        self, tokens: torch.Tensor, fixed: list[Any], states: list[States], temperature: float
    ) -> tuple[torch.Tensor, list[States]]:
        """Decode one step from the tokens before it; the number of classes stands for none."""
        after, chosen = [], []
        for group, decoder, context, state in zip(
            self.groups, self.decoders, fixed, states, strict=True
        ):
            onehots = [
                functional.one_hot(tokens[:, k], self.depths[k] + 1)[:, :-1].to(context.dtype)
                for k in group
            ]
            hidden, state = decoder.advance(torch.cat([*onehots, context], -1)[:, None], state)
            after.append(state)
            parts = decoder.project(hidden[:, 0]).split([self.depths[k] for k in group], -1)
            chosen += [_choose(part, temperature) for part in parts]
        return torch.stack(chosen, -1), after

    @torch.compile(dynamic=False)
    def _lean_step(
        self, tokens: torch.Tensor, fixed: list[Any], states: list[States], temperature: float
    ) -> tuple[torch.Tensor, list[States]]:
        """Decode one step with looked-up tokens and what is constant in the segment."""
        after, chosen = [], []
        for group, decoder, (tables, gates), state in zip(
            self.groups, self.decoders, fixed, states, strict=True
        ):
            columns = tokens[:, list(group)]
            hidden, state = decoder.advance_lean(torch_lean.look_up(columns, tables) + gates, state)
            after.append(state)
            parts = decoder.project(hidden).split([self.depths[k] for k in group], -1)
            chosen += [_choose(part, temperature) for part in parts]
        return torch.stack(chosen, -1), after

    def load(self, variables: Mapping[str, np.ndarray]) -> None:
        """Copy parameters from the reference's variable names."""
        for n, layer in enumerate(self.encoder):
            for direction, suffix in (("fw", "_l0"), ("bw", "_l0_reverse")):
                name = _ENCODER.format(layer=n, direction=direction)
                _load_lstm(layer, suffix, variables[name + "/kernel"], variables[name + "/bias"])
        _load_linear(self.mu, variables, "encoder/mu")
        _load_linear(self.sigma, variables, "encoder/sigma")
        if self.conductor is not None:
            level = "decoder/hierarchical_level_0"
            self.conductor.load(variables, f"{level}/initial_state", f"{level}/cell_", None)
        for g, decoder in enumerate(self.decoders):
            middle = f"/core_decoder_{g}" if len(self.decoders) > 1 else ""
            root = f"core_decoder{middle}/decoder" if self.conductor is not None else "decoder"
            decoder.load(
                variables,
                f"{root}/z_to_initial_state",
                f"{root}/multi_rnn_cell/cell_",
                f"{root}/output_projection",
            )


class _Decoder(nn.Module):
    """Stacked LSTM that starts from a dense layer of its context."""

    def __init__(self, width: int, context: int, sizes: Sequence[int], depth: int | None) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.depths: list[int] = []
        self.initial = nn.Linear(context, 2 * sum(sizes))
        widths = [width, *sizes]
        self.layers = nn.ModuleList(
            nn.LSTM(below, size, batch_first=True)
            for below, size in zip(widths, sizes, strict=False)
        )
        self.output = nn.Linear(sizes[-1], depth) if depth is not None else None

    def start(self, context: torch.Tensor) -> States:
        """Return (h, c) of every layer."""
        parts = torch.tanh(self.initial(context)).split([s for s in self.sizes for _ in "ch"], -1)
        return [
            (h[None].contiguous(), c[None].contiguous())
            for c, h in zip(parts[::2], parts[1::2], strict=True)
        ]

    def advance(self, x: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        """Run all layers over x [B, T, D] from the given states."""
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, state)
            after.append(state)
        return x, after

    def run(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Run all layers over x [B, T, D] from the context's state; the top outputs [B, T, H]."""
        return self.advance(x, self.start(context))[0]

    def fixed(self, context: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the rows that tokens look up and the gates [B, 4H] that the context gives."""
        first = self.layers[0]
        kernel = first.get_parameter("weight_ih_l0")
        gates = functional.linear(context, kernel[:, sum(self.depths) :])
        return torch_lean.tables(kernel, self.depths), gates + torch_lean.bias(first, "_l0")

    def run_lean(self, before: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Run all layers over the tokens before each step [B, T, K]; the top outputs [B, T, H]."""
        tables, gates = self.fixed(context)
        states = self.start(context)
        kernel = self.layers[0].get_parameter("weight_hh_l0")
        gates = torch_lean.look_up(before, tables) + gates[:, None]
        x = torch_lean.recur(gates[None], kernel[None], states[0])[0]
        for layer, state in zip(list(self.layers)[1:], states[1:], strict=True):
            x, _ = layer(x, state)
        return x

    def advance_lean(self, gates: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        """Run one step of all layers from the first one's input gates [B, 4H]."""
        after, x = [], gates
        for n, (layer, (h, c)) in enumerate(zip(self.layers, states, strict=True)):
            if n > 0:
                gates = functional.linear(x, layer.get_parameter("weight_ih_l0")) + torch_lean.bias(
                    layer, "_l0"
                )
            gates = gates + functional.linear(h[0], layer.get_parameter("weight_hh_l0"))
            x, c = torch_lean.cell(gates, c[0])
            after.append((x[None], c[None]))
        return x, after

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        if self.output is None:
            raise ValueError("this decoder has no output layer")
        logits: torch.Tensor = self.output(hidden)
        return logits

    def load(
        self, variables: Mapping[str, np.ndarray], initial: str, cell: str, output: str | None
    ) -> None:
        """Copy parameters from the reference's variable names."""
        _load_linear(self.initial, variables, initial)
        for n, layer in enumerate(self.layers):
            name = f"{cell}{n}/lstm_cell"
            _load_lstm(layer, "_l0", variables[name + "/kernel"], variables[name + "/bias"])
        if self.output is not None and output is not None:
            _load_linear(self.output, variables, output)


def _choose(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Sample a token per example from logits [B, V], or take the best at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1)[:, 0]


def _roll(tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn drum tokens [B, T] into 9 bits and a "nothing" bit, [B, T, 10]."""
    bits = (tokens[..., None] >> torch.arange(NUM_DRUM_CLASSES, device=tokens.device)) & 1
    return torch.cat([bits, (tokens == 0)[..., None]], -1).to(dtype)


def _load_linear(layer: nn.Module, variables: Mapping[str, np.ndarray], name: str) -> None:
    """Copy one dense layer."""
    with torch.no_grad():
        layer.get_parameter("weight").copy_(torch.tensor(variables[name + "/kernel"].T))
        layer.get_parameter("bias").copy_(torch.tensor(variables[name + "/bias"]))


def _load_lstm(layer: nn.Module, suffix: str, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Copy one LSTM: gates i, j, f, o become i, f, g, o; the forget bias 1 is stored here."""
    hidden = bias.shape[0] // 4
    order = np.concatenate([np.arange(g * hidden, (g + 1) * hidden) for g in (0, 2, 1, 3)])
    shifted = bias.copy()
    shifted[2 * hidden : 3 * hidden] += 1.0
    with torch.no_grad():
        layer.get_parameter("weight_ih" + suffix).copy_(torch.tensor(kernel[:-hidden, order].T))
        layer.get_parameter("weight_hh" + suffix).copy_(torch.tensor(kernel[-hidden:, order].T))
        layer.get_parameter("bias_ih" + suffix).copy_(torch.tensor(shifted[order]))
        layer.get_parameter("bias_hh" + suffix).zero_().requires_grad_(False)


def model_of(
    config: Config, variables: Mapping[str, np.ndarray], lean: bool = False
) -> TorchMusicVAE:
    """Build the PyTorch model of a configuration with the given parameters.

    Raises:
      InputError: the encoder is hierarchical.
    """
    if any(name.startswith("encoder/hierarchical_level_") for name in variables):
        raise InputError("architecture: the PyTorch peer has no hierarchical encoder; name another")
    model = TorchMusicVAE(config, lean)
    model.load(variables)
    return model


def tokens_of(task: Task, rows: np.ndarray) -> torch.Tensor:
    """Turn rows [B, T] or [B, T, K] into the int64 tokens [B, T, K] the model reads."""
    columns = rows.reshape(rows.shape[0], task.num_steps, len(task.tracks))
    return torch.tensor(columns.astype(np.int64))
