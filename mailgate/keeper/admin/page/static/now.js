// The numbers of this moment.

import { byId, keyed, make, setText } from "./nodes.js";
import { amount, count, isNumber, rate, visible, wait } from "./texts.js";

const REFUSED = ["denied", "temporary", "limited", "blocked", "backend_refused"];

// Each number: its name, its value, and what it is made of.
function* numbers(stats) {
	const protocols = Object.entries(stats.sessions?.by_protocol ?? {});
	yield ["Sessions", count(stats.sessions?.total), protocols.map(([name, { total }]) => [visible(name), count(total)])];
	yield ["Users", count(stats.users), [["relayed", count(stats.sessions?.relayed)]]];
	const speed = (name) => stats.logins?.[name]?.per_second;
	yield [
		"Logins/s",
		rate(speed("accepted")),
		[["connections/s", rate(stats.connections?.per_second)]],
	];
	const waits = stats.login_wait ?? {};
	yield ["Login time, median", wait(waits.p50), ["p95", "p99"].map((name) => [name, wait(waits[name])])];
	// What has never happened takes no place.
	const refused = REFUSED.filter((name) => stats.logins?.[name]?.total || name === "denied");
	const sum = refused.map(speed).filter(isNumber).reduce((one, other) => one + other, 0);
	yield [
		"Failed logins/s",
		rate(sum),
		refused.map((name) => [name.replaceAll("_", " "), rate(speed(name))]),
	];
	const flow = (name) => stats.bytes?.[name]?.per_second;
	const bytes = (value) => (isNumber(value) ? `${amount(value)}/s` : amount(value));
	yield ["To clients", bytes(flow("to_client")), [["from clients", bytes(flow("from_client"))]]];
}

export class Now {
	constructor() {
		this.list = byId("numbers");
	}

	update(stats) {
		keyed(this.list, [...numbers(stats)], ([name]) => name, create, change);
	}
}

const create = () => make("div", {}, make("dt"), make("dd", { class: "value" }), make("dd", { class: "parts" }));

function change(node, [name, value, parts]) {
	setText(node.children[0], name);
	setText(node.children[1], value);
	keyed(
		node.children[2],
		parts,
		([part]) => part,
		() => make("span", {}, make("span", { class: "quiet" }), " ", make("b")),
		(each, [part, number]) => {
			setText(each.firstChild, part);
			setText(each.lastChild, number);
		},
	);
}
