/** The page: a recording or a `.codes` file comes in, both sides are shown and can be heard. */

import {readAudio, record, resample, resampledLength, writeWav} from "./audio.js";
import {readCodes, writeCodes} from "./codes.js";
import {drawSpectrum, drawWave} from "./pictures.js";
import {loadPrior} from "./prior.js";

// Of a lost packet, in seconds.
const PACKET = 0.08;
// What a bit is worth at each step of the slider; see cheaper.js.
const WORTHS = [0, 0.005, 0.01, 0.02, 0.035, 0.06, 0.1];

const $ = (selector) => document.querySelector(selector);
const worker = new Worker("worker.js", {type: "module"});
const waiting = new Map();
const links = new Map();
let codec = null;
let prior = null;
let shown = null; // {name, codes, original, decoded}
let recording = null;

// -- the worker -----------------------------------------------------------------------------------

worker.onmessage = ({data: {id, progress, result, error}}) => {
  const {resolve, reject, tell} = waiting.get(id);
  if (progress !== undefined) return tell(progress);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = () => fail(new Error("onnxruntime-web cannot be loaded; is this browser recent?"));

function ask(task, input, tell = () => {}) {
  return new Promise((resolve, reject) => {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    waiting.set(id, {resolve, reject, tell});
    worker.postMessage({id, task, input});
  });
}

// -- what is going on -----------------------------------------------------------------------------

function say(state, text, progress = 0) {
  document.body.dataset.state = state;
  $("#status").textContent = text;
  $("#progress").value = progress;
  for (const control of document.querySelectorAll("#source button, #source input, .slider input")) {
    control.disabled = state === "loading" || state === "working";
  }
}

function fail(error) {
  say("failed", error.message);
}

/** Do one thing at a time, and show what went wrong. */
async function work(action) {
  if (["loading", "working"].includes(document.body.dataset.state)) return;
  try {
    await action();
    say("ready", "");
  } catch (error) {
    fail(error);
  }
}

// -- coding ---------------------------------------------------------------------------------------

async function encode({channels, sampleRate}, worth = 0) {
  const rows = [];
  for (const [i, channel] of channels.entries()) {
    const samples = resample(channel, sampleRate, codec.sample_rate);
    const tell = (progress) => say("working", "Encoding …", (i + progress) / channels.length);
    tell(0);
    const row = worth ? ask("cheaper", {samples, worth}, tell) : ask("encode", samples, tell);
    rows.push(await row);
  }
  const frames = rows[0].length;
  const indices = new Int32Array(rows.length * frames);
  rows.forEach((row, i) => indices.set(row, i * frames));
  return {
    codesId: codec.codes_id,
    sampleRate,
    numSamples: channels[0].length,
    channels: channels.length,
    frames,
    codebookSizes: [codec.codebook_size],
    indices,
  };
}

async function decode(codes) {
  check(codes);
  const {channels: count, frames, indices, sampleRate, numSamples} = codes;
  const channels = [];
  for (let i = 0; i < count; i++) {
    const tell = (progress) => say("working", "Decoding …", (i + progress) / count);
    tell(0);
    const samples = await ask("decode", indices.slice(i * frames, (i + 1) * frames), tell);
    const native = resampledLength(numSamples, sampleRate, codec.sample_rate);
    const result = new Float32Array(numSamples);
    const resampled = resample(samples.subarray(0, native), codec.sample_rate, sampleRate);
    result.set(resampled.subarray(0, numSamples));
    channels.push(result);
  }
  return {channels, sampleRate};
}

function check({codesId, codebookSizes, frames, sampleRate, numSamples}) {
  if (![codec.codes_id, ...codec.old_codes_ids].includes(codesId)) {
    throw new Error(`these codes are ${codesId}, this page decodes ${codec.codes_id}`);
  }
  const native = resampledLength(numSamples, sampleRate, codec.sample_rate);
  if (codebookSizes.length > 1 || frames !== Math.ceil(native / codec.hop_length)) {
    throw new Error("the numbers in the file do not fit together; it was written wrongly");
  }
}

/** Codes as they are heard when packets are lost: the code before goes on. */
function withLosses(codes, share) {
  const {channels, frames} = codes;
  const indices = codes.indices.slice();
  const length = Math.max(1, Math.round((PACKET * codec.sample_rate) / codec.hop_length));
  // The same losses every time, so that only the share changes what is heard.
  let seed = 1;
  for (let start = length; start < frames; start += length) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    if (seed / 2 ** 32 >= share) continue;
    for (let channel = 0; channel < channels; channel++) {
      const at = channel * frames + start;
      indices.fill(indices[at - 1], at, channel * frames + Math.min(frames, start + length));
    }
  }
  return {...codes, indices};
}

// -- showing --------------------------------------------------------------------------------------

