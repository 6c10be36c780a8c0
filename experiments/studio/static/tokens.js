// Rows of tokens and the notes that they mean.
//
// A row has one entry per sixteenth note: a number, or with several tracks a list with one number
// per track. Melody: 0 continues what sounds, 1 ends it, 2 and above start the pitch 21 and above.
// Drums: the sum of 2**class over the classes that are hit.
//
// A note is {track, pitch, start, end}: steps, and for drums the class in place of the pitch.

const NOTE_OFF = 1;
const FIRST_NOTE_ON = 2;
export const MIN_PITCH = 21;
export const MAX_PITCH = 108;
export const STEPS_PER_BAR = 16;
export const STEPS_PER_QUARTER = 4;

// MIDI pitch of each drum class, and letters for lists of hits.
export const DRUM_PITCHES = [36, 38, 42, 46, 45, 48, 50, 49, 51];
export const DRUM_NAMES = ['kick', 'snare', 'closed hat', 'open hat', 'low tom', 'mid tom',
  'high tom', 'crash', 'ride'];
const PITCH_NAMES = ['C', 'C♯', 'D', 'D♯', 'E', 'F', 'F♯', 'G', 'G♯', 'A', 'A♯', 'B'];

export function pitchName(pitch) {
  return `${PITCH_NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
}

export function lineName(track, pitch) {
  return track.pitched ? pitchName(pitch) : DRUM_NAMES[pitch];
}

export function emptyRow(model, steps = model.steps) {
  return Array.from({length: steps}, () => model.tracks.length > 1 ? model.tracks.map(() => 0) : 0);
}

function columnOf(row, model, track) {
  return model.tracks.length > 1 ? row.map((step) => step[track]) : row;
}

// Notes of a row by track, then start.
export function notesOf(row, model) {
  return model.tracks.flatMap((track, number) => {
    const column = columnOf(row, model, number);
    return track.pitched ? melodyNotes(column, number) : drumNotes(column, number);
  });
}

function melodyNotes(column, track) {
  const notes = [];
  let note = null;
  column.forEach((token, step) => {
    if (token === 0) return;
    if (note) note.end = step;
    note = null;
    if (token < FIRST_NOTE_ON) return;
    note = {track, pitch: token - FIRST_NOTE_ON + MIN_PITCH, start: step, end: column.length};
    notes.push(note);
  });
  return notes;
}

function drumNotes(column, track) {
  return column.flatMap((token, step) => DRUM_PITCHES.map((_, pitch) => pitch)
    .filter((pitch) => token & (1 << pitch))
    .map((pitch) => ({track, pitch, start: step, end: step + 1})));
}

// The row that holds these notes: in a melody, of notes that start together the last one wins, and
// a note ends where the next one starts.
export function rowOf(notes, model, steps = model.steps) {
  const columns = model.tracks.map((track, number) => {
    const own = notes.filter((note) => note.track === number && note.start < steps);
    return track.pitched ? melodyColumn(own, steps) : drumColumn(own, steps);
  });
  return columns.length > 1 ? columns[0].map((_, step) => columns.map((c) => c[step])) : columns[0];
}

function melodyColumn(notes, steps) {
  const column = new Array(steps).fill(0);
  const starts = new Map(notes.map((note) => [note.start, note]));
  const sorted = [...starts.values()].sort((a, b) => a.start - b.start);
  sorted.forEach((note, n) => {
    column[note.start] = note.pitch - MIN_PITCH + FIRST_NOTE_ON;
    const next = sorted[n + 1]?.start ?? steps;
    if (note.end < next) column[note.end] = NOTE_OFF;
  });
  return column;
}

function drumColumn(notes, steps) {
  const column = new Array(steps).fill(0);
  for (const note of notes) column[note.start] |= 1 << note.pitch;
  return column;
}

// The same music without redundant tokens, such as a second note off in a rest.
export function canonical(row, model) {
  return rowOf(notesOf(row, model), model, row.length);
}

// How many notes a row holds; an empty row can be neither played nor encoded usefully.
export function isSilent(row, model) {
  return notesOf(row, model).length === 0;
}

// Reads a melody typed as `60 _ 62 r`: a number starts a pitch, `_` holds it, `r` rests; each word
// is a sixteenth note. Returns the row, filled up with rests, or throws an Error with the reason.
export function parseMelody(text, model) {
  const words = text.trim().split(/[\s,]+/).filter(Boolean);
  if (words.length > model.steps) {
    throw new Error(`${words.length} steps are too many: the model has ${model.steps}`);
  }
  const column = new Array(model.steps).fill(0);
  words.forEach((word, step) => {
    const pitch = Number(word);
    if (word === '_') return;
    if (word === 'r') column[step] = NOTE_OFF;
    else if (Number.isInteger(pitch) && pitch >= MIN_PITCH && pitch <= MAX_PITCH) {
      column[step] = pitch - MIN_PITCH + FIRST_NOTE_ON;
    } else throw new Error(`“${word}” is none of: a pitch from 21 to 108, _ (hold), r (rest)`);
  });
  if (words.length < model.steps) column[words.length] = NOTE_OFF;
  return canonical(column, {...model, tracks: [model.tracks[0]]});
}

// Writes a melody in that form.
export function melodyText(row) {
  let sounds = false;
  const words = row.map((token) => {
    if (token === 0) return sounds ? '_' : 'r';
    sounds = token >= FIRST_NOTE_ON;
    return sounds ? String(token - FIRST_NOTE_ON + MIN_PITCH) : 'r';
  });
  while (words.length && words[words.length - 1] === 'r') words.pop();
  return words.join(' ');
}

// Reads a beat typed as one word per sixteenth: letters of K S H O L M T C R, or `.`.
const LETTERS = 'KSHOLMTCR';

export function parseBeat(text, model) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  if (words.length > model.steps) {
    throw new Error(`${words.length} steps are too many: the model has ${model.steps}`);
  }
  const column = new Array(model.steps).fill(0);
  words.forEach((word, step) => {
    for (const letter of word.toUpperCase()) {
      if (letter === '.') continue;
      const number = LETTERS.indexOf(letter);
      if (number < 0) throw new Error(`“${letter}” is none of: ${[...LETTERS].join(' ')} .`);
      column[step] |= 1 << number;
    }
  });
  return column;
}

export function beatText(row) {
  const words = row.map((token) => [...LETTERS].filter((_, n) => token & (1 << n)).join('') || '.');
  while (words.length && words[words.length - 1] === '.') words.pop();
  return words.join(' ');
}
