// A row as ABC notation, and its score drawn with abcjs.

import {loadScript} from './elements.js';
import {STEPS_PER_BAR, STEPS_PER_QUARTER, notesOf} from './tokens.js';

const LETTERS = ['C', '^C', 'D', '^D', 'E', 'F', '^F', 'G', '^G', 'A', '^A', 'B'];
// Where each drum class stands on a percussion staff; hats and cymbals have crosses for heads.
const DRUM_POSITIONS = ['F', 'c', 'g', 'a', 'A', 'd', 'e', 'b', 'f'];
const CROSSED = new Set([2, 3, 7, 8]);

function abcPitch(pitch) {
  const letter = LETTERS[pitch % 12];
  const octave = Math.floor(pitch / 12) - 5;  // 0 is the octave of middle C
  if (octave <= 0) return letter + ','.repeat(-octave);
  return letter.toLowerCase() + "'".repeat(octave - 1);
}

// Lengths in sixteenths that one note symbol can have, so that longer ones are tied.
const LENGTHS = [16, 12, 8, 6, 4, 3, 2, 1];

// Writes one event within a bar, tied over the beats where it must be.
function spell(symbol, start, end) {
  const parts = [];
  while (start < end) {
    const room = STEPS_PER_BAR - start % STEPS_PER_BAR;
    const inBeat = STEPS_PER_QUARTER - start % STEPS_PER_QUARTER;
    const most = inBeat === STEPS_PER_QUARTER ? room : inBeat;
    const length = LENGTHS.find((candidate) => candidate <= Math.min(end - start, most));
    parts.push({text: `${symbol}${length === 1 ? '' : length}`, start, end: start + length});
    start += length;
  }
  const tie = symbol.startsWith('z') ? '' : '-';
  return parts.map((part, n) => ({...part, text: part.text + (n < parts.length - 1 ? tie : '')}));
}

function voice(events, steps) {
  const parts = [];
  let at = 0;
  for (const {symbol, start, end} of events) {
    if (start > at) parts.push(...spell('z', at, start));
    parts.push(...spell(symbol, start, end));
    at = end;
  }
  if (at < steps) parts.push(...spell('z', at, steps));
  return parts.map(({text, end}) => text + (end % STEPS_PER_BAR === 0
    ? (end % (4 * STEPS_PER_BAR) === 0 || end === steps ? ' |\n' : ' | ')
    : end % STEPS_PER_QUARTER === 0 ? ' ' : '')).join('');
}

// Hits are written as long as the beat allows: nobody reads sixteenths between rests.
function drumEvents(notes, steps) {
  const starts = [...new Set(notes.map((note) => note.start))];
  return starts.map((start, n) => {
    const hit = notes.filter((note) => note.start === start).map(({pitch}) =>
      `${CROSSED.has(pitch) ? '!style=x!' : ''}${DRUM_POSITIONS[pitch]}`);
    const beatEnd = start - start % STEPS_PER_QUARTER + STEPS_PER_QUARTER;
    return {symbol: hit.length > 1 ? `[${hit.join('')}]` : hit[0], start,
      end: Math.min(starts[n + 1] ?? steps, beatEnd)};
  });
}

export function abcOf(row, model, tempo) {
  const notes = notesOf(row, model);
  const voices = model.tracks.map((track, number) => {
    const own = notes.filter((note) => note.track === number);
    const events = track.pitched
      ? own.map((note) => ({symbol: abcPitch(note.pitch), start: note.start, end: note.end}))
      : drumEvents(own.toSorted((a, b) => a.start - b.start), row.length);
    const average = own.reduce((sum, note) => sum + note.pitch, 0) / Math.max(own.length, 1);
    const clef = !track.pitched ? 'perc' : own.length && average < 57 ? 'bass' : 'treble';
    return `V:${number + 1} clef=${clef}\n${voice(events, row.length)}`;
  });
  return `X:1\nM:4/4\nL:1/16\nQ:1/4=${Math.round(tempo)}\nK:C\n${voices.join('\n')}`;
}

export async function drawScore(element, row, model, tempo) {
  if (!window.ABCJS) await loadScript('/vendor/abcjs-basic-min.js');
  window.ABCJS.renderAbc(element, abcOf(row, model, tempo), {responsive: 'resize', staffwidth: 1100,
    add_classes: true, paddingtop: 0, paddingbottom: 0});
}
