// The map: the bars of many files as points that lie near each other where the music is alike.

import * as api from '../api.js';
import {card} from '../card.js';
import {acceptDrops, button, chooseFiles, field, h, select} from '../elements.js';
import {fileName, saveBlob} from '../now.js';
import {FILE_TYPES} from './palette.js';

const FILES_AT_ONCE = 50;
const MOST_POINTS = 10_000;
const FEWEST_POINTS = 3;
const NEAR_PX = 14;
const MARGIN_PX = 20;
const MOST_SAVED = 128;
// The same lightness for all colours, so that they are as clear on a light page as on a dark one.
const LIGHTNESS = '62% 0.16';
const [LOW_HUE, HIGH_HUE] = [265, 55];
const KNOWN_FILE = /\.(mid|midi|kar|musicxml|xml|mxl|abc)$/i;

export function createMap(app) {
  const canvas = h('canvas', {class: 'points', tabindex: 0, role: 'application', 'aria-label': 'Map of your music',
    'aria-roledescription': 'map'});
  const live = h('p', {class: 'visually-hidden', 'aria-live': 'polite'});
  const progress = h('progress', {max: 1, value: 0, 'aria-label': 'Reading the files'});
  const stop = button('Stop reading', () => { isStopped = true; }, {icon: 'stop', hidden: true});
  const colour = h('select', {onchange: draw});
  const scale = h('small', {class: 'scale', vars: {'--low': `oklch(${LIGHTNESS} ${LOW_HUE})`, '--high': `oklch(${LIGHTNESS} ${HIGH_HUE})`}}, h('i'));
  const hover = h('input', {type: 'checkbox', checked: true});
  const count = h('p', {class: 'hint'});
  const dropped = h('details', {hidden: true});
  const side = h('div', {class: 'panel'});
  const zip = button('Save selection', () => app.act(saveSelection), {icon: 'save', disabled: true});
  const choose = (folder) => chooseFiles({accept: FILE_TYPES, multiple: true, folder}, load);
  const empty = h('div', {class: 'invitation'}, h('p', {text: 'Drop MIDI files or a folder here. Every window of your music becomes a point; what is alike lies together.'}),
    h('div', {class: 'group'}, button('Choose files', () => choose(false), {icon: 'file'}), button('Choose a folder', () => choose(true), {icon: 'file'})));
  const board = h('div', {class: 'map-board', hidden: true}, canvas, live);
  const tools = h('div', {class: 'row tools', hidden: true}, field('Colour', colour), scale,
    h('label', {class: 'field check'}, hover, h('span', {text: 'Play on hover'})), zip,
    button('Other files', () => choose(false), {icon: 'file'}), button('Other folder', () => choose(true), {icon: 'file'}));
  const reading = h('div', {class: 'group', hidden: true}, progress, stop);
  const element = h('div', {}, tools, count, reading, dropped, empty, h('div', {class: 'columns map-columns'}, board, side));
  let points = null;  // {model, windows, files, x, y, attributes, spread, neighbours, distances}
  let at = null;      // index of the point under the pointer or the cursor
  let selection = new Set();
  let isStopped = false;

  acceptDrops(element, load);
  new ResizeObserver(draw).observe(board);
  new MutationObserver(draw).observe(document.documentElement, {attributes: true});
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  canvas.addEventListener('pointermove', (event) => point(nearest(event), hover.checked && app.player.isPlaying));
  canvas.addEventListener('click', (event) => take(nearest(event), event.shiftKey));
  canvas.addEventListener('keydown', key);

  function load(all) {
    return app.act(async () => {
      const {model} = app;
      const files = all.filter(({name}) => KNOWN_FILE.test(name));
      const refused = all.filter((file) => !files.includes(file)).map(({name}) => ({what: name, reason: 'neither MIDI, MusicXML nor ABC'}));
      let sent = 0;
      const read = {windows: [], files: [], dropped: refused};
      isStopped = false;
      reading.hidden = stop.hidden = false;
      try {
        while (sent < files.length && !isStopped) {
          const part = await api.windows(model.name, files.slice(sent, sent + FILES_AT_ONCE));
          sent = Math.min(sent + FILES_AT_ONCE, files.length);
          const before = read.files.length;
          read.windows.push(...part.windows.map((window) => ({...window, file: window.file + before})));
          read.files.push(...part.files);
          read.dropped.push(...part.dropped);
          count.textContent = `${sent} of ${files.length} files read`;
          progress.value = 0.8 * sent / files.length;
        }
        if (sent < files.length) read.dropped.push({what: `${files.length - sent} files`, reason: 'reading was stopped'});
        showDropped(read);
        if (read.windows.length < FEWEST_POINTS) throw new Error(`${read.windows.length} windows of music were found; a map needs ${FEWEST_POINTS}.`);
        const every = Math.ceil(read.windows.length / MOST_POINTS);
        const windows = read.windows.filter((_, n) => n % every === 0);
        const found = await api.map({model: model.name, rows: windows.map(({tokens}) => tokens)});
        points = {...found, model: model.name, windows, files: read.files};
        selection = new Set();
        at = null;
        count.textContent = `${windows.length} points from ${read.files.length} files${every > 1 ? `, one of ${every} windows` : ''}. Click loads a point, Shift and click adds it to the selection.`;
        show();
      } finally {
        reading.hidden = stop.hidden = true;
      }
    });
  }

  function showDropped({dropped: list}) {
    dropped.hidden = !list.length;
    dropped.replaceChildren(h('summary', {text: `Left out: ${list.length}`}),
      h('ul', {}, list.map(({what, reason}) => h('li', {text: `${what}: ${reason}`}))));
  }

  function show() {
    const titles = app.model.attributes.map(({name, title}) => [name, title]);
    colour.replaceChildren(...titles.map(([value, text]) => h('option', {value, text})));
    board.hidden = tools.hidden = false;
    empty.hidden = true;
    draw();
  }

  // Places of all points on the canvas, in CSS pixels; kept until its size changes.
  function places() {
    const {clientWidth: width, clientHeight: height} = canvas;
    if (points.places?.width !== width || points.places.height !== height) {
      points.places = {width, height, x: spread(points.x, width), y: spread(points.y, height)};
    }
    return points.places;
  }

  function spread(values, length) {
    const low = values.reduce((a, b) => Math.min(a, b));
    const high = values.reduce((a, b) => Math.max(a, b));
    return values.map((value) => MARGIN_PX + (length - 2 * MARGIN_PX) * (value - low) / (high - low || 1));
  }

  function draw() {
    if (!points || board.hidden || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const context = canvas.getContext('2d');
    context.drawImage(layer(canvas.width, canvas.height, ratio), 0, 0);
    context.scale(ratio, ratio);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    for (const n of selection) dot(context, n, 6, 1);
    if (at !== null) dot(context, at, 8, 1);
  }

  // A picture of all points, which is drawn again only when its size or the colours change: thousands
  // of points take too long for every move of the pointer.
  function layer(width, height, ratio) {
    const key = `${width} ${height} ${colour.value}`;
    if (points.layer?.key !== key) {
      const picture = h('canvas', {width, height});
      const context = picture.getContext('2d');
      const values = points.attributes[colour.value] ?? [];
      const known = values.filter((value) => value !== null).sort((a, b) => a - b);
      const colours = points.x.map((_, n) => shade(values[n], known));
      points.layer = {key, picture, colours};
      context.scale(ratio, ratio);
      points.x.forEach((_, n) => dot(context, n, 4, 0.75));
    }
    return points.layer.picture;
  }

  // Draws a point; those that are chosen are opaque and have an outline.
  function dot(context, n, radius, alpha) {
    const {x, y} = places();
    context.beginPath();
    context.arc(x[n], y[n], radius, 0, 2 * Math.PI);
    context.fillStyle = points.layer.colours[n];
    context.globalAlpha = alpha;
    context.fill();
    if (alpha === 1) context.stroke();
  }

  // Colours by rank, from blue (low) to orange (high), so that a few large values do not hide the rest.
  function shade(value, known) {
    if (value === null || value === undefined || known.length < 2) return '#888';
    let [from, to] = [0, known.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (known[middle] < value) from = middle + 1;
      else to = middle;
    }
    const share = from / (known.length - 1);
    return `oklch(${LIGHTNESS} ${LOW_HUE + (HIGH_HUE - LOW_HUE) * share})`;
  }

  function nearest({offsetX, offsetY}) {
    if (!points) return null;
    let best = null;
    let closest = NEAR_PX ** 2;
    const {x, y} = places();
    x.forEach((across, n) => {
      const distance = (across - offsetX) ** 2 + (y[n] - offsetY) ** 2;
      if (distance < closest) [best, closest] = [n, distance];
    });
    return best;
  }

  function nameOf(n) {
    const {file, bar} = points.windows[n];
    return `${points.files[file]}${bar === null ? '' : `, bar ${bar}`}`;
  }

  function pieceOf(n) {
    points.pieces ??= new Map();
    if (!points.pieces.has(n)) points.pieces.set(n, app.piece(points.windows[n], nameOf(n)));
    return points.pieces.get(n);
  }

  function point(n, isHeard = false) {
    if (n === at) return;
    at = n;
    draw();
    canvas.title = n === null ? '' : nameOf(n);
    if (n === null) return;
    live.textContent = nameOf(n);
    showNeighbours(n);
    if (isHeard) app.select(pieceOf(n), {remember: false});
  }

  function take(n, isAdded) {
    if (n === null) return;
    if (isAdded) {
      if (!selection.delete(n)) selection.add(n);
    } else {
      selection = new Set([n]);
      app.select(pieceOf(n), {play: true});
    }
    zip.disabled = !selection.size;
    zip.lastChild.textContent = `Save selection (${selection.size})`;
    at = n;
    draw();
    showNeighbours(n);
  }

  // What two windows have in common: the attributes that differ least, in standard deviations.
  function alike(a, b) {
    const close = app.model.attributes.map(({name, title}) => ({title,
      apart: Math.abs(points.attributes[name][a] - points.attributes[name][b]) / (points.spread[name] || 1),
      known: points.attributes[name][a] !== null && points.attributes[name][b] !== null}))
      .filter(({known, apart}) => known && apart < 0.5).sort((first, second) => first.apart - second.apart);
    return close.length ? `alike in ${close.slice(0, 2).map(({title}) => title).join(' and ')}` : 'alike as a whole';
  }

  function showNeighbours(n) {
    const neighbours = points.neighbours[n].map((other, k) => h('div', {},
      card(app, pieceOf(other), nameOf(other), h('small', {text: `distance ${points.distances[n][k].toFixed(2)}, ${alike(n, other)}`}))));
    side.replaceChildren(h('h2', {text: nameOf(n)}), card(app, pieceOf(n), 'this point'), h('h3', {text: 'Nearest'}), ...neighbours);
  }

  // Arrow keys go to the nearest point in that direction.
  function key(event) {
    const direction = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!points) return;
    if (direction) step(direction);
    else if (event.key === 'Enter') take(at, event.shiftKey);
    else return;
    event.preventDefault();
  }

  function step([right, down]) {
    if (at === null) {
      point(0);
      return;
    }
    const {x, y} = places();
    let best = null;
    let least = Infinity;
    x.forEach((across, n) => {
      const [dx, dy] = [across - x[at], y[n] - y[at]];
      const ahead = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      const cost = ahead + 2 * aside;
      if (n !== at && ahead > 0.5 && cost < least) [best, least] = [n, cost];
    });
    if (best !== null) point(best, hover.checked && app.player.isPlaying);
  }

  async function saveSelection() {
    const chosen = [...selection].slice(0, MOST_SAVED);
    const {tempo} = app.state;
    const names = chosen.map((n, k) => `${String(k + 1).padStart(3, '0')}-${fileName(nameOf(n))}`);
    const rows = chosen.map((n) => points.windows[n].tokens);
    saveBlob(await api.fileOf('zip', {model: points.model, tempo, rows, names}), 'selection.zip');
    if (selection.size > MOST_SAVED) app.say(`The first ${MOST_SAVED} of ${selection.size} points were saved.`);
  }

  return {element, load, update() {
    if (points && points.model !== app.state.model) {
      points = null;
      board.hidden = tools.hidden = true;
      empty.hidden = false;
      count.textContent = 'The map is of another model: drop the files again.';
      side.replaceChildren();
    }
  }};
}
