"""Every unit has one line that says what became of it."""

from __future__ import annotations

import json
import pathlib

from data_pipeline.conversion.manifest import (
    SAME_BYTES,
    Unit,
    resolve_copies,
    sort_key,
    write_manifest,
)

KEPT = Unit(
    name="b.mid",
    md5="1",
    split=2,
    rows={"mel_2bar": 3, "drums_2bar": 0},
    why_empty={"drums_2bar": "no drums"},
)
EMPTY = Unit(
    name="c.mid",
    md5="0",
    split=0,
    rows={"mel_2bar": 0, "drums_2bar": 0},
    why_empty={"mel_2bar": "not 4/4", "drums_2bar": "not 4/4"},
)
UNREAD = Unit(name="a.txt", reason="not a music file")


def test_lines_are_sorted_by_content(tmp_path: pathlib.Path) -> None:
    write_manifest(tmp_path / "m", [KEPT, EMPTY, UNREAD])
    lines = [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a.txt", "c.mid", "b.mid"]
    assert [line["kept"] for line in lines] == [False, False, True]
    assert [line["reason"] for line in lines] == ["not a music file", "not 4/4", None]
    assert [line["split"] for line in lines] == [None, "train", "test"]
    assert lines[2]["rows"] == {"mel_2bar": 3, "drums_2bar": 0}
    assert lines[2]["why_empty"] == {"drums_2bar": "no drums"}


def test_why_a_task_got_nothing() -> None:
    assert KEPT.why_dropped("mel_2bar") is None
    assert KEPT.why_dropped("drums_2bar") == "no drums"
    assert UNREAD.why_dropped("drums_2bar") == "not a music file"


def test_the_copy_with_the_first_name_is_kept() -> None:
    def settled(names: str) -> list[tuple[str, str | None, str, bool]]:
        units = [Unit(name=name, md5="1") for name in names]
        units[0].rows = {"mel_2bar": 1}
        resolve_copies(units, [(i, 0) for i in range(1, len(names))])
        units.sort(key=sort_key)
        return [(unit.name, unit.reason, unit.detail, unit.kept) for unit in units]

    expected = [
        ("a", None, "", True),
        ("b", SAME_BYTES, "a", False),
        ("c", SAME_BYTES, "a", False),
    ]
    assert settled("abc") == settled("cab") == settled("bca") == expected
