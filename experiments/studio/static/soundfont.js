// Plays a SoundFont with spessasynth_lib, which is loaded only when the studio has a SoundFont.

export async function createSynth(address) {
  const context = new AudioContext();
  const [{WorkletSynthesizer}, soundfont] = await Promise.all([
    import('/vendor/spessasynth_lib.js'), load(address),
    context.audioWorklet.addModule('/vendor/spessasynth_processor.min.js')]);
  const synth = new WorkletSynthesizer(context);
  await synth.isReady;
  await synth.soundBankManager.addSoundBank(soundfont, 'main');
  const output = context.createGain();
  synth.connect(output);
  return {
    context,
    output,
    send(message, time) { synth.sendMessage(message, 0, {time}); },
    silence() { synth.stopAll(true); },
  };
}

async function load(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error('The SoundFont did not load.');
  return reply.arrayBuffer();
}
