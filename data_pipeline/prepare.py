"""Turn music files into token rows for training.

Example:
  python -m data_pipeline.prepare --input=midi_folder --input=more.zip --task=mel_2bar \
      --output=data/mel_2bar

Reads folders, .tar, .tar.gz, .zip and single files: MIDI, KAR, MusicXML, MXL, ABC. Prints a report
and writes it to the output folder, with the rows and a manifest of all files. Run again, the same
command resumes an interrupted conversion and leaves a finished one unchanged.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline import cli
from data_pipeline.command_line import shell_line
from data_pipeline.conversion.gather import (
    Executor,
    Gathering,
    gather,
    local_executor,
    open_journal,
    read_source_records,
    source_records,
)
from data_pipeline.conversion.journal import Journal
from data_pipeline.conversion.manifest import sort_key, write_manifest
from data_pipeline.inputs.sources import Source, open_sources
from data_pipeline.options import BY_FILE, BY_SONG, RAY, Options
from data_pipeline.reporting import page, report
from data_pipeline.selection import store
from data_pipeline.selection.near_duplicates import near_duplicates
from data_pipeline.selection.splits import (
    SPLITS,
    Selection,
    fill_empty_splits,
    row_hashes,
    select_rows,
    split_of,
)
from musicvae_jax.config import InputError
from musicvae_jax.tasks import all_and, get_task

# Task -> how to train a first model on two CPU cores, also on few songs, and the rows of a batch; a
# store with fewer needs a smaller batch. 2 bars take minutes, 16 bars an hour, piano rolls hours.
# The first task that was made is the one to train.
FIRST_TRAINING: dict[str, tuple[tuple[str, ...], int]] = {
    "mel_2bar": (("--preset=demo",), 64),
    "drums_2bar": (("--init_from=drums_2bar", "--batch_size=64", "--train_steps=500"), 64),
    "mel_16bar": (("--preset=mel_16bar_hour",), 16),
    "drums_16bar": (("--preset=drums_16bar_hour",), 16),
    "pianoroll_16bar": (("--preset=pianoroll_16bar",), 64),
}


def prepare(options: Options) -> str:
    """Make the store, or find it finished; return the report as text.

    Raises:
      InputError: an input is missing, nothing usable is in the inputs, or the output folder
        contains something else.
    """
    options.identity()  # reads the split file, before any work
    inputs = open_sources(options.inputs, options.corpora, options.cache_dir)
    if options.output is None or options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            (pathlib.Path(scratch) / store.STORE).mkdir()
            return _make(inputs, options, pathlib.Path(scratch))
    output = pathlib.Path(options.output).absolute()
    if _is_finished(output, inputs, options):
        store.clear_leftover(output)
        text = (output / f"{store.REPORT}.txt").read_text(encoding="utf-8")
        how = "found finished, left as it is"
    else:
        with store.work_folder(output, options.overwrite) as folder:
            text = _make(inputs, options, folder)
        how = "written"
    return f"{text}\n{how}: {options.output}\nnext:\n  {_next_line(output, options)}\n"


def _is_finished(output: pathlib.Path, inputs: list[Source], options: Options) -> bool:
    """Tell whether the output holds what would be made; another store may be overwritten.

    Raises:
      InputError: it holds something else.
    """
    made = store.held(output)
    if not made:
        return False
    try:
        store.check_held(output, made, read_source_records(inputs), options.identity())
    except InputError:
        if not options.overwrite:
            raise
        store.check_replaceable(output)
        return False
    return True


def _next_line(output: pathlib.Path, options: Options) -> str:
    """Return the command to run next.

    It trains; without training rows it is this command with all songs in that split, and for a
    task that is not in `FIRST_TRAINING` the list of presets.
    """
    stores = store.held(output)
    place = {task: task if len(options.tasks) > 1 else "." for task in options.tasks}
    made = [task for task in options.tasks if place[task] in stores]
    task = next((task for task in FIRST_TRAINING if task in made), made[0])
    num_rows = stores[place[task]]["counts"]["train"]
    if not num_rows:
        given = [word for word in sys.argv[1:] if not word.startswith(("--overwrite", "--split="))]
        return shell_line("data_pipeline.prepare", [*given, "--split=100,0,0", "--overwrite"])
    if task not in FIRST_TRAINING:
        return shell_line("experiments.presets", [f"--task={task}"])
    start, batch_size = FIRST_TRAINING[task]
    # Of two values of a flag the last counts.
    smaller = [f"--batch_size={num_rows}"] if num_rows < batch_size else []
    folders = [
        f"--data_dir={pathlib.Path(str(options.output)) / place[task]}",
        f"--run_dir={pathlib.Path('runs', output.name)}",
    ]
    return shell_line("experiments.train", [*start, *smaller, *folders])


def _make(inputs: list[Source], options: Options, folder: pathlib.Path) -> str:
    """Convert all inputs and write the store into a work folder; return the report."""
    start = time.monotonic()
    header = {
        "task": options.tasks,
        "meter": options.meter,
        "engine": options.engine,
        "programs": options.programs,
        "versions": store.versions(),
        "format": 2,
    }
    journal = open_journal(folder, options.tasks, header)
    with contextlib.closing(journal):
        _say_what_was_found(journal)
        found = gather(
            inputs,
            journal,
            _executor(options),
            meter=options.meter,
            engine=options.engine,
            programs=options.programs,
        )
        found.resolve(folder / "songs")
        place = folder / store.STORE
        whole, rolls = _write_store(found, inputs, options, place)
    text = report.format_report(whole)
    if not any(task["rows_unique"] for task in whole["tasks"]):
        sys.stdout.write(text)
        raise InputError(f"no rows: {report.hint(whole, options.meter)}")
    write_manifest(place / store.MANIFEST, found.units)
    _write_report(place, whole, rolls)
    store.write_json(place / store.RUN, _run_facts(options, journal, start))
    return text


def _write_store(
    found: Gathering, inputs: list[Source], options: Options, place: pathlib.Path
) -> tuple[dict[str, Any], dict[str, page.Figures]]:
    """Assign splits and write the rows of every task; return the report and its figures."""
    ways = _splits(found, options)
    for unit in found.units:
        if unit.md5 is not None:
            unit.split = ways[options.split_by][unit.md5]
    pins = {md5: SPLITS[split] for md5, split in ways[options.split_by].items()}
    store.write_json(place / store.SPLIT, pins)
    records = source_records(inputs, found.file_md5s)
    tasks, rolls = [], {}
    for name in options.tasks:
        figures, rolls[name] = _write_task(name, found, ways, records, options, place)
        tasks.append(figures)
    songs = report.songs_report(found.songs, found.units, options.split_by)
    return report.full_report(records, found.num_files, found.units, tasks, songs), rolls


def _splits(found: Gathering, options: Options) -> dict[str, dict[str, int]]:
    """Return each file's split by its md5, in both ways."""
    md5s = found.songs.md5s
    pinned = {md5: split for md5, split in options.pinned().items() if md5 in set(md5s)}
    percentages, seed = options.split, options.split_seed
    drawn = {md5: split_of(md5, percentages, seed) for md5 in md5s} | pinned
    # Of all tasks, so that a file's split does not depend on which ones are wanted.
    of_tasks = [
        {unit.md5 for unit in found.units if unit.md5 and name in unit.tasks_with_rows}
        for name in all_and(options.tasks)
    ]
    return {
        BY_SONG: found.songs.splits(percentages, seed, pinned, of_tasks),
        BY_FILE: fill_empty_splits(drawn, of_tasks, percentages, seed, pinned),
    }


