"use strict";
const { header, files } = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito's colours, which colour-blind people tell apart, and four more; further classes: the same, with dashes.
const COLOURS = "#0072b2 #e69f00 #009e73 #d55e00 #56b4e9 #cc79a7 #8a63d2 #a8a032 #b0305c #87909c".split(" ");
const GREY = "#9a9a9a"; // what is of no class
const NOTHING = "(nothing)";
const DASHES = ["", "7 4", "2 3"];
const ROWS = 300; // shown at first
const CARDS = 20;
const LANES = 6; // of labels below a picture
const LANE_PX = 18;
const TINY_PX = 16; // a narrower label has no letters
const NARROW_PX = 10; // a narrower event has no border
const FIRST_PX_PER_S = 20; // long pictures are wider than the page, and scrolled
const FIRST_PX = 4000;
const MOST_PX_PER_S = 400; // when zoomed
const MOST_TIMES = 8;
const MOST_PX = 250000;
const ZOOM = 1.5;
const STEPS_S = [
  0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400,
];
const STEPS_HZ = [1, 2, 5]
  .flatMap(digit => [10, 100, 1000, 10000, 100000].map(ten => digit * ten))
  .sort((a, b) => a - b);
const TICK_PX = 64; // from one to the next, at least
const TICK_HEIGHT = 15;
const DRAG_PX = 5; // less is a click
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "polyline", "line"]);

function make(tag, attributes = {}, ...children) {
  // text only ever becomes text: names can't become markup
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// a class has the colour of its index in the model: the same in every file, and whenever the page is made
const classes = new Map(files.flatMap(file => Object.entries(file.classes ?? {})));
const style = label => {
  if (label === NOTHING) return { colour: GREY, dash: "" };
  const index = classes.get(label) ?? [...label].reduce((sum, letter) => (31 * sum + letter.codePointAt(0)) % 30, 0);
  return { colour: COLOURS[index % COLOURS.length], dash: DASHES[Math.floor(index / COLOURS.length) % DASHES.length] };
};
const colour = label => style(label).colour;
const ink = hex => {
  // black or white, whichever is read better on a colour
  const [r, g, b] = [1, 3, 5].map(i => (parseInt(hex.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#000" : "#fff";
};
const dot = label => make("span", { class: "dot", style: `background:${colour(label)}` });
const seconds = value => value.toFixed(3);
const spaced = time => time.replace("T", " "); // 2024-05-01 04:30:00

function clock(time, step = 1) {
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  const units = Math.round(time * 10 ** digits); // of the last digit
  const whole = Math.floor(units / 10 ** digits);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const fraction = digits ? "." + String(units % 10 ** digits).padStart(digits, "0") : "";
  return (h ? `${h}:${String(m).padStart(2, "0")}` : m) + `:${String(s).padStart(2, "0")}` + fraction;
}

// the review: what a person says of events, kept in the browser under the page's own content

const scoreText = event => (event.score === null ? "added" : event.score.toFixed(3));
const MARKS = { right: "✓ ", wrong: "✗ " };
const mark = event => MARKS[event?.verdict] ?? "";
// what it was heard in and what was found: the same page has it again, and no other one
const content = Array.from(JSON.stringify([header, files.map(file => [file.path, file.duration_s, file.events])]), letter =>
  letter.codePointAt(0),
);
const KEY =
  "aum predict " +
  [7, 31, 131, 1313].map(factor => content.reduce((hash, unit) => (Math.imul(factor, hash) + unit) | 0, 0)).join(" ");
for (const file of files)
  for (const event of file.events ?? []) event.key = [event.start_s, event.stop_s, event.label].join(" ");

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // the browser keeps nothing
  }
}

function remember() {
  const said = files.map(({ events = [] }) => [
    Object.fromEntries(
      events.filter(event => event.key && event.verdict).map(({ key, verdict, label }) => [key, [verdict, label]]),
    ),
    events.filter(event => !event.key).map(({ start_s, stop_s, label }) => [start_s, stop_s, label]),
  ]);
  try {
    localStorage.setItem(KEY, JSON.stringify(said));
  } catch {
    byId("kept").textContent = "This browser keeps nothing: save before you close the page.";
  }
}

remembered().forEach(([verdicts, added], index) => {
  const { events } = files[index];
  for (const event of events ?? []) if (verdicts[event.key]) [event.verdict, event.label] = verdicts[event.key];
  for (const [start_s, stop_s, label] of added) events?.push({ start_s, stop_s, label, score: null, verdict: "right" });
});
for (const file of files) file.events?.sort((a, b) => a.start_s - b.start_s);

// the table

const rows = [];
files.forEach((file, index) => {
  if (file.problem)
    return rows.push({
      index,
      kinds: ["failed"],
      file: file.path,
      start: null,
      stop: null,
      label: file.problem,
      score: null,
    });
  const best = file.labels[0],
    single = file.windows === 1;
  // the event that is the clip itself has no row of its own
  const own = single ? file.events.find(event => event.label === best.label) : undefined;
  if (best)
    rows.push({
      index,
      kinds: own ? ["clip", "event"] : ["clip"],
      file: file.path,
      start: 0,
      stop: file.duration_s,
      label: best.label,
      score: best.score,
      event: own,
      further: single ? file.events.filter(event => event !== own) : [],
    });
  for (const event of single ? [] : file.events)
    rows.push({
      index,
      kinds: ["event"],
      file: file.path,
      start: event.start_s,
      stop: event.stop_s,
      label: event.label,
      score: event.score,
      event,
    });
  if (single && !own && file.events.length) rows.at(-1).kinds.push("event");
});

let sorted = { key: null, up: true },
  shownRows = ROWS,
  shownCards = CARDS;
function wanted() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean),
    least = parseFloat(byId("least").value) || 0;
  return (file, label, score) =>
    (score === null || score >= least) && words.every(word => (file + " " + label).toLowerCase().includes(word));
}

