/** Runs the two graphs beside the page, so that the page stays alive meanwhile. */

import {cheaperCodes} from "./cheaper.js";
import {loadPrior} from "./prior.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated
  ? Math.min(4, navigator.hardwareConcurrency || 1)
  : 1;
ort.env.logLevel = "error";

// Frames in a run, which is also a block of entropy coding.
const PIECE = 750;

const loaded = load();
let prior = null;

async function load() {
  const [codec, ...graphs] = await Promise.all([
    get("model/codec.json").then((response) => response.json()),
    ...["encoder", "decoder"].map((name) =>
      get(`model/${name}.onnx`).then((response) => response.arrayBuffer())),
  ]);
  const options = {executionProviders: ["wasm"]};
  // One after the other, since both would wait for the same threads.
  const encoder = await ort.InferenceSession.create(graphs[0], options);
  const decoder = await ort.InferenceSession.create(graphs[1], options);
  return {codec, encoder, decoder};
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is missing on the server`);
  return response;
}

/** Outputs for all frames, from windows that overlap by what an output depends on.
 *
 * @param run (first frame, behind the last) -> values, `scale` a frame.
 */
async function inWindows(run, frames, context, scale, result, tell) {
  for (let start = 0; start < frames; start += PIECE) {
    const end = Math.min(start + PIECE, frames);
    const first = Math.max(0, start - context);
    const window = await run(first, Math.min(end + context, frames));
    result.set(window.subarray((start - first) * scale, (end - first) * scale), start * scale);
    tell(end / frames);
  }
  return result;
}

const tasks = {
  async load() {
    return (await loaded).codec;
  },

  /** Samples at the model's rate -> codes. */
  async encode(samples, tell) {
    const {codec, encoder} = await loaded;
    const hop = codec.hop_length;
    const run = async (first, last) => {
      const window = samples.slice(first * hop, last * hop);
      const waveform = new ort.Tensor("float32", window, [1, window.length]);
      const {codes} = await encoder.run({waveform}, ["codes"]);
      return Int32Array.from(codes.data, Number);
    };
    const frames = Math.ceil(samples.length / hop);
    return inWindows(run, frames, codec.encoder_context, 1, new Int32Array(frames), tell);
  },

  /** Samples at the model's rate -> codes that take fewer bits; see cheaper.js. */
  async cheaper({samples, worth}, tell) {
    const {codec, encoder} = await loaded;
    prior ??= await loadPrior(new Uint8Array(await (await get("model/prior.safetensors")).arrayBuffer()));
    const {hop_length: hop, encoder_context: context, codebook_size: size} = codec;
    const frames = Math.ceil(samples.length / hop);
    const codes = new Int32Array(frames);
    for (let start = 0; start < frames; start += PIECE) {
      const end = Math.min(start + PIECE, frames);
      const first = Math.max(0, start - context);
      const window = samples.slice(first * hop, (end + context) * hop);
      const waveform = new ort.Tensor("float32", window, [1, window.length]);
      const {scores} = await encoder.run({waveform}, ["scores"]);
      const own = scores.data.subarray((start - first) * size, (end - first) * size);
      codes.set(cheaperCodes(own, prior, worth), start);
      tell(end / frames);
    }
    return codes;
  },

  /** Codes -> samples at the model's rate. */
  async decode(codes, tell) {
    const {codec, decoder} = await loaded;
    const run = async (first, last) => {
      const window = BigInt64Array.from(codes.subarray(first, last), BigInt);
      const {waveform} = await decoder.run({
        codes: new ort.Tensor("int64", window, [1, window.length]),
      });
      return waveform.data;
    };
    const result = new Float32Array(codes.length * codec.hop_length);
    const {decoder_context: context, hop_length: hop} = codec;
    return inWindows(run, codes.length, context, hop, result, tell);
  },
};

self.onmessage = async ({data: {id, task, input}}) => {
  try {
    const tell = (progress) => self.postMessage({id, progress});
    self.postMessage({id, result: await tasks[task](input, tell)});
  } catch (error) {
    self.postMessage({id, error: error.message || String(error)});
  }
};
