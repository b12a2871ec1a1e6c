/** Waveforms and spectrograms on canvases. */

const SIZE = 1024;
const RANGE_DB = 80;

/** Draw a waveform, samples of -1 to 1. */
export function drawWave(canvas, samples) {
  const {context, width, height} = prepared(canvas);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x++) {
    const [start, end] = [x, x + 1].map((at) => Math.floor((at * samples.length) / width));
    let low = 0, high = 0;
    for (let i = start; i < end; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const top = ((1 - Math.min(1, high)) * height) / 2;
    const bottom = ((1 - Math.max(-1, low)) * height) / 2;
    context.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
}

/** Draw a spectrogram from 0 Hz to half the sample rate, 80 dB below the loudest. */
export function drawSpectrum(canvas, samples) {
  const {context, width, height} = prepared(canvas);
  if (!samples.length) return;
  const bins = SIZE / 2;
  const levels = new Float32Array(width * bins);
  const window = Float64Array.from({length: SIZE}, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  const real = new Float64Array(SIZE);
  const imaginary = new Float64Array(SIZE);
  let loudest = -Infinity;
  for (let x = 0; x < width; x++) {
    const start = Math.round(((x + 0.5) * samples.length) / width) - SIZE / 2;
    for (let i = 0; i < SIZE; i++) real[i] = (samples[start + i] || 0) * window[i];
    imaginary.fill(0);
    transform(real, imaginary);
    for (let bin = 0; bin < bins; bin++) {
      const level = 10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-12);
      levels[x * bins + bin] = level;
      loudest = Math.max(loudest, level);
    }
  }
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    const bin = Math.floor(((height - 1 - y) * bins) / height);
    for (let x = 0; x < width; x++) {
      const share = Math.max(0, 1 + (levels[x * bins + bin] - loudest) / RANGE_DB);
      image.data.set(colour(share), 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** A canvas as many pixels large as it has on the screen, cleared. */
function prepared(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  return {context, width: canvas.width, height: canvas.height};
}

// From black over violet and orange to a light yellow.
const COLOURS = [[0, 0, 4], [60, 15, 110], [150, 45, 120], [235, 90, 75], [254, 170, 100], [252, 253, 191]];

function colour(share) {
  const at = Math.min(share, 0.9999) * (COLOURS.length - 1);
  const [low, high] = [COLOURS[Math.floor(at)], COLOURS[Math.floor(at) + 1]];
  return [...low.map((value, i) => value + (at % 1) * (high[i] - value)), 255];
}

/** Fourier transform in place, of a length that is a power of two. */
function transform(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const [c, s] = [Math.cos((2 * Math.PI * k) / size), -Math.sin((2 * Math.PI * k) / size)];
      for (let i = k; i < n; i += size) {
        const j = i + size / 2;
        const re = real[j] * c - imaginary[j] * s;
        const im = real[j] * s + imaginary[j] * c;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}
