"""Every file of an input is met once, with its bytes or a reason."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from data_pipeline.inputs import archives, sources
from data_pipeline.inputs.archives import Entry
from data_pipeline.inputs.sources import entries, open_sources, units
from musicvae_jax.config import InputError


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with something of everything."""
    root = tmp_path / "above" / "music"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "folder.mid").mkdir()
    (root / "b.MID").write_bytes(b"b")
    (root / "a.kar").write_bytes(b"a")
    (root / "deep" / "er" / "c.MusicXML").write_bytes(b"c")
    (root / "folder.mid" / "inner.txt").write_bytes(b"t")
    with zipfile.ZipFile(root / "deep" / "z.zip", "w") as archive:
        archive.writestr("in/d.mid", b"d")
    os.mkfifo(root / "pipe.mid")
    os.mkfifo(root / "pipe.tar")
    (root / "gone.mid").symlink_to(root / "nowhere")
    (root / "same.mid").symlink_to(root / "b.MID")
    (root / "loop").symlink_to(root)
    return root


def test_folders_are_walked(folder: pathlib.Path) -> None:
    (source,) = open_sources([str(folder)])
    found = list(entries(source))
    assert {entry.name: entry.data for entry in found if entry.data is not None} == {
        "music/a.kar": b"a",
        "music/b.MID": b"b",
        "music/same.mid": b"b",
        "music/deep/er/c.MusicXML": b"c",
        "music/deep/z.zip/in/d.mid": b"d",
    }
    assert {entry.name: entry.reason for entry in found if entry.data is None} == {
        "music/folder.mid": archives.FOLDER,
        "music/folder.mid/inner.txt": archives.NOT_MUSIC,
        "music/gone.mid": sources.CANNOT_OPEN,
        "music/loop": archives.LINK,
        "music/pipe.mid": sources.NOT_REGULAR,
        "music/pipe.tar": sources.NOT_REGULAR,
    }


def test_names_and_order_do_not_depend_on_the_place(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = list(entries(open_sources([str(folder)])[0]))
    monkeypatch.chdir(folder)
    relative = list(entries(open_sources(["."])[0]))
    assert relative == absolute


def test_positions_grow_to_the_size(folder: pathlib.Path) -> None:
    (source,) = open_sources([str(folder)])
    positions = [entry.position for entry in entries(source)]
    assert positions == sorted(positions)
    assert 0 < positions[-1] <= source.size


def test_single_files_and_several_inputs(folder: pathlib.Path) -> None:
    inputs = [str(folder / "deep" / "z.zip"), str(folder / "b.MID"), str(folder / "deep" / "er")]
    found = [entry for source in open_sources(inputs) for entry in entries(source)]
    assert [(entry.name, entry.data) for entry in found] == [
        ("z.zip/in/d.mid", b"d"),
        ("b.MID", b"b"),
        ("er/c.MusicXML", b"c"),
    ]


def test_a_large_file_is_not_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 3)
    (tmp_path / "a.mid").write_bytes(b"1234")
    (source,) = open_sources([str(tmp_path / "a.mid")])
    assert list(entries(source)) == [Entry("a.mid", reason=archives.TOO_LARGE, position=4)]


@pytest.mark.parametrize(
    ("inputs", "corpora", "message"),
    [
        ([], [], "nothing to read, give --input=PATH or --corpus=folk"),
        (["/no/such"], [], "there is no file or folder /no/such"),
        ([], ["rock"], "'rock' is not one of folk"),
    ],
)
def test_wrong_inputs(inputs: list[str], corpora: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_sources(inputs, corpora)


BOOK = (
    b"% a header\r\nL:1/8\r\n\r\nX:1\r\nK:C\r\nCDEF|\r\n\r\n"
    b"free text\r\n\r\n\r\n  X:2  \r\nK:D\r\nDEFG|"
)


def test_a_tunebook_is_cut_into_tunes() -> None:
    parts = units(Entry("b.ABC", BOOK, position=7))
    header = b"% a header\nL:1/8\n"
    assert parts == [
        Entry("b.ABC#1", header + b"X:1\nK:C\nCDEF|\n", position=7),
        Entry("b.ABC#2", header + b"X:2\nK:D\nDEFG|\n", position=7),
    ]


def test_adding_a_tune_changes_no_other() -> None:
    longer = units(Entry("b.abc", BOOK + b"\n\nX:3\nK:E\nE|\n"))
    assert longer[:2] == units(Entry("b.abc", BOOK))
    assert longer[2].name == "b.abc#3"


def test_a_book_without_header_and_one_with_a_single_tune() -> None:
    parts = units(Entry("b.abc", b"X:1\nK:C\nC|\n\nX:1\nK:D\nD|\n"))
    assert [part.data for part in parts] == [b"X:1\nK:C\nC|\n", b"X:1\nK:D\nD|\n"]
    single = Entry("b.abc", b"\xef\xbb\xbf\r\nX:1\r\nK:C\r\nC|\r\n\r\n")
    assert units(single) == [single]


def test_other_files_are_one_unit() -> None:
    for entry in (Entry("a.mid", BOOK), Entry("a.abc", None, "cannot be opened")):
        assert units(entry) == [entry]
    assert units(Entry("a.abc", b"words\n\nwords")) == [Entry("a.abc", None, sources.NO_TUNE)]


def test_the_folk_corpus_is_found_without_importing_its_package() -> None:
    script = (
        "import sys; from data_pipeline.inputs import sources\n"
        "(source,) = sources.open_sources([], ['folk'])\n"
        "found = list(sources.entries(source))\n"
        "assert not {'music21', 'note_seq', 'jax'} & set(sys.modules)\n"
        "folders = {entry.name.split('/')[1] for entry in found}\n"
        "print(len(found), sum(len(sources.units(e)) for e in found), *sorted(folders))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    num_files, num_tunes, *folders = done.stdout.split()
    assert folders == ["airdsAirs", "essenFolksong", "oneills1850", "ryansMammoth"]
    assert int(num_files) > 1_000
    assert int(num_tunes) > 12_000


def test_a_corpus_states_its_terms() -> None:
    for corpus in sources.CORPORA.values():
        assert len(corpus.licence) > 40
        assert len(corpus.citation) > 40


def test_md5_is_the_standard_one() -> None:
    assert sources.md5(b"") == "d41d8cd98f00b204e9800998ecf8427e"
    assert sources.md5(b"abc") == hashlib.md5(b"abc").hexdigest()
