// Plays notes in time. A timer schedules the steps of the next moments on the audio clock, and the
// playhead is read from the same clock.

import {DRUM_PITCHES, STEPS_PER_BAR, STEPS_PER_QUARTER, notesOf} from './tokens.js';

const TICK_MS = 25;
const AHEAD_S = 0.15;
const AHEAD_HIDDEN_S = 1.5;  // browsers run the timers of hidden pages once per second
const FADE_S = 0.015;
const DRUM_CHANNEL = 9;
const VELOCITY = 96;
const DRUM_VELOCITIES = [112, 104, 76, 80, 96, 96, 96, 88, 80];

// What can be played: the notes of a row, with channels and programs.
export function materialOf(row, model) {
  const notes = notesOf(row, model).map((note) => {
    const track = model.tracks[note.track];
    return track.pitched
      ? {...note, channel: note.track, program: track.program, velocity: VELOCITY}
      : {...note, channel: DRUM_CHANNEL, program: 0, pitch: DRUM_PITCHES[note.pitch],
        velocity: DRUM_VELOCITIES[note.pitch]};
  });
  const byStep = Array.from({length: row.length}, () => []);
  for (const note of notes) byStep[note.start].push(note);
  return {byStep, steps: row.length};
}

export class Player {
  // `onchange` is called when playing starts or stops. `soundfont` is the address of a SoundFont,
  // or null for the synthesiser without samples.
  constructor(onchange, soundfont = null) {
    this.onchange = onchange;
    this.soundfont = soundfont;
    this.tempo = 110;
    this.loop = true;
    this.output = null;  // a Web MIDI output; null is the synthesiser
    this.isPlaying = false;
    this.material = null;
    this.pending = null;
    this.sounding = [];
    this.scheduled = [];
  }

  // Browsers allow sound only after a click or a key, so this is not done before.
  async #open() {
    this.opening ??= this.#build();
    await this.opening.catch((error) => {
      this.opening = null;
      throw error;
    });
    await this.context.resume();
  }

  async #build() {
    const {createSynth} = await import(this.soundfont ? './soundfont.js' : './tinysynth.js');
    const synth = await createSynth(this.soundfont);
    const {context} = synth;
    const master = context.createGain();
    master.gain.value = 0;
    const analyser = context.createAnalyser();
    analyser.fftSize = 2048;
    synth.output.connect(master);
    master.connect(analyser);
    analyser.connect(context.destination);
    Object.assign(this, {synth, context, master, analyser});
  }

  get stepSeconds() { return 60 / this.tempo / STEPS_PER_QUARTER; }

  // Makes `material` the next to be played. While something plays, the change waits for the next
  // bar line; `restart` begins it at its first step, otherwise it goes on at the present one.
  set(material, {restart = false} = {}) {
    if (this.isPlaying) this.pending = {material, restart};
    else this.material = material;
  }

  async start() {
    if (this.isPlaying || !this.material) return;
    this.isPlaying = true;
    try {
      await this.#open();
    } catch (error) {
      this.isPlaying = false;
      throw error;
    }
    if (!this.isPlaying) return;  // stopped while the synthesiser was loading
    const now = this.context.currentTime;
    this.#fade(1, now);
    this.step = 0;
    this.time = now + 0.06;
    this.scheduled = [];
    this.programs = new Map();
    this.timer = setInterval(() => this.schedule(), TICK_MS);
    this.schedule();
    this.onchange();
  }

  stop() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    clearInterval(this.timer);
    if (this.context) {
      const now = this.context.currentTime;
      this.#fade(0, now);
      this.#release(now);
      // The fader is closed by then, so that cutting the voices makes no click.
      setTimeout(() => {
        if (!this.isPlaying) this.synth.silence();
      }, 1000 * FADE_S * 6);
    }
    if (this.pending) this.material = this.pending.material;
    this.pending = null;
    this.scheduled = [];
    this.onchange();
  }

  // The step that is heard now, with its fraction, and what it belongs to; null if none is.
  get position() {
    if (!this.isPlaying || !this.scheduled.length) return null;
    const heard = this.context.currentTime - (this.output ? 0 : this.context.outputLatency || 0);
    while (this.scheduled.length > 1 && this.scheduled[1].time <= heard) this.scheduled.shift();
    const [{time, step, material}] = this.scheduled;
    const fraction = (heard - time) / this.stepSeconds;
    return fraction < 0 ? null : {step: step + Math.min(fraction, 1), material};
  }

  #fade(level, time) {
    const {gain} = this.master;
    gain.cancelScheduledValues(time);
    gain.setTargetAtTime(level, time, FADE_S);
  }

  // Sends the notes of the next moments to the synthesiser.
  schedule() {
    const {currentTime} = this.context;
    const ahead = document.hidden ? AHEAD_HIDDEN_S : AHEAD_S;
    while (this.time < currentTime + ahead && !this.#isOver()) this.#scheduleStep();
    if (this.#isOver()) {
      this.#release(this.time);
      if (currentTime >= this.time) this.stop();
    }
  }

  #isOver() {
    return this.step >= this.material.steps && !this.loop && !this.pending;
  }

  #scheduleStep() {
    if (this.step >= this.material.steps) this.step = 0;
    if (this.pending && this.step % STEPS_PER_BAR === 0) {
      const {material, restart} = this.pending;
      this.#release(this.time);
      this.step = restart ? 0 : this.step % material.steps;
      this.material = material;
      this.pending = null;
    }
    this.#release(this.time, (note) => note.end <= this.step || this.step === 0);
    for (const note of this.material.byStep[this.step]) this.#start(note);
    this.scheduled.push({time: this.time, step: this.step, material: this.material});
    this.step += 1;
    this.time += this.stepSeconds;
  }

  #start(note) {
    if (this.programs.get(note.channel) !== note.program) {
      this.programs.set(note.channel, note.program);
      this.#send([0xc0 | note.channel, note.program], this.time);
    }
    this.#send([0x90 | note.channel, note.pitch, note.velocity], this.time);
    this.sounding.push(note);
  }

  // Ends the sounding notes that `isOver` selects, all by default.
  #release(time, isOver = () => true) {
    for (const note of this.sounding.filter(isOver)) {
      this.#send([0x80 | note.channel, note.pitch, 0], time);
    }
    this.sounding = this.sounding.filter((note) => !isOver(note));
  }

  #send(message, time) {
    if (this.output) {
      const later = Math.max(0, time - this.context.currentTime);
      this.output.send(message, performance.now() + 1000 * later);
    } else this.synth.send(message, time);
  }
}

// The MIDI outputs of this computer, after the browser has asked for permission.
export async function midiOutputs() {
  const access = await navigator.requestMIDIAccess();
  return [...access.outputs.values()];
}
