/** Codes that cost fewer bits: near the latents, and likely under the prior. Any decoder takes them.
 *
 * A beam search as simvq_audio/prior/search.py has it, with a narrower beam.
 */

const BEAM = 4;
const CLUSTERS = 8;
const LOG_TOTAL = 16;

/** The codes of a block that make distance + `worth` x bits small.
 *
 * @param scores Float32Array, frames x codes; see the encoder's graph.
 * @param worth of a bit: how much further than the nearest code a code may be, as a share of how much
 *     further an average code is. 0 gives the nearest codes.
 */
export function cheaperCodes(scores, prior, worth) {
  const size = prior.codebookSize;
  const frames = scores.length / size;
  const weight = worth * spread(scores, size);
  let beam = [{past: prior.begin(), cost: 0, code: -1, before: null}];
  for (let frame = 0; frame < frames; frame++) {
    const distances = beyondNearest(scores.subarray(frame * size, (frame + 1) * size));
    const tried = smallest(pairs(beam, distances, prior, weight), CLUSTERS);
    const found = smallest(tried.flatMap((pair) => members(pair, distances, prior, weight)), 3 * BEAM);
    beam = extended(found);
  }
  const codes = new Int32Array(frames);
  let at = beam.reduce((best, each) => (each.cost < best.cost ? each : best));
  for (let frame = frames - 1; frame >= 0; frame--, at = at.before) codes[frame] = at.code;
  return codes;
}

/** How much further an average code is than the nearest, over all frames. */
function spread(scores, size) {
  let sum = 0;
  for (let start = 0; start < scores.length; start += size) {
    let highest = -Infinity;
    let total = 0;
    for (let i = start; i < start + size; i++) {
      highest = Math.max(highest, scores[i]);
      total += scores[i];
    }
    sum += 2 * (highest - total / size);
  }
  return sum / (scores.length / size);
}

function beyondNearest(scores) {
  let highest = -Infinity;
  for (const score of scores) highest = Math.max(highest, score);
  return scores.map((score) => 2 * (highest - score));
}

/** Each sequence with each cluster, and the least that a code of it comes to but for its own bits. */
function pairs(beam, distances, prior, weight) {
  const {rows} = prior.members;
  const nearest = new Float32Array(prior.tree.length / rows).fill(Infinity);
  prior.tree.forEach((code, place) => {
    const cluster = Math.floor(place / rows);
    nearest[cluster] = Math.min(nearest[cluster], distances[code]);
  });
  return beam.flatMap((parent) =>
    Array.from(parent.past.clusters(), (frequency, cluster) => {
      const paid = parent.cost + weight * (LOG_TOTAL - Math.log2(frequency));
      return {parent, cluster, paid, cost: paid + nearest[cluster]};
    }));
}

function members({parent, cluster, paid}, distances, prior, weight) {
  return Array.from(parent.past.members(cluster), (frequency, member) => {
    const code = prior.code(cluster, member);
    const cost = paid + weight * (LOG_TOTAL - Math.log2(frequency)) + distances[code];
    return {parent, code, cost};
  });
}

/** The best sequences, of those that end alike one, each with a past of its own. */
function extended(found) {
  const kept = new Map();
  for (const {parent, code, cost} of found) {
    const end = `${parent.code} ${code}`;
    if (!kept.has(end) && kept.size < BEAM) kept.set(end, {parent, code, cost});
  }
  const least = found[0].cost;
  const used = new Set();
  // All copies before the first push, which changes a past.
  const chosen = Array.from(kept.values(), ({parent, code, cost}) => {
    const past = used.has(parent) ? parent.past.copy() : parent.past;
    used.add(parent);
    return {past, code, cost: cost - least, before: parent};
  });
  for (const {past, code} of chosen) past.push(code);
  return chosen;
}

function smallest(items, count) {
  return items.sort((one, other) => one.cost - other.cost).slice(0, count);
}
