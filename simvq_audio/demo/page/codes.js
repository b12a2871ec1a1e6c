/** Reads and writes `.codes` files, as docs/file-format.md describes them.
 *
 * Needs nothing but this file; with a prior (prior.js) entropy-coded files too. Codes are
 *
 *     {codesId, sampleRate, numSamples, channels, frames, codebookSizes, indices}
 *
 * where `indices` is an Int32Array of channels x codebooks x frames, the frames of the first
 * channel and codebook first.
 */

const MAGIC = 0x53565143;
const VERSION = 1;
const HEADER = 28;
const OVERHEAD = 32;
const FIXED = 0, ENTROPY = 1, SEVERAL = 2;
const BLOCK_FRAMES = 750;
const MAX_CODEBOOK_SIZE = 262144;
const LOW = 65536;

/** A file is damaged, foreign, or of a version that this reader does not know. */
export class CodesError extends Error {}

/** The content of a file as codes.
 *
 * @param {Uint8Array} bytes the whole file.
 * @param {object} [prior] of the entropy-coded blocks; see prior.js.
 */
export function readCodes(bytes, prior = null) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 4 || view.getUint32(0) !== MAGIC) throw new CodesError("not a .codes file");
  if (bytes.length > 5 && bytes[4] !== VERSION) {
    throw new CodesError(`file version ${bytes[4]} is not known to this reader`);
  }
  const coding = bytes[5];
  if (bytes.length > 5 && coding > SEVERAL) {
    throw new CodesError(`payload coding ${coding} is not known to this reader`);
  }
  checkLength(bytes.length, OVERHEAD, true);
  const channels = bytes[6];
  const codesId = toHex(bytes.subarray(7, 13));
  const sampleRate = integer(bytes, 13, 3);
  const codebookSize = integer(bytes, 16, 3) + 1;
  const numSamples = integer(bytes, 19, 5);
  const frames = view.getUint32(24);
  const payload = bytes.subarray(HEADER, bytes.length - 4);
  const layout = {channels, frames, codebookSize, payload};
  checkLength(bytes.length, OVERHEAD + READERS[coding].size(layout), false);
  if (crc32(bytes.subarray(0, -4)) !== view.getUint32(bytes.length - 4)) {
    throw new CodesError("the file was altered or damaged (its checksum does not match)");
  }
  const codebookSizes = coding === SEVERAL ? severalSizes(payload) : [codebookSize];
  const codes = {codesId, sampleRate, numSamples, channels, frames, codebookSizes};
  checkFields(codes);
  codes.indices = READERS[coding].unpack(layout, prior);
  checkIndices(codes);
  return codes;
}

/** The content of a file for codes: entropy-coded where there is a prior and that is smaller. */
export function writeCodes(codes, prior = null) {
  checkFields(codes);
  checkIndices(codes);
  const {channels, frames, codebookSizes, indices} = codes;
  let coding = FIXED;
  let payload;
  if (codebookSizes.length > 1) {
    coding = SEVERAL;
    payload = packSeveral(codes);
  } else {
    payload = packIndices(indices, bitsOf(codebookSizes[0]));
    if (prior && prior.codesId === codes.codesId && prior.codebookSize === codebookSizes[0]) {
      const coded = packBlocks(channels, frames, indices, prior);
      if (coded.length < payload.length) [coding, payload] = [ENTROPY, coded];
    }
  }
  const bytes = new Uint8Array(OVERHEAD + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  bytes.set([VERSION, coding, channels], 4);
  for (let i = 0; i < 6; i++) bytes[7 + i] = parseInt(codes.codesId.slice(2 * i, 2 * i + 2), 16);
  setInteger(bytes, 13, 3, codes.sampleRate);
  setInteger(bytes, 16, 3, codebookSizes[0] - 1);
  setInteger(bytes, 19, 5, codes.numSamples);
  view.setUint32(24, frames);
  bytes.set(payload, HEADER);
  view.setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)));
  return bytes;
}

