"""The same computation in PyTorch, written as its users write it: the yardstick of the benchmarks.

`torch.nn.LSTM` over whole sequences (cuDNN on a GPU), bars batched under teacher forcing,
one-hot inputs concatenated with z. It takes the reference's variable names, so that equal
parameters give equal losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musicvae_jax.config import Config
from musicvae_jax.tasks import NUM_DRUM_CLASSES, Task, get_task

_ENCODER = "encoder/cell_{layer}/bidirectional_rnn/{direction}/multi_rnn_cell/cell_0/lstm_cell"


class TorchMusicVAE(nn.Module):
    """MusicVAE with a bidirectional encoder and a flat or hierarchical decoder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        task, model = get_task(config.task), config.model
        self.task, self.beta = task, config.train.beta
        self.free_nats = config.train.free_bits * float(np.log(2.0))
        self.roll = task.tracks[0].encoder_roll
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
        if model.architecture == "hierdec":
            sizes = model.resolved_conductor_sizes
            self.conductor = _Decoder(1, context, sizes, None)
            context = sizes[-1]
            self.groups = [(k,) for k in range(len(task.tracks))]
        self.decoders = nn.ModuleList()
        for group in self.groups:
            depth = sum(task.tracks[k].num_classes for k in group)
            self.decoders.append(_Decoder(depth + context, context, model.decoder_sizes, depth))

    def forward(self, tokens: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Return the loss (nats, mean over the batch) of tokens [B, T, K] with noise [B, Z]."""
        B, T, _ = tokens.shape
        onehots = [
            functional.one_hot(tokens[..., k], track.num_classes).to(self.mu.weight.dtype)
            for k, track in enumerate(self.task.tracks)
        ]
        x = _roll(tokens[..., 0], self.mu.weight.dtype) if self.roll else torch.cat(onehots, -1)
        for layer in self.encoder:
            x, (last, _) = layer(x)
        embedding = torch.cat([last[0], last[1]], -1)
        mu, sigma = self.mu(embedding), functional.softplus(self.sigma(embedding))
        z = mu + sigma * eps
        context, segments = z, 1
        if self.conductor is not None:
            segments = self.task.num_bars
            context = self.conductor.run(
                torch.zeros_like(z[:, None, :1]).expand(-1, segments, -1), z
            )
            context = context.reshape(B * segments, -1)
        loss = torch.zeros(B, dtype=torch.float32, device=tokens.device)
        for group, decoder in zip(self.groups, self.decoders, strict=True):
            previous = torch.cat([onehots[k] for k in group], -1)
            previous = functional.pad(previous, (0, 0, 1, 0))[:, :-1]
            previous = previous.reshape(B * segments, T // segments, -1)
            steps = previous.shape[1]
            held = context[:, None, :].expand(-1, steps, -1)
            hidden = decoder.run(torch.cat([previous, held], -1), context)
            logits = decoder.project(hidden).reshape(B, T, -1).float()
            start = 0
            for k in group:
                stop = start + self.task.tracks[k].num_classes
                part = logits[..., start:stop].transpose(1, 2)
                loss = loss + functional.cross_entropy(part, tokens[..., k], reduction="none").sum(
                    -1
                )
                start = stop
        mu, sigma = mu.float(), sigma.float()
        kl = 0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1).sum(-1)
        return loss.mean() + self.beta * (kl - self.free_nats).clamp(min=0).mean()

    @torch.no_grad()
    def sample(self, z: torch.Tensor, temperature: float) -> torch.Tensor:
        """Decode z [B, Z] step by step, as a PyTorch user's loop does; tokens [B, T, K].

        A temperature of 0 takes the best token.
        """
        B = z.shape[0]
        contexts = z[:, None, :]
        if self.conductor is not None:
            inputs = torch.zeros_like(z[:, None, :1]).expand(-1, self.task.num_bars, -1)
            contexts = self.conductor.run(inputs, z)
        steps = self.task.num_steps // contexts.shape[1]
        out = []
        depths = [track.num_classes for track in self.task.tracks]
        previous = [torch.zeros(B, depth, device=z.device, dtype=z.dtype) for depth in depths]
        for bar in range(contexts.shape[1]):
            context = contexts[:, bar]
            states = [decoder.start(context) for decoder in self.decoders]
            for _ in range(steps):
                tokens = [torch.zeros(0)] * len(depths)
                for g, (group, decoder) in enumerate(zip(self.groups, self.decoders, strict=True)):
                    x = torch.cat([*(previous[k] for k in group), context], -1)[:, None]
                    hidden, states[g] = decoder.advance(x, states[g])
                    parts = decoder.project(hidden[:, 0]).split([depths[k] for k in group], -1)
                    for k, logits in zip(group, parts, strict=True):
                        tokens[k] = _choose(logits, temperature)
                        previous[k] = functional.one_hot(tokens[k], depths[k]).to(z.dtype)
                out.append(torch.stack(tokens, -1))
        return torch.stack(out, 1)

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
        self.initial = nn.Linear(context, 2 * sum(sizes))
        widths = [width, *sizes]
        self.layers = nn.ModuleList(
            nn.LSTM(below, size, batch_first=True)
            for below, size in zip(widths, sizes, strict=False)
        )
        self.output = nn.Linear(sizes[-1], depth) if depth is not None else None

    def start(self, context: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return (h, c) of every layer."""
        parts = torch.tanh(self.initial(context)).split([s for s in self.sizes for _ in "ch"], -1)
        return [
            (h[None].contiguous(), c[None].contiguous())
            for c, h in zip(parts[::2], parts[1::2], strict=True)
        ]

    def advance(
        self, x: torch.Tensor, states: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Run all layers over x [B, T, D] from the given states."""
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, state)
            after.append(state)
        return x, after

    def run(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Run all layers over x [B, T, D] from the context's state; the top outputs [B, T, H]."""
        return self.advance(x, self.start(context))[0]

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
    """Draw a token per example from logits [B, V], or take the best at temperature 0."""
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


def model_of(config: Config, variables: Mapping[str, np.ndarray]) -> TorchMusicVAE:
    """Build the PyTorch model of a configuration with the given parameters."""
    model = TorchMusicVAE(config)
    model.load(variables)
    return model


def tokens_of(task: Task, rows: np.ndarray) -> torch.Tensor:
    """Turn rows [B, T] or [B, T, K] into the int64 tokens [B, T, K] the model reads."""
    columns = rows.reshape(rows.shape[0], task.num_steps, len(task.tracks))
    return torch.tensor(columns.astype(np.int64))
