"""Run everything on a real corpus: training, scores, music (`make demo`).

Example:
  python -m experiments.demo --output=demo

The trained models of the package make music first (OUTPUT/MODEL). Then a model is trained: briefly,
so that there is something of its own to hear early (OUTPUT/first), then to the end. It runs the
other commands one after the other and prints each before it runs, so you can repeat any of them by
hand. The folk corpus comes with the package music21; --input=FOLDER takes other music. Run again
after an interruption, it resumes and repeats only the quick parts.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.command_line import shell_line
from musicvae_jax.pretrained import packaged

PRESET = "demo"
MUSIC_FILES = {"*.mid": "MIDI", "*.wav": "WAV"}
# Music of a first, short part of training: on two CPU cores it can be heard after about a minute.
FIRST_STEPS, NUM_FIRST = 500, 4
NUM_SAMPLES, NUM_RECONSTRUCTIONS, NUM_STEPS = 8, 4, 9


def commands(output: str, inputs: Sequence[str] = (), flagfile: str = "") -> list[list[str]]:
    """Return the demo's commands, without the Python interpreter.

    Args:
      output: folder of all results.
      inputs: music to train on; none takes the folk corpus.
      flagfile: configuration to train with; empty takes the preset `PRESET`.
    """
    tokens, run = f"{output}/tokens", f"{output}/run"
    sources = [f"--input={path}" for path in inputs] or ["--corpus=folk"]
    recipe = f"--flagfile={flagfile}" if flagfile else f"--preset={PRESET}"
    generate = ["-m", "experiments.generate", f"--run_dir={run}"]
    generate += ["--overwrite", "--format=midi,wav,png"]
    rows = f"--data_dir={tokens}"
    train = ["-m", "experiments.train", recipe, rows, f"--run_dir={run}"]
    first = [
        [*train, f"--train_steps={FIRST_STEPS}", "--nofit_prior"],
        [*generate, f"--output={output}/first", "--mode=sample", f"--num={NUM_FIRST}"],
    ]
    generate.append(f"--output={output}/music")
    return [
        ["-m", "data_pipeline.prepare", *sources, "--task=mel_2bar", f"--output={tokens}"],
        # A flagfile has its own, perhaps smaller, number of steps.
        *([] if flagfile else first),
        train,
        ["-m", "experiments.evaluate", f"--run_dir={run}"],
        [*generate, "--mode=sample", f"--num={NUM_SAMPLES}"],
        [*generate, "--mode=reconstruct", rows, f"--num={NUM_RECONSTRUCTIONS}"],
        [*generate, "--mode=interpolate", rows, f"--steps={NUM_STEPS}"],
    ]


def first_music(output: str) -> list[list[str]]:
    """Return a command for each model of the package, that samples from it."""
    generate = ["-m", "experiments.generate", "--mode=sample", "--num=4", "--overwrite"]
    return [
        [*generate, "--format=midi,wav,png", f"--model={name}", f"--output={output}/{name}"]
        for name in packaged.names()
    ]


def run(arguments: Sequence[str]) -> int:
    """Print a command, run it with this Python, and return its exit code.

    On Ctrl-C, which the command receives too, and on SIGTERM, which is passed on, this waits until
    the command has saved its state.
    """
    print(f"\n$ {_shown(arguments)}", flush=True)
    with subprocess.Popen([sys.executable, *arguments]) as process:

        def pass_on(signum: int, frame: FrameType | None) -> None:
            process.send_signal(signum)

        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def _shown(arguments: Sequence[str]) -> str:
    """Write a command as a user would type it here."""
    if arguments[0] == "-m":
        return shell_line(arguments[1], arguments[2:])
    return shlex.join([sys.executable, *arguments])


def closing(output: str) -> str:
    """Say what was made and what to try next."""
    music = pathlib.Path(output) / "music"
    generate = ["-m", "experiments.generate", f"--run_dir={output}/run"]
    mine = ["-m", "data_pipeline.prepare", "--input=MY_MIDI_FOLDER", "--task=mel_2bar"]
    next_ones = (
        [*generate, f"--output={output}/more", "--mode=sample", "--num=20", "--temperature=1"],
        [*generate, f"--output={output}/mine", "--mode=reconstruct", "--input=MY_FILE.mid"],
        [*mine, f"--output={output}/my_tokens"],
    )
    pictures = "\n".join(f"  {path}" for path in sorted(music.glob("*.png")))
    names = {end: " ".join(path.name for path in sorted(music.glob(end))) for end in MUSIC_FILES}
    lines = "\n".join(f"  {_shown(arguments)}" for arguments in next_ones)
    found = "\n".join(
        f"{kind} files in {music}:\n  {names[end]}" for end, kind in MUSIC_FILES.items()
    )
    return f"\nPictures:\n{pictures}\n{found}\nTry next:\n{lines}"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train on, and where to put it."""

    output: str = option("demo", help="Output folder.")
    inputs: tuple[str, ...] = option(
        (), flag="input", help="Music to train on instead of the folk corpus."
    )
    train_flagfile: str = option("", help="Configuration to train with. Default: the preset demo.")


def main(options: Options) -> None:
    """Run all commands; stop at the first that fails, with its exit code."""
    own = commands(options.output, options.inputs, options.train_flagfile)
    for arguments in [*first_music(options.output), *own]:
        code = run(arguments)
        if code:
            print("the demo stopped here; run it again to resume")
            sys.exit(code if code > 0 else 128 - code)
    print(closing(options.output))


if __name__ == "__main__":
    cli.run(main, Options)
