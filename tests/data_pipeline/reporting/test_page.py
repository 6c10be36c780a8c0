"""The page shows the figures and the rows, needs nothing else, and is the same each time."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pytest

from data_pipeline.reporting import page
from data_pipeline.selection.splits import Selection
from musicvae_jax.tasks import DRUM_CLASS_NAMES, TASKS, get_task


def rows_of(task_name: str, num_rows: int) -> np.ndarray:
    """Draw rows with an event on every fourth step."""
    task, rng = get_task(task_name), np.random.default_rng(0)
    rows = np.zeros((num_rows, task.num_steps, len(task.tracks)), task.token_dtype)
    for k, track in enumerate(task.tracks):
        rows[:, ::4, k] = rng.integers(1, track.num_classes, rows[:, ::4, k].shape)
    return rows.reshape(num_rows, *task.row_shape)


def selection(num_rows: int) -> Selection:
    """Put most rows into train."""
    parts = np.split(np.arange(num_rows), [num_rows - 4, num_rows - 2])
    return Selection(dict(zip(("train", "validation", "test"), parts, strict=True)), {}, {})


def figures(task_name: str) -> dict:
    """A task's part of a report."""
    near = {"near": 1, "sampled": 2, "compared": 26, "share": 0.5}
    return {
        "task": task_name,
        "kept": 3,
        "dropped": {"no <drums> & such": 1234},
        "rows_extracted": 40,
        "rows_unique": 30,
        "rows_per_split": {"train": 26, "validation": 2, "test": 2},
        "rows_shared_by_splits": {"train/validation": 7},
        "near_duplicates_of_train_in_test": {
            "song": near,
            "file": {**near, "sampled": 0, "share": None},
        },
        "share_of_no_event": {track.name: 0.625 for track in get_task(task_name).tracks},
    }


def report(*task_names: str) -> dict:
    """A whole report."""
    return {
        "sources": [{"name": "a <b>.zip", "files": 9, "licence": "CC BY"}],
        "files": 10,
        "units": 11,
        "units_read": 8,
        "read_by": {"fast": 8, "note_seq": 1},
        "left_by_fast_engine": {"no tracks": 1},
        "songs": {
            "split_by": "song",
            "songs": 5,
            "files": 300,
            "of_more_than_100_files": [{"files": 200, "md5": "0" * 32, "name": "x & y.mid"}],
        },
        "tasks": [figures(name) for name in task_names],
        "notes": ["no rows in <test>"],
    }


def make(*task_names: str) -> str:
    """Write the page of some tasks."""
    drawn = {
        name: page.measure(get_task(name), rows_of(name, 30), selection(30)) for name in task_names
    }
    return page.html(report(*task_names), drawn)


class Checker(html.parser.HTMLParser):
    """Checks that tags nest, and collects attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.attributes |= {name for name, _ in attrs}
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.open.append(tag)
        assert all(str(value).startswith("#") for name, value in attrs if name == "href")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a closed tag."""
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost tag ends."""
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def everything() -> str:
    """The page of all tasks."""
    return make(*TASKS)


def test_the_page_is_well_formed_and_self_contained(everything: str) -> None:
    checker = Checker()
    checker.feed(everything)
    assert checker.open == []
    assert not checker.attributes & {"src", "srcset", "action"}
    assert not re.search(r"url\((?!#)|@import|<script", everything)
    assert set(re.findall(r"https?://[^\"]*", everything)) == {"http://www.w3.org/2000/svg"}
    assert checker.counts["h2"] == 1 + len(TASKS)


def test_columns_and_counts_that_say_nothing_are_left_out(everything: str) -> None:
    assert "<th>licence</th>" in everything
    plain = report("mel_2bar") | {"units": 10, "sources": [{"name": "a.zip", "files": 10}]}
    drawn = page.measure(get_task("mel_2bar"), rows_of("mel_2bar", 30), selection(30))
    text = page.html(plain, {"mel_2bar": drawn})
    assert "licence" not in text
    assert "each tune" not in text
    assert "units" not in text


def test_the_page_is_the_same_each_time(everything: str) -> None:
    assert make(*TASKS) == everything


def test_figures_and_names_are_on_the_page(everything: str) -> None:
    for words in (
        "a &lt;b&gt;.zip",
        "10 files (with each tune counted: 11)",
        "no rows in &lt;test&gt;",
        "no &lt;drums&gt; &amp; such",
        "1,234",
        "5 songs in 300 different files",
        "x &amp; y.mid",
        "30 stored",
        "10 duplicates removed",
        "1 of 2",
        "50.0%",
        "62.5% of all tokens are",
        *DRUM_CLASS_NAMES,
    ):
        assert words in everything
    assert everything.count('aria-label="piano roll') == 12 * len(TASKS)


def test_a_task_without_rows() -> None:
    none = report("mel_2bar")
    none["tasks"][0] |= {"rows_unique": 0, "rows_extracted": 0}
    empty = page.measure(get_task("mel_2bar"), np.zeros((0, 32), np.uint8), selection(0))
    assert "piano roll" not in page.html(none, {"mel_2bar": empty})


def test_track_figures_hand_computed() -> None:
    rows = np.zeros((4, 32), np.uint8)
    rows[0, [0, 17]] = (41, 43)
    drawn = page.measure(get_task("mel_2bar"), rows, selection(4))
    (track,) = drawn.tracks
    assert np.flatnonzero(track.positions).tolist() == [0, 1]
    assert np.flatnonzero(track.pitches).tolist() == [60, 62]
    assert np.flatnonzero(track.lengths).tolist() == [14, 16]  # 15 and 17 steps
    np.testing.assert_array_equal(drawn.rolls, rows[:1])  # silent rows are passed over
    hits = np.zeros((4, 32), np.uint16)
    hits[0, :3] = (0, 5, 256)
    (track,) = page.measure(get_task("drums_2bar"), hits, selection(4)).tracks
    counts = {name: n for name, n in track.classes.items() if n}
    assert counts == {"kick": 1, "closed hat": 1, "ride": 1}
    assert np.flatnonzero(track.positions).tolist() == [1, 2]
