// Shape: one piece, a slider for each attribute of the model, and the result beside the original.

import * as api from '../api.js';
import {acceptDrops, button, chooseFiles, field, h, newestOnly} from '../elements.js';
import {Roll} from '../roll.js';
import {FILE_TYPES} from './palette.js';

export function createShape(app) {
  const {store} = app;
  const original = new Roll({label: 'Notes of the original'});
  const result = new Roll({label: 'Notes of the result'});
  const sliders = h('div', {class: 'sliders'});
  const note = h('p', {class: 'hint'});
  const playOriginal = button('Play', () => app.select(app.state.shape.row, {play: true}), {icon: 'play', 'aria-label': 'Play the original'});
  const playResult = button('Play', () => found && app.select(found.piece, {play: true}), {icon: 'play', 'aria-label': 'Play the result'});
  const keep = button('Use as original', () => found && change({row: found.piece, amounts: {}, similar: 0}));
  const reset = button('Reset', () => change({amounts: {}, similar: 0}));
  const file = button('File', () => chooseFiles({accept: FILE_TYPES}, ([first]) => read(first)), {icon: 'file'});
  const again = button('Sample', () => app.act(async () => {
    const {rows: [row]} = await api.sample(app.drawing({num: 1}));
    store.update(({draws}) => ({draws: draws + 1}), {remember: false});
    change({row: app.piece(row, 'Sample'), amounts: {}, similar: 0});
  }), {icon: 'dice'});
  const element = h('div', {class: 'columns'},
    h('div', {class: 'panel'}, h('h2', {text: 'Change'}), sliders, note, h('div', {class: 'group'}, reset, keep)),
    h('div', {class: 'panel wide'},
      h('div', {class: 'row'}, h('h2', {text: 'Original'}), h('div', {class: 'group end'}, again, file, playOriginal)), original.element,
      h('div', {class: 'row'}, h('h2', {text: 'Result'}), h('div', {class: 'group end'}, playResult)), result.element));
  let found = null;   // the newest reply: the result as a piece, and the measures of both
  let built = null;   // the model whose sliders are shown
  let parts = {};
  let asked = null;

  acceptDrops(element, ([first]) => read(first));

  function read(first) {
    return app.readFile(first, (piece) => change({row: piece, amounts: {}, similar: 0}));
  }

  function change(changes, options) {
    store.update(({shape}) => ({shape: {...shape, ...changes}}), options);
    ask(true);
  }

  const compute = newestOnly(async ({request, isUsers}, isNewest) => {
    try {
      const reply = await api.shape(request);
      if (!isNewest()) return;
      reply.piece ??= app.piece(reply.result, 'Shaped piece');
      found = reply;
      show();
      if (isUsers) store.update({now: reply.piece}, {remember: false});
    } catch (error) {
      app.fail(error);
    }
  });

  function requestOf({shape: {row, amounts, similar}}) {
    const {tokens, z} = row;
    return app.request({row: z ? {tokens, z} : {tokens}, attributes: amounts, similar});
  }

  function ask(isUsers) {
    if (!app.state.shape.row) return;
    const request = requestOf(app.state);
    asked = JSON.stringify(request);
    compute({request, isUsers});
  }

  function slider(title, name, {low, high, step}, read, write) {
    const values = h('output', {class: 'measured'});
    const input = h('input', {type: 'range', min: low, max: high, step, id: `slider-${name}`,
      oninput: () => write(Number(input.value), {group: `slider ${name}`}), onchange: () => store.endGroup()});
    parts[name] = {input, values, read};
    return h('div', {class: 'slider'}, h('label', {for: input.id, text: title}), input, values);
  }

  function build() {
    built = app.model;
    parts = {};
    const [low, high] = built.amounts;
    const able = built.attributes.filter(({can_change: can}) => can);
    const others = built.attributes.filter(({can_change: can}) => !can);
    sliders.replaceChildren(
      ...able.map(({name, title}) => slider(title, name, {low, high, step: 'any'},
        ({amounts}) => amounts[name] ?? 0, (value, options) =>
          change({amounts: {...app.state.shape.amounts, [name]: value}}, options))),
      slider('vary', 'similar', {low: 0, high: 1, step: 'any'}, ({similar}) => similar,
        (similar, options) => change({similar}, options)),
      others.length ? h('dl', {class: 'measures'}, others.flatMap(({name, title}) => {
        const values = h('dd', {class: 'measured'});
        parts[name] = {values};
        return [h('dt', {text: title}), values];
      })) : '');
    note.textContent = able.length ? '' : 'This model has no directions for its attributes: only “vary” changes the piece.';
  }

  function show() {
    const {row} = app.state.shape;
    if (row) original.show(row.tokens, app.model);
    if (found) result.show(found.piece.tokens, app.model);
    const text = (value) => value === null || value === undefined ? '–' : value.toFixed(2);
    for (const {name} of app.model.attributes) {
      if (found && parts[name]) {
        parts[name].values.textContent = `${text(found.original.attributes[name])} → ${text(found.result.attributes[name])}`;
      }
    }
    if (parts.similar) parts.similar.values.textContent = `${Math.round(100 * app.state.shape.similar)}%`;
  }

  function update(state) {
    if (built !== app.model) {
      found = null;
      build();
    }
    for (const {input, read} of Object.values(parts)) {
      if (input) input.value = read(state.shape);
    }
    for (const control of [playOriginal, playResult, keep, reset]) control.disabled = !state.shape.row;
    show();
    if (state.shape.row && JSON.stringify(requestOf(state)) !== asked) ask(false);
  }

  // Whether a piece is the result that is shown.
  const made = (piece) => found?.piece.tokens === piece.tokens;

  return {element, update, made, tick(position) {
    const {now, shape: {row}} = app.state;
    original.playhead(position && row && now?.tokens === row.tokens ? position.step : null);
    result.playhead(position && found && now?.tokens === found.piece.tokens ? position.step : null);
  }};
}