function foundRows() {
  const kind = byId("kind").value,
    matches = wanted();
  return rows.filter(
    row =>
      (kind === "all" || row.kinds.includes(kind)) &&
      [row, ...(row.further ?? [])].some(each => matches(row.file, each.label, each.score)),
  );
}

function showRows(found = foundRows()) {
  found = [...found];
  if (sorted.key)
    found.sort((a, b) => {
      const [x, y] = [a[sorted.key], b[sorted.key]];
      if (x === null || y === null) return (x === null) - (y === null);
      return (typeof x === "number" ? x - y : x.localeCompare(y)) * (sorted.up ? 1 : -1);
    });
  byId("rows").replaceChildren(...found.slice(0, shownRows).map(rowElement));
  byId("count").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  byId("more-rows").hidden = found.length <= shownRows;
}

function rowElement(row) {
  const failed = row.kinds[0] === "failed",
    label = make("td", failed ? { class: "bad" } : {});
  const name = row.event?.label ?? row.label;
  if (!failed) label.append(dot(name));
  label.append(mark(row.event) + name);
  if (row.kinds[0] === "clip") label.append(make("span", { class: "soft" }, " whole clip"));
  for (const event of row.further ?? [])
    label.append(
      make("br"),
      dot(event.label),
      `${mark(event)}${event.label} `,
      make("span", { class: "soft" }, scoreText(event)),
    );
  if (failed) label.setAttribute("colspan", "4"); // a reason needs more room than a label
  const line = make(
    "tr",
    { tabindex: "0", "data-kind": row.kinds.at(-1) },
    make("td", { class: "file" }, row.file),
    ...(failed
      ? [label]
      : [
          make("td", { class: "number", title: spaced(row.event?.recorded_at ?? "") }, seconds(row.start)),
          make("td", { class: "number" }, seconds(row.stop)),
          label,
          make("td", { class: "number" }, scoreText(row)),
        ]),
  );
  const open = () => goTo(row.index, row.event ?? null, !failed);
  line.addEventListener("click", open);
  line.addEventListener("keydown", key => {
    if (key.key === "Enter") open();
  });
  return line;
}

function refilter() {
  // the table, the files below it, and the events in their pictures
  const found = foundRows();
  shownRows = ROWS;
  showRows(found);
  showCards(found);
  for (const card of cards.values()) card.filter?.();
}

for (const button of document.querySelectorAll("th button"))
  button.addEventListener("click", () => {
    sorted = {
      key: button.dataset.key,
      up: sorted.key === button.dataset.key ? !sorted.up : button.dataset.key !== "score",
    };
    for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
    showRows();
  });
for (const [id, event] of [
  ["filter", "input"],
  ["least", "input"],
  ["kind", "change"],
])
  byId(id).addEventListener(event, refilter);
byId("more-rows").addEventListener("click", () => {
  shownRows += ROWS;
  showRows();
});

// events by hour of the day; shaded by events per recorded hour, as hours differ in how long was recorded

