// The studio's page: the current state, what changes it everywhere, and the four views.

import * as api from './api.js';
import {createBar} from './bar.js';
import {h} from './elements.js';
import {fromHash, toHash} from './link.js';
import {createNow} from './now.js';
import {Player, materialOf} from './player.js';
import {createReport} from './report.js';
import {createStore} from './state.js';
import {canonical, emptyRow} from './tokens.js';
import {createMap} from './views/map.js';
import {createPalette} from './views/palette.js';
import {createShape} from './views/shape.js';
import {createSketch} from './views/sketch.js';

const VIEWS = {palette: createPalette, shape: createShape, sketch: createSketch, map: createMap};
// What a model must be able to do for a view, and what the view does with it.
const NEEDS = {palette: ['palette', 'blend pieces'], shape: ['shape', 'change a piece'], map: ['map', 'place music on a map']};
const element = (id) => document.getElementById(id);

// A model as the page uses it: the server's description, and which tracks have pitches.
function prepared(model) {
  const tracks = model.tracks.map((track) => ({...track, pitched: track.kind !== 'drums',
    program: track.program ?? 0}));
  return {...model, tracks};
}

// What a model starts with: everything that depends on the meaning of its rows.
function fresh(model) {
  return {
    model: model.name,
    now: null,
    draws: 0,
    corners: [null, null, null, null],
    count: 4,
    size: model.bars > 4 ? 3 : 7,
    puck: null,
    path: [],
    shape: {row: null, amounts: {}, similar: 0},
    sketch: {tokens: emptyRow(model), action: null, bars: model.bars > 4 ? model.bars : 4, drift: 0.3,
      amount: 0.3},
  };
}

class App {
  constructor({models, soundfont}) {
    this.models = models.map(prepared);
    this.examples = new Map();
    this.player = new Player(() => this.update(), soundfont);
    this.store = createStore({view: 'palette', tempo: 110, loop: true, temperature: 0.5, seed: 1,
      ...fresh(this.models[0])});
    this.store.subscribe((state, before) => this.update(state, before));
  }

  get state() { return this.store.state; }

  get model() { return this.models.find((model) => model.name === this.state.model); }

  // Whether the model can do an action of the server.
  can(action) { return this.model.can.includes(action); }

  // Why a view is empty for the present model, or null.
  whyNot(view) {
    const [action, what] = NEEDS[view] ?? [];
    return !action || this.can(action) ? null
      : `The model ${this.model.name} has no latent space and cannot ${what}. It can continue your notes in Sketch.`;
  }

