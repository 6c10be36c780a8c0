"""Files of the user: what was taken, what was dropped and why; damaged files and folders."""

from __future__ import annotations

import json
import pathlib
import struct
import urllib.parse

import numpy as np
import pytest

from data_pipeline.extraction.engines import extract_rows
from data_pipeline.extraction.offers import read_offers
from data_pipeline.render.files import midi_bytes
from data_pipeline.render.sequences import concatenate
from experiments.studio.errors import RefusedError
from experiments.studio.uploads import MAX_FILES, split_files
from musicvae_jax.tasks import get_task
from tests.support.model_cases import random_tokens
from tests.support.studio_client import BYTES, Reply, post, request

MELODY = np.tile(np.array([41, 0, 43, 0, 45, 0, 46, 0], np.int32), 8)  # 4 bars of eighths
LOW = np.where(MELODY > 1, MELODY - 12, 0)
BEAT = np.tile(np.array([5, 0, 4, 0, 6, 0, 4, 0], np.int32), 8)


def trio_file() -> bytes:
    """A file of a melody, a bass and drums, 16 bars long."""
    row = np.stack([np.resize(MELODY, 256), np.resize(LOW, 256), np.resize(BEAT, 256)], axis=1)
    return midi_bytes(concatenate([row], "trio_16bar", qpm=100.0))


def read(name: str, data: bytes, model: str = "mel_2bar", meter: str = "4/4") -> Reply:
    query = urllib.parse.urlencode({"model": model, "name": name, "meter": meter})
    return request("POST", f"/api/read?{query}", data, BYTES)


def framed(*files: tuple[str, bytes]) -> bytes:
    parts = [part for name, data in files for part in (name.encode(), data)]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def test_a_file_offers_its_tracks_and_says_what_it_took() -> None:
    reply = read("a b.mid", trio_file()).json()
    (track,) = reply["tracks"]
    assert (track["title"], track["tempo"]) == ("track 0: Acoustic Grand Piano", 100.0)
    assert [window["bar"] for window in track["windows"]] == list(range(1, 16))
    assert {tuple(window["tokens"]) for window in track["windows"]} == {tuple(MELODY[:32].tolist())}
    taken = reply["taken"]
    assert (taken["track"], taken["window"]) == (0, 0)
    assert taken["row"]["tokens"] == MELODY[:32].tolist()
    assert taken["text"] == "a b.mid: bars 1-2, track 0, 16 of 16 notes kept"
    dropped = {entry["what"]: entry["reason"] for entry in reply["dropped"]}
    assert list(dropped) == ["track 1: Electric Bass (finger)", "track 2: drums"]
    assert dropped["track 2: drums"] == "no melody: no notes but drums"
    # The notes of another window are asked for with its tokens.
    again = post("rows", model="mel_2bar", rows=[{"tokens": track["windows"][3]["tokens"]}])
    assert again["rows"][0]["notes"] == taken["row"]["notes"]


def test_drums_are_taken_together_and_the_rest_is_dropped() -> None:
    reply = read("a.mid", trio_file(), "drums_2bar").json()
    assert [track["title"] for track in reply["tracks"]] == ["all drums"]
    assert reply["taken"]["row"]["tokens"] == BEAT[:32].tolist()
    assert [entry["reason"] for entry in reply["dropped"]] == ["no drums", "no drums"]


def test_notes_that_a_row_cannot_hold_are_counted() -> None:
    sequence = concatenate([MELODY], "mel_2bar")
    sequence.notes.extend(concatenate([LOW], "mel_2bar").notes)
    reply = read("chords.mid", midi_bytes(sequence)).json()
    first = reply["dropped"][0]
    assert first["what"] == "16 of 32 notes in the bars taken"
    assert reply["taken"]["row"]["tokens"] == MELODY[:32].tolist()


def test_a_short_file_is_padded_and_says_so() -> None:
    data = midi_bytes(concatenate([MELODY[:16]], "mel_2bar"))
    taken = read("short.mid", data).json()["taken"]
    assert taken["row"]["tokens"] == [*MELODY[:16].tolist(), 1, *[0] * 15]
    assert "1 bar of silence added after it" in taken["text"]


