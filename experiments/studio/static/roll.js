// The piano roll: draws a row of melody, drums or several tracks, and edits it with the mouse, a
// finger or the keyboard.

import {h, svg} from './elements.js';
import {MAX_PITCH, MIN_PITCH, STEPS_PER_BAR, STEPS_PER_QUARTER, DRUM_NAMES, lineName, notesOf,
  rowOf} from './tokens.js';

const FEWEST_LINES = 14;
const EDIT_LOW = 48;
const EDIT_HIGH = 84;
const BLACK_KEYS = new Set([1, 3, 6, 8, 10]);
const EDGE_PX = 7;  // how near the end of a note the pointer grips the end

// The lines of a row, from top to bottom: one band of lines per track.
function bandsOf(notes, model, isEditable) {
  let top = 0;
  return model.tracks.map((track, number) => {
    let [low, high] = [0, DRUM_NAMES.length - 1];
    if (track.pitched) {
      const own = notes.filter((note) => note.track === number).map((note) => note.pitch);
      [low, high] = own.length ? [Math.min(...own), Math.max(...own)] : [60, 72];
      if (isEditable) [low, high] = [Math.min(low - 2, EDIT_LOW), Math.max(high + 2, EDIT_HIGH)];
      const missing = FEWEST_LINES - (high - low + 1);
      if (missing > 0) [low, high] = [low - Math.floor(missing / 2), high + Math.ceil(missing / 2)];
      [low, high] = [Math.max(low, MIN_PITCH), Math.min(high, MAX_PITCH)];
    }
    const band = {track: number, pitched: track.pitched, low, high, top};
    top += high - low + 1;
    return band;
  });
}

function lineOf(bands, note) {
  const band = bands[note.track];
  return band.top + band.high - note.pitch;
}

function countLines(bands) {
  return bands.reduce((sum, band) => sum + band.high - band.low + 1, 0);
}

// A small picture of a row without labels, scaled to its box: one path per track.
export function miniRoll(row, model, label) {
  const notes = notesOf(row, model);
  const bands = bandsOf(notes, model, false);
  const picture = svg('svg', {class: 'mini', preserveAspectRatio: 'none',
    viewBox: `0 0 ${row.length} ${countLines(bands)}`,
    ...(label ? {role: 'img', 'aria-label': label} : {'aria-hidden': 'true'})});
  for (const {track} of bands) {
    const d = notes.filter((note) => note.track === track).map((note) =>
      `M${note.start + 0.08} ${lineOf(bands, note) + 0.08}h${note.end - note.start - 0.16}v.84H${note.start + 0.08}z`);
    picture.append(svg('path', {class: `track${track}`, d: d.join('')}));
  }
  return picture;
}

