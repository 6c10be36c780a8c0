"""A child's work: one unit read once for all tasks, failures as reasons."""

from __future__ import annotations

import json
import pickle

import numpy as np

from data_pipeline.conversion.convert import Converted, Job, convert
from data_pipeline.extraction.engines import extract_rows
from data_pipeline.render.files import concatenate, midi_bytes

TUNE = b"X:1\nM:4/4\nL:1/8\nK:C\n" + b"CDEFGABc|" * 20 + b"\n"
TASKS = ("mel_2bar", "mel_16bar", "drums_2bar")


def test_all_tasks_from_one_unit() -> None:
    done = convert(Job("a.abc", TUNE, TASKS, "4/4"))
    assert list(done.rows) == [*TASKS, "songs"]
    assert done.engine == "note_seq"
    for task in TASKS:
        np.testing.assert_array_equal(done.rows[task], extract_rows(TUNE, task))
    assert len(done.rows["mel_16bar"]) > 0
    assert done.why_empty == {"drums_2bar": "no drums"}
    assert done.pieces_dropped == {"drums_2bar": {"no drums": 1}}
    assert done.reason is None


def test_the_meter_is_passed_on() -> None:
    waltz = TUNE.replace(b"4/4", b"3/4")
    strict = convert(Job("a.abc", waltz, ("mel_2bar",), "4/4"))
    assert strict.why_empty["mel_2bar"].startswith("not 4/4")
    assert len(convert(Job("a.abc", waltz, ("mel_2bar",), "any")).rows["mel_2bar"]) > 0


def test_what_cannot_be_read_has_a_reason() -> None:
    assert convert(Job("a.mid", b"", TASKS, "4/4")) == Converted(
        reason="empty file", engine="note_seq"
    )
    broken = convert(Job("a.mid", b"MThd", TASKS, "4/4"))
    assert (broken.reason, broken.rows) == ("unreadable MIDI", {})
    assert broken.detail
    tuplet = convert(Job("a.abc", TUNE + b"(3CD|", TASKS, "4/4"))
    assert tuplet.reason == "unreadable ABC: TupletError"


def test_jobs_and_results_can_be_sent() -> None:
    job = Job("a.abc", TUNE, TASKS, "4/4")
    assert pickle.loads(pickle.dumps(job)) == job
    done = convert(job)
    sent = pickle.loads(pickle.dumps(done))
    np.testing.assert_array_equal(sent.rows["mel_2bar"], done.rows["mel_2bar"])


def test_songs_do_not_depend_on_the_tasks() -> None:
    one = convert(Job("a.abc", TUNE, ("drums_2bar",), "4/4"))
    all_of_them = convert(Job("a.abc", TUNE, TASKS, "4/4"))
    assert len(one.rows["songs"]) == 2  # the bar repeats: one row of 2 bars, one of 16
    np.testing.assert_array_equal(one.rows["songs"], all_of_them.rows["songs"])


def test_both_engines_convert_alike() -> None:
    data = midi_bytes(concatenate(np.full((2, 32), 40, np.uint8), "mel_2bar", rest_bars=0))
    fast = convert(Job("a.mid", data, TASKS, "4/4", "fast"))
    slow = convert(Job("a.mid", data, TASKS, "4/4", "note_seq"))
    assert (fast.engine, slow.engine) == ("fast", "note_seq")
    assert fast.why_empty == slow.why_empty
    for kind, rows in fast.rows.items():
        np.testing.assert_array_equal(rows, slow.rows[kind])
    assert len(fast.rows["mel_2bar"]) > 0


def test_what_the_fast_engine_leaves_is_read_by_the_other() -> None:
    data = midi_bytes(concatenate(np.full((1, 32), 40, np.uint8), "mel_2bar", rest_bars=0))
    smpte = data[:12] + b"\xe7\x28" + data[14:]  # 25 frames of 40 ticks
    done = convert(Job("a.mid", smpte, TASKS, "4/4"))
    assert (done.engine, done.fast_refusal) == ("note_seq", "SMPTE division")


def test_facts_are_all_but_rows() -> None:
    facts = convert(Job("a.abc", TUNE, TASKS, "4/4")).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert Converted(**facts).facts() == facts
    assert "rows" not in facts
