"""Progress of a run: printed lines, `metrics.jsonl`, samples, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

from musicvae_jax.storage import run_folder
from musicvae_jax.training import callbacks
from musicvae_jax.training.samples import Samples

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Recorder:
    """Observer of the training loop that prints progress and writes metrics.

    Close it when training has ended.

    Args:
      run_dir: the run folder.
      train_steps: total number of steps.
      say: called with each line; prints it by default.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        train_steps: int,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._run_dir, self._train_steps, self._say = run_dir, train_steps, say or _say
        self._lines: Any = None
        self._tensorboard: Any = None
        self._has_validation = True

    def close(self) -> None:
        """Close the files."""
        if self._lines:
            self._lines.close()
        if self._tensorboard:
            self._tensorboard.close()

    def started(self, summary: callbacks.Summary) -> None:
        """Describe the run and open the files; drop records of steps that will be repeated."""
        self._say(
            f"device: {summary.devices}, {summary.dtype}; "
            f"estimated memory: {_memory(summary.memory_bytes)} per device"
        )
        self._say(
            f"parameters: {summary.parameters:,}; rows: {summary.train_rows:,} training "
            f"(on the {summary.rows_on}), {summary.validation_rows:,} validation; "
            f"steps per epoch: {summary.steps_per_epoch:,.1f}"
        )
        self._has_validation = summary.validation_rows > 0
        if not self._has_validation:
            self._say("no validation rows: the latest checkpoint is kept as the best")
        if summary.first_step:
            self._say(_where_it_resumes(summary.first_step, self._train_steps))
        keep_until(self._run_dir / METRICS, summary.first_step)
        self._lines = (self._run_dir / METRICS).open("a", buffering=1)
        self._tensorboard = self._tensorboard_writer(summary.first_step)

    def _tensorboard_writer(self, step: int) -> Any:
        """Open a TensorBoard file; return None if tensorboardX is not installed."""
        try:
            import tensorboardX
        except ImportError:
            self._say(
                "tensorboardX is not installed: no TensorBoard files, metrics.jsonl has all figures"
            )
            return None
        folder = os.fspath(self._run_dir / TENSORBOARD)
        writer = tensorboardX.SummaryWriter(folder, purge_step=step + 1 if step else None)
        config = self._run_dir / run_folder.CONFIG
        if config.is_file():
            writer.add_text("config", f"```\n{config.read_text()}```", step)
        return writer

    def trained(self, progress: callbacks.Progress) -> None:
        """Print the progress line; write it if it is due for a record."""
        figures = progress.figures
        self._say(
            f"step {progress.step:>7,}/{self._train_steps:,}  loss {figures['loss']:8.3f}  "
            f"{_score(figures)}  {_kl(figures)}"
            f"{progress.examples_per_second:,.0f} examples/s  "
            f"left {duration(progress.seconds_left)}{_troubles(figures)}"
        )
        if progress.is_record:
            speed = {"examples_per_second": progress.examples_per_second}
            self._record(progress.step, "train", figures | speed)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Print and write the scores of a validation."""
        self._say(
            f"step {step:>7,} validation  loss {figures['loss']:8.3f}  "
            f"{_score(figures)}  {_kl(figures)}".rstrip()
        )
        self._record(step, "validation", figures)

    def sampled(self, step: int, samples: Samples) -> None:
        """Write the samples as files, and show them in TensorBoard."""
        # It imports what knows notes and draws, which training without samples does not need.
        from experiments.generation import training_samples

        task_name = run_folder.read_config(self._run_dir).task
        shown = training_samples.write(self._run_dir, task_name, step, samples)
        if self._tensorboard:
            self._tensorboard.add_image("samples", shown.picture, step, dataformats="HWC")
            rate = shown.sample_rate
            self._tensorboard.add_audio("samples", shown.sound, step, sample_rate=rate)

    def saved(self, step: int) -> None:
        """Print that a checkpoint was written."""
        self._say(f"step {step:>7,} saved")

    def _record(self, step: int, split: str, figures: dict[str, float]) -> None:
        """Write one record to both files; numbers that are not finite become null."""
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        record = {"step": step, "split": split} | {name: finite.get(name) for name in figures}
        self._lines.write(json.dumps(record) + "\n")
        if self._tensorboard:
            for name, value in finite.items():
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)


class Silent:
    """Observer that prints nothing, for all processes of a run but the first."""

    def started(self, summary: callbacks.Summary) -> None:
        """Do nothing."""

    def trained(self, progress: callbacks.Progress) -> None:
        """Do nothing."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Do nothing."""

    def sampled(self, step: int, samples: Samples) -> None:
        """Do nothing."""

    def saved(self, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def keep_until(path: pathlib.Path, step: int) -> None:
    """Drop the records after `step`, which a resumed run repeats, and an incomplete last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            is_kept = json.loads(line)["step"] <= step and line.endswith("\n")
        except ValueError:
            is_kept = False
        if is_kept:
            kept.append(line)
    run_folder.write_text(path, "".join(kept))


def _where_it_resumes(step: int, train_steps: int) -> str:
    """Describe what is left of a run of which some steps are done."""
    if step > train_steps:
        return f"train_steps is {train_steps:,}, but {step:,} steps are done: nothing to train"
    if step == train_steps:
        return f"all {step:,} steps are done"
    return f"resuming after step {step:,} of {train_steps:,}"


def _score(figures: dict[str, float]) -> str:
    """Format how well rows are reconstructed: the accuracy, or the SNR of sound."""
    if "snr_db" in figures:
        return f"SNR {figures['snr_db']:6.2f} dB"
    return f"accuracy {figures['accuracy']:.4f}"


def _kl(figures: dict[str, float]) -> str:
    """Format the KL; nothing for models without a latent space."""
    return f"KL {figures['kl_bits']:7.2f} bits  " if "kl_bits" in figures else ""


def _troubles(figures: dict[str, float]) -> str:
    """Count the steps whose gradient was replaced by zero or skipped, if any."""
    text = ""
    if figures["zeroed"]:
        text += f"  gradient too large, zeroed: {figures['zeroed']:.0f}"
    if figures["skipped"]:
        text += f"  not finite, skipped: {figures['skipped']:.0f}"
    return text


def duration(seconds: float) -> str:
    """Format a duration: 1h02m, 3m20s, 15s."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _memory(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _say(message: str) -> None:
    """Print a line at once."""
    print(message, flush=True)