function showHours({ events, recorded_h, undated }) {
  const hours = recorded_h.flatMap((recorded, hour) => (recorded > 0 ? [hour] : [])),
    rate = (counts, hour) => counts[hour] / recorded_h[hour],
    most = Math.max(...Object.values(events).flatMap(counts => hours.map(hour => rate(counts, hour))));
  const row = (name, cells) => make("tr", {}, make("td", {}, ...name), ...cells);
  byId("hours").querySelector("thead").append(
    make("tr", {}, make("th", {}, ""), ...hours.map(hour => make("th", {}, String(hour).padStart(2, "0")))),
  );
  byId("hours")
    .querySelector("tbody")
    .append(
      ...Object.entries(events).map(([label, counts]) =>
        row(
          [dot(label), label],
          hours.map(hour =>
            make(
              "td",
              {
                style: `background:color-mix(in srgb, ${colour(label)} ${(70 * rate(counts, hour)) / most}%, transparent)`,
                title: `${label}: ${counts[hour]} in ${recorded_h[hour].toFixed(2)} h`,
              },
              counts[hour] ? counts[hour].toLocaleString("en") : "",
            ),
          ),
        ),
      ),
    );
  byId("hours-note").textContent =
    "events that begin in each hour, shaded by events per recorded hour" +
    (undated ? `; without ${undated.toLocaleString("en")} of unknown time` : "");
  byId("hours").hidden = false;
}
if (header.hours) showHours(header.hours);

// pictures

function waveform(peaks) {
  const width = peaks.length;
  const top = peaks.map(([, high], x) => `${x} ${50 - high / 2}`),
    bottom = peaks.map(([low], x) => `${x} ${50 - low / 2 + 0.5}`).reverse();
  return make(
    "svg",
    { class: "wave", viewBox: `0 0 ${Math.max(1, width - 1)} 100`, preserveAspectRatio: "none" },
    make("path", { d: `M${top.join("L")}L${bottom.join("L")}Z`, fill: "#7fb8e6" }),
  );
}

function curves(file) {
  const picture = make("svg", { class: "curves", viewBox: "0 0 1000 100", preserveAspectRatio: "none" }),
    legend = make("div", { class: "legend" });
  const hop = file.windows_per_point * (header.hop_s || 0),
    first = (header.window_s || 0) / 2 + (hop - (header.hop_s || 0)) / 2;
  // windows' centres
  const x = i => (1000 * Math.min(first + i * hop, file.duration_s - (header.window_s || 0) / 2)) / file.duration_s;
  const stroke = { fill: "none", "vector-effect": "non-scaling-stroke" };
  if (typeof header.threshold === "number") {
    const y = 99 - 98 * header.threshold;
    picture.append(make("line", { x1: 0, x2: 1000, y1: y, y2: y, class: "threshold", ...stroke }));
  }
  legend.append(make("span", {}, "score:"));
  for (const [label, points] of Object.entries(file.curves)) {
    const y = points.map(score => 99 - 98 * score),
      own = style(label),
      pen = { stroke: own.colour, "stroke-width": "2", "stroke-dasharray": own.dash };
    const line =
      points.length < 2
        ? [`0,${y[0]}`, `1000,${y[0]}`]
        : [`0,${y[0]}`, ...y.map((value, i) => `${x(i)},${value}`), `1000,${y.at(-1)}`];
    picture.append(make("polyline", { points: line.join(" "), ...stroke, ...pen }));
    legend.append(
      make(
        "span",
        {},
        make("svg", { class: "sample", viewBox: "0 0 24 8" }, make("line", { x1: 0, x2: 24, y1: 4, y2: 4, ...pen })),
        label,
      ),
    );
  }
  return [picture, legend];
}

const mel = hz => Math.log(1 + hz / 700);
function hertz(place) {
  // of a place in the spectrogram: 0 bottom, 1 top
  const [low, high] = header.picture.hz.map(mel),
    bands = header.picture.mels;
  return 700 * (Math.exp(low + ((place * bands + 0.5) * (high - low)) / (bands + 1)) - 1);
}
function place(hz) {
  const [low, high] = header.picture.hz.map(mel),
    bands = header.picture.mels;
  return (((mel(hz) - low) / (high - low)) * (bands + 1) - 0.5) / bands;
}
const frequency = hz => (hz < 1000 ? `${Math.round(hz)} Hz` : `${+(hz / 1000).toFixed(hz < 10000 ? 1 : 0)} kHz`);

function frequencies(height) {
  // Hz at the places that the mel scale gives them
  const axis = make("div", { class: "hertz" });
  let last = -Infinity;
  for (const hz of STEPS_HZ.filter(hz => place(hz) > 0 && place(hz) < 1)) {
    const y = place(hz) * height;
    if (y - last < TICK_HEIGHT || y < 5 || y > height - 5) continue;
    axis.append(make("span", { style: `bottom:${100 * place(hz)}%` }, frequency(hz)));
    last = y;
  }
  return axis;
}