  build() {
    this.parts = [createBar(this, element('bar')), createNow(this, element('now'))];
    this.report = createReport();
    this.views = Object.fromEntries(Object.entries(VIEWS).map(([name, create]) => [name, create(this)]));
    element('views').append(this.report.element, ...Object.entries(this.views).map(([name, view]) =>
      h('section', {id: `view-${name}`, class: `view ${name}`, role: 'tabpanel', tabindex: -1,
        'aria-labelledby': `tab-${name}`, hidden: true}, view.element, h('p', {class: 'why-not', hidden: true}))));
    document.addEventListener('keydown', (event) => this.#key(event));
    window.addEventListener('hashchange', () => this.openLink().catch((error) => this.fail(error)));
    const draw = () => {
      const position = this.player.position;
      for (const part of [...this.parts, ...Object.values(this.views)]) part.tick?.(position);
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  // Starts with the state of the link, or with four samples.
  async start() {
    if (await this.openLink()) return;
    await this.begin(this.model, {remember: false});
  }

  async openLink() {
    if (location.hash === this.ownHash) return false;
    const state = await fromHash(location.hash).catch((error) => {
      throw new Error(`The link cannot be read: ${error.message}`);
    });
    if (!state) return false;
    const model = this.models.find((known) => known.name === state.model);
    if (!model) throw new Error(`The link needs the model ${state.model}, which is not open here`);
    this.store.update({...this.state, ...fresh(model), ...state}, {remember: this.state.now !== null});
    return true;
  }

  async copyLink() {
    this.ownHash = await toHash(this.state);
    history.replaceState(null, '', this.ownHash);
    await navigator.clipboard?.writeText(location.href).catch(() => {});
    this.say('The address of this page now holds everything you see. It is copied, too.');
  }

  // Changes to a model, with four samples in the corners; without a palette, with an example.
  async begin(model, options) {
    const hasPalette = model.can.includes('palette');
    const start = {...fresh(model), view: hasPalette ? this.state.view : 'sketch'};
    const {rows} = await api.sample(this.drawing({num: 4, model: model.name}));
    const corners = rows.map((row, n) => this.piece(row, `Sample ${n + 1}`, model));
    const [example] = await this.loadExamples(model);
    const sketch = {...start.sketch, tokens: example ? example.row.tokens : corners[0].tokens};
    const now = hasPalette ? corners[0] : {tokens: sketch.tokens, label: 'Your sketch'};
    this.store.update({...start, corners, draws: 1, sketch, now, shape: {...start.shape, row: corners[0]}}, options);
    if (hasPalette) await this.views.palette.follow();
  }

  async loadExamples(model = this.model) {
    if (!this.examples.has(model.name)) this.examples.set(model.name, await api.examples(model.name));
    return this.examples.get(model.name);
  }

  // A request with the model, the temperature and the seed of the page.
  request(more) {
    const {temperature, seed} = this.state;
    return {model: this.state.model, temperature, seed, ...more};
  }

  // The same for a new draw: every draw has a seed of its own, which follows from the page's.
  drawing(more) {
    const {seed, draws} = this.state;
    return this.request({seed: (seed * 7919 + draws) % 2 ** 31, ...more});
  }

  // What the state keeps of a row of the server.
  piece(row, label, model = this.model) {
    return {tokens: canonical(row.tokens, model), ...(row.z ? {z: row.z} : {}), label};
  }

  // Makes a piece the current one; `play` starts it from its beginning.
  select(piece, {play = false, group = null, remember = true} = {}) {
    this.restart = play;
    this.store.update({now: piece}, {group, remember});
    this.restart = false;
    if (play) this.play();
  }

  update(state = this.state, before = null) {
    if (before && state.now !== before.now) {
      if (state.now) this.player.set(materialOf(state.now.tokens, this.model), {restart: this.restart || Boolean(state.now.path)});
      else this.player.stop();
    }
    this.player.tempo = state.tempo;
    this.player.loop = state.loop;
    for (const [name, view] of Object.entries(this.views ?? {})) {
      const section = element(`view-${name}`);
      section.hidden = name !== state.view;
      if (section.hidden) continue;
      const reason = this.whyNot(name);
      section.lastChild.textContent = reason ?? '';
      section.lastChild.hidden = !reason;
      view.element.hidden = Boolean(reason);
      if (!reason) view.update(state, before);
    }
    for (const part of this.parts ?? []) part.update(state, before);
  }

  // Runs an action of the user and shows its error, if it has one.
  async act(work) {
    this.say('');
    try {
      await work();
    } catch (error) {
      this.fail(error);
    }
  }

  say(text) {
    element('status').textContent = text;
    element('error').textContent = '';
  }

  fail(error) {
    element('status').textContent = '';
    element('error').textContent = error.message;
  }

  // Reads a file; its row goes to `use(piece)`, again whenever the user chooses other bars.
  readFile(file, use) {
    return this.act(async () => {
      const {name: model} = this.model;
      const read = (anyMeter) => api.read(model, file, anyMeter);
      this.report.show(await read(false), {use: (piece) => use(piece), model, piece: (row, label) => this.piece(row, label)});
    });
  }

  // Shows a view. Shape begins with the current piece, unless its sliders have been moved or the
  // piece is its own result.
  show(view) {
    const {shape, now} = this.state;
    const isUntouched = !shape.similar && !Object.values(shape.amounts).some(Boolean);
    const isShort = now && now.tokens.length <= this.model.steps;
    const isNew = isUntouched && isShort && !this.views.shape.made(now);
    const row = view === 'shape' && isNew ? now : shape.row;
    this.store.update({view, shape: {...shape, row}}, {remember: false});
  }

  // Plays the current piece. A SoundFont is loaded at the first time, which may take seconds.
  play() {
    return this.act(async () => {
      const isLoading = this.player.soundfont && !this.player.context;
      if (isLoading) this.say('Loading the SoundFont …');
      await this.player.start();
      if (isLoading) this.say('');
    });
  }

  togglePlay() {
    if (this.player.isPlaying) this.player.stop();
    else this.play();
  }

  #key(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    const isTyping = event.target.matches('input:not([type=range]):not([type=checkbox]), textarea, select');
    if (isCommand && event.key.toLowerCase() === 'z' && !isTyping) {
      if (event.shiftKey) this.store.redo();
      else this.store.undo();
    } else if (isCommand && event.key.toLowerCase() === 'y' && !isTyping) this.store.redo();
    else if (event.key === ' ' && !isTyping && !event.target.closest('button, a, summary, [type=checkbox]')) this.togglePlay();
    else return;
    event.preventDefault();
  }
}

async function main() {
  try {
    const app = new App(await api.models());
    window.studio = {app, get analyser() { return app.player.analyser; }};
    app.build();
    app.update();
    document.body.classList.add('ready');
    await app.act(() => app.start());
  } catch (error) {
    element('error').textContent = error.message;
  }
}

main();
