// The palette: two or four corners, and a grid of blends between them.

import * as api from '../api.js';
import {playable} from '../card.js';
import {acceptDrops, button, chooseFiles, field, h, select, setVars} from '../elements.js';
import {CORNERS, fileName, saveBlob} from '../now.js';
import {miniRoll} from '../roll.js';
import {STEPS_PER_BAR} from '../tokens.js';

export const FILE_TYPES = '.mid,.midi,.kar,.musicxml,.xml,.mxl,.abc';
const SIDES = ['left', 'right'];
const MOST_BARS = 64;  // of a path, which is one piece

export function createPalette(app) {
  const {store} = app;
  const cards = CORNERS.map((_, n) => h('section', {class: `corner corner${n}`, vars: {'--corner': `var(--corner${n})`}}));
  const grid = h('div', {class: 'grid', role: 'grid', 'aria-label': 'Blends between the corners'});
  const hint = h('p', {class: 'hint'});
  const count = select([[4, '4 corners'], [2, '2 corners']], 4, (value) => change({count: Number(value), puck: null}));
  const size = select([3, 5, 7, 9, 11].map((n) => [n, `${n} steps`]), 7, (value) => change({size: Number(value), puck: null}));
  const pathButton = button('Draw a path', () => setDrawing(!isDrawing), {icon: 'path', 'aria-pressed': 'false'});
  const zip = button('All as zip', () => app.act(saveAll), {icon: 'save'});
  const element = h('div', {},
    h('div', {class: 'row tools'}, field('Between', count), field('Grid', size), pathButton, zip, hint),
    h('div', {class: 'board'}, cards[0], cards[1], h('div', {class: 'middle'}, grid), cards[2], cards[3]));
  let cells = null;      // of the shown request: a list of lists of pieces
  let shown = null;      // the key of that request
  let isDrawing = false;
  let buttons = [];

  cards.forEach((card, n) => acceptDrops(card, ([file]) => readCorner(n, file)));
  grid.addEventListener('pointerdown', press);
  grid.addEventListener('keydown', key);

  function used(state) {
    return state.count === 2 ? [state.corners[0], state.corners[1]] : state.corners;
  }

  function shape({count: corners, size: across}) {
    return {rows: corners === 2 ? 1 : across, columns: across};
  }

  function request(state) {
    const corners = used(state);
    if (corners.some((corner) => !corner)) return null;
    return app.request({corners: corners.map(({tokens, z}) => z ? {tokens, z} : {tokens}), ...shape(state)});
  }

  // Changes the palette; the current piece then follows the puck.
  async function change(changes, options) {
    store.update(changes, options);
    await app.act(() => follow());
  }

  async function follow() {
    const key = JSON.stringify(request(app.state));
    const found = await load(app.state);
    if (!found || key !== JSON.stringify(request(app.state))) return;
    const [row, column] = puckOf(app.state);
    store.update({now: found[row][column]}, {remember: false});
  }

  async function load(state) {
    const asked = request(state);
    if (!asked) return null;
    const reply = await api.palette(asked);
    reply.pieces ??= reply.cells.map((line, r) => line.map((row, c) => app.piece(row, cellName(r, c, state))));
    return reply.pieces;
  }

  function cellName(row, column, state) {
    const {rows, columns} = shape(state);
    const share = (n, most) => Math.round(100 * n / Math.max(most - 1, 1));
    return rows === 1 ? `Blend ${share(column, columns)}% right`
      : `Blend ${share(column, columns)}% right, ${share(row, rows)}% down`;
  }

  function puckOf(state) {
    const {rows, columns} = shape(state);
    const [row, column] = state.puck ?? [Math.floor(rows / 2), Math.floor(columns / 2)];
    return [Math.min(row, rows - 1), Math.min(column, columns - 1)];
  }

  function movePuck(row, column) {
    const [was, where] = puckOf(app.state);
    if (app.state.puck && row === was && column === where && !app.state.now?.path) return;
    store.update({puck: [row, column], ...(cells ? {now: cells[row][column]} : {})}, {group: 'puck'});
  }

  function setDrawing(on) {
    isDrawing = on;
    pathButton.setAttribute('aria-pressed', on);
    grid.classList.toggle('drawing', on);
    update(app.state);
  }

  // A path is played bar by bar: bar n of the piece is taken from the n-th cell.
  function playPath(path) {
    if (!cells || !path.length) return;
    const bars = app.model.bars;
    const tokens = path.slice(0, MOST_BARS).flatMap(([row, column], n) => {
      const start = (n % bars) * STEPS_PER_BAR;
      return cells[row][column].tokens.slice(start, start + STEPS_PER_BAR);
    });
    const now = {tokens, label: `Path of ${path.length} cells`, path: true};
    app.restart = true;
    store.update({path, now});
    app.restart = false;
    app.play();
  }

  function cellAt(event) {
    const box = grid.getBoundingClientRect();
    const {rows, columns} = shape(app.state);
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
    return [clamp(Math.floor(rows * (event.clientY - box.top) / box.height), rows),
      clamp(Math.floor(columns * (event.clientX - box.left) / box.width), columns)];
  }

  function press(event) {
    if (event.button !== 0 || !cells) return;
    event.preventDefault();
    grid.setPointerCapture(event.pointerId);
    const path = [];
    const move = (moved) => {
      const cell = cellAt(moved);
      if (isDrawing) {
        const last = path[path.length - 1];
        if (!last || last[0] !== cell[0] || last[1] !== cell[1]) path.push(cell);
        mark({...app.state, path});
      } else movePuck(...cell);
    };
    const end = () => {
      grid.removeEventListener('pointermove', move);
      store.endGroup();
      if (isDrawing) {
        setDrawing(false);
        playPath(path);
      }
      buttons[puckOf(app.state)[0]]?.[puckOf(app.state)[1]]?.focus({preventScroll: true});
    };
    grid.addEventListener('pointermove', move);
    grid.addEventListener('pointerup', end, {once: true});
    grid.addEventListener('pointercancel', end, {once: true});
    move(event);
  }

  function key(event) {
    const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    const {rows, columns} = shape(app.state);
    const [row, column] = puckOf(app.state);
    if (move && !event.ctrlKey && !event.metaKey) {
      const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
      const next = [clamp(row + move[0], rows), clamp(column + move[1], columns)];
      movePuck(...next);
      buttons[next[0]]?.[next[1]]?.focus();
    } else if (event.key === 'Enter' && isDrawing) {
      store.update(({path}) => ({path: [...path, [row, column]]}));
    } else if (event.key === 'Enter') app.play();
    else return;
    event.preventDefault();
  }

  async function setCorner(n, piece) {
    await change(({corners}) => ({corners: corners.map((corner, m) => m === n ? piece : corner), path: []}));
  }

  function readCorner(n, file) {
    return app.readFile(file, (piece) => setCorner(n, {...piece, source: 'your file'}));
  }

  function sampleCorner(n) {
    return app.act(async () => {
      const {rows: [row]} = await api.sample(app.drawing({num: 1}));
      store.update(({draws}) => ({draws: draws + 1}), {remember: false});
      await setCorner(n, {...app.piece(row, 'Sample'), source: 'a sample'});
    });
  }

  function drawCorner(n) {
    const {corners, sketch} = app.state;
    store.update({view: 'sketch', sketch: {...sketch, ...(corners[n] ? {tokens: corners[n].tokens} : {}), action: null}});
    app.say(`Draw, then choose “${CORNERS[n]}” at “To corner”.`);
  }

  function exampleMenu(n) {
    const menu = h('select', {'aria-label': `Example for the corner ${nameOf(n)}`, onchange: () => app.act(async () => {
      const {name, row} = (await app.loadExamples())[Number(menu.value)];
      menu.value = '';
      await setCorner(n, {...app.piece(row, name), source: 'an example'});
    })}, h('option', {value: '', text: 'Example …'}));
    app.loadExamples().then((list) => menu.append(...list.map(({name}, m) => h('option', {value: m, text: name})))).catch(() => {});
    return menu;
  }

  function nameOf(n) {
    return app.state.count === 2 ? SIDES[n] : CORNERS[n];
  }

  async function saveAll() {
    const pieces = (await load(app.state)).flat();
    const {tempo, model} = app.state;
    const rows = pieces.map(({tokens}) => tokens);
    const names = pieces.map(({label}, n) => `${String(n + 1).padStart(3, '0')}-${fileName(label)}`);
    saveBlob(await api.fileOf('zip', {model, tempo, rows, names}), 'palette.zip');
  }

  function showCorner(card, n, state) {
    const corner = state.corners[n];
    const cell = cells && cells[n < 2 ? 0 : cells.length - 1][n % 2 ? cells[0].length - 1 : 0];
    const pictures = corner ? h('div', {class: 'pictures'},
      h('div', {}, playable(app, corner, `the ${nameOf(n)} corner`), h('small', {text: corner.source ?? corner.label})),
      cell ? h('div', {}, playable(app, cell, `the model's version of the ${nameOf(n)} corner`), h('small', {text: "the model's version"})) : null)
      : h('p', {class: 'empty', text: 'Empty. Drop a file here, or choose:'});
    const small = (text, onclick, props) => button(text, onclick, {class: 'small', ...props});
    const clear = corner ? small('', () => setCorner(n, null), {icon: 'close', label: `Clear the ${nameOf(n)} corner`, class: 'small plain'}) : null;
    card.replaceChildren(h('div', {class: 'row'}, h('h3', {text: nameOf(n)}), clear), pictures, h('div', {class: 'group'},
      small('Sample', () => sampleCorner(n)),
      small('Draw', () => drawCorner(n)),
      small('File', () => chooseFiles({accept: FILE_TYPES}, ([file]) => readCorner(n, file))),
      exampleMenu(n)));
  }

  function showGrid(state) {
    const {rows, columns} = shape(state);
    setVars(grid, {'--rows': rows, '--columns': columns});
    buttons = Array.from({length: rows}, (_, r) => Array.from({length: columns}, (__, c) => h('div', {
      class: 'cell', role: 'gridcell', 'aria-label': cellName(r, c, state),
      vars: {'--x': `${100 * c / Math.max(columns - 1, 1)}%`, '--y': `${100 * r / Math.max(rows - 1, 1)}%`},
    }, cells ? miniRoll(cells[r][c].tokens, app.model) : null)));
    grid.replaceChildren(...buttons.map((line) => h('div', {role: 'row'}, line)));
  }

  function mark(state) {
    const [row, column] = puckOf(state);
    const onPath = new Set(state.path.map(String));
    buttons.forEach((line, r) => line.forEach((cell, c) => {
      const isPuck = r === row && c === column;
      cell.classList.toggle('puck', isPuck && Boolean(cells));
      cell.classList.toggle('on-path', onPath.has(`${r},${c}`));
      cell.setAttribute('aria-selected', isPuck);
      cell.tabIndex = isPuck ? 0 : -1;
    }));
  }

  async function show(state) {
    const key = JSON.stringify([request(state), state.count, state.size]);
    const before = shown;
    if (key !== shown) {
      shown = key;
      grid.setAttribute('aria-busy', 'true');
      const found = await load(state).catch((error) => { app.fail(error); return null; });
      if (shown !== key) return;
      cells = found;
      grid.setAttribute('aria-busy', 'false');
      showGrid(app.state);
    }
    if (before !== shown || !cards[0].firstChild) cards.forEach((card, n) => showCorner(card, n, app.state));
    mark(app.state);
  }

  function update(state) {
    count.value = state.count;
    size.value = state.size;
    element.classList.toggle('two', state.count === 2);
    cards.forEach((card, n) => { card.hidden = n >= state.count; });
    const missing = used(state).filter((corner) => !corner).length;
    hint.textContent = missing ? `Fill ${missing === 1 ? 'the empty corner' : `the ${missing} empty corners`} to blend.`
      : isDrawing ? 'Drag over the grid, or move with the arrow keys and press Enter at each step.'
        : 'Press Play and drag the white puck.';
    zip.disabled = pathButton.disabled = missing > 0;
    show(state);
  }

  return {element, update, follow, setCorner, tick(position) {
    const {path, now} = app.state;
    const at = now?.path && position ? path[Math.floor(position.step / STEPS_PER_BAR)] : null;
    buttons.forEach((line, r) => line.forEach((cell, c) =>
      cell.classList.toggle('heard', Boolean(at) && at[0] === r && at[1] === c)));
  }};
}