/** How the indices of a file are packed: "fixed", or "entropy" under the prior of an id. */
export function readCoding(bytes) {
  if (bytes[5] !== ENTROPY) return {coding: "fixed", priorId: null};
  return {coding: "entropy", priorId: toHex(bytes.subarray(HEADER, HEADER + 4))};
}

// -- checks ---------------------------------------------------------------------------------------

function checkLength(found, expected, least) {
  if (found < expected) {
    const wanted = `${least ? "at least " : ""}${expected}`;
    throw new CodesError(`the file is truncated: ${wanted} bytes expected, ${found} found`);
  }
  if (found > expected && !least) {
    throw new CodesError(`the file is too long: ${expected} bytes expected, ${found} found`);
  }
}

function checkFields({codesId, sampleRate, numSamples, channels, frames, codebookSizes}) {
  if (!/^[0-9a-f]{12}$/.test(codesId)) throw new CodesError("codesId must be 12 hex digits");
  checkRange("channel count", channels, 1, 255);
  checkRange("frame count", frames, 0, 2 ** 32 - 1);
  checkRange("sample rate", sampleRate, 1, 2 ** 24 - 1);
  checkRange("sample count", numSamples, 0, 2 ** 40 - 1);
  checkRange("number of codebooks", codebookSizes.length, 1, 32);
  for (const size of codebookSizes) checkRange("codebook size", size, 2, MAX_CODEBOOK_SIZE);
  if ((frames === 0) !== (numSamples === 0)) {
    throw new CodesError(`${frames} frames cannot stand for ${numSamples} samples`);
  }
}

function checkRange(name, value, low, high) {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new CodesError(`the ${name} must be ${low} to ${high}, not ${value}`);
  }
}

function checkIndices({channels, frames, codebookSizes, indices}) {
  if (indices.length !== channels * codebookSizes.length * frames) {
    throw new CodesError("there must be an index for each channel, codebook and frame");
  }
  for (let row = 0; row < channels * codebookSizes.length; row++) {
    const size = codebookSizes[row % codebookSizes.length];
    for (let i = row * frames; i < (row + 1) * frames; i++) {
      if (!(indices[i] >= 0 && indices[i] < size)) {
        throw new CodesError(`the index ${indices[i]} is outside a codebook of ${size} entries`);
      }
    }
  }
}

// -- codings: the size of a payload from its head, and its indices ----------------------------------

const READERS = {
  [FIXED]: {
    size: ({channels, frames, codebookSize}) => packedSize(channels * frames, bitsOf(codebookSize)),
    unpack: ({channels, frames, codebookSize, payload}) =>
      unpackIndices(payload, channels * frames, bitsOf(codebookSize)),
  },
  [ENTROPY]: {
    size: (layout) => {
      const table = blockTable(layout);
      return table.blocks ? table.size : table.needed;
    },
    unpack: unpackBlocks,
  },
  [SEVERAL]: {
    size: ({channels, frames, payload}) => {
      if (!payload.length) return 1;
      checkRange("number of codebooks", payload[0], 2, 32);
      const head = 1 + 3 * payload[0];
      if (payload.length < head) return head;
      const sizes = severalSizes(payload).map((size) => packedSize(frames, bitsOf(size)));
      return head + channels * sizes.reduce((sum, size) => sum + size, 0);
    },
    unpack: unpackSeveral,
  },
};

function severalSizes(payload) {
  return Array.from({length: payload[0]}, (_, i) => integer(payload, 1 + 3 * i, 3) + 1);
}

function unpackSeveral({channels, frames, codebookSize, payload}) {
  const sizes = severalSizes(payload);
  if (sizes[0] !== codebookSize) throw new CodesError("header and payload disagree");
  const indices = new Int32Array(channels * sizes.length * frames);
  let at = 1 + 3 * sizes.length;
  for (let row = 0; row < channels * sizes.length; row++) {
    const bits = bitsOf(sizes[row % sizes.length]);
    const end = at + packedSize(frames, bits);
    indices.set(unpackIndices(payload.subarray(at, end), frames, bits), row * frames);
    at = end;
  }
  return indices;
}

