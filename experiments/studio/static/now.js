// The current piece: what is heard, as a piano roll, and where it can go from here.

import * as api from './api.js';
import {button, h, select} from './elements.js';
import {Roll} from './roll.js';
import {drawScore} from './score.js';

export const CORNERS = ['top left', 'top right', 'bottom left', 'bottom right'];

export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  h('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function fileName(label) {
  return (label ?? 'piece').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '') || 'piece';
}

export function createNow(app, element) {
  const roll = new Roll({label: 'Notes of the current piece'});
  const label = h('h2', {text: 'Nothing chosen yet'});
  const scoreBox = h('div', {class: 'score', hidden: true, role: 'img', 'aria-label': 'Score of the current piece'});
  const scoreButton = button('Score', () => {
    scoreBox.hidden = !scoreBox.hidden;
    showScore();
  }, {icon: 'score', 'aria-expanded': 'false'});
  const midi = button('MIDI', () => save('midi', 'mid'), {icon: 'save', id: 'save-midi', draggable: 'true',
    title: 'Save as MIDI, or drag this button to your music program'});
  // The server makes the WAV file, and has no player of SoundFonts.
  const wav = button(app.player.soundfont ? 'WAV (built-in sound)' : 'WAV', () => save('wav', 'wav'),
    {icon: 'save', title: 'Save the sound of the built-in synthesiser'});
  const shape = button('Shape', () => {
    app.store.update(({shape: old}) => ({view: 'shape', shape: {...old, row: own(), amounts: {}, similar: 0}}));
  }, {icon: 'sliders', title: 'Change this piece with sliders'});
  const sketch = button('Sketch', () => {
    app.store.update(({sketch: old}) => ({view: 'sketch', sketch: {...old, tokens: own().tokens, action: null}}));
  }, {icon: 'pencil', title: 'Edit, continue or vary this piece'});
  const corner = select([['', 'To corner …'], ...CORNERS.map((name, n) => [n, name])], '', (value) => {
    if (value !== '') app.act(() => app.views.palette.setCorner(Number(value), {...own(), source: 'chosen'}));
    corner.value = '';
  }, {'aria-label': 'Put this piece into a corner of the palette'});
  const actions = [midi, wav, scoreButton, shape, sketch, corner];
  let draggedUrl = null;
  let drawn = null;

  function own() {
    const {path, ...piece} = app.state.now;
    return piece;
  }

  function request(format) {
    const {now, tempo, model, loop} = app.state;
    return api.fileOf(format, {model, tempo, rows: [now.tokens], ...(format === 'wav' ? {loop} : {})});
  }

  function save(format, ending) {
    return app.act(async () => saveBlob(await request(format), `${fileName(app.state.now.label)}.${ending}`));
  }

  // A file can only be dragged out if it is there when the drag begins.
  midi.addEventListener('pointerenter', async () => {
    if (!app.state.now) return;
    const blob = await request('midi').catch(() => null);
    if (draggedUrl) URL.revokeObjectURL(draggedUrl);
    draggedUrl = blob && URL.createObjectURL(blob);
  });
  midi.addEventListener('dragstart', (event) => {
    const name = `${fileName(app.state.now.label)}.mid`;
    if (draggedUrl) event.dataTransfer.setData('DownloadURL', `audio/midi:${name}:${draggedUrl}`);
    else event.preventDefault();
  });

  function showScore() {
    scoreButton.setAttribute('aria-expanded', !scoreBox.hidden);
    const {now, tempo} = app.state;
    if (scoreBox.hidden || !now || (drawn?.now === now && drawn.tempo === tempo)) return;
    drawn = {now, tempo};
    app.act(() => drawScore(scoreBox.firstChild ?? scoreBox.appendChild(h('div')), now.tokens, app.model, tempo));
  }

  element.append(h('div', {class: 'row'}, label, h('div', {class: 'group end'}, actions)), roll.element, scoreBox);

  return {
    update({now}) {
      label.textContent = now ? now.label : 'Nothing chosen yet';
      for (const action of actions) action.disabled = !now;
      const isLong = now && now.tokens.length > app.model.steps;
      sketch.disabled = !now || isLong;
      shape.disabled = !now || isLong || !app.can('shape');
      corner.disabled = !now || isLong || !app.can('palette');
      if (now) roll.show(now.tokens, app.model);
      showScore();
    },
    tick(position) {
      roll.playhead(position && app.state.now && position.material.steps === app.state.now.tokens.length
        ? position.step : null);
    },
  };
}