function resize(label, width) {
  label.style.width = `${width}px`;
  label.classList.toggle("tiny", width < TINY_PX); // a mark without a letter
}

const measure = document.createElement("canvas").getContext("2d");
measure.font = "11px system-ui, sans-serif";

class Plot {
  // waveform, spectrogram, events, curves and time of a file, in step
  constructor(file, player) {
    this.file = file;
    this.player = player;
    this.ticks = make("div", { class: "axis" });
    this.track = make("div", { class: "track" });
    this.head = make("div", { class: "head", style: "left:0" });
    this.readout = make("span", { class: "readout" });
    this.wide = make("div", { class: "wide" });
    this.strip = make("div", { class: "strip", tabindex: "0", "aria-label": "picture over time" }, this.wide);
    this.boxes = [];
    const scale = make("div", { class: "scale" });
    if (file.peaks) {
      const image = make("img", { src: file.picture, alt: `spectrogram of ${file.path}`, draggable: "false" });
      const box = make("div", { class: "view" }, waveform(file.peaks), image, this.track);
      this.view = box;
      this.selection = make("div", { class: "selection", hidden: "" });
      box.append(this.selection);
      this.wide.append(box);
      this.spectrogram = image;
      scale.append(
        make("div", { class: "beside-wave" }),
        (this.hertz = make("div", { class: "beside-image" })),
        (this.besideTrack = make("div")),
      );
    }
    this.legend = "";
    if (file.curves && file.windows > 1) {
      const [picture, legend] = curves(file);
      this.wide.append(picture);
      this.legend = legend;
      scale.append(make("div", { class: "beside-curves" }, make("span", {}, "1"), make("span", {}, "0")));
    }
    this.wide.append(this.ticks, this.head);
    this.element = make("div", { class: "plot" }, scale, this.strip);
    const button = (text, title, act) => {
      const made = make("button", { class: "tool", title, "aria-label": title }, text);
      made.addEventListener("click", () => {
        take(this.card);
        act();
      });
      return made;
    };
    this.tools = make(
      "div",
      { class: "tools plot-tools" },
      button("−", "zoom out", () => this.zoom(1 / ZOOM)),
      button("+", "zoom in", () => this.zoom(ZOOM)),
      button("whole", "show the whole file", () => this.zoom(0)),
      button("✓", "right: the event is what its label says", () => judge("right")),
      button("✗", "wrong: there is nothing of the kind", () => judge("wrong")),
      button("label", "give the event another label", relabel),
      this.readout,
    );
    this.strip.addEventListener(
      "wheel",
      wheel => {
        if (!wheel.ctrlKey && !wheel.metaKey) return; // else the page is scrolled
        wheel.preventDefault();
        take(this.card);
        this.zoom(wheel.deltaY < 0 ? ZOOM : 1 / ZOOM, wheel.clientX - this.strip.getBoundingClientRect().left);
      },
      { passive: false },
    );
    this.wide.addEventListener("mousedown", down => this.drag(down));
    this.wide.addEventListener("click", click => {
      take(this.card);
      if (this.dragged) return;
      this.seek(this.time(click));
    });
    this.wide.addEventListener("mousemove", move => this.tell(move));
    this.wide.addEventListener("mouseleave", () => {
      this.readout.textContent = "";
    });
    if (player) {
      for (const name of ["play", "seeked", "pause", "timeupdate"]) player.addEventListener(name, () => this.follow());
      player.addEventListener("seeking", () => this.arrived(player.currentTime));
    }
  }

  box(event) {
    // over the picture, and its label below
    const { file } = this,
      own = colour(event.label),
      left = `left:${(100 * event.start_s) / file.duration_s}%`;
    const title = `${event.label} ${scoreText(event)}, ${seconds(event.start_s)} to ${seconds(event.stop_s)} s`;
    const box = make("div", {
      class: `event ${event.verdict ?? ""}`,
      style:
        `${left};width:${(100 * (event.stop_s - event.start_s)) / file.duration_s}%;` +
        `border-color:${own};background:${own}2e`,
    });
    const label = make(
      "span",
      { class: `label ${event.verdict ?? ""}`, style: `${left};background:${own};color:${ink(own)}`, title },
      make("b", {}, mark(event) + event.label),
    );
    this.track.append(label);
    this.boxes.push({ event, box, label, text: measure.measureText(mark(event) + event.label).width + 10 });
    return box;
  }

