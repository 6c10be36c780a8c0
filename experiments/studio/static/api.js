// Calls of the server; ../README.md describes them.

const MOST_KEPT = 300;
const kept = new Map();  // the newest replies, so that undo needs no computation

async function call(path, {body, type, method = 'POST'} = {}) {
  const options = {method, body, headers: type ? {'Content-Type': type} : {}};
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch {
    throw new Error('The studio does not answer. Is it still running in its terminal?');
  }
  if (response.ok) return response;
  const reply = await response.json().catch(() => ({error: `the server said ${response.status}`}));
  throw new Error(reply.error);
}

async function postJson(path, request) {
  return call(path, {body: JSON.stringify(request), type: 'application/json'});
}

// The same request has the same reply, so replies are kept, those on their way included.
function compute(path, request) {
  const key = `${path} ${JSON.stringify(request)}`;
  if (!kept.has(key)) {
    if (kept.size >= MOST_KEPT) kept.delete(kept.keys().next().value);
    const reply = postJson(path, request).then((response) => response.json());
    reply.catch(() => kept.delete(key));
    kept.set(key, reply);
  }
  return kept.get(key);
}

// The models, and the address of the SoundFont or null.
export async function models() {
  return (await call('models', {method: 'GET'})).json();
}

export async function examples(model) {
  const path = `examples?model=${encodeURIComponent(model)}`;
  return (await (await call(path, {method: 'GET'})).json()).examples;
}

export const measure = (request) => compute('rows', request);
export const sample = (request) => compute('sample', request);
export const reconstruct = (request) => compute('reconstruct', request);
export const palette = (request) => compute('palette', request);
export const shape = (request) => compute('shape', request);
export const continueRow = (request) => compute('continue', request);
export const variations = (request) => compute('variations', request);
export const map = async (request) => (await postJson('map', request)).json();

// Reads one file of the user.
export async function read(model, file, anyMeter) {
  const query = new URLSearchParams({model, name: file.name, ...(anyMeter ? {meter: 'any'} : {})});
  const type = 'application/octet-stream';
  return (await call(`read?${query}`, {body: file, type})).json();
}

// Reads the windows of many files: each as lengths and contents of its name and bytes.
export async function windows(model, files) {
  const parts = files.flatMap((file) => {
    const name = new TextEncoder().encode(file.webkitRelativePath || file.name);
    return [uint32(name.length), name, uint32(file.size), file];
  });
  const body = new Blob(parts);
  const query = new URLSearchParams({model});
  return (await call(`windows?${query}`, {body, type: 'application/octet-stream'})).json();
}

function uint32(value) {
  const bytes = new DataView(new ArrayBuffer(4));
  bytes.setUint32(0, value);
  return bytes;
}

// Makes a file of rows: `format` is midi, wav, musicxml or zip. Returns a Blob.
export async function fileOf(format, request) {
  return (await postJson(format, request)).blob();
}
