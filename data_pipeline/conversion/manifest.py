"""The manifest: one JSON line per file, with its rows and the reasons for what was dropped."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from data_pipeline.selection.splits import SPLITS

SAME_BYTES = "same bytes as another file"


@dataclasses.dataclass(kw_only=True)
class Facts:
    """What became of a file, or of one tune of a tunebook.

    Attributes:
      reason: why it could not be read, else None.
      detail: the exact problem.
      engine: the engine that read it or tried last; None if none did.
      fast_refusal: why the fast engine left it to note-seq, else None.
      tasks_with_rows: all tasks that it has rows for, wanted or not.
      why_empty: for each task without rows, the reason.
      pieces_dropped: for each task, parts of the unit without rows, by reason.
    """

    reason: str | None = None
    detail: str = ""
    engine: str | None = None
    fast_refusal: str | None = None
    tasks_with_rows: list[str] = dataclasses.field(default_factory=list)
    why_empty: dict[str, str] = dataclasses.field(default_factory=dict)
    pieces_dropped: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return these fields, without those of a subclass."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Facts)}


@dataclasses.dataclass(kw_only=True)
class Unit(Facts):
    """A file, or one tune of a tunebook.

    Attributes:
      name: path inside its input, with "#" and its number for a tune.
      md5: hexadecimal hash of its bytes; None when they were not read.
      split: index in `SPLITS`; None when nothing was read.
      rows: for each task the rows extracted, before duplicates are removed.
    """

    name: str
    md5: str | None = None
    split: int | None = None
    rows: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether any task got a row from it."""
        return any(self.rows.values())

    def why_dropped(self, task: str) -> str | None:
        """Return why a task got no row from it, None if it got one."""
        if self.rows.get(task):
            return None
        return self.reason or self.why_empty[task]

    def line(self) -> dict[str, Any]:
        """Return the manifest's record."""
        reasons = [self.reason] if self.reason else list(dict.fromkeys(self.why_empty.values()))
        return {
            "name": self.name,
            "md5": self.md5,
            "split": None if self.split is None else SPLITS[self.split],
            "kept": self.kept,
            "reason": None if self.kept else "; ".join(reasons),
            "detail": self.detail,
            "engine": self.engine,
            "fast_refusal": self.fast_refusal,
            "rows": self.rows,
            "why_empty": self.why_empty,
            "pieces_dropped": self.pieces_dropped,
        }


def sort_key(unit: Unit) -> tuple[str, str]:
    """Return the key that sorts units by content, then name, independent of reading order."""
    return unit.md5 or "", unit.name


def resolve_copies(units: list[Unit], copies: Iterable[tuple[int, int]]) -> None:
    """Keep, of files with equal bytes, the one whose name sorts first; in place.

    Args:
      units: all units.
      copies: pairs of a unit not converted and the unit with the same bytes that was.
    """
    groups: dict[int, list[int]] = {}
    for copy, converted in copies:
        groups.setdefault(converted, []).append(copy)
    for converted, others in groups.items():
        names = sorted(units[i].name for i in (converted, *others))
        units[converted].name = names[0]
        for i, name in zip(others, names[1:], strict=True):
            units[i].name, units[i].reason, units[i].detail = name, SAME_BYTES, names[0]


def write_manifest(path: pathlib.Path, units: Iterable[Unit]) -> None:
    """Write one line per unit, in `sort_key` order."""
    with path.open("w", encoding="ascii") as stream:
        for unit in sorted(units, key=sort_key):
            stream.write(json.dumps(unit.line(), sort_keys=True) + "\n")