  draw() {
    // the events as they are now
    for (const { box, label } of this.boxes) {
      box.remove();
      label.remove();
    }
    this.boxes = [];
    if (this.view) this.view.append(...this.file.events.map(event => this.box(event)));
    this.filter();
  }

  drag(down) {
    // a stretch of the picture becomes an event
    this.dragged = false;
    if (!this.view || down.button) return;
    const first = this.time(down);
    const move = now => {
      this.dragged ||= Math.abs(now.clientX - down.clientX) > DRAG_PX;
      const [from, to] = [first, this.time(now)].sort((a, b) => a - b);
      this.selection.hidden = !this.dragged;
      this.selection.style.left = `${(100 * from) / this.file.duration_s}%`;
      this.selection.style.width = `${(100 * (Math.min(to, this.file.duration_s) - from)) / this.file.duration_s}%`;
    };
    const up = async now => {
      document.removeEventListener("mousemove", move);
      document.removeEventListener("mouseup", up);
      if (!this.dragged) return;
      const [start_s, stop_s] = [first, Math.min(this.time(now), this.file.duration_s)].sort((a, b) => a - b);
      take(this.card);
      const label = await askLabel(at?.event?.label ?? "");
      this.selection.hidden = true;
      if (label) add(this.card.index, { start_s, stop_s, label, score: null, verdict: "right" });
    };
    document.addEventListener("mousemove", move);
    document.addEventListener("mouseup", up);
  }

  shown() {
    // the card is on the page: sizes are known
    if (this.hertz) this.hertz.replaceChildren(frequencies(this.spectrogram.clientHeight));
    this.pxPerS = Math.max(this.fit, Math.min(FIRST_PX, FIRST_PX_PER_S * this.file.duration_s) / this.file.duration_s);
    this.draw();
  }

  get fit() {
    return this.strip.clientWidth / this.file.duration_s;
  }

  get width() {
    return this.pxPerS * this.file.duration_s;
  }

  filter() {
    const matches = wanted();
    for (const { event, box } of this.boxes) box.hidden = !matches(this.file.path, event.label, event.score);
    this.layout();
  }

  zoom(times, at = null) {
    // 0: the whole file; what stands at `at` px stays there
    const most = Math.min(
      Math.max(MOST_PX_PER_S, MOST_TIMES * this.fit),
      Math.max(this.fit, MOST_PX / this.file.duration_s),
    );
    const head = (this.player?.currentTime ?? 0) * this.pxPerS - this.strip.scrollLeft;
    if (at === null) at = head > 0 && head < this.strip.clientWidth ? head : this.strip.clientWidth / 2;
    const time = (this.strip.scrollLeft + at) / this.pxPerS;
    this.pxPerS = Math.min(most, Math.max(this.fit, this.pxPerS * times));
    this.layout();
    this.strip.scrollLeft = time * this.pxPerS - at;
  }

  layout() {
    const { clientWidth } = this.strip;
    if (!clientWidth) return; // not shown
    this.pxPerS = Math.max(this.pxPerS, this.fit);
    this.wide.style.width = this.pxPerS > this.fit * 1.0001 ? `${this.width}px` : "100%";
    const step = STEPS_S.find(each => each * this.pxPerS >= TICK_PX) ?? STEPS_S.at(-1),
      count = Math.floor(this.file.duration_s / step + 1e-9);
    this.ticks.replaceChildren(
      ...Array.from({ length: count + 1 }, (_, i) =>
        make("span", { style: `left:${(100 * i * step) / this.file.duration_s}%` }, clock(i * step, step)),
      ),
    );
    for (const end of [this.ticks.lastChild]) end.classList.toggle("end", this.width - count * step * this.pxPerS < 18);
    const lanes = []; // the last label in each
    for (const { event, box, label, text } of this.boxes) {
      label.hidden = box.hidden;
      if (box.hidden) continue;
      const left = event.start_s * this.pxPerS,
        extent = (event.stop_s - event.start_s) * this.pxPerS;
      const width = Math.max(extent, text),
        start = Math.max(0, Math.min(left, this.width - width)); // whole at the file's end, too
      let lane = lanes.findIndex(last => last.right <= start);
      if (lane < 0) lane = lanes.length;
      if (lane === LANES) {
        // too many at a time: the earliest is cut; its tooltip says all
        lane = lanes.reduce((best, last, i) => (last.start < lanes[best].start ? i : best), 0);
        resize(lanes[lane].label, Math.max(2, start - lanes[lane].start - 1));
      }
      box.classList.toggle("narrow", extent < NARROW_PX);
      box.classList.toggle("entire", extent > 0.999 * this.width);
      label.style.top = `${lane * LANE_PX + 1}px`;
      label.style.left = `${(100 * start) / this.width}%`;
      resize(label, width - 1);
      label.classList.toggle("long", width > clientWidth / 2); // its name stays in sight; of thousands that takes long
      lanes[lane] = { start, right: start + width, label };
    }
    this.track.style.height = `${lanes.length * LANE_PX}px`;
    if (this.besideTrack) this.besideTrack.style.height = this.track.style.height;
  }