function packSeveral({channels, frames, codebookSizes, indices}) {
  const head = new Uint8Array(1 + 3 * codebookSizes.length);
  head[0] = codebookSizes.length;
  codebookSizes.forEach((size, i) => setInteger(head, 1 + 3 * i, 3, size - 1));
  const parts = [head];
  for (let row = 0; row < channels * codebookSizes.length; row++) {
    const bits = bitsOf(codebookSizes[row % codebookSizes.length]);
    parts.push(packIndices(indices.subarray(row * frames, (row + 1) * frames), bits));
  }
  return joined(parts);
}

/** Where the blocks of an entropy-coded payload lie; `needed` bytes if it is too short to tell. */
function blockTable({channels, frames, codebookSize, payload}) {
  if (payload.length < 6) return {needed: 6};
  const blockFrames = integer(payload, 4, 2);
  checkRange("number of frames in a block", blockFrames, 1, 16384);
  const perChannel = Math.ceil(frames / blockFrames);
  let at = 6 + 2 * channels * perChannel;
  if (payload.length < at) return {needed: at};
  const bits = bitsOf(codebookSize);
  const blocks = [];
  for (let i = 0; i < channels * perChannel; i++) {
    const last = i % perChannel === perChannel - 1;
    const length = last ? frames - (perChannel - 1) * blockFrames : blockFrames;
    const plain = packedSize(length, bits);
    const entry = integer(payload, 6 + 2 * i, 2);
    if (entry >= plain) throw new CodesError("an entropy-coded block saves nothing");
    const start = Math.floor(i / perChannel) * frames + (i % perChannel) * blockFrames;
    blocks.push({at, start, length, coded: entry > 0, size: entry || plain});
    at += entry || plain;
  }
  return {blocks, size: at, priorId: toHex(payload.subarray(0, 4))};
}

function unpackBlocks(layout, prior) {
  const {channels, frames, codebookSize, payload} = layout;
  const {blocks, priorId} = blockTable(layout);
  if (blocks.some(({coded}) => coded) && prior?.id !== priorId) {
    throw new CodesError(`the file was coded with the prior ${priorId}, which is not at hand`);
  }
  const indices = new Int32Array(channels * frames);
  for (const {at, start, length, coded, size} of blocks) {
    const bytes = payload.subarray(at, at + size);
    const found = coded
      ? decodeBlock(bytes, length, prior)
      : unpackIndices(bytes, length, bitsOf(codebookSize));
    indices.set(found, start);
  }
  return indices;
}

function packBlocks(channels, frames, indices, prior) {
  const head = new Uint8Array(6);
  for (let i = 0; i < 4; i++) head[i] = parseInt(prior.id.slice(2 * i, 2 * i + 2), 16);
  setInteger(head, 4, 2, BLOCK_FRAMES);
  const entries = [];
  const parts = [];
  for (let channel = 0; channel < channels; channel++) {
    for (let start = 0; start < frames; start += BLOCK_FRAMES) {
      const end = channel * frames + Math.min(frames, start + BLOCK_FRAMES);
      const block = indices.subarray(channel * frames + start, end);
      const plain = packIndices(block, bitsOf(prior.codebookSize));
      const coded = encodeBlock(block, prior);
      const gains = coded.length < plain.length;
      entries.push(gains ? coded.length : 0);
      parts.push(gains ? coded : plain);
    }
  }
  const table = new Uint8Array(2 * entries.length);
  entries.forEach((entry, i) => setInteger(table, 2 * i, 2, entry));
  return joined([head, table, ...parts]);
}

// -- rANS: a state of 32 bits, words of 16 ------------------------------------------------------------

