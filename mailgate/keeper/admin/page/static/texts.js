// How values of the overview read. texts.py writes the same texts on the server.

export const NONE = "–";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
const SPANS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
// Control and format characters, those without a meaning, and line ends.
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

const grouped = [0, 1].map(
	(digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);

export const isNumber = (value) => typeof value === "number" && Math.abs(value) < 1e21;

// User names and reasons are a client's words: nothing in them may hide, or turn the text around it.
export function visible(value) {
	if (value === null || value === undefined || value === "") return NONE;
	return String(value).replace(HIDDEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

// A text that the gateway has escaped for quotes, without them.
export const unquoted = (value) => value && String(value).replace(/\\(["\\])/g, "$1");

export const count = (value) => (isNumber(value) ? grouped[0].format(value) : NONE);

export const rate = (value) =>
	isNumber(value) ? grouped[value > 0 && value < 9.95 ? 1 : 0].format(value) : NONE;

export function wait(value) {
	if (!isNumber(value)) return NONE;
	if (value < 0.9995) return `${(1000 * value).toFixed(value > 0 && value < 0.00995 ? 1 : 0)} ms`;
	return value < 99.95 ? `${value.toFixed(1)} s` : `${count(value)} s`;
}

export function duration(value) {
	if (!isNumber(value) || value < 0) return NONE;
	let place = SPANS.findIndex(([length]) => value >= length);
	if (place < 0) place = 3;
	const [length, unit] = SPANS[place];
	const first = `${Math.floor(value / length)} ${unit}`;
	if (place === 3) return first;
	const [lower, name] = SPANS[place + 1];
	const more = Math.floor((value % length) / lower);
	return more ? `${first} ${more} ${name}` : first;
}

export function amount(value) {
	if (!isNumber(value)) return NONE;
	let place = 0;
	while (Math.abs(value) >= 999.5 && place < UNITS.length - 1) {
		value /= 1000;
		place += 1;
	}
	return `${value.toFixed(place && Math.abs(value) < 9.95 ? 1 : 0)} ${UNITS[place]}`;
}

export const share = (value) =>
	isNumber(value) ? `${(100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0)} %` : NONE;

const two = (number) => String(number).padStart(2, "0");

export const date = (when) => `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;

export const clock = (when) => `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;

// In the time zone of the browser: today's times have no date.
export function moment(value) {
	const when = new Date(value);
	if (value === null || value === undefined || Number.isNaN(when.getTime())) return visible(value);
	return date(when) === date(new Date()) ? clock(when) : `${date(when)} ${clock(when)}`;
}

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// "90", "90s", "10m", "2h", "1d" as seconds; null if it is none of these.
export function seconds(text) {
	const found = /^\s*(\d+(?:\.\d+)?)\s*([smhd]?)\w*\s*$/i.exec(text);
	return found && Number(found[1]) * { s: 1, m: 60, h: 3600, d: 86400, "": 1 }[found[2].toLowerCase()];
}

export function client(value) {
	if (!value || !value.address) return NONE;
	const address = visible(value.address);
	if (!isNumber(value.port)) return address;
	return address.includes(":") ? `[${address}]:${value.port}` : `${address}:${value.port}`;
}