  time(mouse) {
    const frame = this.wide.getBoundingClientRect();
    return Math.max(0, ((mouse.clientX - frame.left) / frame.width) * this.file.duration_s);
  }

  tell(mouse) {
    const time = this.time(mouse),
      frame = this.spectrogram?.getBoundingClientRect(),
      up = frame ? (frame.bottom - mouse.clientY) / frame.height : -1;
    const here = this.boxes
      .filter(({ event, box }) => !box.hidden && event.start_s <= time && time < event.stop_s)
      .map(({ event }) => event);
    this.readout.textContent = [
      clock(time, 0.01),
      ...(up >= 0 && up <= 1 ? [frequency(hertz(up))] : []),
      ...here.map(event => `${mark(event)}${event.label} ${scoreText(event)}`),
    ].join("  ·  ");
  }

  arrived(time) {
    // somewhere else than in the event one is at
    const { index } = this.card,
      event = at?.index === index ? at.event : null;
    if (!event || time < event.start_s - 0.1 || time > event.stop_s + 0.1) at = { index, time };
  }

  seek(time) {
    at = { index: this.card.index, time };
    if (this.player) this.player.currentTime = time;
    else this.move(time);
  }

  move(time, into = false) {
    this.head.style.left = `${Math.min(100, (100 * time) / this.file.duration_s)}%`;
    const x = time * this.pxPerS,
      { scrollLeft, clientWidth } = this.strip;
    if (x < scrollLeft || x > scrollLeft + clientWidth * (into ? 0.9 : 1)) this.strip.scrollLeft = x - clientWidth / 4;
  }

  follow() {
    const { player } = this,
      end = ends.get(player);
    if (end && (player.currentTime < end.start - 0.1 || player.currentTime > end.stop + 0.5))
      ends.delete(player); // somebody went elsewhere
    else if (end && !player.paused && player.currentTime >= end.stop) {
      ends.delete(player);
      player.pause();
      player.currentTime = end.stop;
    }
    this.move(player.currentTime);
    cancelAnimationFrame(this.frame);
    if (!player.paused && !player.ended) this.frame = requestAnimationFrame(() => this.follow());
  }
}

// files

const cards = new Map(); // by the file's place
function card(index) {
  if (cards.has(index)) return cards.get(index);
  const file = files[index],
    element = make("article", { id: `file-${index}` }, make("h2", {}, file.path)),
    made = { index, file, element };
  cards.set(index, made);
  const later = [...cards.keys()].filter(key => key > index);
  byId("cards").insertBefore(element, later.length ? cards.get(Math.min(...later)).element : null);
  if (file.problem) {
    element.append(make("p", { class: "bad" }, file.problem), make("p", {}, file.fix));
    return made;
  }
  element.append(
    make(
      "p",
      { class: "meta" },
      `${seconds(file.duration_s)} s, ${file.windows} window${file.windows > 1 ? "s" : ""}, ` +
        `${file.events.length} event${file.events.length === 1 ? "" : "s"}` +
        (file.recorded_at ? `; from ${spaced(file.recorded_at)}` : "") +
        (file.site ? ` at ${file.site}` : "") +
        (file.audio_note ? `; ${file.audio_note}` : ""),
    ),
  );
  element.append(
    make(
      "div",
      { class: "chips" },
      ...file.labels.map(({ label, score }) =>
        make("span", { class: "chip" }, dot(label), `${label} ${score.toFixed(3)}`),
      ),
    ),
  );
  const player = file.audio ? make("audio", { controls: "", preload: "metadata", src: file.audio }) : null;
  if (player) {
    element.append(player);
    player.addEventListener("play", () => {
      take(made);
      pauseOthers(player);
    });
  }
  const plot = new Plot(file, player);
  Object.assign(made, { player, plot, filter: () => plot.filter() });
  plot.card = made;
  element.append(plot.tools, plot.element, plot.legend);
  plot.shown();
  return made;
}

