// The state of the page: one plain object that is replaced, never changed in place.

const MOST_STEPS_BACK = 200;

export function createStore(initial) {
  let state = initial;
  let past = [];
  let future = [];
  let group = null;
  const listeners = new Set();

  function publish(next) {
    const before = state;
    state = next;
    for (const listener of listeners) listener(state, before);
  }

  return {
    get state() { return state; },
    get canUndo() { return past.length > 0; },
    get canRedo() { return future.length > 0; },
    subscribe(listener) { listeners.add(listener); },

    // Replaces parts of the state. Changes with the same `group` in a row are undone together;
    // `remember: false` is for changes that nobody would want to undo.
    update(change, {group: name = null, remember = true} = {}) {
      const next = {...state, ...(typeof change === 'function' ? change(state) : change)};
      if (remember) {
        if (name === null || name !== group) past = [...past, state].slice(-MOST_STEPS_BACK);
        future = [];
        group = name;
      }
      publish(next);
    },

    // Ends a group, for example when the pointer is lifted.
    endGroup() { group = null; },

    undo() {
      if (!past.length) return;
      future = [...future, state];
      const last = past[past.length - 1];
      past = past.slice(0, -1);
      group = null;
      publish(last);
    },

    redo() {
      if (!future.length) return;
      past = [...past, state];
      const next = future[future.length - 1];
      future = future.slice(0, -1);
      group = null;
      publish(next);
    },
  };
}