// A full piano roll.
export class Roll {
  // `onedit(row)` makes the roll editable; `label` names it for screen readers.
  constructor({label, onedit = null, lineHeight = onedit ? 11 : 7}) {
    this.onedit = onedit;
    this.lineHeight = lineHeight;
    this.cursor = {step: 0, line: null};
    this.svg = svg('svg', onedit
      ? {class: 'roll editable', tabindex: 0, role: 'application', 'aria-label': label,
        'aria-roledescription': 'piano roll', 'aria-describedby': 'roll-help'}
      : {class: 'roll', role: 'img', 'aria-label': label});
    this.live = h('p', {class: 'visually-hidden', 'aria-live': 'polite'});
    this.element = h('div', {class: 'roll-box', ...(onedit ? {} : {tabindex: 0, role: 'group', 'aria-label': label})},
      this.svg, onedit ? this.live : null);
    new ResizeObserver(() => this.#draw()).observe(this.element);
    if (onedit) this.#listen();
  }

  show(row, model) {
    if (row === this.row && model === this.model) return;
    this.row = row;
    this.model = model;
    this.notes = notesOf(row, model);
    if (!this.isDragging) this.bands = bandsOf(this.notes, model, Boolean(this.onedit));
    this.#draw();
  }

  // Moves the playhead to a step with its fraction; null hides it.
  playhead(step) {
    if (!this.head) return;
    this.head.setAttribute('visibility', step === null ? 'hidden' : 'visible');
    if (step !== null) this.head.setAttribute('transform', `translate(${this.left + step * this.stepWidth})`);
  }

  #draw() {
    const width = this.element.clientWidth;
    if (!this.row || width < 10) return;
    const lines = countLines(this.bands);
    const lineHeight = this.onedit && !this.model.tracks[0].pitched && this.model.tracks.length === 1
      ? 2 * this.lineHeight : this.lineHeight * (lines < 12 ? 1.6 : 1);
    this.left = 58;
    this.pitchHeight = lineHeight;
    this.stepWidth = Math.max((width - this.left - 2) / this.row.length, 6);
    const height = lines * lineHeight;
    const right = this.left + this.row.length * this.stepWidth;
    this.svg.setAttribute('width', Math.ceil(right + 1));
    this.svg.setAttribute('height', height + 1);
    this.head = svg('line', {class: 'head', y1: 0, y2: height, visibility: 'hidden'});
    this.svg.replaceChildren(...this.#lines(right), ...this.#steps(height), ...this.#drawnNotes(),
      this.#drawnCursor(), this.head);
  }

  #lines(right) {
    return this.bands.flatMap((band) => {
      const track = this.model.tracks[band.track];
      const drawn = [];
      for (let pitch = band.low; pitch <= band.high; ++pitch) {
        const y = (band.top + band.high - pitch) * this.pitchHeight;
        const isDark = band.pitched ? BLACK_KEYS.has(pitch % 12) : pitch % 2 === 1;
        drawn.push(svg('rect', {class: isDark ? 'line dark' : 'line', x: this.left, y,
          width: right - this.left, height: this.pitchHeight}));
        if (!band.pitched || pitch % 12 === 0 || (pitch % 12 === 7 && band.high - band.low < 26)) {
          const name = svg('text', {x: this.left - 5, y: y + this.pitchHeight / 2});
          name.textContent = lineName(track, pitch).replace('closed', 'cl.');
          drawn.push(name);
        }
      }
      return drawn;
    });
  }

