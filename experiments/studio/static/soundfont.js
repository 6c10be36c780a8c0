// Plays a SoundFont with the audio worklet of spessasynth_lib, which is loaded only when the studio
// has a SoundFont. The messages are those of its class WorkletSynthesizer; that class would bring
// three more scripts of 209 KB, compressed.

const PROCESSOR = 'spessasynth-worklet-processor';
const OUTPUTS = 17;  // effects and 16 channels

export async function createSynth(address) {
  const context = new AudioContext();
  const [soundfont] = await Promise.all([load(address),
    context.audioWorklet.addModule('/vendor/spessasynth_processor.min.js')]);
  const node = new AudioWorkletNode(context, PROCESSOR, {numberOfOutputs: OUTPUTS,
    outputChannelCount: new Array(OUTPUTS).fill(2), processorOptions: {oneOutput: false, eventsEnabled: false}});
  const post = (type, data, transfer = []) => node.port.postMessage({type, channelNumber: -1, data}, transfer);
  await isDone(node, 'sf3Decoder');
  post('soundBankManager', {type: 'addSoundBank', data: {soundBankBuffer: soundfont, bankOffset: 0, id: 'main'}}, [soundfont]);
  await isDone(node, 'soundBankManager');
  const output = context.createGain();
  for (let n = 0; n < OUTPUTS; ++n) node.connect(output, n);
  return {
    context,
    output,
    send(message, time) {
      post('midiMessage', {messageData: new Uint8Array(message), channelOffset: 0, options: {time}});
    },
    silence() { post('stopAll', 1); },
  };
}

// Waits until the worklet has done what it was told.
function isDone(node, what) {
  return new Promise((resolve, reject) => {
    node.onprocessorerror = () => reject(new Error('The SoundFont player failed. Reload the page to try again.'));
    node.port.onmessage = ({data: {type, data}}) => {
      if (type === 'isFullyInitialized' && data.type === what) resolve();
      if (type === 'soundBankError') reject(new Error(`The SoundFont cannot be played: ${data.message ?? data}`));
    };
  });
}

async function load(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error('The SoundFont did not load.');
  return reply.arrayBuffer();
}
