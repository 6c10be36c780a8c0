// A row as a card: its picture, which plays it when pressed, and buttons.

import {h, icon} from './elements.js';
import {miniRoll} from './roll.js';
import {isSilent} from './tokens.js';

// The picture as a button that plays the piece and makes it the current one.
export function playable(app, piece, name = piece.label) {
  const isCurrent = app.state.now && app.state.now.tokens === piece.tokens;
  const isEmpty = isSilent(piece.tokens, app.model);
  return h('button', {type: 'button', class: `playable${isCurrent ? ' current' : ''}`,
    'aria-label': `Play ${name}`, title: isEmpty ? 'This piece has no notes' : `Play ${name}`,
    onclick: () => app.select(piece, {play: true})},
  miniRoll(piece.tokens, app.model), isEmpty ? h('span', {class: 'empty', text: 'no notes'}) : icon('play'));
}

export function card(app, piece, caption, ...actions) {
  return h('figure', {class: 'card'}, playable(app, piece, caption),
    h('figcaption', {}, h('span', {text: caption}), ...actions));
}
