"""From files to a store: complete, the same every time, or not there at all."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from data_pipeline.extraction.engines import extract_rows
from data_pipeline.options import Options
from data_pipeline.selection.splits import SPLITS
from musicvae_jax.config import InputError
from musicvae_jax.data import check_content, open_store
from musicvae_jax.tasks import TASKS
from tests.support.prepared import content, manifest, midi, run, tune

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of tunes, drums and bands, with copies, damage and other files between them."""
    root = tmp_path_factory.mktemp("inputs") / "music"
    (root / "deep").mkdir(parents=True)
    book = [tune(number) for number in range(40)] + [tune(99, meter="3/4"), "X:100\nK:C\n(3CD|\n"]
    (root / "book.abc").write_text("\n".join(book))
    (root / "copy.abc").write_text(tune(7))  # as the book's eighth
    (root / "titled.abc").write_text(tune(7).replace("M:", "T:Other bytes\nM:"))
    (root / "notes.txt").write_text("not music")
    (root / "deep" / "damaged.mid").write_bytes(midi("mel_2bar", 0)[:-20])
    with zipfile.ZipFile(root / "deep" / "more.zip", "w") as archive:
        for number in range(6):
            archive.writestr(f"drums{number}.MID", midi("drums_2bar", number))
            archive.writestr(f"band{number}.mid", midi("trio_16bar", number))
    return root