function showCards(found = foundRows()) {
  const matching = [...new Set(found.map(row => row.index))].sort((a, b) => a - b),
    now = new Set(matching.slice(0, shownCards));
  for (const [index, { element }] of cards) element.hidden = !now.has(index);
  for (const index of now) card(index);
  byId("more-cards").hidden = matching.length <= shownCards;
}
byId("more-cards").addEventListener("click", () => {
  shownCards += CARDS;
  showCards();
});
window.addEventListener("resize", () => {
  for (const { plot } of cards.values()) plot?.layout();
});

// playing

let current = null,
  at = null; // the file that keys act on; where in which file one is
const ends = new Map(); // player -> the event at whose end it pauses

function take(made) {
  current?.element.classList.remove("current");
  current = made;
  made.element.classList.add("current");
}

function pauseOthers(player) {
  for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
}

function goTo(index, event, play) {
  const made = card(index),
    { player, plot } = made;
  made.element.hidden = false;
  take(made);
  at = { index, time: event?.start_s ?? 0, event };
  made.element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  plot?.move(at.time, true);
  if (!player || !play) return;
  pauseOthers(player);
  const begin = () => {
    if (event) ends.set(player, { start: event.start_s, stop: event.stop_s });
    else ends.delete(player);
    player.currentTime = event?.start_s ?? 0;
    player.play().catch(() => {}); // what can't be played says so in its controls
  };
  if (player.readyState > 0) begin();
  else {
    player.addEventListener("loadedmetadata", begin, { once: true });
    player.load();
  }
}

function step(direction) {
  // to the next event that the filter leaves, or the one before
  const matches = wanted();
  const all = files.flatMap((file, index) =>
    file.problem
      ? []
      : file.events.filter(event => matches(file.path, event.label, event.score)).map(event => ({ index, event })),
  );
  let next = all.findIndex(({ event }) => event === at?.event);
  if (next >= 0) next += direction;
  else {
    const before = ({ index, event }) =>
      at !== null && (index < at.index || (index === at.index && event.start_s <= at.time));
    next = all.filter(before).length - (direction < 0 ? 1 : 0);
  }
  if (all[next]) goTo(all[next].index, all[next].event, true);
}

function toggle() {
  const made =
    current ?? [...cards.values()].sort((a, b) => a.index - b.index).find(each => each.player && !each.element.hidden);
  if (!made?.player) return;
  take(made);
  if (made.player.paused) made.player.play().catch(() => {});
  else made.player.pause();
}

// reviewing

function eventHere() {
  // the one that was gone to, else one at the place in the file
  if (at?.event) return at.event;
  return files[at?.index]?.events?.find(event => event.start_s <= at.time && at.time <= event.stop_s);
}

function said(index) {
  // something new of a file's events: show and keep it
  remember();
  cards.get(index)?.plot?.draw();
  showRows();
  progress();
}

function judge(verdict) {
  const event = eventHere();
  if (!event) return;
  const { index, time } = at;
  if (event.key) event.verdict = event.verdict === verdict ? undefined : verdict;
  else if (verdict === "wrong") {
    // one that was added is gone
    const gone = other => other !== event;
    files[index].events = files[index].events.filter(gone);
    for (const row of rows) if (row.further) row.further = row.further.filter(gone);
    const place = rows.findIndex(row => row.event === event);
    if (place >= 0) rows.splice(place, 1);
    at = { index, time };
  }
  said(index);
  if (event.verdict) step(1);
}

async function relabel() {
  const event = eventHere(),
    index = at?.index;
  const label = event && (await askLabel(event.label));
  if (!label) return;
  event.label = label;
  event.verdict = "right";
  said(index);
}

function add(index, event) {
  files[index].events.push(event);
  files[index].events.sort((a, b) => a.start_s - b.start_s);
  const { start_s: start, stop_s: stop, label } = event;
  rows.push({ index, kinds: ["event"], file: files[index].path, start, stop, label, score: null, event });
  at = { index, time: start, event };
  said(index);
}

function askLabel(value) {
  const [dialog, input] = [byId("ask"), byId("ask-label")];
  const names = [
    ...Object.keys(typeof header.threshold === "object" ? header.threshold : {}),
    ...classes.keys(),
    ...files.flatMap(file => (file.events ?? []).map(event => event.label)),
  ];
  byId("known").replaceChildren(...[...new Set(names)].map(name => make("option", { value: name })));
  input.value = value;
  dialog.returnValue = "";
  dialog.showModal();
  input.select();
  return new Promise(resolve =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? input.value.trim() : ""), {
      once: true,
    }),
  );
}

