// The plots: ten minutes by the second, and a day by the minute. uPlot draws them; a summary and a table say the same.

import { make, setText } from "./nodes.js";
import { amount, clock, count, isNumber, rate, visible, wait } from "./texts.js";

// Which series of the history each plot has, and how their numbers read.
const PLOTS = {
	logins: { prefix: "logins.", write: (value) => (isNumber(value) ? `${rate(value)}/s` : rate(value)) },
	wait: { prefix: "login_wait.", write: wait },
	sessions: { prefix: "sessions.", write: count },
	bytes: { prefix: "bytes.", write: (value) => (isNumber(value) ? `${amount(value)}/s` : amount(value)) },
};
// The seconds of each span, and those of a row of its table: hundreds of rows would not be read.
const SPANS = { "10m": [600, 30, "30 seconds"], "24h": [86400, 3600, "an hour"] };
// The seconds between two labels of the time.
const STEPS = [60, 120, 300, 600, 3600, 7200, 10800, 14400, 21600, 43200];
const COLOURS = 7;
const DASHES = [[], [9, 4], [2, 3]];
const BORDERS = ["solid", "dashed", "dotted"];
const HEIGHT = 150;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (place) => style(`--series${place % COLOURS}`);
const mean = (values) => (values.length ? values.reduce((one, other) => one + other) / values.length : null);

export class Plots {
	constructor(section, access) {
		this.access = access;
		this.span = "10m";
		this.data = {};
		this.asked = 0;
		this.plots = [...section.querySelectorAll(".plot")].map((figure) => new Plot(figure, this));
		this.buttons = [...section.querySelectorAll("[data-span]")];
		for (const each of this.buttons) each.addEventListener("click", () => this.choose(each.dataset.span));
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.remake());
	}

	remake() {
		this.plots.forEach((each) => each.remake());
		this.draw();
	}

	choose(span) {
		this.span = span;
		for (const each of this.buttons) each.setAttribute("aria-pressed", each.dataset.span === span);
		this.remake();
		this.load();
	}

	async load() {
		const { span } = this;
		this.asked = Date.now();
		let found;
		try {
			found = await this.access.ask(`/api/1/history?span=${span}`);
		} catch {
			// The next numbers, or the next overview, bring it.
			return;
		}
		const { step, begin, series } = found;
		const first = Date.parse(begin) / 1000;
		const length = Math.max(0, ...Object.values(series).map((each) => each.length));
		this.data[span] = { times: Array.from({ length }, (_, place) => first + place * step), series };
		this.draw();
	}

	// The points of ten minutes grow by each event; those of a day are asked for again.
	add(stats) {
		const now = Math.floor(Date.parse(stats.time) / 1000);
		const { last } = this;
		this.last = { now, stats };
		const known = this.data["10m"];
		if (known && last && now > last.now) {
			append(known, now, point(stats, last.stats, now - last.now));
			if (this.span === "10m") this.draw();
		}
		if (this.span === "24h" && Date.now() - this.asked > 60000) this.load();
	}

	draw() {
		const data = this.data[this.span];
		if (data) this.plots.forEach((each) => each.draw(data));
	}
}

// The values of one second, made of the totals: the rates of the statistics are means of some seconds.
function point(stats, before, seconds) {
	const values = {};
	for (const [name, { total }] of Object.entries(stats.sessions?.by_protocol ?? {})) values[`sessions.${name}`] = total;
	for (const kind of ["logins", "bytes"]) {
		for (const [name, { total }] of Object.entries(stats[kind] ?? {})) {
			values[`${kind}.${name}`] = Math.max(0, total - (before[kind]?.[name]?.total ?? total)) / seconds;
		}
	}
	for (const name of ["p50", "p95", "p99"]) values[`login_wait.${name}`] = stats.login_wait?.[name];
	return values;
}

function append({ times, series }, now, values) {
	if (now <= times.at(-1)) return;
	const length = times.push(now);
	for (const name of new Set([...Object.keys(series), ...Object.keys(values)])) {
		const all = (series[name] ??= []);
		while (all.length < length - 1) all.push(null);
		all.push(values[name] ?? null);
		if (length > SPANS["10m"][0]) all.shift();
	}
	if (length > SPANS["10m"][0]) times.shift();
}

class Plot {
	constructor(figure, plots) {
		this.plots = plots;
		Object.assign(this, PLOTS[figure.dataset.plot]);
		this.title = figure.querySelector("h3").textContent;
		this.legend = make("ul", { class: "legend" });
		// The canvas says nothing to screen readers: the summary does.
		this.canvas = make("div", { class: "canvas", "aria-hidden": "true" });
		this.summary = make("p", { class: "summary" });
		this.button = make("button", { type: "button", class: "link", "aria-expanded": "false" }, "Show as table");
		const region = { role: "region", tabindex: "0", "aria-label": `${this.title}: table` };
		this.points = make("div", { class: "scroll points", hidden: "", ...region });
		figure.firstElementChild.append(this.button);
		figure.append(this.legend, this.canvas, this.summary, this.points);
		this.button.addEventListener("click", () => this.toggle());
		const fit = () => this.chart?.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
		new ResizeObserver(fit).observe(this.canvas);
	}