@pytest.fixture(scope="module")
def everything(collection: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The stores of all tasks made from the collection."""
    output = tmp_path_factory.mktemp("everything") / "stores"
    run(collection, output, tasks=tuple(TASKS))
    return output


@pytest.mark.parametrize("task_name", list(TASKS))
def test_a_store_holds_every_row_of_its_files_once(
    collection: pathlib.Path, everything: pathlib.Path, task_name: str
) -> None:
    expected = [extract_rows(collection / "book.abc", task_name)]
    with zipfile.ZipFile(collection / "deep" / "more.zip") as archive:
        expected += [extract_rows(archive.read(name), task_name) for name in archive.namelist()]
    expected_rows = np.unique(np.concatenate(expected), axis=0)
    store = open_store(everything / task_name)
    check_content(store)
    stored = np.concatenate([store.splits[split] for split in SPLITS])
    assert len(stored) > 5
    assert len(np.unique(stored, axis=0)) == len(stored)
    np.testing.assert_array_equal(np.unique(stored, axis=0), expected_rows)


def test_every_file_and_tune_is_accounted_for(everything: pathlib.Path) -> None:
    lines = manifest(everything)
    tunes = {f"music/book.abc#{number}" for number in range(1, 43)}
    zipped = {f"music/deep/more.zip/{n}{i}" for n in ("drums", "band") for i in range(6)}
    others = {"music/copy.abc", "music/titled.abc", "music/notes.txt", "music/deep/damaged.mid"}
    assert {name.rsplit(".mid", 1)[0].rsplit(".MID", 1)[0] for name in lines} == (
        tunes | zipped | {name.removesuffix(".mid") for name in others}
    )
    assert lines["music/book.abc#41"]["reason"].startswith("not 4/4")
    assert lines["music/book.abc#42"]["reason"] == "unreadable ABC: TupletError"
    assert lines["music/deep/damaged.mid"]["reason"] == "unreadable MIDI"
    assert lines["music/notes.txt"]["reason"] == "not a music file"
    assert lines["music/book.abc#8"]["rows"]["mel_2bar"] == 3
    assert lines["music/deep/more.zip/band0.mid"]["rows"]["trio_16bar"] == 17


def test_repeated_rows_are_kept_once_and_counted(everything: pathlib.Path) -> None:
    lines = manifest(everything)
    copy, titled = lines["music/copy.abc"], lines["music/titled.abc"]
    assert (copy["reason"], copy["detail"]) == ("same bytes as another file", "music/book.abc#8")
    assert copy["md5"] == lines["music/book.abc#8"]["md5"]
    assert titled["rows"] == lines["music/book.abc#8"]["rows"]
    report = json.loads((everything / "mel_2bar" / "report.json").read_text())["tasks"][0]
    assert report["rows_extracted"] - report["rows_unique"] == 3
    splits = sorted((titled["split"], lines["music/book.abc#8"]["split"]), key=SPLITS.index)
    shared = {
        pair: 3 if pair == "/".join(splits) else 0 for pair in report["rows_shared_by_splits"]
    }
    assert report["rows_shared_by_splits"] == shared


def test_rows_lie_in_the_split_of_their_file(
    collection: pathlib.Path, everything: pathlib.Path
) -> None:
    lines = manifest(everything)
    store = open_store(everything / "drums_2bar")
    with zipfile.ZipFile(collection / "deep" / "more.zip") as archive:
        for number in range(6):
            rows = extract_rows(archive.read(f"drums{number}.MID"), "drums_2bar")
            split = lines[f"music/deep/more.zip/drums{number}.MID"]["split"]
            stored = {row.tobytes() for row in store.splits[split]}
            assert {row.tobytes() for row in rows} <= stored


def test_the_report_agrees_with_the_manifest(everything: pathlib.Path) -> None:
    lines = manifest(everything)
    report = json.loads((everything / "report.json").read_text())
    assert report["units"] == len(lines)
    assert report["files"] == 3 + 1 + 1 + 12
    for task in report["tasks"]:
        name = task["task"]
        assert task["kept"] == sum(bool(line["rows"].get(name)) for line in lines.values())
        assert task["kept"] + sum(task["dropped"].values()) == len(lines)
        assert task["rows_extracted"] == sum(line["rows"].get(name, 0) for line in lines.values())
        stored = [np.load(everything / name / f"{split}.npy") for split in SPLITS]
        counts = json.loads((everything / name / "meta.json").read_text())["counts"]
        assert [len(rows) for rows in stored] == [counts[split] for split in SPLITS]
        silent = np.concatenate(
            [rows.reshape(-1, len(task["share_of_no_event"])) for rows in stored]
        )
        np.testing.assert_allclose(
            list(task["share_of_no_event"].values()), (silent == 0).mean(axis=0), rtol=1e-12
        )
        assert len(task["examples"]) == (5 if name.endswith("_2bar") else 0)


def test_one_task_equals_its_part_of_all(
    collection: pathlib.Path, everything: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run(collection, tmp_path / "one", tasks=("trio_16bar",))
    for split in SPLITS:
        one = (tmp_path / "one" / f"{split}.npy").read_bytes()
        assert one == (everything / "trio_16bar" / f"{split}.npy").read_bytes()


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_place_or_order(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run(collection, tmp_path / "first", num_workers=1)
    place = tmp_path / "elsewhere" / "music"
    shutil.copytree(collection, place)
    run(place, tmp_path / "second", num_workers=2)
    first = content(tmp_path / "first")
    assert content(tmp_path / "second") == first
    assert set(first) == {
        *(f"{split}.npy" for split in SPLITS),
        "meta.json",
        "manifest.jsonl",
        "report.html",
        "report.json",
        "report.txt",
        "split.json",
    }
    inputs = [str(collection / name) for name in ("deep", "book.abc", "titled.abc")]
    run(collection, tmp_path / "third", inputs=tuple(inputs), num_workers=2)
    run(collection, tmp_path / "fourth", inputs=tuple(reversed(inputs)), num_workers=1)
    assert content(tmp_path / "third") == content(tmp_path / "fourth")
    for split in SPLITS:
        assert content(tmp_path / "third")[f"{split}.npy"] == first[f"{split}.npy"]


@pytest.mark.slow
def test_adding_files_moves_no_file_when_split_by_file(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "more.abc").write_text("\n".join(tune(number) for number in range(40, 60)))
    inputs = (str(collection), str(tmp_path / "more.abc"))
    run(collection, tmp_path / "first", split_by="file")
    run(collection, tmp_path / "out", inputs=inputs, split_by="file")
    before, after = manifest(tmp_path / "first"), manifest(tmp_path / "out")
    assert set(after) > set(before)
    assert all(after[name]["split"] == line["split"] for name, line in before.items())
    assert {line["split"] for line in after.values()} == {*SPLITS, None}


def test_both_engines_make_the_same_rows(
    collection: pathlib.Path, everything: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run(collection, tmp_path / "out", tasks=("trio_16bar",), engine="note_seq")
    for split in SPLITS:
        slow = (tmp_path / "out" / f"{split}.npy").read_bytes()
        assert slow == (everything / "trio_16bar" / f"{split}.npy").read_bytes()
    engines = {name: line["engine"] for name, line in manifest(everything).items()}
    assert engines["music/deep/more.zip/band0.mid"] == "fast"
    assert engines["music/book.abc#1"] == "note_seq"
    assert engines["music/notes.txt"] is None
    assert {line["engine"] for line in manifest(tmp_path / "out").values()} == {"note_seq", None}
    damaged = manifest(everything)["music/deep/damaged.mid"]
    assert (damaged["engine"], damaged["fast_refusal"]) == (
        "note_seq",
        "track ends inside an event",
    )


def test_the_same_command_again_leaves_the_store(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    first = run(collection, output)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    again = run(collection, output, num_workers=2)
    assert again.replace("found finished, left as it is:", "written:") == first
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
    with pytest.raises(InputError, match="made with other --meter, --split_seed; give --overwrite"):
        run(collection, output, meter="any", split_seed=3)
    with pytest.raises(InputError, match="made with other sources;"):
        run(collection / "deep", output)
    with pytest.raises(InputError, match="made with other --task;"):
        run(collection, output, tasks=("mel_2bar", "mel_16bar"))


def test_a_folder_of_something_else_is_kept(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds something else \(thesis.tex\), choose another"):
        run(collection, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_dry_run_reports_and_writes_nothing(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    text = run(collection, tmp_path / "out", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    made = run(collection, tmp_path / "out")
    assert made.startswith(f"{text}\nwritten: {tmp_path / 'out'}\nnext:\n  ")


def test_empty_splits_give_one_warning(collection: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = run(collection, tmp_path / "out", split=(100, 0, 0))
    (warning,) = [line for line in text.splitlines() if line.startswith("warning")]
    assert "no rows in validation and test" in warning
    assert "--split " in warning
    assert "--split_seed" in warning
    assert len(open_store(tmp_path / "out").splits["test"]) == 0
    assert "warning" not in run(collection, None, dry_run=True)


@pytest.mark.parametrize("split_by", ["song", "file"])
def test_three_songs_with_rows_of_a_task_fill_its_splits(
    tmp_path: pathlib.Path, split_by: str
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for number in range(30):
        (music / f"drums{number}.mid").write_bytes(midi("drums_2bar", number))
    for number in range(3):
        (music / f"tune{number}.abc").write_text(tune(number))
    run(music, tmp_path / "out", split_by=split_by)
    assert all(len(rows) for rows in open_store(tmp_path / "out").splits.values())


def test_a_task_without_rows_has_no_store_beside_others(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    inputs = (str(collection / "book.abc"),)
    text = run(collection, tmp_path / "out", inputs=inputs, tasks=("mel_2bar", "drums_2bar"))
    assert "warning: drums_2bar: no rows, so there is no store for it" in text
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("mel_2bar", "manifest.jsonl", "split.json", "run.json"),
        *("report.json", "report.txt", "report.html"),
    }
    assert "found finished" in run(
        collection, tmp_path / "out", inputs=inputs, tasks=("drums_2bar", "mel_2bar")
    )


def test_meter_any_keeps_tunes_of_other_meters(collection: pathlib.Path) -> None:
    strict = run(collection, None, dry_run=True)
    free = run(collection, None, dry_run=True, meter="any")
    assert re.search(r"1  not 4/4", strict)
    assert "not 4/4" not in free


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ()}, "task: --task is needed: one or more of mel_2bar, "),
        ({"tasks": ("mel_2bar", "mel_2bar")}, "task: name each once"),
        ({"tasks": ("mel_3bar",)}, "task: 'mel_3bar' is not one of mel_2bar, "),
        ({"engine": "slow"}, "engine: 'slow' is not one of fast, note_seq"),
        ({"split_by": "row"}, "split_by: 'row' is not one of song, file"),
        ({"executor": "spark"}, "executor: 'spark' is not one of local, ray"),
        ({"ray_address": "auto"}, "ray_address: only with --executor=ray"),
        ({"meter": "3/4"}, "meter: '3/4' is not one of 4/4, any"),
        (
            {"programs": "0-200"},
            "programs: '0-200' must be any, or numbers and ranges from 0 to 127",
        ),
        ({"programs": "0-31", "tasks": ("drums_2bar",)}, "programs: only for tasks of one melody"),
        ({"num_workers": 0}, "workers: 0 is out of range, it must be 1 or more"),
        ({"split": (90, 5, 4)}, r"split: \(90, 5, 4\) must be percentages"),
        ({"split": (0, 50, 50)}, r"must be percentages for train \(above 0\)"),
        ({"split": (120, -10, -10)}, "must be percentages"),
        ({"output": None}, "output: --output=DIR is needed, the folder for the rows"),
        (
            {"inputs": (), "output": None},
            "input: nothing to read, give --input=PATH",
        ),
    ],
)
def test_options_are_checked(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**{"inputs": ("a",), "tasks": ("mel_2bar",), "output": "out", **fields})


def command_line(*arguments: str) -> list[str]:
    """Return the entry point's command."""
    return [sys.executable, "-m", "data_pipeline.prepare", *arguments]


def test_the_command_line_ends_with_a_table_and_a_hint(
    collection: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    arguments = (f"--input={collection}/book.abc", "--task=drums_2bar", f"--output={tmp_path}/out")
    done = subprocess.run(command_line(*arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(r"^ +40  no drums$", done.stdout, re.MULTILINE)
    assert done.stderr.splitlines()[-1] == (
        "error: no rows: 40 of 41 files have no channel-10 drums: try --task=mel_2bar"
    )
    assert list(tmp_path.iterdir()) == []


# The command, which sends itself a signal once a file is converted.
INTERRUPTED = """
import os, runpy, sys
from data_pipeline.conversion.journal import Journal

def add_and_interrupt(journal, *record):
    number = add(journal, *record)
    journal.flush()
    os.kill(os.getpid(), signal_number)
    return number

add, Journal.add = Journal.add, add_and_interrupt
signal_number = int(sys.argv.pop(1))
runpy.run_module("data_pipeline.prepare", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_the_same_command_resumes(
    tmp_path: pathlib.Path, number: int
) -> None:
    long = "CDEFGABc|" * 40
    book = "\n".join(f"X:{number}\nL:1/8\nK:C\n{long}\n" for number in range(250))
    (tmp_path / "book.abc").write_text(book)
    arguments = (f"--input={tmp_path}/book.abc", "--task=mel_2bar", f"--output={tmp_path}/out")
    interrupted = [sys.executable, "-c", INTERRUPTED, str(number), *arguments]
    done = subprocess.run(interrupted, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-2:] == [
        "run the same command again to resume",
        "error: interrupted",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.unfinished", "book.abc"]
    done = subprocess.run(command_line(*arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "resuming: 1 files are already converted\n" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.abc", "out"]


def test_help_begins_with_an_example() -> None:
    done = subprocess.run(command_line("--help"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "python -m data_pipeline.prepare --input=" in done.stdout.split("--split")[0]
    assert "--split_seed" in done.stdout


@pytest.mark.slow
def test_every_bad_file_is_accounted_for(shared: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run(shared / "data" / "bad", tmp_path / "out", tasks=tuple(TASKS), num_workers=2)
    text = (shared / "data" / "bad" / "README.md").read_text(encoding="utf-8")
    expected = {f"bad/{name}" for name in re.findall(r"^\| `(.+?)/?` \|", text, re.MULTILINE)}
    assert len(expected) == 81
    lines = manifest(tmp_path / "out")
    assert set(lines) == expected | {"bad/README.md", "bad/folder.mid/inner.txt"}
    assert all(line["kept"] or line["reason"] for line in lines.values())
    assert sum(line["kept"] for line in lines.values()) >= 20
