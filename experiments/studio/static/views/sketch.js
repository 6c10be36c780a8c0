// Sketch: draw or type a piece; hear it as the model plays it, continue it, vary it.

import * as api from '../api.js';
import {card} from '../card.js';
import {acceptDrops, button, chooseFiles, field, h, select} from '../elements.js';
import {fileName, saveBlob} from '../now.js';
import {Roll} from '../roll.js';
import {beatText, emptyRow, isSilent, melodyText, parseBeat, parseMelody} from '../tokens.js';
import {FILE_TYPES} from './palette.js';

const PROPOSALS = 4;
const TITLES = {reconstruct: 'As the model plays it', continue: 'Continuations', variations: 'Variations'};

export function createSketch(app) {
  const {store} = app;
  const roll = new Roll({label: 'Your notes', onedit: (tokens, {isDone = false} = {}) => {
    if (isDone) store.endGroup();
    else change({tokens, action: null}, {group: 'draw'});
    if (isDone) hear();
  }});
  const text = h('input', {type: 'text', id: 'sketch-text', spellcheck: 'false', autocomplete: 'off', onchange: type});
  const textHelp = h('small', {id: 'text-help'});
  const textField = h('div', {class: 'typed'}, h('label', {for: 'sketch-text', text: 'Or type it'}), text, textHelp);
  text.setAttribute('aria-describedby', 'text-help');
  const bars = number('bars', 1, 64, 1);
  const drift = share('drift');
  const driftField = field('Drift', drift, {title: 'How far each bar may move away from the last'});
  const amount = share('amount');
  const example = h('select', {'aria-label': 'Start from an example', onchange: takeExample});
  const results = h('div', {class: 'cards'});
  const heading = h('h2', {hidden: true});
  const zip = button('All as zip', () => app.act(saveAll), {icon: 'save', hidden: true});
  const run = Object.fromEntries(['reconstruct', 'continue', 'variations'].map((action) =>
    [action, button({reconstruct: 'Reconstruct', continue: 'Continue', variations: 'Vary'}[action], () => start(action), {class: 'primary'})]));
  const element = h('div', {},
    h('div', {class: 'row tools'}, example,
      button('Sample', () => app.act(sample), {icon: 'dice'}),
      button('File', () => chooseFiles({accept: FILE_TYPES}, ([file]) => read(file)), {icon: 'file'}),
      button('Clear', () => change({tokens: emptyRow(app.model), action: null}), {icon: 'close'}),
      button('Play', () => app.select(own(), {play: true}), {icon: 'play', 'aria-label': 'Play your notes'})),
    roll.element, textField,
    h('div', {class: 'actions'},
      h('div', {class: 'group'}, run.reconstruct),
      h('div', {class: 'group'}, run.continue, field('Bars', bars), driftField),
      h('div', {class: 'group'}, run.variations, field('Amount', amount))),
    h('div', {class: 'row'}, heading, h('div', {class: 'group end'}, zip)), results);
  let proposals = [];
  let shown = null;
  let built = null;
  let isAsked = false;  // by a button just now, so that the results are scrolled into view

  acceptDrops(element, ([file]) => read(file));

  function own() {
    return {tokens: app.state.sketch.tokens, label: 'Your sketch'};
  }

  function change(changes, options) {
    store.update(({sketch}) => ({sketch: {...sketch, ...changes}}), options);
  }

  // The current piece becomes the sketch, so that a change is heard at the next bar.
  function hear() {
    store.update({now: own()}, {remember: false});
  }

  function read(file) {
    return app.readFile(file, ({tokens}) => {
      change({tokens, action: null});
      hear();
    });
  }

  function number(name, min, max, step) {
    return h('input', {type: 'number', min, max, step, onchange: ({target}) => {
      if (target.validity.valid && target.value) change({[name]: Number(target.value)});
      else target.value = app.state.sketch[name];
    }});
  }

  function share(name) {
    return h('input', {type: 'range', min: 0, max: 1, step: 0.05,
      oninput: ({target}) => change({[name]: Number(target.value)}, {group: name}), onchange: () => store.endGroup()});
  }

  function type() {
    const {model} = app;
    try {
      const tokens = model.tracks[0].pitched ? parseMelody(text.value, model) : parseBeat(text.value, model);
      app.say('');
      change({tokens, action: null});
      hear();
    } catch (error) {
      app.fail(error);
    }
  }

  function takeExample() {
    return app.act(async () => {
      const {row} = (await app.loadExamples())[Number(example.value)];
      example.value = '';
      change({tokens: app.piece(row, '').tokens, action: null});
      hear();
    });
  }

  async function sample() {
    const {rows: [row]} = await api.sample(app.drawing({num: 1}));
    store.update(({draws}) => ({draws: draws + 1}), {remember: false});
    change({tokens: app.piece(row, '').tokens, action: null});
    hear();
  }

  function start(action) {
    if (isSilent(app.state.sketch.tokens, app.model)) {
      app.fail(new Error('There are no notes yet: draw some, type them, or choose an example.'));
      return;
    }
    app.say('');
    isAsked = true;
    change({action});
  }

  function requestOf({sketch: {tokens, action, bars: length, drift: far, amount: much}}) {
    const row = {tokens};
    if (action === 'reconstruct') return app.request({rows: [row]});
    if (action === 'continue') return app.request({row, bars: length, drift: far, num: PROPOSALS});
    return app.request({row, amount: much, num: PROPOSALS});
  }

  async function load(state) {
    const {action} = state.sketch;
    const call = {reconstruct: api.reconstruct, continue: api.continueRow, variations: api.variations}[action];
    const reply = await call(requestOf(state));
    const name = {reconstruct: () => "The model's version", continue: (n) => `Continuation ${n + 1}`,
      variations: (n) => `Variation ${n + 1}`}[action];
    reply.pieces ??= reply.rows.map((row, n) => app.piece(row, name(n)));
    return reply.pieces;
  }

  async function showResults(state) {
    const {action} = state.sketch;
    const key = action && JSON.stringify([action, requestOf(state)]);
    if (key === shown) return;
    shown = key;
    results.setAttribute('aria-busy', Boolean(action));
    const pieces = action ? await load(state).catch((error) => { app.fail(error); return []; }) : [];
    if (shown !== key) return;
    proposals = pieces;
    heading.textContent = TITLES[action] ?? '';
    heading.hidden = !action;
    zip.hidden = pieces.length < 2;
    results.replaceChildren(...pieces.map((piece) => card(app, piece, piece.label,
      action === 'continue' ? button('With yours', () => app.select(joined(piece), {play: true}), {class: 'small', 'aria-label': `Play your notes and ${piece.label}`})
        : button('Edit', () => change({tokens: piece.tokens, action: null}), {class: 'small', 'aria-label': `Edit ${piece.label}`}))));
    results.setAttribute('aria-busy', 'false');
    if (isAsked) results.scrollIntoView({block: 'nearest'});
    isAsked = false;
  }

  function joined(piece) {
    return {tokens: [...app.state.sketch.tokens, ...piece.tokens], label: `Your sketch and ${piece.label.toLowerCase()}`};
  }

  async function saveAll() {
    const {tempo, model} = app.state;
    const names = proposals.map(({label}) => fileName(label));
    saveBlob(await api.fileOf('zip', {model, tempo, rows: proposals.map(({tokens}) => tokens), names}), 'proposals.zip');
  }

  function build() {
    built = app.model;
    const [track] = built.tracks;
    textField.hidden = built.tracks.length > 1;
    textHelp.textContent = track.pitched
      ? 'One word per sixteenth: a MIDI pitch such as 60 (middle C), _ to hold, r to rest.'
      : 'One word per sixteenth: K kick, S snare, H closed hat, O open hat, L M T toms, C crash, R ride, . nothing.';
    for (const [action, control] of Object.entries(run)) control.parentElement.hidden = !app.can(action);
    driftField.hidden = !app.can('reconstruct');  // the continuation of a forecaster has no drift
    example.replaceChildren(h('option', {value: '', text: 'Example …'}));
    app.loadExamples().then((list) => example.append(...list.map(({name}, n) => h('option', {value: n, text: name})))).catch((error) => app.fail(error));
  }

  function update(state) {
    if (built !== app.model) build();
    roll.show(state.sketch.tokens, app.model);
    if (document.activeElement !== text) {
      text.value = app.model.tracks.length > 1 ? ''
        : app.model.tracks[0].pitched ? melodyText(state.sketch.tokens) : beatText(state.sketch.tokens);
    }
    bars.value = state.sketch.bars;
    drift.value = state.sketch.drift;
    amount.value = state.sketch.amount;
    showResults(state);
  }

  return {element, update, tick(position) {
    const {now, sketch} = app.state;
    roll.playhead(position && now?.tokens === sketch.tokens ? position.step : null);
  }};
}
