"""Rows of tokens as a score in MusicXML.

The XML is written directly, so that equal rows give equal bytes. Each track is a part in 4/4. Notes
that no single symbol can express are tied, and silence is filled with rests. The key signature is
that of the major key with the most notes (the one with the fewest accidentals among equals). Drums
are on a percussion staff with a note head for each class; a hit has no length and is written up to
the next hit or the end of its quarter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from data_pipeline.codecs import drums, trio
from data_pipeline.codecs.codec import has_lengths
from data_pipeline.reading.segments import DEFAULT_QPM
from data_pipeline.render.sequences import Rows, check_sound, lay_out_rows
from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    DRUM_CLASS_NAMES,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Track,
    get_task,
)

_Element = ElementTree.Element

_HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC '
    '"-//Recordare//DTD MusicXML 4.0 Partwise//EN" '
    '"http://www.musicxml.org/dtds/partwise.dtd">\n'
)
# Length in steps -> (type, dots).
_SYMBOLS = {
    16: ("whole", 0),
    12: ("half", 1),
    8: ("half", 0),
    6: ("quarter", 1),
    4: ("quarter", 0),
    3: ("eighth", 1),
    2: ("eighth", 0),
    1: ("16th", 0),
}
# Length in steps -> a note of that length may start at multiples of this step, to be easy to read.
_NOTE_PLACES = {16: 16, 12: 4, 8: 4, 6: 2, 4: 2, 2: 1, 1: 1}
_SHARP_SPELLING = (
    ("C", 0), ("C", 1), ("D", 0), ("D", 1), ("E", 0), ("F", 0),
    ("F", 1), ("G", 0), ("G", 1), ("A", 0), ("A", 1), ("B", 0),
)  # fmt: skip
_FLAT_SPELLING = (
    ("C", 0), ("D", -1), ("D", 0), ("E", -1), ("E", 0), ("F", 0),
    ("G", -1), ("G", 0), ("A", -1), ("A", 0), ("B", -1), ("B", 0),
)  # fmt: skip
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
# For each drum class: place on the staff (step, octave) and note head.
_HEADS = (
    ("F", 4, "normal"),
    ("C", 5, "normal"),
    ("G", 5, "x"),
    ("G", 5, "circle-x"),
    ("A", 4, "normal"),
    ("D", 5, "normal"),
    ("E", 5, "normal"),
    ("A", 5, "x"),
    ("F", 5, "x"),
)


class Event(NamedTuple):
    """One symbol of a bar.

    Attributes:
      start: step within the bar.
      length: steps, a key of `_SYMBOLS`.
      pitches: MIDI pitches that sound together; a rest has none.
      tied_from: tied to the symbol before.
      tied_to: tied to the next symbol.
    """

    start: int
    length: int
    pitches: tuple[int, ...]
    tied_from: bool = False
    tied_to: bool = False


def musicxml(
    rows: Rows,
    task_name: str,
    *,
    qpm: float = DEFAULT_QPM,
    program: int | None = None,
    rest_bars: int = 1,
) -> str:
    """Write rows as a MusicXML score, one after the other with bars of rest between them.

    Args:
      rows: one row, or a list or array of rows; several are numbered in the score.
      task_name: key of `TASKS`.
      qpm: quarters per minute.
      program: General MIDI program of the melody; None takes 0.
      rest_bars: bars of silence between two rows.

    Raises:
      InputError: a row does not fit the task, or `qpm` or `program` is out of range.
    """
    check_sound(qpm, program)
    task = get_task(task_name)
    if not has_lengths(task):
        raise InputError(f"format: {task_name} has no note lengths, so no scores; use midi or png")
    layout = lay_out_rows(rows, task_name, rest_bars=rest_bars, program=program)
    num_bars = layout.num_steps // STEPS_PER_BAR
    pitched = layout.notes[~layout.notes["is_drum"]]
    fifths = best_key(pitched["pitch"])
    marks = {step // STEPS_PER_BAR: str(n) for n, step in enumerate(layout.origins, start=1)}
    root = _Element("score-partwise", version="4.0")
    part_list = ElementTree.SubElement(root, "part-list")
    for number, track in enumerate(task.tracks, start=1):
        notes = _notes_of(layout.notes, track)
        chosen = trio.BASS_PROGRAM if track.name == "bass" else program or 0
        part_list.append(_score_part(f"P{number}", track, chosen))
        part = ElementTree.SubElement(root, "part", id=f"P{number}")
        bars = split_bars(notes, num_bars, is_drums=not track.is_pitched)
        for bar, events in enumerate(bars):
            measure = ElementTree.SubElement(part, "measure", number=str(bar + 1))
            if bar == 0:
                measure.append(_attributes(track, fifths, notes))
                if number == 1:
                    measure.append(_tempo(qpm))
            if number == 1 and bar in marks and len(marks) > 1:
                measure.append(_mark(marks[bar]))
            _add_events(measure, events, f"P{number}", track, fifths)
    ElementTree.indent(root, " ")
    return _HEADER + ElementTree.tostring(root, encoding="unicode") + "\n"


def best_key(pitches: np.ndarray) -> int:
    """Return the signature of the major key with the most notes: sharps, negative for flats."""
    counts = np.bincount(np.asarray(pitches, np.int64) % 12, minlength=12)
    signs = sorted(range(-5, 7), key=abs)
    held = [counts[[(7 * sign + step) % 12 for step in _MAJOR]].sum() for sign in signs]
    return signs[int(np.argmax(held))]


def split_bars(notes: np.ndarray, num_bars: int, *, is_drums: bool) -> list[list[Event]]:
    """Cut the notes of one track into symbols, bar by bar, with rests between them.

    Args:
      notes: of STEP_DTYPE by start, monophonic except for drums.
      num_bars: bars to fill.
      is_drums: write hits that start together as a chord up to the next hit or quarter.
    """
    bars: list[list[Event]] = [[] for _ in range(num_bars)]
    end = 0
    for start, stop, pitches in [*_chords(notes, num_bars, is_drums)]:
        _add_span(bars, end, start, ())
        _add_span(bars, start, stop, pitches)
        end = stop
    _add_span(bars, end, num_bars * STEPS_PER_BAR, ())
    return bars


def _chords(
    notes: np.ndarray, num_bars: int, is_drums: bool
) -> Iterable[tuple[int, int, tuple[int, ...]]]:
    """Yield start, end and pitches of each note or chord in order."""
    starts = sorted(set(notes["start_step"].tolist()))
    for start, following in itertools.zip_longest(starts, starts[1:]):
        together = notes[notes["start_step"] == start]
        if is_drums:
            quarter = (start // STEPS_PER_QUARTER + 1) * STEPS_PER_QUARTER
            stop = quarter if following is None else min(following, quarter)
        else:
            stop = min(int(together["end_step"].max()), num_bars * STEPS_PER_BAR)
        yield start, stop, tuple(sorted(together["pitch"].tolist()))


def _add_span(bars: list[list[Event]], start: int, stop: int, pitches: tuple[int, ...]) -> None:
    """Split a note, a chord or a rest into symbols and add them to their bars."""
    at = start
    while at < stop:
        bar, place = divmod(at, STEPS_PER_BAR)
        length = _symbol_length(place, min(stop - at, STEPS_PER_BAR - place), not pitches)
        tied_from, tied_to = bool(pitches) and at > start, bool(pitches) and at + length < stop
        bars[bar].append(Event(place, length, pitches, tied_from, tied_to))
        at += length


def _symbol_length(place: int, room: int, is_rest: bool) -> int:
    """Return the greatest length that a symbol may have at a place in the bar."""
    if not is_rest and room >= 3 and place % STEPS_PER_QUARTER < 2 and room < 4:
        return 3
    # A rest starts at a multiple of its own length.
    places = {16: 16, 8: 8, 4: 4, 2: 2, 1: 1} if is_rest else _NOTE_PLACES
    return next(n for n, every in places.items() if n <= room and place % every == 0)


def _notes_of(notes: np.ndarray, track: Track) -> np.ndarray:
    """Take the notes of one track."""
    if not track.is_pitched:
        return notes[notes["is_drum"]]
    is_bass = notes["instrument"] == trio.BASS_INSTRUMENT
    return notes[~notes["is_drum"] & (is_bass == (track.name == "bass"))]


def _child(parent: _Element, name: str, text: object = None, **attributes: str) -> _Element:
    """Append an element."""
    child = ElementTree.SubElement(parent, name, attributes)
    if text is not None:
        child.text = str(text)
    return child


def _score_part(part_id: str, track: Track, program: int) -> _Element:
    """Name a part and its instruments: one, or one per drum class."""
    part = _Element("score-part", id=part_id)
    _child(part, "part-name", track.name.capitalize())
    if track.is_pitched:
        _child(_child(part, "score-instrument", id=f"{part_id}-I1"), "instrument-name", track.name)
        midi = _child(part, "midi-instrument", id=f"{part_id}-I1")
        _child(midi, "midi-channel", int(part_id[1:]))
        _child(midi, "midi-program", program + 1)
        return part
    ids = [f"{part_id}-I{pitches[0]}" for pitches in drums.CLASS_PITCHES]
    for name, instrument in zip(DRUM_CLASS_NAMES, ids, strict=True):
        _child(_child(part, "score-instrument", id=instrument), "instrument-name", name)
    for pitches, instrument in zip(drums.CLASS_PITCHES, ids, strict=True):
        midi = _child(part, "midi-instrument", id=instrument)
        _child(midi, "midi-channel", 10)
        _child(midi, "midi-unpitched", pitches[0] + 1)
    return part


def _attributes(track: Track, fifths: int, notes: np.ndarray) -> _Element:
    """Write divisions, key, meter and clef of a part."""
    attributes = _Element("attributes")
    _child(attributes, "divisions", STEPS_PER_QUARTER)
    _child(_child(attributes, "key"), "fifths", fifths if track.is_pitched else 0)
    time = _child(attributes, "time")
    _child(time, "beats", STEPS_PER_BAR // STEPS_PER_QUARTER)
    _child(time, "beat-type", 4)
    clef = _child(attributes, "clef")
    if not track.is_pitched:
        _child(clef, "sign", "percussion")
        return attributes
    is_low = len(notes) > 0 and float(notes["pitch"].mean()) < 57
    _child(clef, "sign", "F" if is_low else "G")
    _child(clef, "line", 4 if is_low else 2)
    return attributes


def _tempo(qpm: float) -> _Element:
    """Write the tempo as a metronome mark and for playback."""
    direction = _Element("direction", placement="above")
    metronome = _child(_child(direction, "direction-type"), "metronome")
    _child(metronome, "beat-unit", "quarter")
    _child(metronome, "per-minute", f"{qpm:g}")
    _child(direction, "sound", tempo=f"{qpm:g}")
    return direction


def _mark(words: str) -> _Element:
    """Write the number of a row above its first bar."""
    direction = _Element("direction", placement="above")
    _child(_child(direction, "direction-type"), "rehearsal", words)
    return direction


def _add_events(
    measure: _Element, events: Sequence[Event], part_id: str, track: Track, fifths: int
) -> None:
    """Write the symbols of one bar."""
    beams = _beams(events)
    for event, beam in zip(events, beams, strict=True):
        for place, pitch in enumerate(event.pitches or (None,)):
            note = _child(measure, "note")
            if place:
                _child(note, "chord")
            head = _add_pitch(note, pitch, track, fifths, event.length == STEPS_PER_BAR)
            _child(note, "duration", event.length)
            for tied, kind in ((event.tied_from, "stop"), (event.tied_to, "start")):
                if tied:
                    _child(note, "tie", type=kind)
            if pitch is not None and not track.is_pitched:
                _child(note, "instrument", id=f"{part_id}-I{pitch}")
            _child(note, "voice", 1)
            symbol, dots = _SYMBOLS[event.length]
            _child(note, "type", symbol)
            for _ in range(dots):
                _child(note, "dot")
            if head != "normal":
                _child(note, "notehead", head)
            for number, value in enumerate(beam if not place else (), start=1):
                _child(note, "beam", value, number=str(number))
            if event.tied_from or event.tied_to:
                notations = _child(note, "notations")
                for tied, kind in ((event.tied_from, "stop"), (event.tied_to, "start")):
                    if tied:
                        _child(notations, "tied", type=kind)


def _add_pitch(note: _Element, pitch: int | None, track: Track, fifths: int, is_bar: bool) -> str:
    """Write a pitch, a drum or a rest; return the type of the note head."""
    if pitch is None:
        _child(note, "rest", **({"measure": "yes"} if is_bar else {}))
        return "normal"
    if not track.is_pitched:
        number = next(i for i, known in enumerate(drums.CLASS_PITCHES) if pitch in known)
        step, octave, head = _HEADS[number]
        unpitched = _child(note, "unpitched")
        _child(unpitched, "display-step", step)
        _child(unpitched, "display-octave", octave)
        return head
    step, alter = (_SHARP_SPELLING if fifths >= 0 else _FLAT_SPELLING)[pitch % 12]
    if fifths == 6 and pitch % 12 == 5:
        step, alter = "E", 1  # F sharp major has no F
    spelled = _child(note, "pitch")
    _child(spelled, "step", step)
    if alter:
        _child(spelled, "alter", alter)
    _child(spelled, "octave", pitch // 12 - 1)
    return "normal"


def _beams(events: Sequence[Event]) -> list[tuple[str, ...]]:
    """Beam eighths and 16ths within a quarter: for each symbol, the values of its beams."""
    beams: list[tuple[str, ...]] = [()] * len(events)
    numbered = enumerate(events)
    for _, group in itertools.groupby(numbered, lambda e: e[1].start // STEPS_PER_QUARTER):
        members = list(group)
        for is_note, found in itertools.groupby(
            members, lambda e: bool(e[1].pitches) and e[1].length < STEPS_PER_QUARTER
        ):
            run = list(found)
            if not is_note or len(run) < 2:
                continue
            short = [event.length == 1 for _, event in run]
            for place, (index, _) in enumerate(run):
                first = _beam_value(place, len(run))
                second = _second_beam(short, place)
                beams[index] = (first, second) if second else (first,)
    return beams


def _beam_value(place: int, count: int) -> str:
    return "begin" if place == 0 else "end" if place == count - 1 else "continue"


def _second_beam(short: Sequence[bool], place: int) -> str:
    """Return the second beam of a 16th, joined with its neighbours or a hook; else ""."""
    if not short[place]:
        return ""
    before = place > 0 and short[place - 1]
    after = place + 1 < len(short) and short[place + 1]
    if before and after:
        return "continue"
    if before or after:
        return "end" if before else "begin"
    return "forward hook" if place == 0 else "backward hook"