def _write_task(
    name: str,
    found: Gathering,
    ways: dict[str, dict[str, int]],
    records: list[dict[str, Any]],
    options: Options,
    folder: pathlib.Path,
) -> tuple[dict[str, Any], page.Figures]:
    """Select and write the rows of one task; return its part of the report and its figures."""
    task = get_task(name)
    several = len(options.tasks) > 1
    place = folder / name if several else folder
    place.mkdir(exist_ok=True)
    rows = found.journal.spools[name].rows()
    selections = _select(rows, found, name, ways)
    selection = selections[options.split_by]
    written = store.write_splits(place, rows, selection, task)
    near = {
        way: near_duplicates(rows, chosen.rows["test"], chosen.rows["train"])
        for way, chosen in selections.items()
    }
    examples = report.example_rows(rows, selection.rows["train"], task)
    figures = report.task_report(task, found.units, selection, written, examples, near)
    drawn = page.measure(task, rows, selection)
    if not figures["rows_unique"] and several:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        return figures, drawn
    store.write_json(place / store.META, store.meta(task, written, records, options.identity()))
    if several:
        songs = report.songs_report(found.songs, found.units, options.split_by)
        own = report.full_report(records, found.num_files, found.units, [figures], songs)
        _write_report(place, own, {name: drawn})
    return figures, drawn


