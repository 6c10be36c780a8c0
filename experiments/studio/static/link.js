// The state as a link: JSON, deflated, in base64 for addresses, behind the #. No server sees it.

const FORMAT = '1';

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

export async function toHash(state) {
  const json = new TextEncoder().encode(JSON.stringify(state));
  const bytes = await through(json, new CompressionStream('deflate-raw'));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
  return `#${FORMAT}${text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')}`;
}

// Returns the state of a link, or null if there is none; throws if it is damaged.
export async function fromHash(hash) {
  if (hash.length < 2) return null;
  if (hash[1] !== FORMAT) throw new Error('the link is of another version of the studio');
  const text = atob(hash.slice(2).replaceAll('-', '+').replaceAll('_', '/'));
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const json = await through(bytes, new DecompressionStream('deflate-raw'));
  return JSON.parse(new TextDecoder().decode(json));
}
