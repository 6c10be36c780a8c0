// Builds elements. Styles are set through properties, which the Content-Security-Policy allows.

const SVG = 'http://www.w3.org/2000/svg';

// Creates an HTML element. `props`: `class`, `text`, `vars` (CSS custom properties), handlers
// (`onclick`), properties of the element, and any other attribute by its name.
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

// Creates an SVG element.
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name === 'vars') setVars(element, value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function setVars(element, vars) {
  for (const [name, value] of Object.entries(vars)) element.style.setProperty(name, value);
}

// An icon of `icons.svg`; the text for screen readers belongs to the button around it.
export function icon(name) {
  return svg('svg', {class: 'icon', 'aria-hidden': 'true'}, svg('use', {href: `/static/icons.svg#${name}`}));
}

// A button with an icon, a text, or both; `label` names a button that shows no text.
export function button(text, onclick, {icon: name, label, ...props} = {}) {
  return h('button', {type: 'button', onclick, 'aria-label': label, title: label, ...props},
    name ? icon(name) : null, text ? h('span', {text}) : null);
}

let fields = 0;

// A labelled control. The label stands beside the control, not around it, so that the name of a
// menu is its label only.
export function field(text, control, props = {}) {
  control.id ||= `field-${++fields}`;
  return h('div', {class: 'field', ...props}, h('label', {for: control.id, text}), control);
}

export function select(options, value, onchange, props = {}) {
  const element = h('select', {onchange: () => onchange(element.value), ...props},
    options.map(([key, text]) => h('option', {value: key, text})));
  element.value = value;
  return element;
}

// Asks for files through the system's dialog.
export function chooseFiles({accept = '', multiple = false, folder = false}, onfiles) {
  const input = h('input', {type: 'file', accept, multiple, webkitdirectory: folder});
  input.addEventListener('change', () => onfiles([...input.files]));
  input.click();
}

// Lets files be dropped on an element.
export function acceptDrops(element, ondrop) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    element.classList.toggle('drop', depth > 0);
  };
  element.addEventListener('dragenter', () => mark(1));
  element.addEventListener('dragleave', () => mark(-1));
  element.addEventListener('dragover', (event) => event.preventDefault());
  element.addEventListener('drop', async (event) => {
    event.preventDefault();
    event.stopPropagation();
    mark(-depth);
    const files = await droppedFiles(event.dataTransfer);
    if (files.length) ondrop(files);
  });
}

// All files of a drop, those in folders included.
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {  // a reader returns at most 100 entries at once
    const part = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!part.length) return (await Promise.all(found.map(filesOf))).flat();
    found.push(...part);
  }
}

// Runs `work` for the newest of the values only: while one is in progress, the others replace
// each other in the queue.
export function newestOnly(work) {
  let waiting = null;
  let isRunning = false;
  return async (value) => {
    waiting = {value};
    if (isRunning) return;
    isRunning = true;
    while (waiting) {
      const {value: next} = waiting;
      waiting = null;
      await work(next, () => waiting === null);
    }
    isRunning = false;
  };
}

export function loadScript(src) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = src;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${src} did not load`));
    document.head.append(script);
  });
}
