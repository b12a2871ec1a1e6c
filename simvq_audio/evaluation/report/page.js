"use strict";

(() => {
  // Lines in the list before one must ask for more.
  const STEP = 100;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  let context = null;
  let active = null;
  let shown = STEP;
  let visible = [];

  const page = {
    data,
    tallies: data.systems.map(() => new Tally()),
    audioContext() {
      context ??= new AudioContext();
      return context;
    },
    activate(card) {
      active = card;
    },
    silenceOthers(card) {
      for (const other of cards) if (other !== card) other.pause();
    },
    showAll() {
      for (const card of cards) if (card.panel) card.show();
    },
    scoreTable,
  };
  const cards = data.recordings.map((recording) => new Card(page, recording));

  function scoreText(recording, system, metric) {
    const score = recording.scores[system][metric];
    return score === null ? null : score.toFixed(data.metrics[metric].digits);
  }

  function scoreTable(recording) {
    const table = element("table");
    const head = table.createTHead().insertRow();
    const add = (row, text) => {
      const cell = element("th", text);
      cell.scope = row === head ? "col" : "row";
      row.append(cell);
    };
    add(head, "Score");
    data.systems.forEach((name) => add(head, name));
    const body = table.createTBody();
    data.metrics.forEach((metric, index) => {
      const row = body.insertRow();
      add(row, metric.unit ? `${metric.title}, ${metric.unit}` : metric.title);
      data.systems.forEach((_, system) => {
        const text = scoreText(recording, system, index);
        const reason = recording.problems[system][metric.name] || recording.failures[system];
        const cell = row.insertCell();
        cell.append(text === null ? element("span", reason || "no score", "none") : text);
      });
    });
    const scroll = element("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Scores of ${recording.name}`);
    scroll.append(table);
    return scroll;
  }

  // The score to sort by: of one system, or the worst of all; null without one.
  function keyOf(recording, metric, system) {
    if (system !== "any") return recording.scores[Number(system)][metric];
    const scores = recording.scores.map((of) => of[metric]).filter((score) => score !== null);
    if (!scores.length) return null;
    return data.metrics[metric].higher_is_better === false
      ? Math.max(...scores) : Math.min(...scores);
  }

  function sorted(chosen) {
    const metric = Number(byId("sort-metric").value);
    const system = byId("sort-system").value;
    const order = byId("sort-order").value;
    if (order === "name") return chosen;
    const lowFirst = (order === "worst") === (data.metrics[metric].higher_is_better !== false);
    const keys = new Map(chosen.map((card) => [card, keyOf(card.recording, metric, system)]));
    return chosen.sort((one, other) => {
      const [first, second] = [keys.get(one), keys.get(other)];
      // Without a score: last, in either order.
      if (first === null || second === null) return (first === null) - (second === null);
      return lowFirst ? first - second : second - first;
    });
  }

  function list() {
    const folder = byId("folder-filter").value;
    const text = byId("text-filter").value.trim().toLowerCase();
    visible = sorted(cards.filter(({ recording }) =>
      (!folder || recording.folder === folder) && recording.name.toLowerCase().includes(text)));
    const metric = Number(byId("sort-metric").value);
    for (const card of visible.slice(0, shown)) chips(card, metric);
    byId("list").replaceChildren(...visible.slice(0, shown).map((card) => card.element));
    for (const card of cards) if (!card.element.isConnected) card.pause();
    const all = cards.length;
    byId("list-state").textContent =
      visible.length === all ? `${all} recordings` : `${visible.length} of ${all} recordings`;
    const more = Math.min(STEP, visible.length - shown);
    byId("more").hidden = more <= 0;
    byId("more").textContent = `Show ${more} more`;
  }

  function chips(card, metric) {
    card.element.querySelector(".chips").replaceChildren(...data.systems.map((name, system) => {
      const chip = element("span", undefined, "chip");
      if (data.systems.length > 1) chip.append(element("span", name, "chip-name"), " ");
      chip.append(element("span", scoreText(card.recording, system, metric) ?? "no score", "value"));
      return chip;
    }));
  }

  function nameOrders() {
    const { higher_is_better: direction } = data.metrics[Number(byId("sort-metric").value)];
    const [worst, best] = byId("sort-order").options;
    worst.text = direction === null ? "lowest first" : "worst first";
    best.text = direction === null ? "highest first" : "best first";
  }

  // The next recording in the list that has a player, from the start again after the last.
  function next() {
    const at = visible.indexOf(active);
    const following = [...visible.slice(at + 1), ...visible.slice(0, at + 1)];
    const card = following.find((each) => each.playable);
    if (!card || card === active) return;
    if (active) active.details.open = false;
    while (visible.indexOf(card) >= shown) shown += STEP;
    list();
    card.open({ focus: true });
    card.element.scrollIntoView({ block: "start" });
  }

  const keys = {
    " ": (card) => card.toggle(),
    a: (card) => card.listen("a"),
    b: (card) => card.listen("b"),
    x: (card) => card.listen("x"),
    1: (card) => card.vote(0),
    2: (card) => card.vote(1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const { target } = event;
    if (target.closest("select, textarea, input:not([type=range])")) return;
    const key = event.key.toLowerCase();
    // There the space bar has its own meaning.
    if (key === " " && target.closest("button, summary, a")) return;
    if (key === "n") {
      next();
    } else if (Object.hasOwn(keys, key) && active && active.panel && active.details.open) {
      keys[key](active);
    } else {
      return;
    }
    event.preventDefault();
  });

  const folders = [...new Set(data.recordings.map((recording) => recording.folder))].sort();
  byId("folder-filter").append(...folders.map((folder) => new Option(folder, folder)));
  const relist = () => {
    shown = STEP;
    nameOrders();
    list();
  };
  for (const id of ["sort-metric", "sort-system", "sort-order", "folder-filter"]) {
    byId(id).addEventListener("change", relist);
  }
  byId("text-filter").addEventListener("input", relist);
  byId("more").addEventListener("click", () => {
    shown += STEP;
    list();
  });
  byId("metric-choice").addEventListener("change", (event) => {
    for (const section of document.querySelectorAll(".by-metric")) {
      section.hidden = section.id !== `by-metric-${event.target.value}`;
    }
  });
  // On paper every problem is named.
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("#problems details")) details.open = true;
  });
  // Browsers restore what was chosen before a reload.
  byId("metric-choice").dispatchEvent(new Event("change"));
  nameOrders();
  list();
  const first = visible.find((card) => card.playable);
  if (first) first.open({ focus: false });
})();
