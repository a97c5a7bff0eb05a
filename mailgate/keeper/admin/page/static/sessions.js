// The sessions: filtered, a hundred a page, read again while they can be seen.

import { byId, make, setText } from "./nodes.js";
import { Table } from "./tables.js";
import { client, seconds, visible } from "./texts.js";

const PAGE = 100;
const SHORTEST = 2000; // milliseconds between two requests
const SHARE = 20; // and so many times as long as an answer takes: a busy gateway is asked less often

const TIMES = "Older than must be a time such as 90s, 10m, 2h or 1d.";

export class Sessions {
	// `mayAsk()` says whether the operator wants news and may have these.
	constructor(section, access, orders, mayAsk) {
		this.access = access;
		this.orders = orders;
		this.mayAsk = mayAsk;
		this.form = byId("filter");
		this.problem = byId("filter-problem");
		this.filter = {};
		this.cursors = [undefined];
		this.next = null;
		this.due = 0;
		this.isSeen = false;
		this.table = new Table(section, { kick: (row) => this.kickOf(row) }, false);
		this.makePages();
		this.form.addEventListener("submit", (event) => (event.preventDefault(), this.choose()));
		this.form.addEventListener("reset", () => setTimeout(() => this.choose()));
		byId("kick-all").addEventListener("click", () => this.kickAll());
		new IntersectionObserver(([entry]) => {
			this.isSeen = entry.isIntersecting;
			this.tick();
		}).observe(section);
	}

	makePages() {
		const button = (text, run) => {
			const made = make("button", { type: "button" }, text);
			made.addEventListener("click", run);
			return made;
		};
		this.back = button("Previous page", () => this.turn(() => this.cursors.pop()));
		this.forth = button("Next page", () => this.turn(() => this.cursors.push(this.next)));
		this.place = make("span", { class: "quiet" });
		byId("pages").append(this.back, this.place, this.forth);
	}

	turn(change) {
		change();
		this.load();
	}

	// The filter of the form, or null if a field is wrong.
	read() {
		const found = {};
		for (const { name, value } of new Set(this.form.querySelectorAll("input"))) {
			if (value.trim()) found[name] = value.trim();
		}
		setText(this.problem, "");
		if (found.older === undefined) return found;
		found.older = seconds(found.older);
		if (found.older !== null) return found;
		setText(this.problem, TIMES);
		return null;
	}

	choose() {
		const found = this.read();
		if (found === null) return;
		this.filter = found;
		this.cursors = [undefined];
		this.load();
	}

	tick() {
		if (this.isSeen && !document.hidden && !this.isLoading && Date.now() >= this.due && this.mayAsk()) this.load();
	}

	async load() {
		this.round = (this.round ?? 0) + 1;
		const { round } = this;
		const begun = Date.now();
		const query = new Map([...Object.entries(this.filter), ["limit", PAGE], ["cursor", this.cursors.at(-1)]]);
		// A plus sign is a plus sign to the gateway, so the query is not that of a form.
		const parts = [...query].filter(([, value]) => value !== undefined);
		const text = parts.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
		this.isLoading = true;
		try {
			const found = await this.access.ask(`/api/1/sessions?${text}`);
			// A later question has been asked meanwhile.
			if (round === this.round) this.show(found);
		} catch (error) {
			if (round === this.round) setText(this.problem, `The sessions could not be read: ${visible(error.message)}.`);
		} finally {
			if (round === this.round) this.isLoading = false;
			this.due = Date.now() + Math.max(SHORTEST, SHARE * (Date.now() - begun));
		}
	}

	show({ sessions, next, gateways }) {
		if (this.problem.textContent !== TIMES) {
			const missing = gateways.flatMap(({ name, missing }) => (missing ?? []).map((each) => `${name}: ${each}`));
			setText(this.problem, missing.length ? `Not complete: ${missing.map(visible).join("; ")}.` : "");
		}
		this.next = next;
		const first = (this.cursors.length - 1) * PAGE;
		this.table.update(sessions);
		this.back.disabled = this.cursors.length < 2;
		this.forth.disabled = next === null;
		this.back.hidden = this.forth.hidden = this.back.disabled && this.forth.disabled;
		setText(this.place, sessions.length ? `${first + 1} to ${first + sessions.length}${next ? " of more" : ""}` : "");
	}

	again() {
		this.due = 0;
		this.tick();
	}

	kickOf(row) {
		const whose = `${visible(row.user)}, ${visible(row.protocol)} from ${client(row.client)}`;
		return {
			label: "End",
			name: `the session of ${whose}`,
			run: () => this.orders.kick({ id: row.id }, whose, () => this.again()),
		};
	}

	kickAll() {
		const filter = this.read();
		if (filter === null) return;
		const words = Object.entries(filter).map(([name, value]) =>
			name === "older" ? `older than ${value} s` : `${name} ${visible(value)}`,
		);
		const whose = words.length ? words.join(", ") : "ALL sessions, as the filter is empty";
		this.orders.kick(words.length ? filter : { all: true }, whose, () => this.again());
	}
}
