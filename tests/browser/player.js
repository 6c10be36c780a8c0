// Loads exported folders with the real player and prints what it computes, as JSON.
//
//   node player.js REQUEST.json
//
// The request is a list of {folder, inputs, z, sequences}: one-hot inputs [B, T, D] as indices of
// ones, and points z [B, Z]. The answer has mu [B, Z], the greedy one-hot outputs of z as indices
// of ones, and the numbers of sequences that sample, interpolate and similar returned.

const fs = require('fs');
const http = require('http');
const Module = require('module');
const path = require('path');

// Only the player of sounds needs Tone.js, which does not load in Node.
const load = Module._load;
Module._load = (name, ...rest) => (name === 'tone' ? {} : load(name, ...rest));

const {MusicVAE} = require('@magenta/music/node/music_vae');
const tf = require('@tensorflow/tfjs');

console.log = () => {};  // the player reports its timings there

function serve(folder) {
  const server = http.createServer((request, response) => {
    const file = path.join(folder, path.basename(request.url));
    response.statusCode = fs.existsSync(file) ? 200 : 404;
    response.end(response.statusCode === 200 ? fs.readFileSync(file) : '');
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

function oneHot(indices, depth) {
  const buffer = tf.buffer([indices.length, indices[0].length, depth]);
  indices.forEach((row, b) => row.forEach((ones, t) => ones.forEach((i) => buffer.set(1, b, t, i))));
  return buffer.toTensor();
}

async function run({folder, inputs, depth, z}) {
  const server = await serve(folder);
  const vae = new MusicVAE(`http://127.0.0.1:${server.address().port}`);
  await vae.initialize();
  const mu = await vae.encodeTensors(oneHot(inputs, depth));
  const decoded = await vae.decodeTensors(tf.tensor2d(z), undefined);
  const rows = decoded.arraySync();
  const outputs = rows.map((row) => row.map((step) => step.flatMap((x, i) => (x ? [i] : []))));
  const sampled = await vae.sample(2, 0.5);
  const path_ = await vae.interpolate(sampled, 3);
  const similar = await vae.similar(sampled[0], 2, 0.8);
  server.close();
  return {
    mu: mu.arraySync(),
    outputs,
    steps: [...sampled, ...path_, ...similar].map((sequence) => sequence.totalQuantizedSteps),
  };
}

async function main() {
  const requests = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
  const answers = [];
  for (const request of requests) {
    answers.push(await run(request));
  }
  process.stdout.write(JSON.stringify(answers));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
