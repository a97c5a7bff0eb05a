// Explains a login: what happened to the last ones of a user, and where the next one would go.

import { byId, make, setText } from "./nodes.js";
import { client, duration, moment, plural, unquoted, visible, wait } from "./texts.js";

export class Explain {
	constructor(access) {
		this.access = access;
		this.dialog = byId("explanation");
		this.form = this.dialog.querySelector("form");
		this.answer = this.dialog.querySelector(".answer");
		this.problem = this.dialog.querySelector(".problem");
		this.dialog.querySelector(".cancel").addEventListener("click", () => this.dialog.close());
		this.form.addEventListener("submit", (event) => (event.preventDefault(), this.ask()));
	}

	open(story = null) {
		this.answer.replaceChildren();
		setText(this.problem, "");
		const { user, address, protocol } = this.form.elements;
		user.value = story?.user ?? "";
		address.value = story?.client?.address ?? "";
		protocol.value = story?.protocol ?? "";
		if (!this.dialog.open) this.dialog.showModal();
		if (user.value) this.ask();
		else user.focus();
	}

	async ask() {
		const question = {};
		for (const name of ["user", "address", "protocol"]) {
			// A user name may begin or end with a space.
			const { value } = this.form.elements[name];
			if (value.trim()) question[name] = name === "user" ? value : value.trim();
		}
		setText(this.problem, "");
		try {
			const found = await this.access.ask("/api/1/explain", question);
			this.answer.replaceChildren(...this.blocks(found));
			this.answer.focus({ preventScroll: true });
		} catch (error) {
			this.answer.replaceChildren();
			setText(this.problem, visible(error.message));
		}
	}

	*blocks(found) {
		for (const each of found.missing ?? []) yield make("p", { class: "problem" }, `not complete: ${visible(each)}`);
		yield make("h3", {}, "The next login");
		if (found.limits) yield list([...limits(found)]);
		if (!found.would?.length) yield make("p", {}, "No server takes it.");
		for (const server of found.would ?? []) {
			yield make("h4", {}, `${visible(server.protocol)}, server ${visible(server.server)}`);
			yield list([...server.asks.flatMap(asks), ...server.goes.flatMap(goes), ...named(server)]);
		}
		yield make("h3", {}, "The last logins");
		if (found.recent?.length) yield list(found.recent.map(story));
		else yield make("p", {}, "No login of this user has ended lately.");
	}
}

const list = (texts) => make("ul", {}, ...texts.map((each) => make("li", {}, make("bdi", {}, each))));

function* limits({ address, limits: { known, rule, action, seconds, blocks, ...counts } }) {
	yield rule ? `${visible(rule)} ${action === "wait" ? `delays it by ${wait(seconds)}` : "refuses it"}` : "no limit acts on it";
	if (address) yield `its network is ${known ? "" : "not "}known for this user`;
	for (const name of ["pair", "address", "network", "user"]) {
		const { failures, limit } = counts[name] ?? {};
		if (failures) yield `failed logins of the ${name}: ${failures} of ${limit}`;
	}
	for (const { thing, until } of blocks ?? []) yield `${visible(thing)} is blocked until ${moment(until)}`;
}

function asks({ kind, services, cache, objection, name }) {
	if (kind === "auth_file") {
		return [objection ? `auth_file refuses it: ${visible(objection)}` : "auth_file accepts the right password"];
	}
	if (kind !== "auth_http") return [kind === "proxy_pass" ? "the backend judges it (proxy_pass)" : `asks ${visible(name)}`];
	const texts = services.map(({ url, resting, rests, waiting, failing }) => {
		const rest = resting ? `, which failed and rests for ${wait(rests)}` : "";
		const queue = waiting ? `, after ${plural(waiting, "login")} that wait` : "";
		return `asks ${visible(url)}${rest || queue}${failing ? "; it did not answer its last question" : ""}`;
	});
	if (cache) texts.push(`${cache.held === null ? "unknown" : plural(cache.held, "answer")} for this user in the cache`);
	return texts;
}

function goes({ group, first, why, servers }) {
	const of = group ? ` of upstream ${visible(group)}` : "";
	const where = first.length ? `goes to ${first.map(visible).join(" or ")} first${of}: ` : "";
	return [
		`${where}${visible(why)}${where ? "" : of}`,
		...servers.map(({ address, state, sessions, backup, reason }) => {
			const words = [visible(state), plural(sessions, "session"), backup && "backup", reason && visible(reason)];
			return `${visible(address)}: ${words.filter(Boolean).join(", ")}`;
		}),
	];
}

function named(server) {
	if (!server.named) return [];
	return [server.goes.length ? "unless the answer of the service names another backend" : "the service names the backend"];
}

function story(each) {
	const what =
		each.reached === "relay"
			? `after ${duration(each.seconds)} at ${visible(each.backend)}`
			: `in phase ${visible(each.reached)}, after ${wait(each.seconds)}`;
	const causes = [each.reason || each.trouble, unquoted(each.text)].filter((cause) => cause && cause !== each.outcome);
	return (
		`${moment(each.at)} ${visible(each.outcome)} ${what}, ${visible(each.protocol)} from ${client(each.client)}, ` +
		`session ${visible(each.id)}${causes.length ? ": " : ""}${causes.map(visible).join(", ")}`
	);
}
