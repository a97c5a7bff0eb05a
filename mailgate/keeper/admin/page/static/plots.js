// The plots: ten minutes by the second, and a day by the minute. uPlot draws them; a summary and a table say the same in
// words.

import { make, setText } from "./nodes.js";
import { amount, clock, count, isNumber, rate, visible, wait } from "./texts.js";

const perSecond = (value) => (isNumber(value) ? `${amount(value)}/s` : amount(value));

// Which series of the history each plot has, and how their numbers read.
const PLOTS = {
  logins: { prefix: "logins.", write: rate, unit: "/s" },
  wait: { prefix: "login_wait.", write: wait, unit: "" },
  sessions: { prefix: "sessions.", write: count, unit: "" },
  bytes: { prefix: "bytes.", write: perSecond, unit: "" },
};
const SECONDS = { "10m": 600, "24h": 86400 };
const ROWS = { "10m": 30, "24h": 3600 }; // seconds of a row of the table
const COLOURS = 7;
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3], [10, 4]];
const HEIGHT = 150;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plots {
  constructor(section, access) {
    this.access = access;
    this.span = "10m";
    this.data = {};
    this.last = null;
    this.asked = 0;
    this.plots = [...section.querySelectorAll(".plot")].map((figure) => new Plot(figure, this));
    this.buttons = [...section.querySelectorAll("[data-span]")];
    for (const button of this.buttons) button.addEventListener("click", () => this.choose(button.dataset.span));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plots.forEach((each) => each.remake()));
  }

  choose(span) {
    this.span = span;
    for (const each of this.buttons) each.setAttribute("aria-pressed", each.dataset.span === span);
    this.plots.forEach((each) => each.remake());
    this.load();
  }

  async load() {
    const { span } = this;
    this.asked = Date.now();
    const { step, begin, series } = await this.access.ask(`/api/1/history?span=${span}`);
    const first = Date.parse(begin) / 1000;
    const length = Math.max(0, ...Object.values(series).map((each) => each.length));
    const times = Array.from({ length }, (_, place) => first + place * step);
    this.data[span] = { step, times, series };
    this.draw();
  }

  // The points of ten minutes grow by each event; those of a day are asked for again.
  add(stats) {
    const now = Math.floor(Date.parse(stats.time) / 1000);
    const last = this.last;
    this.last = { now, stats };
    const known = this.data["10m"];
    if (known && last && now > last.now) {
      const values = point(stats, last.stats, now - last.now);
      const gap = now - known.times.at(-1);
      if (gap > 0) append(known, now, values);
      while (known.times.length > SECONDS["10m"]) {
        known.times.shift();
        Object.values(known.series).forEach((each) => each.shift());
      }
      if (this.span === "10m") this.draw();
    }
    if (this.span === "24h" && Date.now() - this.asked > 60000) this.load().catch(() => {});
  }

  draw() {
    const data = this.data[this.span];
    if (data) this.plots.forEach((each) => each.draw(data));
  }
}

// The values of one second, made of the totals: the rates of the statistics are means of some seconds.
function point(stats, before, seconds) {
  const grown = (now, then) => Math.max(0, ((now?.total ?? 0) - (then?.total ?? 0)) / seconds);
  const values = {};
  for (const [name, each] of Object.entries(stats.sessions?.by_protocol ?? {})) values[`sessions.${name}`] = each.total;
  for (const name of Object.keys(stats.logins ?? {})) {
    values[`logins.${name}`] = grown(stats.logins[name], before.logins?.[name]);
  }
  for (const name of Object.keys(stats.bytes ?? {})) {
    values[`bytes.${name}`] = grown(stats.bytes[name], before.bytes?.[name]);
  }
  for (const name of ["p50", "p95", "p99"]) values[`login_wait.${name}`] = stats.login_wait?.[name] ?? null;
  return values;
}

function append(known, now, values) {
  const length = known.times.push(now);
  for (const name of new Set([...Object.keys(known.series), ...Object.keys(values)])) {
    const series = (known.series[name] ??= []);
    while (series.length < length - 1) series.push(null);
    series.push(values[name] ?? null);
  }
}

class Plot {
  constructor(figure, plots) {
    this.figure = figure;
    this.plots = plots;
    Object.assign(this, PLOTS[figure.dataset.plot]);
    this.canvas = figure.querySelector(".canvas");
    this.legend = figure.querySelector(".legend");
    this.summary = figure.querySelector(".summary");
    this.points = figure.querySelector(".points");
    this.button = figure.querySelector("button");
    this.title = figure.querySelector("h3").textContent;
    this.button.addEventListener("click", () => this.toggle());
    new ResizeObserver(() => this.chart?.setSize({ width: this.canvas.clientWidth, height: HEIGHT })).observe(this.canvas);
  }

  remake() {
    this.chart?.destroy();
    this.chart = null;
    this.names = null;
  }

