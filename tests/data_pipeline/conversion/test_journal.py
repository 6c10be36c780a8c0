"""Whatever moment a process is killed at, all whole records are there for the next."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from data_pipeline.conversion.journal import Journal

KINDS: dict[str, tuple[str, tuple[int, ...]]] = {"a": ("uint8", (4,)), "b": ("uint16", (2, 3))}
HEADER = {"meter": "4/4", "tasks": ("a", "b")}


def rows(number: int) -> dict[str, np.ndarray]:
    """Make the rows of a record: some have none of one kind."""
    rng = np.random.default_rng(number)
    found = {"a": rng.integers(0, 90, (number % 4, 4)).astype(np.uint8)}
    if number % 3:
        found["b"] = rng.integers(0, 512, (number % 3, 2, 3)).astype(np.uint16)
    return found


def fill(folder: pathlib.Path, numbers: range, header: dict[str, Any] | None = None) -> Journal:
    """Open a journal and add records."""
    journal = Journal(folder, KINDS, HEADER if header is None else header)
    for number in numbers:
        journal.add((f"{number:032x}", ".mid"), rows(number), {"detail": f"é{number}"})
    journal.close()
    return journal


def expect(folder: pathlib.Path, num: int) -> None:
    """Check that exactly the first `num` records are found."""
    journal = Journal(folder, KINDS, HEADER)
    assert [record["detail"] for record in journal.records] == [f"é{i}" for i in range(num)]
    assert [journal.find((f"{i:032x}", ".mid")) for i in range(num)] == list(range(num))
    assert journal.find((f"{num:032x}", ".mid")) is None
    assert journal.find((f"{0:032x}", ".abc")) is None
    for kind, (dtype, shape) in KINDS.items():
        empty = np.zeros((0, *shape), dtype)
        parts = [rows(i).get(kind, empty) for i in range(num)]
        np.testing.assert_array_equal(journal.spools[kind].rows(), np.concatenate([empty, *parts]))
        assert journal.spools[kind].counts.tolist() == [len(part) for part in parts]
    assert journal.num_found == num
    journal.close()


def test_records_are_found_again(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, range(10))
    expect(tmp_path, 10)
    fill(tmp_path, range(10, 15))
    expect(tmp_path, 15)


@pytest.mark.parametrize("name", ["journal", "a.spool", "b.spool"])
def test_any_cut_leaves_the_records_before_it(tmp_path: pathlib.Path, name: str) -> None:
    fill(tmp_path, range(12))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = []
    for size in range(0, len(whole[name]) + 1, 7):
        for file, octets in whole.items():
            (tmp_path / file).write_bytes(octets[:size] if file == name else octets)
        journal = Journal(tmp_path, KINDS, HEADER)
        journal.close()
        found.append(journal.num_found)
        expect(tmp_path, journal.num_found)
        fill(tmp_path, range(journal.num_found, 12))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert found == sorted(found)
    assert found[0] < 2
    assert found[-1] in (11, 12)


@pytest.mark.parametrize("name", ["journal", "a.spool", "b.spool"])
def test_a_changed_byte_ends_the_records(tmp_path: pathlib.Path, name: str) -> None:
    fill(tmp_path, range(12))
    octets = bytearray((tmp_path / name).read_bytes())
    octets[len(octets) // 2] ^= 1
    (tmp_path / name).write_bytes(octets)
    journal = Journal(tmp_path, KINDS, HEADER)
    assert 2 < journal.num_found < 11
    journal.close()
    expect(tmp_path, journal.num_found)


def test_another_header_begins_anew(tmp_path: pathlib.Path) -> None:
    assert not fill(tmp_path, range(3)).discarded
    other = Journal(tmp_path, KINDS, {**HEADER, "meter": "any"})
    assert other.discarded
    assert other.records == []
    assert len(other.spools["a"].rows()) == 0
    other.close()


def test_nothing_is_lost_that_a_killed_process_flushed(tmp_path: pathlib.Path) -> None:
    script = (
        "import os, pathlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.data_pipeline.conversion.test_journal import HEADER, KINDS, Journal, rows\n"
        "journal = Journal(pathlib.Path(sys.argv[2]), KINDS, HEADER)\n"
        "for i in range(9):\n"
        "    journal.add((f'{i:032x}', '.mid'), rows(i), {'detail': f'é{i}'})\n"
        "    if i == 6: journal.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    here = str(pathlib.Path(__file__).resolve().parents[3])
    done = subprocess.run([sys.executable, "-c", script, here, str(tmp_path)], check=False)
    assert done.returncode == -9
    expect(tmp_path, 7)