function decodeBlock(bytes, length, prior) {
  const damaged = () => new CodesError("an entropy-coded block does not end where its codes do");
  if (bytes.length < 4 || bytes.length % 2) throw damaged();
  let state = integer(bytes, 0, 4);
  if (state < LOW) throw new CodesError("an entropy-coded block begins with an impossible state");
  let at = 4;
  const next = (table) => {
    const slot = state % LOW;
    let symbol = 0;
    let start = 0;
    while (start + table[symbol] <= slot) start += table[symbol++];
    state = table[symbol] * Math.floor(state / LOW) + slot - start;
    if (state < LOW) {
      if (at >= bytes.length) throw damaged();
      state = state * LOW + integer(bytes, at, 2);
      at += 2;
    }
    return symbol;
  };
  const past = prior.begin();
  const codes = new Int32Array(length);
  for (let frame = 0; frame < length; frame++) {
    const cluster = next(past.clusters());
    codes[frame] = prior.code(cluster, next(past.members(cluster)));
    past.push(codes[frame]);
  }
  if (state !== LOW || bytes.length !== Math.max(at, leastBytes(length))) throw damaged();
  if (bytes.subarray(at).some((byte) => byte)) throw damaged();
  return codes;
}

function encodeBlock(codes, prior) {
  const intervals = [];
  const note = (table, symbol) => {
    let start = 0;
    for (let i = 0; i < symbol; i++) start += table[i];
    intervals.push([start, table[symbol]]);
  };
  const past = prior.begin();
  for (const code of codes) {
    const [cluster, member] = prior.place(code);
    note(past.clusters(), cluster);
    note(past.members(cluster), member);
    past.push(code);
  }
  // Backwards, because decoding undoes the last step first.
  let state = LOW;
  const words = [];
  for (const [start, count] of intervals.reverse()) {
    if (state >= count * LOW) {
      words.push(state % LOW);
      state = Math.floor(state / LOW);
    }
    state = Math.floor(state / count) * LOW + (state % count) + start;
  }
  const bytes = new Uint8Array(Math.max(4 + 2 * words.length, leastBytes(codes.length)));
  setInteger(bytes, 0, 4, state);
  words.reverse().forEach((word, i) => setInteger(bytes, 4 + 2 * i, 2, word));
  return bytes;
}

function leastBytes(frames) {
  return 4 + 2 * Math.floor(frames / 64);
}

// -- bits and bytes -----------------------------------------------------------------------------------

function bitsOf(codebookSize) {
  return 32 - Math.clz32(codebookSize - 1);
}

function packedSize(count, bits) {
  return Math.ceil((count * bits) / 8);
}

function packIndices(indices, bits) {
  const bytes = new Uint8Array(packedSize(indices.length, bits));
  let at = 0;
  for (const index of indices) {
    for (let bit = bits - 1; bit >= 0; bit--, at++) {
      if ((index >> bit) & 1) bytes[at >> 3] |= 0x80 >> (at & 7);
    }
  }
  return bytes;
}

function unpackIndices(bytes, count, bits) {
  const indices = new Int32Array(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    let index = 0;
    for (let bit = 0; bit < bits; bit++, at++) {
      index = (index << 1) | ((bytes[at >> 3] >> (7 - (at & 7))) & 1);
    }
    indices[i] = index;
  }
  for (; at < 8 * bytes.length; at++) {
    if ((bytes[at >> 3] >> (7 - (at & 7))) & 1) throw new CodesError("padding bits are not zero");
  }
  return indices;
}

/** A big-endian number of up to 6 bytes; beyond 32 bits bit operations would cut it. */
function integer(bytes, at, size) {
  let value = 0;
  for (let i = 0; i < size; i++) value = value * 256 + bytes[at + i];
  return value;
}

function setInteger(bytes, at, size, value) {
  for (let i = size - 1; i >= 0; i--, value = Math.floor(value / 256)) bytes[at + i] = value % 256;
}

function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const CRC_TABLE = Uint32Array.from({length: 256}, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte >>> 0;
});

/** The CRC-32 of zlib. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