  draw(data) {
    this.data = data;
    // A series that never was anything but zero is a line without news.
    const names = Object.keys(data.series).filter(
      (name) => name.startsWith(this.prefix) && (data.series[name].some(Boolean) || name === `${this.prefix}accepted`),
    );
    const values = [data.times, ...names.map((name) => data.series[name])];
    if (!this.chart || names.join() !== this.names?.join()) {
      this.remake();
      this.names = names;
      this.make(values);
    } else this.chart.setData(values);
    if (!this.isPointed) this.show(null);
    this.describe();
    if (!this.points.hidden) this.fillTable();
  }

  make(values) {
    const end = () => Math.max(this.data.times.at(-1) ?? 0, 0);
    const axis = { stroke: style("--quiet"), font: `11px ${style("--font")}`, ticks: { show: false } };
    const grid = { stroke: style("--line"), width: 1 };
    this.items = this.names.map((name, place) =>
      make(
        "li",
        {},
        make("span", { class: `swatch series${place % COLOURS}`, "aria-hidden": "true" }),
        visible(name.slice(this.prefix.length)).replaceAll("_", " "),
        " ",
        make("b"),
      ),
    );
    this.legend.replaceChildren(...this.items);
    this.chart = new uPlot(
      {
        width: this.canvas.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { range: () => [end() - SECONDS[this.plots.span], end()] },
          y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] },
        },
        axes: [
          { ...axis, grid: { show: false }, size: 24, values: (_, ticks) => ticks.map(shortTime), space: 70 },
          {
            ...axis,
            grid,
            size: 58,
            space: 34,
            values: (_, ticks) => ticks.map((each) => this.write(each)),
          },
        ],
        series: [
          {},
          ...this.names.map((_, place) => ({
            stroke: style(`--series${place % COLOURS}`),
            width: 1.5,
            dash: DASHES[place % COLOURS],
            points: { show: false },
            spanGaps: false,
          })),
        ],
        hooks: {
          setCursor: [
            (chart) => {
              this.isPointed = chart.cursor.idx !== null && chart.cursor.left >= 0;
              this.show(this.isPointed ? chart.cursor.idx : null);
            },
          ],
        },
      },
      values,
      this.canvas,
    );
  }

  // The legend has the values under the pointer, or else the latest.
  show(place) {
    const at = place ?? this.data.times.length - 1;
    this.names.forEach((name, index) => {
      setText(this.items[index].querySelector("b"), this.write(this.data.series[name][at]) + this.unitOf(name, at));
    });
  }

  unitOf(name, at) {
    return isNumber(this.data.series[name][at]) ? this.unit : "";
  }

  describe() {
    const texts = this.names.map((name) => {
      const found = this.data.series[name].filter(isNumber);
      if (!found.length) return `${visible(name.slice(this.prefix.length))}: no value`;
      const mean = found.reduce((one, other) => one + other, 0) / found.length;
      const high = found.reduce((one, other) => Math.max(one, other));
      const what = visible(name.slice(this.prefix.length)).replaceAll("_", " ");
      return `${what}: mean ${this.write(mean)}${this.unit}, highest ${this.write(high)}${this.unit}`;
    });
    setText(this.summary, texts.join("; ") || "no values yet");
  }

  toggle() {
    this.points.hidden = !this.points.hidden;
    this.button.setAttribute("aria-expanded", !this.points.hidden);
    setText(this.button, this.points.hidden ? "Show as table" : "Hide the table");
    if (!this.points.hidden) this.fillTable();
  }

  // Means of some seconds: nobody reads six hundred rows.
  fillTable() {
    const { times, series } = this.data;
    const step = ROWS[this.plots.span];
    const groups = new Map();
    times.forEach((time, place) => {
      const begin = Math.floor(time / step) * step;
      if (!groups.has(begin)) groups.set(begin, []);
      groups.get(begin).push(place);
    });
    const signature = `${[...groups.keys()].join()} ${this.names.join()}`;
    if (this.points.signature === signature) return;
    this.points.signature = signature;
    const heads = ["Time", ...this.names.map((name) => visible(name.slice(this.prefix.length)).replaceAll("_", " "))];
    const rows = [...groups].reverse().map(([begin, places]) => {
      const cells = this.names.map((name) => {
        const found = places.map((place) => series[name][place]).filter(isNumber);
        const mean = found.length ? found.reduce((one, other) => one + other, 0) / found.length : null;
        return make("td", { class: "number" }, this.write(mean));
      });
      return make("tr", {}, make("th", { scope: "row" }, clock(new Date(begin * 1000))), ...cells);
    });
    const caption = `${this.title}: means of ${step === 30 ? "30 seconds" : "an hour"} from the time on`;
    const head = heads.map((each, place) => make("th", { scope: "col", class: place ? "number" : "" }, each));
    this.points.setAttribute("tabindex", "0");
    this.points.setAttribute("role", "region");
    this.points.setAttribute("aria-label", `${this.title}: table`);
    this.points.replaceChildren(
      make(
        "table",
        {},
        make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...head)),
        make("tbody", {}, ...rows),
      ),
    );
  }
}

const shortTime = (seconds) => clock(new Date(seconds * 1000)).slice(0, 5);
