// Samples, interpolates and plays the model of this folder. No other server is asked.

/* global mm */

const model = new mm.MusicVAE('.');
const Tone = mm.Player.tone;
const element = (id) => document.getElementById(id);
let player = null;  // made at the first click: browsers allow no sound before it
let analyser = null;
let shown = [];

function options() {
  return {count: Number(element('count').value), temperature: Number(element('temperature').value)};
}

// Runs an action while the buttons are disabled; an error is shown on the page.
async function during(text, action) {
  const buttons = [element('sample'), element('interpolate')];
  element('status').textContent = text;
  buttons.forEach((button) => { button.disabled = true; });
  // Computing blocks the page: let it show the text first.
  await new Promise((resolve) => setTimeout(resolve, 20));
  try {
    await action();
    element('status').textContent = `${shown.length} results`;
  } catch (error) {
    element('status').textContent = `Error: ${error.message}`;
  }
  element('sample').disabled = !model.isInitialized();
  element('interpolate').disabled = shown.length < 2;
}

function show(sequences) {
  shown = sequences;
  element('results').replaceChildren();
  sequences.forEach((sequence, n) => {
    const play = document.createElement('button');
    play.textContent = `Play ${n + 1}`;
    play.onclick = () => start(sequence);
    const roll = document.createElement('div');
    roll.className = 'roll';
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    roll.append(svg);
    element('results').append(play, roll);
    new mm.PianoRollSVGVisualizer(sequence, svg, {noteHeight: 3, pixelsPerTimeStep: 90});
  });
}

async function start(sequence) {
  await Tone.start();
  if (player === null) {
    player = new mm.Player();
    repairCymbals(player.drumKit);
    analyser = new Tone.Analyser('waveform', 1024);
    Tone.Destination.connect(analyser);
    showLevel();
  }
  player.stop();
  player.start(sequence);
}

// The player gives these synthesisers the time in place of the note, so that Tone.js refuses them.
function repairCymbals(kit) {
  const cymbals = [
    [2, kit.closedHihat, 400, 0.3], [3, kit.openHihat, 400, 0.3], [7, kit.crash, 300, 1],
    [8, kit.ride, 200, 0.5],
  ];
  for (const [number, synth, frequency, velocity] of cymbals) {
    kit.pitchPlayers[number] = (time) =>
      synth.triggerAttackRelease(frequency, '16n', time, velocity);
  }
}

function showLevel() {
  element('level').value = Math.max(...analyser.getValue().map(Math.abs));
  requestAnimationFrame(showLevel);
}

element('sample').onclick = () => during('Sampling ...', async () => {
  const {count, temperature} = options();
  show(await model.sample(count, temperature));
});

// From the first to the last of the results on the page.
element('interpolate').onclick = () => during('Interpolating ...', async () => {
  const {count, temperature} = options();
  show(await model.interpolate([shown[0], shown[shown.length - 1]], Math.max(count, 2), temperature));
});

element('stop').onclick = () => player?.stop();

during('Loading the model ...', () => model.initialize()).then(() => {
  if (model.isInitialized()) {
    element('status').textContent = 'The model is loaded';
  }
});
