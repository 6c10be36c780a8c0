// The synthesiser without samples, webaudio-tinysynth.

import {loadScript} from './elements.js';

export async function createSynth() {
  await loadScript('/vendor/webaudio-tinysynth.min.js');
  const synth = new window.WebAudioTinySynth();
  // Its last node goes to the player's fader instead of the loudspeaker.
  const output = synth.comp;
  output.disconnect();
  return {
    context: synth.getAudioContext(),
    output,
    send(message, time) { synth.send(message, time); },
    silence() { for (let channel = 0; channel < 16; ++channel) synth.allSoundOff(channel); },
  };
}
