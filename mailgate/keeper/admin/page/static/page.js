// The live page: puts its parts together, and hands each of them the news.

import { Access } from "./access.js";
import { Alarms } from "./alarms.js";
import { Explain } from "./explain.js";
import { byId, keyed, make, setText } from "./nodes.js";
import { Now } from "./now.js";
import { Orders } from "./orders.js";
import { Plots } from "./plots.js";
import { Sessions } from "./sessions.js";
import { Stream } from "./stream.js";
import { Table } from "./tables.js";
import { client, clock, count, duration, moment, plural, visible } from "./texts.js";

const LEVELS = ["", "read", "operate", "admin"];
const FAILURES = 50;
const TABLES = ["backends", "auth", "servers", "stuck", "failures", "blocks", "workers"];

class Page {
	constructor() {
		this.page = byId("page");
		this.state = {};
		this.changed = new Set();
		this.access = new Access();
		this.orders = new Orders(this.access);
		this.explain = new Explain(this.access);
		this.alarms = new Alarms();
		this.now = new Now();
		this.plots = new Plots(byId("plots"), this.access);
		this.sessions = new Sessions(byId("sessions"), this.access, this.orders, () => !this.isPaused && this.mayOperate);
		this.tables = Object.fromEntries(TABLES.map((name) => [name, new Table(byId(name), this.buttons())]));
		this.places = [...byId("places").querySelectorAll("a")];
		this.isPaused = false;
		this.mode = "";
		this.stream = new Stream(this.access, this.take.bind(this), this.report.bind(this));
		byId("pause").addEventListener("click", () => this.pause());
		byId("token").addEventListener("click", () => this.enter());
		byId("explain-any").addEventListener("click", () => this.explain.open());
		setInterval(() => this.tick(), 1000);
	}

	buttons() {
		return {
			// A backend outside of groups takes no orders.
			orders: (row) =>
				row.group !== "-" && {
					label: row.state === "drain" || row.state === "down" ? "Resume" : "Drain",
					name: visible(row.address),
					run: () => this.orders.backend(row, this.state.backends),
				},
			explain: (row) => ({
				label: "Explain",
				name: `the login of ${visible(row.user)} from ${client(row.client)}`,
				run: () => this.explain.open(row),
			}),
			unblock: (row) => ({ label: "Unblock", name: visible(row.thing), run: () => this.orders.unblock(row) }),
		};
	}

	get mayOperate() {
		return LEVELS.indexOf(this.state.level) >= LEVELS.indexOf("operate");
	}

	async start() {
		const level = this.page.dataset.granted;
		this.page.hidden = false;
		// Without a level the gateway would refuse the first request: the token is asked for before.
		if (!level && !(await this.access.enter())) return this.report("refused");
		this.stream.start();
	}

	async enter() {
		if (!(await this.access.enter())) return;
		this.stream.stop();
		if (!this.isPaused) this.stream.start();
	}

	pause() {
		this.isPaused = !this.isPaused;
		const button = byId("pause");
		button.setAttribute("aria-pressed", this.isPaused);
		if (this.isPaused) {
			this.stream.stop();
			this.report("paused", Date.now());
		} else this.stream.start();
	}

	// Several events may come before the browser draws: the page changes once.
	take(name, data) {
		const set = (values) => {
			Object.assign(this.state, values);
			Object.keys(values).forEach((each) => this.changed.add(each));
		};
		if (name === "overview") {
			set(data);
			this.plots.load();
		} else if (name === "stats") set({ stats: data });
		else if (name === "tables") set(data);
		else if (name === "alarm") set({ alarms: Array.isArray(data) ? data : data.alarms });
		else if (name === "login_failed") {
			set({ failures: [data, ...(this.state.failures ?? [])].slice(0, FAILURES) });
		}
		if (this.isDue) return;
		this.isDue = true;
		requestAnimationFrame(() => {
			this.isDue = false;
			this.draw();
		});
	}

