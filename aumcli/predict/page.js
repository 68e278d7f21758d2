"use strict";
const { header, files } = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#c2569a", "#a07800", "#7a4fd0", "#2aa5c9", "#b3263a", "#5c8a1e", "#7d6b5d", "#e08a00", "#4a5fb5"];
const ROWS = 300, CARDS = 20;
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {   // text only ever becomes text: names can't become markup
  const element = tag === "svg" || tag === "path" || tag === "polyline" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const order = new Map();
function colour(label) {
  if (!order.has(label)) order.set(label, order.size);
  return COLOURS[order.get(label) % COLOURS.length];
}
const seconds = value => value.toFixed(3);

const rows = [];
files.forEach((file, index) => {
  if (file.problem) return rows.push({ index, kind: "failed", file: file.path, start: null, stop: null, label: file.problem, score: null });
  const best = file.labels[0];
  if (best) rows.push({ index, kind: "clip", file: file.path, start: 0, stop: file.duration_s, label: best.label, score: best.score });
  for (const event of file.events)
    rows.push({ index, kind: "event", file: file.path, start: event.start_s, stop: event.stop_s, label: event.label, score: event.score });
});

let sorted = { key: null, up: true }, shownRows = ROWS;
function showRows() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean), kind = byId("kind").value;
  const found = rows.filter(row => (kind === "all" || row.kind === kind)
    && words.every(word => (row.file + " " + row.label).toLowerCase().includes(word)));
  if (sorted.key) found.sort((a, b) => {
    const [x, y] = [a[sorted.key], b[sorted.key]];
    if (x === null || y === null) return (x === null) - (y === null);
    return (typeof x === "number" ? x - y : x.localeCompare(y)) * (sorted.up ? 1 : -1);
  });
  byId("rows").replaceChildren(...found.slice(0, shownRows).map(row => {
    const label = make("td", row.kind === "failed" ? { class: "bad" } : {});
    if (row.kind !== "failed") label.append(make("span", { class: "dot", style: `background:${colour(row.label)}` }));
    label.append(row.label);
    if (row.kind === "clip") label.append(make("span", { class: "soft" }, " whole clip"));
    if (row.kind === "failed") label.setAttribute("colspan", "4");   // a reason needs more room than a label
    const line = make("tr", { tabindex: "0", "data-kind": row.kind }, make("td", { class: "file" }, row.file),
      ...(row.kind === "failed" ? [label] : [...[row.start, row.stop].map(value => make("td", { class: "number" }, seconds(value))),
        label, make("td", { class: "number" }, row.score.toFixed(3))]));
    const open = () => goTo(row.index, row.kind === "event" ? row.start : 0, row.kind !== "failed");
    line.addEventListener("click", open);
    line.addEventListener("keydown", key => { if (key.key === "Enter") open(); });
    return line;
  }));
  byId("count").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  byId("more-rows").hidden = found.length <= shownRows;
}

for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  sorted = { key: button.dataset.key, up: sorted.key === button.dataset.key ? !sorted.up : button.dataset.key !== "score" };
  for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
  button.closest("th").setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
  showRows();
});
for (const [id, event] of [["filter", "input"], ["kind", "change"]]) byId(id).addEventListener(event, () => { shownRows = ROWS; showRows(); });
byId("more-rows").addEventListener("click", () => { shownRows += ROWS; showRows(); });

function waveform(peaks) {
  const width = peaks.length;
  const top = peaks.map(([, high], x) => `${x} ${50 - high / 2}`), bottom = peaks.map(([low], x) => `${x} ${50 - low / 2 + 0.5}`).reverse();
  return make("svg", { class: "wave", viewBox: `0 0 ${Math.max(1, width - 1)} 100`, preserveAspectRatio: "none" },
    make("path", { d: `M${top.join("L")}L${bottom.join("L")}Z`, fill: "#7fb8e6" }));
}

function curves(file) {
  const picture = make("svg", { class: "curves", viewBox: "0 0 1000 100", preserveAspectRatio: "none" }), legend = make("div", { class: "legend" });
  const hop = file.windows_per_point * (header.hop_s || 0), first = (header.window_s || 0) / 2 + (hop - (header.hop_s || 0)) / 2;
  const x = i => 1000 * Math.min(first + i * hop, file.duration_s - (header.window_s || 0) / 2) / file.duration_s;   // windows' centres
  legend.append(make("span", {}, "score, 0 to 1:"));
  for (const [label, points] of Object.entries(file.curves)) {
    const y = points.map(score => 99 - 98 * score);
    const line = points.length < 2 ? [`0,${y[0]}`, `1000,${y[0]}`] : [`0,${y[0]}`, ...y.map((value, i) => `${x(i)},${value}`), `1000,${y.at(-1)}`];
    picture.append(make("polyline", { points: line.join(" "), fill: "none", stroke: colour(label), "stroke-width": "2", "vector-effect": "non-scaling-stroke" }));
    legend.append(make("span", {}, make("span", { class: "dot", style: `background:${colour(label)}` }), label));
  }
  return [picture, legend];
}