const reviewed = () => files.filter(file => file.events?.some(event => event.verdict));

function progress() {
  const all = files.flatMap(file => file.events ?? []),
    done = all.filter(event => event.verdict).length;
  byId("reviewed").textContent = `${done.toLocaleString("en")} of ${all.length.toLocaleString("en")} events reviewed`;
  for (const button of document.querySelectorAll("#save button")) button.disabled = !done;
}

function download(name, lines) {
  const href = URL.createObjectURL(new Blob([lines.join("")], { type: "text/plain" })),
    link = make("a", { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}

const cell = value => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const plain = text => text.replace(/[\t\r\n]/g, " ");
// what is there: of what nobody judged that isn't known; of what was added and then rejected there is nothing to say
const statements = file =>
  file.events
    .filter(event => event.key || event.verdict !== "wrong")
    .map(event => ({ ...event, label: event.verdict === "wrong" ? NOTHING : event.verdict ? event.label : "" }));
// as label tracks and selection tables have them; of what a sample left out nobody said anything either
const labelled = file => [
  ...statements(file).map(({ start_s, stop_s, label }) => [start_s, stop_s, plain(label)]),
  ...(file.others ?? []).map(([start_s, stop_s]) => [start_s, stop_s, ""]),
];
const SAVE = {
  csv() {
    // a row without times says that the file was listened to; one without a label that nobody said what is there
    const lines = ["path,start_s,stop_s,label,verdict\n"];
    for (const file of reviewed()) {
      lines.push(`${cell(file.path)},,,,reviewed\n`);
      for (const { start_s, stop_s, label, verdict, key } of statements(file))
        lines.push(
          `${cell(file.path)},${start_s.toFixed(6)},${stop_s.toFixed(6)},${cell(label)},` +
            `${key ? (verdict ?? "") : "added"}\n`,
        );
      for (const [start_s, stop_s] of file.others ?? [])
        lines.push(`${cell(file.path)},${start_s.toFixed(6)},${stop_s.toFixed(6)},,\n`);
    }
    download("review.csv", lines);
  },
  audacity() {
    for (const file of reviewed())
      download(
        file.path.replace(/.*[/\\]/, "").replace(/\.[^.]*$/, "") + ".txt",
        labelled(file).map(([start, stop, label]) => `${start.toFixed(6)}\t${stop.toFixed(6)}\t${label}\n`),
      );
  },
  raven() {
    const names =
      "Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|" +
      "Begin Path|File Offset (s)|Label\n";
    const lines = [names.replaceAll("|", "\t")];
    let offset = 0;
    for (const file of reviewed()) {
      for (const [start, stop, label] of labelled(file))
        lines.push(
          [
            ...[lines.length, "Spectrogram 1", 1, (offset + start).toFixed(6), (offset + stop).toFixed(6), "0.000"],
            ...[(header.sample_rate_hz / 2).toFixed(3), plain(file.path), start.toFixed(6), label],
          ].join("\t") + "\n",
        );
      offset += file.duration_s;
    }
    download("review.selections.txt", lines);
  },
};
for (const button of document.querySelectorAll("#save button"))
  button.addEventListener("click", () => SAVE[button.dataset.format]());

const zoomed = times => (current ?? cards.get(Math.min(...cards.keys())))?.plot?.zoom(times);
const KEYS = {
  " ": toggle,
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  "+": () => zoomed(ZOOM),
  "=": () => zoomed(ZOOM),
  "-": () => zoomed(1 / ZOOM),
  0: () => zoomed(0),
  y: () => judge("right"),
  n: () => judge("wrong"),
  r: relabel,
};
document.addEventListener(
  "keydown",
  key => {
    // before a player or a picture takes them for itself
    const { tagName } = key.target;
    if (
      key.ctrlKey ||
      key.metaKey ||
      key.altKey ||
      ["INPUT", "SELECT", "TEXTAREA"].includes(tagName) ||
      byId("ask").open ||
      !Object.hasOwn(KEYS, key.key)
    )
      return;
    if (tagName === "BUTTON" && key.key === " ") return;
    key.preventDefault();
    key.stopPropagation();
    KEYS[key.key]();
  },
  { capture: true },
);

byId("about").textContent =
  `${files.length.toLocaleString("en")} file${files.length === 1 ? "" : "s"}, model ${header.model}, ` +
  (header.window_s
    ? `windows of ${header.window_s.toFixed(3)} s every ${header.hop_s.toFixed(3)} s`
    : "each file in one pass");
byId("note").textContent = header.note;
showCards();
showRows();
progress();
