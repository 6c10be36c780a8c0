"""A child's work: one unit read once for all tasks, failures as reasons."""

from __future__ import annotations

import pickle

import numpy as np

from data_pipeline.convert import Converted, Job, convert
from data_pipeline.extract import extract_rows

TUNE = b"X:1\nM:4/4\nL:1/8\nK:C\n" + b"CDEFGABc|" * 20 + b"\n"
TASKS = ("mel_2bar", "mel_16bar", "drums_2bar")


def test_all_tasks_from_one_unit() -> None:
    done = convert(Job("a.abc", TUNE, TASKS, "4/4"))
    assert list(done.rows) == list(TASKS)
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
    assert convert(Job("a.mid", b"", TASKS, "4/4")) == Converted(reason="empty file")
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