async function open(name, bytes) {
  const isCodes = bytes.length > 3 && String.fromCharCode(...bytes.subarray(0, 4)) === "SVQC";
  if (isCodes) {
    const codes = readCodes(bytes, prior);
    if (!codes.frames) throw new Error("the file holds no sound");
    await show(name, codes, null);
  } else {
    const original = await readAudio(bytes);
    if (!original.channels[0].length) throw new Error("the recording is empty");
    await show(name, await encode(original), original);
  }
}

async function show(name, codes, original) {
  $("#loss").value = 0;
  $("#loss-share").value = "0 %";
  $("#worth").value = 0;
  await update(name.replace(/\.[^.]*$/, "") || "recording", codes, original);
  side("#original", original);
}

/** Show other codes of the same recording. */
async function update(name, codes, original) {
  const decoded = await decode(withLosses(codes, $("#loss").value / 100));
  shown = {name, codes, original, decoded};
  $("#result").hidden = false;
  $("#original").hidden = !original;
  $("#cheaper").hidden = !original || prior?.codesId !== codec.codes_id;
  const bytes = writeCodes(codes, prior);
  const fixed = writeCodes(codes);
  const seconds = codes.numSamples / codes.sampleRate;
  const rate = (size) => `${((8 * size) / seconds / 1000).toFixed(3)} kbit/s`;
  $("#kbps").textContent = rate(bytes.length);
  $("#bytes").textContent = `${bytes.length.toLocaleString("en")} bytes`;
  $("#seconds").textContent = `${seconds.toFixed(2)} s`;
  $("#fixed").textContent = rate(fixed.length);
  link($("#save-codes"), "href", new Blob([bytes]));
  $("#save-codes").download = `${shown.name}.codes`;
  $("#save-wav").download = `${shown.name}-decoded.wav`;
  side("#decoded", decoded);
}

function side(figure, sound) {
  if (!sound) return;
  const wav = writeWav(sound);
  link($(`${figure} audio`), "src", wav);
  if (figure === "#decoded") link($("#save-wav"), "href", wav);
  draw(figure, sound);
}

function draw(figure, sound) {
  if (!sound) return;
  const [samples] = sound.channels;
  drawWave($(`${figure} .wave`), samples);
  // Both at the model's rate, so that they are alike to look at.
  drawSpectrum($(`${figure} .spectrum`), resample(samples, sound.sampleRate, codec.sample_rate));
}

function link(element, attribute, blob) {
  if (links.has(element)) URL.revokeObjectURL(links.get(element));
  links.set(element, URL.createObjectURL(blob));
  element[attribute] = links.get(element);
}

// -- what the visitor does ------------------------------------------------------------------------

$("#file").addEventListener("change", ({target}) => {
  const [file] = target.files;
  if (file) work(async () => open(file.name, new Uint8Array(await file.arrayBuffer())));
  target.value = "";
});

$("#example").addEventListener("click", () => work(async () => {
  const response = await fetch("example.codes");
  await open("example.codes", new Uint8Array(await response.arrayBuffer()));
}));

$("#record").addEventListener("click", async () => {
  if (recording) {
    const done = recording;
    recording = null;
    $("#record").setAttribute("aria-pressed", "false");
    $("#record").textContent = "Record";
    const original = await done.stop();
    await work(async () => {
      if (!original.channels[0].length) throw new Error("nothing was recorded");
      await show("recording", await encode(original), original);
    });
    return;
  }
  try {
    recording = await record();
    $("#record").setAttribute("aria-pressed", "true");
    $("#record").textContent = "Stop";
    $("#status").textContent = "Recording …";
  } catch (error) {
    fail(new Error(`the microphone cannot be used (${error.message})`));
  }
});

$("#loss").addEventListener("input", ({target}) => ($("#loss-share").value = `${target.value} %`));
$("#loss").addEventListener("change", ({target}) => work(async () => {
  shown.decoded = await decode(withLosses(shown.codes, target.value / 100));
  side("#decoded", shown.decoded);
}));

$("#worth").addEventListener("change", ({target}) => work(async () => {
  const {name, original} = shown;
  await update(name, await encode(original, WORTHS[target.value]), original);
}));

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", () => document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) work(async () => open(file.name, new Uint8Array(await file.arrayBuffer())));
});

let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    if (!shown) return;
    draw("#original", shown.original);
    draw("#decoded", shown.decoded);
  }, 200);
});

// -- the start ------------------------------------------------------------------------------------

try {
  codec = await ask("load");
  const response = await fetch("model/prior.safetensors");
  prior = response.ok ? await loadPrior(new Uint8Array(await response.arrayBuffer())) : null;
  $("#example").hidden = prior?.codesId !== codec.codes_id;
  $("#model").textContent = `${codec.name}: model ${codec.model_id}, codes ${codec.codes_id}, `
    + `${codec.sample_rate / 1000} kHz, ${codec.sample_rate / codec.hop_length} codes a second of `
    + `${codec.codebook_size}`;
  say("ready", "");
} catch (error) {
  fail(error);
}
