"""Rows to begin with: beats and tunes, written as one word a step."""

from __future__ import annotations

import itertools

import numpy as np

from musicvae_jax.tasks import NO_EVENT, NOTE_OFF, Task, Track
from musicvae_jax.tokens import note_ons

# Letters of a step as `data_pipeline.codecs.drums.words` writes them, "." for nothing.
_LETTERS = "KSHOLMTCR"
_BEATS = {
    "rock": "KH . H . SH . H . KH . KH . SH . H . KH . H . SH . H K H . KH . SH . H O",
    "four on the floor": "K . O . KS . O . K . O . KS . O . K . O . KS . O . K . O . KS . O H",
    "hip hop": "KH . H . SH . H K H . KH . SH . H . KH H H . SH . H K . K H . SH . H H",
    "bossa nova": "KH . H SH K H H S KH . SH H K H S H KH . H SH K H H S KH . SH H K H S H",
    "half time": "KC . H . H . H . SH . H . H . K . KH . H K H . H . SH . H . H L M T",
    "break": "KR . KR . SR . R S R S KR K SR . R S KR . KR . SR . R S R S R . C SR R S",
}
# MIDI pitches; "_" holds the note or the rest before it, "r" begins a rest.
_TUNES = {
    "Ode to Joy": "64 _ 64 _ 65 _ 67 _ 67 _ 65 _ 64 _ 62 _ 60 _ 60 _ 62 _ 64 _ 64 _ _ 62 62 _ _ _",
    "Twinkle Twinkle": "60 _ 60 _ 67 _ 67 _ 69 _ 69 _ 67 _ _ _ "
    "65 _ 65 _ 64 _ 64 _ 62 _ 62 _ 60 _ _ _",
    "scale": "60 _ 62 _ 64 _ 65 _ 67 _ 69 _ 71 _ 72 _ 72 _ 71 _ 69 _ 67 _ 65 _ 64 _ 62 _ 60 _",
    "arpeggio": "57 60 64 69 64 60 57 60 53 57 60 65 60 57 53 57 "
    "48 52 55 60 55 52 48 52 55 59 62 67 62 59 55 r",
    "syncopation": "67 _ _ 67 _ _ 64 _ r _ 62 _ 64 _ 67 _ 69 _ _ 67 _ _ 64 _ r _ 62 _ 60 _ r _",
}
_BASSES = {
    "roots": "36 _ _ _ 36 _ _ _ 41 _ _ _ 41 _ _ _ 43 _ _ _ 43 _ _ _ 36 _ _ _ 36 _ _ r",
    "octaves": "36 _ 48 _ 36 _ 48 _ 33 _ 45 _ 33 _ 45 _ 41 _ 53 _ 41 _ 53 _ 43 _ 55 _ 43 _ 55 r",
}


def rows_of(task: Task) -> dict[str, np.ndarray]:
    """Return the examples of a task: name to tokens [T] or [T, K]; two bars are repeated."""
    choices = [_patterns(track) for track in task.tracks]
    found = {}
    for columns in itertools.islice(
        zip(*map(itertools.cycle, choices), strict=False), _most(choices)
    ):
        name = columns[0][0]
        repeated = [np.resize(tokens, task.num_steps) for _, tokens in columns]
        found[name] = np.stack(repeated, axis=-1).reshape(task.row_shape)
    return found


def _most(choices: list[list[tuple[str, np.ndarray]]]) -> int:
    return len(choices[0])


def _patterns(track: Track) -> list[tuple[str, np.ndarray]]:
    """List the patterns of a track with their names."""
    if not track.is_pitched:
        return [(name, _beat(text)) for name, text in _BEATS.items()]
    texts = _BASSES if track.name == "bass" else _TUNES
    return [(name, _tune(text)) for name, text in texts.items()]


def _beat(text: str) -> np.ndarray:
    """Read a beat: the sum of 2**class over the letters of each step."""
    words = text.split()
    return np.array([sum(1 << _LETTERS.index(c) for c in word if c != ".") for word in words])


def _tune(text: str) -> np.ndarray:
    """Read a tune."""
    special = {"_": NO_EVENT, "r": NOTE_OFF}
    return np.array(
        [
            special[word] if word in special else int(note_ons(np.array(int(word))))
            for word in text.split()
        ]
    )
