"use strict";

// All signals of a recording run together on the audio clock, each behind a gain of its own.
// Switching moves the gains alone: nothing is lost, repeated or shifted.
class Player {
  // Seconds; long enough not to click, too short to be heard as a fade.
  static SWITCH = 0.004;

  // buffers: an AudioBuffer for each signal, null where there is none.
  constructor(context, buffers, onEnd) {
    this.context = context;
    this.buffers = buffers;
    this.onEnd = onEnd;
    this.duration = Math.max(...buffers.map((buffer) => (buffer ? buffer.duration : 0)));
    this.gains = buffers.map(() => {
      const gain = context.createGain();
      gain.gain.value = 0;
      gain.connect(context.destination);
      return gain;
    });
    this.sources = [];
    this.offset = 0;
    this.startTime = 0;
  }

  get playing() {
    return this.sources.length > 0;
  }

  // Seconds.
  get position() {
    if (!this.playing) return this.offset;
    const elapsed = Math.max(0, this.context.currentTime - this.startTime);
    return Math.min(this.duration, this.offset + elapsed);
  }

  play() {
    if (this.playing) return;
    // Browsers let a page be heard after its visitor did something.
    if (this.context.state === "suspended") this.context.resume();
    if (this.offset >= this.duration - 0.01) this.offset = 0;
    // A little ahead, so that all of them start on the same sample.
    this.startTime = this.context.currentTime + 0.02;
    this.buffers.forEach((buffer, index) => {
      if (!buffer || this.offset >= buffer.duration) return;
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.gains[index]);
      source.start(this.startTime, this.offset);
      if (buffer.duration === this.duration) source.onended = () => this.end();
      this.sources.push(source);
    });
  }

  pause() {
    this.offset = this.position;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    this.sources = [];
  }

  end() {
    if (!this.playing) return;
    this.pause();
    this.offset = this.duration;
    this.onEnd();
  }

  seek(seconds) {
    const playing = this.playing;
    this.pause();
    this.offset = Math.min(this.duration, Math.max(0, seconds));
    if (playing) this.play();
  }

  // Make one signal the only one that is heard.
  select(chosen) {
    const now = this.context.currentTime;
    this.gains.forEach((node, index) => {
      const target = index === chosen ? 1 : 0;
      node.gain.cancelScheduledValues(now);
      if (this.playing) node.gain.setTargetAtTime(target, now, Player.SWITCH);
      else node.gain.setValueAtTime(target, now);
    });
  }

  release() {
    this.pause();
    for (const gain of this.gains) gain.disconnect();
  }
}

// Votes on which signal X was.
class Tally {
  right = 0;
  votes = 0;

  add(isRight) {
    this.votes += 1;
    if (isRight) this.right += 1;
  }

  // The probability of as many right votes or more by guessing.
  get pValue() {
    let sum = 0;
    // log of (votes choose k) / 2^votes, from k = votes downwards.
    let log = -this.votes * Math.LN2;
    for (let k = this.votes; k >= this.right; k -= 1) {
      sum += Math.exp(log);
      log += Math.log(k) - Math.log(this.votes - k + 1);
    }
    return Math.min(1, sum);
  }

  get text() {
    const p = this.pValue;
    const shown = p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`;
    return `${this.right} of ${this.votes} right, p ${shown}`;
  }
}