  #steps(height) {
    return this.row.map((_, step) => {
      const kind = step % STEPS_PER_BAR === 0 ? 'bar' : step % STEPS_PER_QUARTER === 0 ? 'beat' : 'step';
      const x = this.left + step * this.stepWidth;
      return kind === 'step' && this.stepWidth < 9 ? null
        : svg('line', {class: kind, x1: x, x2: x, y1: 0, y2: height});
    }).filter(Boolean);
  }

  #drawnNotes() {
    return this.notes.map((note) => svg('rect', {class: `note track${note.track}`, rx: 2,
      x: this.left + note.start * this.stepWidth + 0.5,
      y: lineOf(this.bands, note) * this.pitchHeight + 0.5,
      width: Math.max((note.end - note.start) * this.stepWidth - 1, 1), height: this.pitchHeight - 1}));
  }

  #drawnCursor() {
    const {step, line} = this.#place();
    return svg('rect', {class: 'cursor', x: this.left + step * this.stepWidth,
      y: line * this.pitchHeight, width: this.stepWidth, height: this.pitchHeight});
  }

  #place() {
    const lines = countLines(this.bands);
    const line = this.cursor.line ?? (this.notes.length ? lineOf(this.bands, this.notes[0]) : Math.floor(lines / 2));
    return {step: Math.min(this.cursor.step, this.row.length - 1), line: Math.min(line, lines - 1)};
  }

  // The track and pitch of a line.
  #target(line) {
    const band = this.bands.findLast((candidate) => candidate.top <= line);
    return {track: band.track, pitch: band.high - (line - band.top), pitched: band.pitched};
  }

  #noteAt(step, {track, pitch}) {
    return this.notes.find((note) => note.track === track && note.pitch === pitch
      && note.start <= step && step < note.end);
  }

  #commit(notes) {
    this.onedit(rowOf(notes, this.model, this.row.length));
  }

  #listen() {
    this.svg.addEventListener('pointerdown', (event) => this.#press(event));
    this.svg.addEventListener('keydown', (event) => this.#key(event));
  }

  #pointed(event) {
    const box = this.svg.getBoundingClientRect();
    const x = event.clientX - box.left - this.left;
    const lines = countLines(this.bands);
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    return {x, step: clamp(Math.floor(x / this.stepWidth), this.row.length - 1),
      line: clamp(Math.floor((event.clientY - box.top) / this.pitchHeight), lines - 1)};
  }

  // A press on an empty place starts a note, on a note moves it, on its end makes it longer or
  // shorter; a note that was pressed and not moved is removed. On drums, a drag paints.
  #press(event) {
    if (event.button !== 0) return;
    this.svg.setPointerCapture(event.pointerId);
    const first = this.#pointed(event);
    const target = this.#target(first.line);
    this.cursor = {step: first.step, line: first.line};
    const pressed = this.#noteAt(first.step, target);
    const others = this.notes.filter((note) => note !== pressed);
    this.isDragging = true;
    const drag = target.pitched ? this.#dragNote(first, target, pressed, others)
      : this.#paint(first, target, Boolean(pressed));
    const move = (moved) => drag(this.#pointed(moved), false);
    const end = (lifted) => {
      this.svg.removeEventListener('pointermove', move);
      this.isDragging = false;
      drag(this.#pointed(lifted), true);
      this.onedit(this.row, {isDone: true});
    };
    this.svg.addEventListener('pointermove', move);
    this.svg.addEventListener('pointerup', end, {once: true});
    this.svg.addEventListener('pointercancel', end, {once: true});
    drag(first, false);
  }

  #paint(first, target, isErasing) {
    return ({step}, isLast) => {
      if (isLast) return;
      const at = this.#noteAt(step, target);
      if (isErasing && at) this.#commit(this.notes.filter((note) => note !== at));
      if (!isErasing && !at) this.#commit([...this.notes, {...target, start: step, end: step + 1}]);
    };
  }

  #dragNote(first, target, pressed, others) {
    let hasMoved = false;
    const isEnd = pressed && first.x > pressed.end * this.stepWidth - EDGE_PX;
    return ({step, line}, isLast) => {
      hasMoved ||= step !== first.step || line !== first.line;
      if (pressed && !hasMoved) {
        if (isLast) this.#commit(others);
        return;
      }
      if (isLast) return;
      const note = pressed ? {...pressed} : {track: target.track, pitch: target.pitch, start: first.step, end: first.step + 1};
      if (!pressed || isEnd) note.end = Math.max(note.start + 1, step + 1);
      else {
        const length = note.end - note.start;
        note.start = Math.max(0, Math.min(this.row.length - 1, note.start + step - first.step));
        note.end = Math.min(this.row.length, note.start + length);
        const moved = this.#target(line);
        if (moved.track === note.track) note.pitch = moved.pitch;
      }
      this.#commit([...others.filter((other) => other.track !== note.track || other.start !== note.start), note]);
    };
  }

  #key(event) {
    const {step, line} = this.#place();
    const target = this.#target(line);
    const note = this.#noteAt(step, target);
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const move = moves[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move && event.shiftKey && note && target.pitched) this.#moveNote(note, move);
    else if (move) this.#moveCursor(step + move[0], line + move[1]);
    else if (event.key === 'Enter') {
      this.#commit(note ? this.notes.filter((other) => other !== note)
        : [...this.notes, {...target, start: step, end: step + 1}]);
      this.onedit(this.row, {isDone: true});
    } else if (event.key === 'Home') this.#moveCursor(0, line);
    else if (event.key === 'End') this.#moveCursor(this.row.length - 1, line);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.#say();
  }

  // Shift and arrows: left and right change the length, up and down the pitch.
  #moveNote(note, [right, down]) {
    const changed = {...note, pitch: note.pitch - down, end: Math.max(note.start + 1, Math.min(this.row.length, note.end + right))};
    const band = this.bands[note.track];
    if (changed.pitch < band.low || changed.pitch > band.high) return;
    this.cursor = {step: note.start, line: lineOf(this.bands, changed)};
    this.#commit([...this.notes.filter((other) => other !== note), changed]);
    this.onedit(this.row, {isDone: true});
  }

  #moveCursor(step, line) {
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    this.cursor = {step: clamp(step, this.row.length - 1), line: clamp(line, countLines(this.bands) - 1)};
    this.#draw();
  }

  #say() {
    const {step, line} = this.#place();
    const target = this.#target(line);
    const beat = Math.floor((step % STEPS_PER_BAR) / STEPS_PER_QUARTER) + 1;
    this.live.textContent = `bar ${Math.floor(step / STEPS_PER_BAR) + 1}, beat ${beat}, `
      + `sixteenth ${step % STEPS_PER_QUARTER + 1}, ${lineName(this.model.tracks[target.track], target.pitch)}`
      + `${this.#noteAt(step, target) ? ', note' : ''}`;
  }
}
