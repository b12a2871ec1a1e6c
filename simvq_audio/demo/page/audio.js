/** Recordings in and out: WAV, what else the browser decodes, the microphone, sample rates.
 *
 * A recording is {channels: [Float32Array, ...], sampleRate}.
 */

// What a format without a known rate is decoded at.
const COMMON_RATE = 48000;
// Zero crossings of the resampling filter on either side, and the parameter of its Kaiser window.
const CROSSINGS = 48;
const BETA = 12;

/** Read an audio file; WAV and FLAC at their own rate, other formats at 48 kHz. */
export async function readAudio(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, 4));
  if (text === "RIFF") return readWav(bytes);
  // STREAMINFO: 20 bits of sample rate at byte 18.
  const rate = text === "fLaC" ? (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4) : COMMON_RATE;
  try {
    const context = new OfflineAudioContext(1, 1, rate);
    const buffer = await context.decodeAudioData(bytes.slice().buffer);
    const channels = Array.from({length: buffer.numberOfChannels}, (_, i) => buffer.getChannelData(i));
    return {channels, sampleRate: buffer.sampleRate};
  } catch {
    throw new Error("this browser cannot read the file as audio; a .wav works everywhere");
  }
}

function readWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let format = null;
  for (let at = 12; at + 8 <= bytes.length;) {
    const name = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    at += 8;
    if (name === "fmt ") {
      // An extensible format has its real tag behind.
      const tag = view.getUint16(at, true);
      format = {
        tag: tag === 0xfffe ? view.getUint16(at + 24, true) : tag,
        channels: view.getUint16(at + 2, true),
        rate: view.getUint32(at + 4, true),
        bits: view.getUint16(at + 14, true),
      };
    } else if (name === "data" && format) {
      return samplesOf(view, at, Math.min(size, bytes.length - at), format);
    }
    at += size + (size & 1);
  }
  throw new Error("the .wav file has no samples");
}

function samplesOf(view, start, size, {tag, channels: count, rate, bits}) {
  const read = {
    "1/8": (at) => (view.getUint8(at) - 128) / 128,
    "1/16": (at) => view.getInt16(at, true) / 2 ** 15,
    "1/24": (at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23,
    "1/32": (at) => view.getInt32(at, true) / 2 ** 31,
    "3/32": (at) => view.getFloat32(at, true),
    "3/64": (at) => view.getFloat64(at, true),
  }[`${tag}/${bits}`];
  if (!read || !count) throw new Error("the .wav file is of a kind that this page does not read");
  const step = bits / 8;
  const samples = Math.floor(size / (step * count));
  const channels = Array.from({length: count}, () => new Float32Array(samples));
  for (let i = 0, at = start; i < samples; i++) {
    for (const channel of channels) {
      channel[i] = read(at);
      at += step;
    }
  }
  return {channels, sampleRate: rate};
}

/** A 16-bit WAV file. */
export function writeWav({channels, sampleRate}) {
  const samples = channels[0].length;
  const bytes = new ArrayBuffer(44 + 2 * samples * channels.length);
  const view = new DataView(bytes);
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, bytes.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate * channels.length, true);
  view.setUint16(32, 2 * channels.length, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes.byteLength - 44, true);
  for (let i = 0, at = 44; i < samples; i++) {
    for (const channel of channels) {
      view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(channel[i] * 32768))), true);
      at += 2;
    }
  }
  return new Blob([bytes], {type: "audio/wav"});
}

/** Samples that `count` at `from` Hz have at `to` Hz, rounded up. */
export function resampledLength(count, from, to) {
  return Number((BigInt(count) * BigInt(to) + BigInt(from - 1)) / BigInt(from));
}

/** Another sample rate, without delay: sample i lies at i / `to` seconds. */
export function resample(samples, from, to) {
  if (from === to) return samples;
  const common = gcd(from, to);
  const [up, down] = [to / common, from / common];
  const cutoff = Math.min(1, to / from) * 0.97;
  const side = Math.ceil(CROSSINGS / cutoff);
  const filters = new Map();
  const result = new Float32Array(resampledLength(samples.length, from, to));
  for (let i = 0; i < result.length; i++) {
    const phase = (i * down) % up;
    const middle = (i * down - phase) / up;
    if (!filters.has(phase)) filters.set(phase, filter(phase / up, cutoff, side));
    const weights = filters.get(phase);
    const first = middle - side;
    let sum = 0;
    const end = Math.min(weights.length, samples.length - first);
    for (let j = Math.max(0, -first); j < end; j++) sum += weights[j] * samples[first + j];
    result[i] = sum;
  }
  return result;
}

/** A sinc in a Kaiser window, its middle `offset` behind sample `side`. */
function filter(offset, cutoff, side) {
  return Float64Array.from({length: 2 * side + 2}, (_, j) => {
    const x = j - side - offset;
    const inside = 1 - (x / (side + 1)) ** 2;
    if (inside <= 0) return 0;
    const angle = Math.PI * cutoff * x;
    const sinc = angle === 0 ? 1 : Math.sin(angle) / angle;
    return (cutoff * sinc * bessel(BETA * Math.sqrt(inside))) / bessel(BETA);
  });
}

/** The modified Bessel function of order 0. */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

/** Record the microphone; `stop` of what comes back ends it and gives the recording. */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: {channelCount: 1, echoCancellation: false, noiseSuppression: false},
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const source = context.createMediaStreamSource(stream);
  const recorder = new AudioWorkletNode(context, "recorder", {numberOfOutputs: 0});
  const blocks = [];
  recorder.port.onmessage = ({data}) => blocks.push(data);
  source.connect(recorder);
  return {
    async stop() {
      source.disconnect();
      stream.getTracks().forEach((track) => track.stop());
      const {sampleRate} = context;
      await context.close();
      const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
      let at = 0;
      for (const block of blocks) {
        samples.set(block, at);
        at += block.length;
      }
      return {channels: [samples], sampleRate};
    },
  };
}