def test_abc_and_musicxml_are_read() -> None:
    tune = "X:{}\nM:4/4\nL:1/8\nK:C\nCDEF GABc|cBAG FEDC|\n\n"
    reply = read("tunes.abc", (tune.format(1) + tune.format(2)).encode()).json()
    assert [track["tune"] for track in reply["tracks"]] == ["tunes.abc#1", "tunes.abc#2"]
    content = json.dumps({"model": "mel_2bar", "rows": [MELODY[:32].tolist()], "tempo": 120})
    score = request("POST", "/api/musicxml", content.encode(), {"Content-Type": "application/json"})
    taken = read("score.musicxml", score.content).json()["taken"]
    assert taken["row"]["tokens"] == MELODY[:32].tolist()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.mid", b"", "a.mid cannot be read: empty file"),
        ("a.mid", b"MThd", "a.mid cannot be read: unreadable MIDI"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0", "a.png cannot be read: not a music file"),
        ("<b>.mid", b"GIF89a", "<b>.mid cannot be read: not a MIDI file"),
    ],
)
def test_a_file_that_cannot_be_read_gives_its_reason(name: str, data: bytes, reason: str) -> None:
    reply = read(name, data)
    assert reply.status == 422
    assert reply.json()["error"].startswith(reason)


def test_a_file_without_rows_gives_its_reason() -> None:
    reply = read("beat.mid", midi_bytes(concatenate([BEAT[:32]], "drums_2bar")))
    assert reply.status == 422
    assert "no melody: no notes but drums" in reply.json()["error"]


def test_wrong_queries_are_refused() -> None:
    assert read("a.mid", b"", "none").status == 404
    assert read("a.mid", b"", meter="3/4").status == 400
    assert read("a\n.mid", b"").status == 400
    assert request("POST", "/api/read?model=mel_2bar", b"", BYTES).status == 400
    assert request("POST", "/api/read", b"", BYTES).status == 404
    assert read("a.mid", bytes(9 * 2**20)).status == 413


def test_a_folder_gives_windows_of_each_file() -> None:
    song = trio_file()
    files = [("a.mid", song), ("b.mid", b"nothing"), ("c.mid", song)]
    reply = request("POST", "/api/windows?model=drums_2bar", framed(*files), BYTES).json()
    assert reply["files"] == ["a.mid", "b.mid", "c.mid"]
    expected = extract_rows(song, "drums_2bar").tolist()
    for number in (0, 2):
        own = [w["tokens"] for w in reply["windows"] if w["file"] == number]
        assert own == expected
    assert [entry["what"] for entry in reply["dropped"]] == ["b.mid"]


def test_of_a_long_file_windows_are_evenly_spread() -> None:
    task = get_task("drums_2bar")
    rows = random_tokens(task, np.random.default_rng(0), 40)
    song = midi_bytes(concatenate(list(rows), task.name, rest_bars=0))
    found = extract_rows(song, task.name)
    reply = request("POST", "/api/windows?model=drums_2bar", framed(("a", song)), BYTES).json()
    chosen = np.linspace(0, len(found) - 1, 16).astype(int)
    assert [w["tokens"] for w in reply["windows"]] == found[chosen].tolist()
    assert [w["bar"] for w in reply["windows"]] == (chosen + 1).tolist()
    assert reply["dropped"][0]["what"] == f"a: {len(found) - 16} windows"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "there are no files"),
        (b"\0\0", "it ends inside a length"),
        (b"\xff\xff\xff\xff", "it is shorter than the lengths in it say"),
        (framed(("a", b"b"))[:-1], "it is shorter"),
        (struct.pack(">I", 1) + b"\xff" + struct.pack(">I", 0), "name of file 1: it must be UTF-8"),
        (framed(*[("a", b"")] * (MAX_FILES + 1)), f"there are more than {MAX_FILES} files"),
    ],
    ids=["nothing", "length", "name", "content", "text", "many"],
)
def test_a_wrong_list_of_files_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        list(split_files(body))


def test_parts_in_other_meters_are_named() -> None:
    sequence = concatenate([MELODY], "mel_2bar")
    sequence.time_signatures.add(time=0, numerator=3, denominator=4)
    data = midi_bytes(sequence)
    offers = read_offers("waltz.mid", data, "mel_2bar")
    assert (offers.tracks, offers.dropped) == ((), (("the part at the beginning", "not 4/4"),))
    assert len(read_offers("waltz.mid", data, "mel_2bar", meter="any").tracks) == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mel_2bar", "drums_2bar"])
def test_damaged_files_give_a_reason_or_notes(shared: pathlib.Path, model: str) -> None:
    paths = sorted(p for p in (shared / "data" / "bad").iterdir() if p.is_file())
    assert len(paths) >= 70
    for path in paths[:: 1 if model == "mel_2bar" else 4]:
        reply = read("file.mid", path.read_bytes(), model)
        if reply.status == 200:
            assert reply.json()["taken"]["row"]["tokens"], path.name
        else:
            assert reply.status == 422, path.name
            assert reply.json()["error"].startswith("file.mid "), path.name