	remake() {
		this.chart?.destroy();
		this.chart = null;
	}

	label(name) {
		return visible(name.slice(this.prefix.length)).replaceAll("_", " ");
	}

	// A label of the axis: "30 s", not "30.0 s", and no half sessions.
	mark(value) {
		return value % 1 && this.write === count ? "" : this.write(value).replace(/\.0(?=\D|$)/, "");
	}

	draw(data) {
		this.data = data;
		// A series that never was anything but zero is a line without news.
		const isUsed = (name) => data.series[name].some(Boolean) || name === "logins.accepted";
		const names = Object.keys(data.series).filter((name) => name.startsWith(this.prefix) && isUsed(name));
		if (names.join() !== this.names?.join()) this.remake();
		this.names = names;
		const values = [data.times, ...names.map((name) => data.series[name])];
		if (this.chart) this.chart.setData(values);
		else this.make(values);
		if (!this.isPointed) this.show(data.times.length - 1);
		this.describe();
		if (!this.points.hidden) this.fillTable();
	}

	make(values) {
		const end = () => this.data.times.at(-1) ?? 0;
		const axis = { stroke: style("--quiet"), font: `11px ${style("--font")}`, ticks: { show: false } };
		const grid = { stroke: style("--line"), width: 1 };
		this.legend.replaceChildren(
			...this.names.map((name, place) => {
				const swatch = make("span", { class: "swatch" });
				swatch.style.borderTop = `3px ${BORDERS[place % 3]} ${colour(place)}`;
				return make("li", {}, swatch, this.label(name), " ", make("b"));
			}),
		);
		const setCursor = ({ cursor: { idx, left } }) => {
			this.isPointed = idx !== null && left >= 0;
			this.show(this.isPointed ? idx : this.data.times.length - 1);
		};
		const options = {
			width: this.canvas.clientWidth,
			height: HEIGHT,
			padding: [8, 12, 0, 0],
			legend: { show: false },
			cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
			scales: {
				x: { range: () => [end() - SPANS[this.plots.span][0], end()] },
				y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] },
			},
			axes: [
				{ ...axis, grid: { show: false }, size: 24, space: 56, incrs: STEPS, values: (_, all) => all.map((each) => time(each, 5)) },
				{ ...axis, grid, size: 62, space: 26, values: (_, all) => all.map((each) => this.mark(each)) },
			],
			series: [
				{},
				...this.names.map((_, place) => ({
					stroke: colour(place),
					width: 1.5,
					dash: DASHES[place % 3],
					points: { show: false, filter: specks },
				})),
			],
			hooks: { setCursor: [setCursor] },
		};
		this.chart = new uPlot(options, values, this.canvas);
	}

	// The legend has the values under the pointer, or else the latest.
	show(place) {
		this.names.forEach((name, index) => {
			const item = this.legend.children[index];
			if (item) setText(item.lastChild, this.write(this.data.series[name][place]));
		});
	}

	describe() {
		const texts = this.names.map((name) => {
			const found = this.data.series[name].filter(isNumber);
			if (!found.length) return `${this.label(name)}: no value`;
			const high = found.reduce((one, other) => Math.max(one, other));
			return `${this.label(name)}: mean ${this.write(mean(found))}, highest ${this.write(high)}`;
		});
		setText(this.summary, texts.join("; ") || "no values yet");
	}

	toggle() {
		this.points.hidden = !this.points.hidden;
		this.button.setAttribute("aria-expanded", !this.points.hidden);
		setText(this.button, this.points.hidden ? "Show as table" : "Hide the table");
		if (this.data) this.fillTable();
	}

	fillTable() {
		const { times, series } = this.data;
		const [, step, span] = SPANS[this.plots.span];
		const groups = new Map();
		times.forEach((each, place) => {
			const begin = Math.floor(each / step) * step;
			groups.set(begin, [...(groups.get(begin) ?? []), place]);
		});
		// Only when a row begins: the table must not move under its reader.
		const signature = `${[...groups.keys()].join()} ${this.names.join()}`;
		if (this.signature === signature) return;
		this.signature = signature;
		const rows = [...groups].reverse().map(([begin, places]) => {
			const values = this.names.map((name) => mean(places.map((place) => series[name][place]).filter(isNumber)));
			const cells = values.map((value) => make("td", { class: "number" }, this.write(value)));
			return make("tr", {}, make("th", { scope: "row" }, time(begin, 8)), ...cells);
		});
		const heads = this.names.map((name) => make("th", { scope: "col", class: "number" }, this.label(name)));
		this.points.replaceChildren(
			make(
				"table",
				{},
				make("caption", {}, `${this.title}: means of ${span} from the time on`),
				make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Time"), ...heads)),
				make("tbody", {}, ...rows),
			),
		);
	}
}

// The values of short runs, whose lines would be specks: such are most waiting times of a quiet gateway.
function specks(chart, place) {
	const found = [];
	let run = [];
	[...chart.data[place], null].forEach((value, index) => {
		if (isNumber(value)) run.push(index);
		else {
			if (run.length < 6) found.push(...run);
			run = [];
		}
	});
	return found;
}

const time = (seconds, length) => clock(new Date(seconds * 1000)).slice(0, length);