const pixels = duration => Math.min(4000, 20 * duration);   // long pictures are wider than the page, and scrolled

function axis(duration) {
  const line = make("div", { class: "axis" }), parts = Math.max(4, Math.round(pixels(duration) / 150));
  for (let i = 0; i <= parts; i++)
    line.append(make("span", { style: `left:${100 * i / parts}%` }, `${(duration * i / parts).toFixed(duration < 100 ? 2 : 0)} s`));
  return line;
}

function view(file, player) {
  const box = make("div", { class: "view" }), duration = file.duration_s;
  if (file.peaks) box.append(waveform(file.peaks), make("img", { src: file.picture, alt: `spectrogram of ${file.path}` }));
  const lanes = [...new Set(file.events.map(event => event.label))];
  for (const event of file.events) {
    const left = 100 * event.start_s / duration, width = 100 * (event.stop_s - event.start_s) / duration, own = colour(event.label);
    box.append(make("div", { class: "event", style: `left:${left}%;width:${width}%;border-color:${own};background:${own}33` },
      make("span", { style: `background:${own};top:${lanes.indexOf(event.label) % 10 * 17}px` }, event.label)));
  }
  const head = make("div", { class: "head", style: "left:0" });
  box.append(head);
  if (player) {
    box.addEventListener("click", click => {
      const frame = box.getBoundingClientRect();
      player.currentTime = (click.clientX - frame.left) / frame.width * duration;
    });
    const follow = () => {
      head.style.left = `${Math.min(100, 100 * player.currentTime / duration)}%`;
      const strip = box.closest(".strip"), x = head.offsetLeft;
      if (x < strip.scrollLeft || x > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = x - strip.clientWidth / 4;
      if (!player.paused && !player.ended) requestAnimationFrame(follow);
    };
    for (const name of ["play", "seeked", "pause", "timeupdate"]) player.addEventListener(name, follow);
  }
  return box;
}

const cards = [];
function addCard() {
  const file = files[cards.length], card = make("article", { id: `file-${cards.length}` }, make("h2", {}, file.path));
  cards.push(card);
  byId("cards").append(card);
  byId("more-cards").hidden = cards.length >= files.length;
  if (file.problem) return card.append(make("p", { class: "bad" }, file.problem), make("p", {}, file.fix));
  card.append(make("p", { class: "meta" }, `${seconds(file.duration_s)} s, ${file.windows} window${file.windows > 1 ? "s" : ""}, `
    + `${file.events.length} event${file.events.length === 1 ? "" : "s"}${file.audio_note ? "; " + file.audio_note : ""}`));
  card.append(make("div", { class: "chips" }, ...file.labels.map(({ label, score }) => make("span", { class: "chip" },
    make("span", { class: "dot", style: `background:${colour(label)}` }), `${label} ${score.toFixed(3)}`))));
  const player = file.audio ? make("audio", { controls: "", preload: "metadata", src: file.audio }) : null;
  if (player) card.append(player);
  const wide = make("div", { style: `min-width:${pixels(file.duration_s)}px` });
  if (file.peaks) wide.append(view(file, player));
  const [picture, legend] = file.curves ? curves(file) : [];
  if (picture) wide.append(picture);
  wide.append(axis(file.duration_s));
  card.append(make("div", { class: "strip", tabindex: "0" }, wide));
  if (legend) card.append(legend);
}

function moreCards() {
  for (let i = 0; i < CARDS && cards.length < files.length; i++) addCard();
}
byId("more-cards").addEventListener("click", moreCards);

function goTo(index, start, play) {
  while (cards.length <= index) addCard();
  cards[index].scrollIntoView({ behavior: "smooth", block: "nearest" });
  const player = cards[index].querySelector("audio");
  if (!player || !play) return;
  for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
  const begin = () => { player.currentTime = start; player.play(); };
  if (player.readyState > 0) begin(); else { player.addEventListener("loadedmetadata", begin, { once: true }); player.load(); }
}

byId("about").textContent = `${files.length.toLocaleString("en")} file${files.length === 1 ? "" : "s"}, model ${header.model}, `
  + (header.window_s ? `windows of ${header.window_s.toFixed(3)} s every ${header.hop_s.toFixed(3)} s` : "each file in one pass");
byId("note").textContent = header.note;
moreCards();
showRows();
