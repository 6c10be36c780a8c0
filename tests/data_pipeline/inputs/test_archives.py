"""Archives are streamed, and a damaged one gives what is left of it."""

from __future__ import annotations

import io
import pathlib
import random
import tarfile
import zipfile

import pytest

from data_pipeline.inputs import archives
from data_pipeline.inputs.archives import Entry, archive_entries


def noise(seed: int, size: int = 5_000) -> bytes:
    """Return bytes that do not compress."""
    return random.Random(seed).randbytes(size)


FILES = {"a/one.mid": noise(1), "a/TWO.MIDI": noise(2), "three.abc": noise(3), "four.mxl": b"4"}


def add(
    archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> None:
    """Put a member into a tar archive."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, "a/one.mid"
    archive.addfile(member, io.BytesIO(data))


def make_tar(path: pathlib.Path, mode: str = "w:gz", files: dict[str, bytes] = FILES) -> str:
    """Write a tar archive of files."""
    opened: tarfile.TarFile = vars(tarfile)["open"](path, mode)  # its types want a literal mode
    with opened as archive:
        for name, data in files.items():
            add(archive, name, data)
    return str(path)


def make_zip(path: pathlib.Path, files: dict[str, bytes] = FILES) -> str:
    """Write a zip archive of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def read(path: str) -> tuple[dict[str, bytes], dict[str, str | None]]:
    """Return the data and the reasons of an archive's entries by name."""
    found = list(archive_entries(path, "x"))
    assert len({entry.name for entry in found}) == len(found)
    data = {entry.name[2:]: entry.data for entry in found if entry.data is not None}
    return data, {entry.name: entry.reason for entry in found if entry.reason is not None}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_gives_its_files(tmp_path: pathlib.Path, mode: str) -> None:
    assert read(make_tar(tmp_path / "x.tar", mode)) == (FILES, {})


def test_zip_gives_its_files(tmp_path: pathlib.Path) -> None:
    assert read(make_zip(tmp_path / "x.ZIP")) == (FILES, {})


def test_positions_grow_to_the_archives_size(tmp_path: pathlib.Path) -> None:
    for path in (make_tar(tmp_path / "x.tgz"), make_zip(tmp_path / "x.zip")):
        positions = [entry.position for entry in archive_entries(path, "x")]
        assert positions == sorted(positions)
        assert 0 < positions[-1] <= pathlib.Path(path).stat().st_size


def test_what_is_no_music_in_a_tar_has_its_reason(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "songs", kind=tarfile.DIRTYPE)
        add(archive, "songs.mid", kind=tarfile.DIRTYPE)
        add(archive, "songs/link.mid", kind=tarfile.SYMTYPE)
        add(archive, "songs/read me.txt", b"text")
        add(archive, "songs/more.tar.gz", b"more")
        add(archive, "songs/\udcff.mid", b"odd name")
    data, reasons = read(str(path))
    assert data == {"songs/\\xff.mid": b"odd name"}
    assert reasons == {
        "x/songs.mid": archives.FOLDER,
        "x/songs/link.mid": archives.LINK,
        "x/songs/read me.txt": archives.NOT_MUSIC,
        "x/songs/more.tar.gz": archives.NESTED,
    }


def test_what_is_no_music_in_a_zip_has_its_reason(tmp_path: pathlib.Path) -> None:
    files = {"d/": b"", "d.mid/": b"", "d/a.txt": b"", "d/b.zip": b"", "d/c.mid": b"c"}
    data, reasons = read(make_zip(tmp_path / "x.zip", files))
    assert data == {"d/c.mid": b"c"}
    assert reasons == {
        "x/d.mid/": archives.FOLDER,
        "x/d/a.txt": archives.NOT_MUSIC,
        "x/d/b.zip": archives.NESTED,
    }


def test_a_truncated_tar_gives_its_first_files_and_names_itself(tmp_path: pathlib.Path) -> None:
    whole = pathlib.Path(make_tar(tmp_path / "whole.tgz")).read_bytes()
    for size in (len(whole) // 2, len(whole) - 60, len(whole) - 4):
        path = tmp_path / "x.tgz"
        path.write_bytes(whole[:size])
        data, reasons = read(str(path))
        assert data == {name: FILES[name] for name in list(FILES)[: len(data)]}
        assert reasons == {"x": archives.DAMAGED_ARCHIVE}
    assert len(data) == len(FILES)  # only the checksum is missing from the last


def test_a_tar_without_its_end_mark_is_not_taken_for_whole(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(make_tar(tmp_path / "x.tar", "w"))
    path.write_bytes(path.read_bytes()[: 3 * (512 + 5_120)])  # cut between two members
    data, reasons = read(str(path))
    assert (list(data), reasons) == (list(FILES)[:3], {"x": archives.DAMAGED_ARCHIVE})


def test_a_tar_with_a_damaged_header_is_not_taken_for_whole(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(make_tar(tmp_path / "x.tar", "w"))
    damaged = bytearray(path.read_bytes())
    damaged[512 + 5_120 + 3] ^= 255  # in the second member's name
    path.write_bytes(damaged)
    data, reasons = read(str(path))
    assert (list(data), reasons) == (["a/one.mid"], {"x": archives.DAMAGED_ARCHIVE})


def test_a_wrong_checksum_is_seen(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(make_tar(tmp_path / "x.tgz"))
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 255
    path.write_bytes(damaged)
    data, reasons = read(str(path))
    assert (data, reasons) == (FILES, {"x": archives.DAMAGED_ARCHIVE})


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("content", [b"", b"PK", b"text " * 400, b"\x1f\x8b text"])
def test_what_is_no_archive_names_itself(
    tmp_path: pathlib.Path, ending: str, content: bytes
) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    assert read(str(path)) == ({}, {"x": archives.DAMAGED_ARCHIVE})


def test_a_truncated_zip_gives_its_whole_files(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(make_zip(tmp_path / "x.zip", {**FILES, "no.txt": b"no"}))
    whole = path.read_bytes()
    path.write_bytes(whole[:12_000])  # inside the third
    data, reasons = read(str(path))
    assert data == {name: FILES[name] for name in list(FILES)[:2]}
    assert reasons == {"x": archives.DAMAGED_ARCHIVE, "x/three.abc": archives.DAMAGED_MEMBER}
    path.write_bytes(whole[:-10])  # inside the table at the end
    data, reasons = read(str(path))
    assert data == FILES
    assert reasons == {"x": archives.DAMAGED_ARCHIVE, "x/no.txt": archives.NOT_MUSIC}


def test_a_damaged_or_locked_zip_member_costs_only_itself(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(make_zip(tmp_path / "x.zip"))
    damaged = bytearray(path.read_bytes())
    damaged[2_000] ^= 255
    table = damaged.index(b"PK\x01\x02", damaged.index(b"PK\x01\x02") + 4)
    damaged[table + 8] |= 1  # the second is encrypted, says the table
    path.write_bytes(damaged)
    data, reasons = read(str(path))
    assert data == {name: FILES[name] for name in ("three.abc", "four.mxl")}
    assert reasons == {
        "x/a/one.mid": archives.DAMAGED_MEMBER,
        "x/a/TWO.MIDI": archives.ENCRYPTED,
    }


def test_large_files_are_not_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 4_999)
    for path in (make_tar(tmp_path / "x.tar", "w"), make_zip(tmp_path / "x.zip")):
        data, reasons = read(path)
        assert data == {"four.mxl": b"4"}
        assert set(reasons.values()) == {archives.TOO_LARGE}
    assert archives.read_limited(io.BytesIO(b"5" * 5_000), "n") == Entry(
        "n", reason="larger than 64 MiB"
    )
