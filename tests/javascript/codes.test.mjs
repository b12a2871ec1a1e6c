// The reader and writer in JavaScript, by the examples of docs/file-format.md.
import assert from "node:assert/strict";
import {readFile} from "node:fs/promises";
import {test} from "node:test";

import {cheaperCodes} from "../../simvq_audio/demo/page/cheaper.js";
import {CodesError, crc32, readCodes, readCoding, writeCodes} from "../../simvq_audio/demo/page/codes.js";
import {loadPrior} from "../../simvq_audio/demo/page/prior.js";

const root = new URL("../../", import.meta.url);
const load = async (path) => new Uint8Array(await readFile(new URL(path, root)));
const page = await readFile(new URL("docs/file-format.md", root), "utf8");
const prior = await loadPrior(await load("simvq_audio/prior/compact-1.safetensors"));

/** The bytes of a code block of the page, whose lines end in comments. */
function example(kind) {
  const block = page.split("```" + kind + "\n")[1].split("```")[0];
  const digits = block.split("\n").map((line) => line.split("   ")[0]);
  return Uint8Array.from(digits.join(" ").trim().split(/\s+/), (byte) => parseInt(byte, 16));
}

function withChecksum(bytes) {
  const result = bytes.slice();
  new DataView(result.buffer).setUint32(result.length - 4, crc32(result.subarray(0, -4)));
  return result;
}

function changed(bytes, at, value) {
  const result = bytes.slice();
  result[at] = value;
  return result;
}

function random(count, below, seed = 1) {
  return Int32Array.from({length: count}, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  });
}

test("the worked example", () => {
  const bytes = example("hex");
  const codes = readCodes(bytes);
  assert.deepEqual({...codes, indices: Array.from(codes.indices)}, {
    codesId: "0123456789ab",
    sampleRate: 16000,
    numSamples: 960,
    channels: 2,
    frames: 3,
    codebookSizes: [1000],
    indices: [1, 500, 999, 7, 64, 0],
  });
  assert.deepEqual(writeCodes(codes), bytes);
});

test("the example of coding 1", () => {
  const bytes = example("hex-entropy");
  const codes = readCodes(bytes, prior);
  const expected = [7379, 7379, 3068, 3068, 3068, 3068, 7379, 7379, 7379, 3068, 3068, 5221];
  assert.deepEqual(Array.from(codes.indices), expected);
  assert.deepEqual(readCoding(bytes), {coding: "entropy", priorId: "765d88f1"});
  assert.deepEqual(writeCodes(codes, prior), bytes);
  assert.throws(() => readCodes(bytes), /prior 765d88f1/);
});

test("a recording that the command line coded, byte for byte", async () => {
  const bytes = await load("tests/data/hello-765d88f1.codes");
  const codes = readCodes(bytes, prior);
  assert.deepEqual(writeCodes(codes, prior), bytes);
  const fixed = writeCodes(codes);
  assert.ok(fixed.length > bytes.length);
  assert.deepEqual(readCodes(fixed), codes);
});

test("any codes come back", () => {
  for (const sizes of [[2], [3], [1000], [8192], [262144], [1024, 7, 300]]) {
    for (const [channels, frames] of [[1, 0], [1, 1], [3, 5], [2, 760], [255, 2]]) {
      const rows = [];
      for (let row = 0; row < channels * sizes.length; row++) {
        rows.push(...random(frames, sizes[row % sizes.length], row + frames));
      }
      const codes = {
        codesId: "c153ae81d324",
        sampleRate: 2 ** 24 - 1,
        numSamples: frames ? 2 ** 40 - 1 : 0,
        channels,
        frames,
        codebookSizes: sizes,
        indices: Int32Array.from(rows),
      };
      assert.deepEqual(readCodes(writeCodes(codes, prior), prior), codes);
    }
  }
});

test("damage is refused", () => {
  for (const kind of ["hex", "hex-entropy"]) {
    const bytes = example(kind);
    for (let at = 0; at < bytes.length; at++) {
      for (const bit of [1, 16, 128]) {
        const bad = changed(bytes, at, bytes[at] ^ bit);
        assert.throws(() => readCodes(bad, prior), CodesError, `byte ${at}`);
      }
      assert.throws(() => readCodes(bytes.subarray(0, at), prior), CodesError);
    }
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    assert.throws(() => readCodes(longer, prior), /too long/);
  }
});

test("files that were written wrongly are refused, with the right checksum too", () => {
  const bytes = example("hex");
  const wrongly = (at, value) => () => readCodes(withChecksum(changed(bytes, at, value)), prior);
  assert.throws(wrongly(35, 1), /padding/);
  assert.throws(wrongly(28, 0xff), /outside a codebook/);
  const withoutSamples = withChecksum(changed(changed(bytes, 22, 0), 23, 0));
  assert.throws(() => readCodes(withoutSamples), /cannot stand for 0 samples/);
  assert.throws(wrongly(4, 2), /version 2/);
  assert.throws(wrongly(5, 3), /coding 3/);
  const coded = example("hex-entropy");
  for (let at = 36; at < 44; at++) {
    const bad = withChecksum(changed(coded, at, coded[at] ^ 1));
    assert.throws(() => readCodes(bad, prior), CodesError, `byte ${at}`);
  }
});

test("codes that no file can hold are refused", () => {
  const codes = readCodes(example("hex"));
  const cases = {
    channels: 0, frames: 4, sampleRate: 0, numSamples: 0, codesId: "xyz", codebookSizes: [500],
  };
  for (const [field, value] of Object.entries(cases)) {
    assert.throws(() => writeCodes({...codes, [field]: value}), CodesError, field);
  }
});

test("a damaged prior is refused", async () => {
  const bytes = await load("simvq_audio/prior/compact-1.safetensors");
  await assert.rejects(loadPrior(changed(bytes, bytes.length - 1, 77)), /damaged/);
});

test("codes that cost fewer bits", () => {
  const frames = 80;
  const scores = Float32Array.from(random(frames * 8192, 2 ** 24, 5), (value) => value / 2 ** 24);
  const nearest = Int32Array.from({length: frames}, (_, frame) => {
    const own = scores.subarray(frame * 8192, (frame + 1) * 8192);
    return own.indexOf(own.reduce((highest, score) => Math.max(highest, score)));
  });
  assert.deepEqual(cheaperCodes(scores, prior, 0), nearest);
  const size = (indices) => writeCodes({
    codesId: "c153ae81d324", sampleRate: 24000, numSamples: 320 * frames, channels: 1, frames,
    codebookSizes: [8192], indices,
  }, prior).length;
  const cheap = cheaperCodes(scores, prior, 0.1);
  assert.ok(size(cheap) < size(nearest));
  // Nothing but bits counts in the end.
  assert.ok(size(cheaperCodes(scores, prior, 100)) <= size(cheap));
});