	draw() {
		const { changed, state } = this;
		this.changed = new Set();
		if (changed.has("level")) this.page.dataset.now = state.level ?? "";
		if (changed.has("alarms")) {
			const alarms = state.alarms ?? [];
			this.alarms.update(alarms);
			document.title = `${alarms.length ? `(${alarms.length}) ` : ""}${visible(state.gateway)} - mailgate`;
		}
		if (changed.has("stats") && state.stats) {
			this.now.update(state.stats);
			this.plots.add(state.stats);
			this.count("sessions", state.stats.sessions?.total);
		}
		for (const name of TABLES) {
			if (!changed.has(name) && !changed.has("more")) continue;
			this.tables[name].update(state[name], state.more?.[name]);
			this.count(name, (state[name]?.length ?? 0) + (state.more?.[name] ?? 0));
		}
		this.drawFacts();
		this.sessions.tick();
	}

	count(name, number) {
		const place = this.places.find((each) => each.hash === `#${name}`);
		if (!place.children.length) place.append(" ", make("span", { class: "quiet" }));
		setText(place.lastChild, count(number ?? 0));
	}

	drawFacts() {
		const { state } = this;
		const stats = state.stats ?? state;
		setText(byId("gateway"), visible(state.gateway));
		keyed(byId("facts"), [...this.facts(stats)], ([name]) => name, () => make("li"), (node, [, text, kind]) => {
			setText(node, text);
			node.className = kind ?? "";
		});
		setText(byId("token"), state.level ? `Level: ${state.level}` : "Token");
		byId("token").title = "Use another token";
	}

	*facts(stats) {
		yield ["version", `mailgate ${visible(stats.version)}`];
		yield ["up", `up ${duration(stats.uptime)}`];
		const { reload, missing = [] } = this.state;
		const age = duration((Date.parse(stats.time) - Date.parse(stats.loaded)) / 1000);
		yield ["loaded", `configuration loaded ${age} ago`];
		if (reload && !reload.done) {
			const reasons = (reload.reasons ?? []).map(visible).join("; ");
			yield ["reload", `reload at ${moment(reload.at)} refused: ${reasons}`, "state bad"];
		}
		const { serving, retiring } = stats.workers ?? {};
		const old = retiring ? `, ${retiring} draining` : "";
		yield ["workers", `${plural(serving ?? 0, "worker")}${old}`, serving ? "state good" : "state bad"];
		for (const { name, age } of stats.store?.gateways.slice(1) ?? [])
			yield [`heard ${name}`, `${visible(name)} heard ${duration(age)} ago`, age < 42 ? "" : "state bad"];
		for (const each of missing) yield [`missing ${each}`, `no answer: ${visible(each)}`, "state bad"];
	}

	// Says where the news comes from, and since when there is none.
	report(state, since) {
		if (this.isPaused) state = "paused";
		const news = byId("news");
		const texts = { live: "live", polling: "every 2 s", refused: "no token", lost: "connection lost" };
		if (state === this.mode) return;
		const was = this.mode;
		this.mode = state;
		news.className = `news ${state}`;
		setText(news, state === "paused" ? `paused at ${clock(new Date())}` : texts[state]);
		const notice = byId("notice");
		const isBad = state === "lost" || state === "refused";
		notice.hidden = !isBad;
		this.page.classList.toggle("stale", isBad || state === "paused");
		if (state === "lost") setText(notice, `Connection lost since ${clock(new Date(since))}. The page tries again.`);
		if (state === "refused") setText(notice, "The gateway needs a token. Use the button Token to enter one.");
		if (state === "lost") this.alarms.say(notice.textContent);
		else if (was === "lost") this.alarms.say("The connection works again.");
	}

	tick() {
		if (document.hidden || this.isPaused) return;
		this.alarms.tick();
		this.sessions.tick();
	}
}

new Page().start();
