// What a file of the user gave: which track and bars were taken, what was left out and why, and the
// choice of others.

import * as api from './api.js';
import {button, field, h, select} from './elements.js';

export function createReport() {
  const element = h('section', {class: 'report', 'aria-label': 'What the file gave', hidden: true});

  function close() {
    element.hidden = true;
    element.replaceChildren();
  }

  // `use(piece)` takes the row; `piece(row, label)` makes a piece of it.
  function show(reply, {model, use, piece}) {
    const chosen = {track: reply.taken.track, window: reply.taken.window};
    const text = h('p', {class: 'taken', text: reply.taken.text});
    const bars = h('span');

    async function take() {
      const {tokens, bar, num_notes: all, num_kept: kept} = reply.tracks[chosen.track].windows[chosen.window];
      const {rows: [row]} = await api.measure({model, rows: [{tokens}]});
      text.textContent = `${reply.name}: from bar ${bar}, ${reply.tracks[chosen.track].title}, `
        + `${kept} of ${all} notes kept`;
      use(piece(row, reply.name));
    }

    function showBars() {
      const {windows} = reply.tracks[chosen.track];
      bars.replaceChildren(field('Bars from', select(windows.map(({bar}, n) => [n, `${bar}`]),
        chosen.window, (value) => { chosen.window = Number(value); take(); })));
    }

    const tracks = select(reply.tracks.map(({title}, n) => [n, title]), chosen.track, (value) => {
      Object.assign(chosen, {track: Number(value), window: 0});
      showBars();
      take();
    });
    const dropped = reply.dropped.map(({what, reason}) => h('li', {text: `${what}: ${reason}`}));
    element.replaceChildren(
      h('div', {}, text, dropped.length ? h('details', {open: dropped.length < 4},
        h('summary', {text: `Left out: ${dropped.length}`}), h('ul', {}, dropped)) : null),
      h('div', {class: 'row'}, field('Track', tracks), bars,
        button('', close, {icon: 'close', label: 'Close the report', class: 'plain'})));
    element.hidden = false;
    showBars();
    use(piece(reply.taken.row, reply.name));
  }

  return {element, show, close};
}
