// The bar at the top: model, transport, settings, undo, link, appearance, and the tabs of the views.

import * as api from './api.js';
import {button, field, h, select} from './elements.js';
import {midiOutputs} from './player.js';

const TABS = {palette: 'Palette', shape: 'Shape', sketch: 'Sketch', map: 'Map'};
const KEYS = [
  ['Space', 'play or stop'],
  ['Ctrl or ⌘ Z', 'undo; with Shift: redo'],
  ['Arrow keys in the tabs', 'change the view'],
  ['Arrow keys in the palette', 'move the puck; Enter adds a step while you draw a path'],
  ['Arrow keys in a piano roll', 'move the cursor; Enter adds or removes a note'],
  ['Shift and arrows in a piano roll', 'change the length and the pitch of a note'],
  ['Arrow keys in the map', 'go to the next point in that direction; Enter loads it'],
];

export function createBar(app, element) {
  const {store} = app;
  const isOnlyOne = (title) => app.models.filter((model) => model.title === title).length === 1;
  const models = select(app.models.map(({name, title}) => [name, isOnlyOne(title) ? title : `${title}: ${name}`]),
    app.state.model, (name) => app.act(() => app.begin(app.models.find((model) => model.name === name))),
    {id: 'model', title: 'The model that makes the music'});
  const ready = h('span', {class: 'ready', role: 'status'});
  const play = button('Play', () => app.togglePlay(), {icon: 'play', class: 'primary', id: 'play', title: 'Play or stop (space)'});
  const loop = button('', () => store.update(({loop: on}) => ({loop: !on}), {remember: false}),
    {icon: 'loop', label: 'Loop', 'aria-pressed': 'true'});
  const tempo = number('tempo', 20, 400, 1);
  const temperature = number('temperature', 0, 2, 0.1);
  const seed = number('seed', 0, 2 ** 31 - 1, 1);
  const dice = button('', () => store.update({seed: Math.floor(Math.random() * 1e6), draws: 0}),
    {icon: 'dice', label: 'New seed', class: 'plain'});
  const undo = button('', () => store.undo(), {icon: 'undo', label: 'Undo', class: 'plain'});
  const redo = button('', () => store.redo(), {icon: 'redo', label: 'Redo', class: 'plain'});
  const link = button('Link', () => app.act(() => app.copyLink()), {icon: 'link', title: 'Keep everything in the address of this page'});
  const theme = button('', changeTheme, {icon: 'theme', label: 'Light or dark', class: 'plain'});
  const help = keyboardHelp();
  const tabs = createTabs(app);

  // A number of the state; typing changes it when the field is left or Enter is pressed.
  function number(name, min, max, step) {
    return h('input', {type: 'number', id: name, min, max, step, onchange: (event) => {
      const {value, validity} = event.target;
      if (validity.valid && value !== '') store.update({[name]: Number(value), ...(name === 'seed' ? {draws: 0} : {})});
      else {
        event.target.value = app.state[name];
        app.fail(new Error(`The ${name} is a number from ${min} to ${max}.`));
      }
    }});
  }

  element.append(
    h('div', {class: 'top'},
      h('h1', {}, h('img', {src: '/static/icon.svg', alt: '', width: 24, height: 24}), 'Studio'),
      tabs.element, ready,
      h('div', {class: 'group end'}, undo, redo, link, button('', () => help.showModal(), {icon: 'keys', label: 'Keyboard', class: 'plain'}), theme)),
    h('div', {class: 'transport'},
      h('div', {class: 'group'}, play, loop), field('Tempo', tempo), field('Model', models), soundMenu(app),
      field('Temperature', temperature, {title: 'Higher is more surprising; 0 always takes the likeliest note'}),
      h('div', {class: 'group'}, field('Seed', seed, {title: 'The same seed gives the same music'}), dice)),
    help);
  watchModels(app, ready);

  return {update(state) {
    models.value = state.model;
    for (const [name, input] of Object.entries({tempo, temperature, seed})) {
      if (document.activeElement !== input || !input.value) input.value = state[name];
    }
    loop.setAttribute('aria-pressed', state.loop);
    undo.disabled = !store.canUndo;
    redo.disabled = !store.canRedo;
    const {isPlaying} = app.player;
    play.disabled = !state.now;
    play.lastChild.textContent = isPlaying ? 'Stop' : 'Play';
    play.querySelector('use').setAttribute('href', `/static/icons.svg#${isPlaying ? 'stop' : 'play'}`);
    tabs.update(state);
  }};
}

function createTabs(app) {
  const names = Object.keys(TABS);
  const show = (view) => app.show(view);
  const tabs = names.map((name) => h('button', {type: 'button', role: 'tab', id: `tab-${name}`,
    'aria-controls': `view-${name}`, text: TABS[name], onclick: () => show(name)}));
  const element = h('div', {role: 'tablist', class: 'tabs', 'aria-label': 'Views', onkeydown: (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    const next = (names.indexOf(app.state.view) + move + names.length) % names.length;
    show(names[next]);
    tabs[next].focus();
    event.preventDefault();
  }}, tabs);
  return {element, update({view}) {
    tabs.forEach((tab, n) => {
      tab.setAttribute('aria-selected', names[n] === view);
      tab.tabIndex = names[n] === view ? 0 : -1;
    });
  }};
}

// Where the sound goes: the synthesiser of the page, or an instrument at a MIDI output.
function soundMenu(app) {
  if (!navigator.requestMIDIAccess) return null;
  const outputs = new Map();
  const menu = h('select', {id: 'sound', onchange: choose}, h('option', {value: '', text: 'This page'}),
    h('option', {value: 'find', text: 'MIDI output …'}));

  async function choose() {
    if (menu.value === 'find') {
      menu.value = '';
      await app.act(async () => {
        for (const output of await midiOutputs().catch(() => [])) outputs.set(output.id, output);
        if (!outputs.size) throw new Error('There is no MIDI output, or the browser was not allowed to use it.');
        menu.replaceChildren(menu.firstChild, ...[...outputs].map(([id, {name}]) => h('option', {value: id, text: name})));
        menu.value = [...outputs.keys()][0];
      });
    }
    app.player.stop();
    app.player.output = outputs.get(menu.value) ?? null;
  }
  return field('Sound', menu);
}

function changeTheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const now = document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light');
  document.documentElement.dataset.theme = now === 'dark' ? 'light' : 'dark';
  localStorage.setItem('theme', document.documentElement.dataset.theme);
}

const kept = localStorage.getItem('theme');
if (kept) document.documentElement.dataset.theme = kept;

function keyboardHelp() {
  const dialog = h('dialog', {'aria-labelledby': 'keys-title'}, h('h2', {id: 'keys-title', text: 'Keyboard'}),
    h('dl', {}, KEYS.flatMap(([keys, what]) => [h('dt', {text: keys}), h('dd', {text: what})])));
  dialog.append(button('Close', () => dialog.close()));
  return dialog;
}

// Shows how many of the model's programs are compiled, until all are.
async function watchModels(app, element) {
  for (;;) {
    const {done, total} = app.model.ready;
    element.textContent = done < total ? `Getting ready: ${done} of ${total}` : '';
    if (app.models.every(({ready}) => ready.done >= ready.total)) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const {models} = await api.models().catch(() => ({models: []}));
    for (const {name, ready} of models) {
      const model = app.models.find((known) => known.name === name);
      if (model) model.ready = ready;
    }
  }
}