def _select(
    rows: np.ndarray, found: Gathering, name: str, ways: dict[str, dict[str, int]]
) -> dict[str, Selection]:
    """Select the rows to keep, for each way to split."""
    units = found.units_of_rows(name)
    live = np.flatnonzero(units >= 0)
    hashes = row_hashes(rows)
    if len(live) < len(units):
        units, hashes = units[live], hashes[live]
    ranks = np.empty(len(found.units), np.int32)
    ranks[sorted(range(len(found.units)), key=lambda i: sort_key(found.units[i]))] = np.arange(
        len(found.units), dtype=np.int32
    )
    ranks = ranks[units]
    selections = {}
    for way, split_of_md5 in ways.items():
        split_of_unit = [split_of_md5.get(unit.md5 or "", 0) for unit in found.units]
        chosen = select_rows(hashes, np.array(split_of_unit, np.uint8)[units], ranks)
        kept = {split: live[places] for split, places in chosen.rows.items()}
        selections[way] = chosen._replace(rows=kept)
    return selections


def _write_report(
    folder: pathlib.Path, whole: dict[str, Any], drawn: dict[str, page.Figures]
) -> None:
    """Write a report as text, as JSON and as a page."""
    store.write_json(folder / f"{store.REPORT}.json", whole)
    text = report.format_report(whole)
    (folder / f"{store.REPORT}.txt").write_text(text, encoding="utf-8")
    (folder / f"{store.REPORT}.html").write_text(page.html(whole, drawn), encoding="utf-8")


def _executor(options: Options) -> Executor:
    if options.executor != RAY:
        return local_executor(options.workers)
    # Loaded here: Ray comes with an extra.
    from data_pipeline.conversion.cluster import ray_executor

    return ray_executor(options.ray_address, options.workers)


def _say_what_was_found(journal: Journal) -> None:
    """Report on standard error what an interrupted run left."""
    if journal.num_found:
        print(f"resuming: {journal.num_found:,} files are already converted", file=sys.stderr)
    elif journal.discarded:
        print("starting over: the interrupted run had different options", file=sys.stderr)


def _run_facts(options: Options, journal: Journal, start: float) -> dict[str, Any]:
    """Return the facts that depend on time, machine and number of processes."""
    seconds = time.monotonic() - start
    num_converted = len(journal.records) - journal.num_found
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "inputs": [os.path.abspath(path) for path in options.inputs],
        "python": platform.python_version(),
        "seconds": round(seconds, 3),
        "converted_by_interrupted_runs": journal.num_found,
        "units_per_second": round(num_converted / seconds, 1),
        "workers": options.workers,
        "executor": options.executor,
    }


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does; the same command resumes it."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print("\nrun the same command again to resume", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(options: Options) -> None:
    """Run the command and print the report."""
    with _termination_as_interrupt():
        sys.stdout.write(prepare(options))


if __name__ == "__main__":
    cli.run(main, Options)
