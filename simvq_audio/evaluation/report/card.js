"use strict";

const ORIGINAL = 0;

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

function cloned(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A recording in the list: a line that opens to players, spectrograms and scores.
// page: what cards share (see page.js): data, tallies, audioContext(), activate(card).
class Card {
  constructor(page, recording) {
    this.page = page;
    this.recording = recording;
    this.element = cloned("recording-template");
    this.details = this.element.querySelector("details");
    this.summary = this.element.querySelector("summary");
    const { folder, name } = recording;
    const file = name.slice(name.lastIndexOf("/") + 1);
    this.element.querySelector(".folder").textContent = folder === "." ? "" : `${folder}/`;
    this.element.querySelector(".file").textContent = file;
    this.element.querySelector(".length").textContent = 
      `${recording.seconds.toFixed(1)} s${this.playable ? "" : ", scores only"}`;
    this.built = false;
    this.details.addEventListener("toggle", () => (this.details.open ? this.opened() : this.closed()));
    // A click, and not the script, opens it: then the keyboard goes to the player.
    this.summary.addEventListener("click", () => { this.wantsFocus = !this.details.open; });
  }

  get playable() {
    return this.recording.media !== null;
  }

  // At once: the browser tells of it later, and the next key may come before.
  open({ focus }) {
    this.details.open = true;
    this.wantsFocus = focus;
    this.opened();
  }

  opened() {
    if (!this.built) this.build();
    this.page.activate(this);
    if (this.wantsFocus && this.panel) {
      this.panel.querySelector(".play").focus({ preventScroll: true });
    }
    this.wantsFocus = false;
  }

  // Decoded sound is large; a card that is closed keeps none.
  closed() {
    this.loading = null;
    if (this.player) this.player.release();
    this.player = null;
    if (this.panel) this.show();
  }

  build() {
    this.built = true;
    const body = this.element.querySelector(".body");
    if (this.playable) {
      const media = JSON.parse(document.getElementById(`media-${this.recording.media}`).textContent);
      if (media.problem) body.append(element("p", media.problem, "note"));
      else body.append(this.buildPlayer(media));
    } else {
      body.append(element("p", "Not among the recordings that can be listened to.", "note"));
    }
    body.append(this.page.scoreTable(this.recording));
  }

  buildPlayer(media) {
    this.media = media;
    this.panel = cloned("player-template");
    this.panel.setAttribute("aria-label", `Player of ${this.recording.name}`);
    const excerpt = this.panel.querySelector(".excerpt");
    excerpt.hidden = media.whole_seconds === null;
    excerpt.textContent =
      `The first ${media.seconds.toFixed(0)} of ${(media.whole_seconds || 0).toFixed(0)} seconds.`;
    this.lanes = media.signals.map((signal, index) => this.buildLane(signal, index));
    this.panel.querySelector(".lanes").append(...this.lanes);
    // What B is: the first system that can be heard.
    this.b = media.signals.findIndex((signal, index) => index !== ORIGINAL && signal.flac);
    this.source = "a";
    this.drawHidden();
    this.seek = this.panel.querySelector(".seek");
    this.seek.max = media.seconds;
    this.seek.addEventListener("input", () => this.seekTo(Number(this.seek.value)));
    this.on(".play", () => this.toggle());
    this.on(".hidden-x", () => this.listen("x"));
    for (const vote of this.panel.querySelectorAll(".vote")) {
      this.on(vote, () => this.vote(Number(vote.dataset.vote)));
    }
    this.panel.querySelector(".test").hidden = this.b < 0;
    this.position = 0;
    this.show();
    return this.panel;
  }

  // After a click of the mouse the space bar shall play and pause, not click again.
  on(target, action) {
    const button = typeof target === "string" ? this.panel.querySelector(target) : target;
    button.addEventListener("click", (event) => {
      this.page.activate(this);
      action();
      if (event.detail > 0) this.panel.querySelector(".play").focus({ preventScroll: true });
    });
  }

  buildLane(signal, index) {
    const lane = cloned("lane-template");
    const button = lane.querySelector(".listen");
    const pane = lane.querySelector(".spectrogram");
    lane.querySelector(".signal").textContent = signal.name;
    if (signal.problem) {
      button.disabled = true;
      pane.remove();
      const note = lane.querySelector(".problem");
      note.hidden = false;
      note.textContent = signal.problem;
      return lane;
    }
    const image = lane.querySelector("img");
    image.src = `data:image/webp;base64,${signal.spectrogram}`;
    image.alt = `Spectrogram: ${signal.name}`;
    lane.querySelector(".top-frequency").textContent = `${this.media.max_kilohertz} kHz`;
    this.on(button, () => this.listenTo(index));
    pane.addEventListener("click", (event) => {
      const box = pane.getBoundingClientRect();
      this.page.activate(this);
      this.seekTo(((event.clientX - box.left) / box.width) * this.media.seconds);
    });
    return lane;
  }

  // The player, made when it is first needed.
  load() {
    this.loading ??= this.decode();
    return this.loading;
  }

  async decode() {
    const context = this.page.audioContext();
    this.say("Loading…");
    const buffers = await Promise.all(
      this.media.signals.map((signal) =>
        signal.flac ? context.decodeAudioData(bytesOf(signal.flac)) : null),
    );
    const player = new Player(context, buffers, () => this.ended());
    player.seek(this.position);
    this.say("");
    return player;
  }

  // Do something with the player; false if the card was closed meanwhile or nothing can be heard.
  async withPlayer(action) {
    const loading = this.load();
    try {
      const player = await loading;
      if (loading !== this.loading) return;
      this.player = player;
    } catch (error) {
      this.say(`This browser cannot play the sound (${error.message || error}).`);
      return;
    }
    action(this.player);
    this.show();
    this.animate();
  }

  get audible() {
    if (this.source === "x") return this.hidden === 1 ? this.b : ORIGINAL;
    return this.source === "b" ? this.b : ORIGINAL;
  }

  toggle() {
    return this.withPlayer((player) => {
      if (player.playing) {
        player.pause();
      } else {
        player.select(this.audible);
        this.start(player);
      }
    });
  }

  start(player) {
    this.page.silenceOthers(this);
    player.play();
    if (this.source === "x") this.heard = true;
  }

  listenTo(index) {
    if (index === ORIGINAL) return this.listen("a");
    if (index !== this.b) {
      this.b = index;
      this.drawHidden();
    }
    return this.listen("b");
  }

  // source: "a", "b" or "x". Plays on where it is.
  listen(source) {
    if (source !== "a" && this.b < 0) return undefined;
    this.source = source;
    this.say("");
    return this.withPlayer((player) => {
      player.select(this.audible);
      this.start(player);
    });
  }

  drawHidden() {
    this.hidden = crypto.getRandomValues(new Uint8Array(1))[0] % 2;
    this.heard = false;
  }

  vote(vote) {
    if (this.b < 0) return;
    if (!this.heard) {
      this.say("Listen to X before you vote.");
      return;
    }
    const right = vote === this.hidden;
    this.tally.add(right);
    const was = this.hidden === 1 ? "B" : "A";
    this.drawHidden();
    // A new X that went on would tell by its sound whether it is another one.
    this.source = "a";
    if (this.player) this.player.select(this.audible);
    this.page.showAll();
    this.say(`${right ? "Right" : "Wrong"}: X was ${was}. A new X is drawn.`);
  }

  get tally() {
    return this.page.tallies[this.b - 1];
  }

  seekTo(seconds) {
    this.position = seconds;
    if (this.player) this.player.seek(seconds);
    this.showPosition();
  }

  pause() {
    if (!this.player || !this.player.playing) return;
    this.player.pause();
    this.show();
  }

  ended() {
    this.show();
  }

  animate() {
    if (!this.player || !this.player.playing) return;
    this.showPosition();
    requestAnimationFrame(() => this.animate());
  }

  say(text) {
    this.panel.querySelector(".state").textContent = text;
  }

  show() {
    const playing = Boolean(this.player && this.player.playing);
    const play = this.panel.querySelector(".play");
    play.classList.toggle("playing", playing);
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.lanes.forEach((lane, index) => {
      const letter = index === ORIGINAL ? "A" : "B";
      const key = lane.querySelector("kbd");
      key.textContent = letter;
      key.hidden = index !== ORIGINAL && index !== this.b;
      // While X is heard neither is marked.
      const heard = this.source !== "x" && index === this.audible;
      lane.querySelector(".listen").setAttribute("aria-pressed", String(heard));
      lane.classList.toggle("heard", heard);
    });
    this.panel.querySelector(".hidden-x").setAttribute("aria-pressed", String(this.source === "x"));
    const several = this.page.data.systems.length > 1;
    const against = several && this.b > 0 ? ` against ${this.media.signals[this.b].name}` : "";
    const tally = this.b > 0 && this.tally.votes > 0 ? `${this.tally.text}${against}` : "no votes yet";
    this.panel.querySelector(".tally").textContent = tally;
    this.showPosition();
  }

  showPosition() {
    if (this.player) this.position = this.player.position;
    const { seconds } = this.media;
    this.seek.value = this.position;
    // What the slider says, which has steps: rounded on its own the text could differ by a tenth.
    const text = `${Number(this.seek.value).toFixed(1)} of ${seconds.toFixed(1)} s`;
    this.seek.setAttribute("aria-valuetext", text);
    this.panel.querySelector(".time").textContent = text;
    this.panel.style.setProperty("--played", Math.min(1, this.position / seconds));
  }
}
