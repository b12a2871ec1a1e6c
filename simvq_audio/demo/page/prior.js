/** The prior of entropy-coded `.codes` files: how likely each code is after those before it.
 *
 * See "The prior" in docs/file-format.md. All numbers are integers of at most 2^24, which numbers of
 * JavaScript hold exactly, so that the frequencies are those of every other reader.
 */

const TOTAL = 65536;
// Binary places that the residual stream has beyond the activations taken from it.
const STREAM_SHIFT = 3;
const TYPES = {
  I8: ["int8", Int8Array],
  U16: ["uint16", Uint16Array],
  I32: ["int32", Int32Array],
};

/** The prior in a safetensors file; a damaged one is refused. */
export async function loadPrior(bytes) {
  const {metadata, tensors} = readSafetensors(bytes);
  const header = JSON.parse(metadata.simvq_audio_prior);
  const parts = [encoded(`[${header.dilations.join(", ")}]`)];
  for (const name of Object.keys(tensors).sort()) {
    const {type, shape, bytes: content} = tensors[name];
    parts.push(encoded(`${name} ${type} [${shape.join(", ")}]`), content);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await joined(parts)));
  const id = Array.from(digest.subarray(0, 4), (b) => b.toString(16).padStart(2, "0")).join("");
  if (id !== header.prior_id) throw new Error("the prior is damaged; load the page again");
  return new Prior(id, header, tensors);
}

/** Tensors of a safetensors file, by name. */
function readSafetensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const entries = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const metadata = entries.__metadata__;
  delete entries.__metadata__;
  const tensors = {};
  for (const [name, {dtype, shape, data_offsets: [start, end]}] of Object.entries(entries)) {
    const [type, Values] = TYPES[dtype];
    // A copy, so that it is aligned.
    const content = bytes.slice(8 + length + start, 8 + length + end);
    tensors[name] = {type, shape, bytes: content, values: new Values(content.buffer)};
  }
  return {metadata, tensors};
}

function encoded(text) {
  return new TextEncoder().encode(text);
}

async function joined(parts) {
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** A layer: floor((weight * x + bias) / 2^shift), or a table of such layers. */
class Dense {
  constructor(tensors, name) {
    const shape = tensors[`${name}.weight`].shape;
    [this.rows, this.inputs] = shape.slice(-2);
    this.weight = tensors[`${name}.weight`].values;
    this.bias = tensors[`${name}.bias`].values;
    this.shift = tensors[`${name}.shift`].values;
  }

  /** Apply layer `number` to `x`, an Int32Array. */
  apply(x, y, number = 0) {
    const {rows, inputs, weight, bias, shift} = this;
    for (let row = 0; row < rows; row++) {
      const at = number * rows + row;
      let sum = bias[at];
      for (let i = 0, from = at * inputs; i < inputs; i++) sum += weight[from + i] * x[i];
      y[row] = sum >> shift[at];
    }
    return y;
  }
}

class Prior {
  constructor(id, header, tensors) {
    this.id = id;
    this.codesId = header.codes_id;
    this.dilations = header.dilations;
    this.embedding = tensors.embedding;
    this.first = new Dense(tensors, "first");
    this.layers = header.dilations.map((_, i) => new Dense(tensors, `layers.${i}`));
    this.clusters = new Dense(tensors, "clusters");
    this.query = new Dense(tensors, "query");
    this.members = new Dense(tensors, "members");
    this.exponentials = tensors.exponentials.values;
    this.tree = tensors.tree.values;
    this.codebookSize = this.tree.length;
    this.places = new Int32Array(this.codebookSize);
    this.tree.forEach((code, place) => (this.places[code] = place));
  }

  /** Begin a block. */
  begin() {
    return new Past(this);
  }

  /** The code of a member of a cluster. */
  code(cluster, member) {
    return this.tree[cluster * this.members.rows + member];
  }

  /** [cluster, member] of a code. */
  place(code) {
    const {rows} = this.members;
    return [Math.floor(this.places[code] / rows), this.places[code] % rows];
  }

  frequencies(logits) {
    const {exponentials} = this;
    const count = logits.length;
    let largest = 0;
    for (let i = 1; i < count; i++) if (logits[i] > logits[largest]) largest = i;
    const last = exponentials.length - 1;
    const weights = new Float64Array(count);
    let sum = 0;
    for (let i = 0; i < count; i++) {
      weights[i] = exponentials[Math.min(logits[largest] - logits[i], last)];
      sum += weights[i];
    }
    let left = TOTAL;
    for (let i = 0; i < count; i++) {
      weights[i] = 1 + Math.floor((weights[i] * (TOTAL - count)) / sum);
      left -= weights[i];
    }
    weights[largest] += left;
    return weights;
  }
}

/** The past of a block. For each frame: `clusters`, then `members`, then `push`. */
class Past {
  constructor(prior) {
    this.prior = prior;
    const width = prior.first.rows;
    const size = prior.embedding.shape[1];
    this.frame = 0;
    this.input = new Int32Array(prior.first.inputs);
    this.input.set(prior.embedding.values.subarray(prior.codebookSize * size));
    // What each layer saw in the last frames, as many as its dilation.
    this.seen = prior.dilations.map((dilation) => new Int32Array(dilation * width));
    this.stream = new Int32Array(width);
    this.change = new Int32Array(width);
    this.both = new Int32Array(2 * width);
    this.hidden = new Int32Array(width);
    this.logits = new Int32Array(prior.clusters.rows);
    this.query = new Int32Array(prior.query.rows);
    this.scores = new Int32Array(prior.members.rows);
  }

  /** The same past once more, to go on differently. */
  copy() {
    const other = new Past(this.prior);
    other.frame = this.frame;
    other.input.set(this.input);
    this.seen.forEach((ring, i) => other.seen[i].set(ring));
    return other;
  }

  /** Frequencies of the next code's cluster. */
  clusters() {
    const {prior, stream, change, both, hidden} = this;
    const width = stream.length;
    prior.first.apply(this.input, stream);
    prior.layers.forEach((layer, i) => {
      const at = (this.frame % prior.dilations[i]) * width;
      const past = this.seen[i].subarray(at, at + width);
      activate(stream, hidden);
      both.set(hidden);
      both.set(past, width);
      past.set(hidden);
      layer.apply(both, change);
      for (let j = 0; j < width; j++) stream[j] += change[j];
    });
    activate(stream, hidden);
    this.frame++;
    return prior.frequencies(prior.clusters.apply(hidden, this.logits));
  }

  /** Frequencies of the members of the next code's cluster. */
  members(cluster) {
    const {prior, query} = this;
    prior.query.apply(this.hidden, query);
    for (let i = 0; i < query.length; i++) query[i] = Math.max(-127, Math.min(127, query[i]));
    return prior.frequencies(prior.members.apply(query, this.scores, cluster));
  }

  /** Make a code part of the past. */
  push(code) {
    const {values, shape: [, size]} = this.prior.embedding;
    this.input.copyWithin(size, 0, this.input.length - size);
    this.input.set(values.subarray(code * size, (code + 1) * size));
  }
}

function activate(stream, active) {
  for (let i = 0; i < stream.length; i++) {
    const value = (stream[i] + 2 ** (STREAM_SHIFT - 1)) >> STREAM_SHIFT;
    active[i] = value < 0 ? 0 : value > 255 ? 255 : value;
  }
}
