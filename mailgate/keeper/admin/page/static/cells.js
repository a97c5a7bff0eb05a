// The cells of the tables, by the kind of their column. cells.py makes the same cells on the server.

import { NONE, amount, client, count, duration, isNumber, moment, rate, share, unquoted, visible, wait } from "./texts.js";

const MARKS = { up: "good", accepts: "good", failing: "bad", down: "bad", resting: "bad" };

export const NUMBERS = new Set(["amount", "bar", "count", "duration", "plain", "rate", "share", "wait"]);

export const text = (value) => {
	const found = visible(value);
	return found === NONE ? found : { text: found, kind: "text" };
};

const state = (value, row = {}) => [
	{ text: visible(value), kind: `state ${MARKS[value] ?? "between"}` },
	...(row.reason && MARKS[value] !== "good" ? [" ", text(row.reason)] : []),
];
const plainly = (write) => (value) => [write(value)];
const joined = (parts, between) => parts.flatMap((part, place) => (place ? [between, part] : [part])).flat();

const DAY = 86400000;

// A certificate that ends soon has a word and a mark, not only a colour.
function certificate({ name, not_after: end }) {
	const left = Math.floor((Date.parse(end) - Date.now()) / DAY);
	const kind = left < 0 ? "state bad" : left < 14 ? "state between" : "quiet";
	const words = left < 0 ? "expired" : `${left} d left`;
	return [text(name), " ", { text: words, kind, title: `until ${end}` }];
}

export const CELLS = {
	accepts: (value) => state(value ? "accepts" : "drains"),
	amount: plainly(amount),
	bar: plainly(count),
	certificates: (value) => (value?.length ? joined(value.map(certificate), ", ") : [NONE]),
	client: (value) => [text(client(value))],
	count: plainly(count),
	counts(value) {
		if (!value) return [NONE];
		const found = Object.entries(value).filter(([, number]) => number);
		if (!found.length) return ["0"];
		return joined(found.map(([name, number]) => [{ text: `${visible(name)} ${rate(number)}`, kind: "bad" }]), ", ");
	},
	duration: plainly(duration),
	error: (value) => (value ? [text(value.text), " ", { text: moment(value.at), kind: "quiet" }] : [NONE]),
	id: (value) => [{ text: visible(value), kind: "code" }],
	list: (value) => (value?.length ? [text(value.join(", "))] : [NONE]),
	moment: (value) => [{ text: moment(value), kind: "time", title: visible(value) }],
	plain: (value) => [visible(value)],
	rate: plainly(rate),
	share: plainly(share),
	shares(value) {
		const found = Object.entries(value ?? {}).filter(([, part]) => isNumber(part));
		return [found.map(([name, part]) => `${visible(name)} ${share(part)}`).join(", ") || NONE];
	},
	state,
	text: (value) => [text(value)],
	trouble(value, row) {
		const isLimit = /^(limited|blocked)$/.test(row.outcome) && row.reason;
		const first = (value || row.reason || row.outcome) + (isLimit ? ` (${row.reason})` : "");
		const words = unquoted(row.text);
		return words && words !== first ? [text(first), ": ", text(words)] : [text(first)];
	},
	version: (value) => [value ? visible(value.version) : "no"],
	wait: plainly(wait),
	word: (value) => [visible(value)],
};
