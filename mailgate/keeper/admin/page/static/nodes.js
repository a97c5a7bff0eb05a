// Elements, made and changed so that focus, selection and screen readers notice only what has changed. No text is ever
// parsed as HTML.

export const byId = (name) => document.getElementById(name);

export function make(tag, attributes = {}, ...children) {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
	made.append(...children);
	return made;
}

export function setText(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

// Parts are texts, or objects of a text with a class. An element is filled anew only if its parts differ.
export function fill(node, parts) {
	const signature = JSON.stringify(parts);
	if (node.shown === signature) return;
	node.shown = signature;
	node.replaceChildren(...parts.map((part) => (typeof part === "string" ? part : element(part))));
}

const LONG = 40;

function element({ text, kind, title }) {
	if (kind !== "text") {
		const made = make("span", { class: kind }, text);
		if (title) made.title = title;
		return made;
	}
	const made = make("bdi", { class: "text", title: text }, text);
	if (text.length <= LONG) return made;
	// The whole of a long text can be had by keyboard and by touch, where titles do not show.
	return make("button", { type: "button", class: "long", "aria-expanded": "false" }, made);
}

document.addEventListener("click", (event) => {
	const long = event.target.closest?.(".long");
	if (long) long.setAttribute("aria-expanded", long.getAttribute("aria-expanded") !== "true");
});

// Keeps one element per item: `items` in their order, `key` tells them apart, `create` makes one, `change` updates it.
export function keyed(parent, items, key, create, change) {
	const known = (parent.known ??= new Map());
	const focused = parent.contains(document.activeElement) ? document.activeElement : null;
	const wanted = new Map(items.map((item) => [key(item), item]));
	let next = focused;
	// First those that are gone: the others need not move then.
	for (const [name, node] of known) {
		if (wanted.has(name)) continue;
		// The focus goes to the neighbour, which may go too.
		if (node.contains(next)) next = (node.nextElementSibling ?? node.previousElementSibling)?.querySelector("button");
		node.remove();
		known.delete(name);
	}
	let place = parent.firstChild;
	for (const [name, item] of wanted) {
		let node = known.get(name);
		if (!node) known.set(name, (node = create(item)));
		change(node, item);
		if (node === place) place = place.nextSibling;
		else parent.insertBefore(node, place);
	}
	// A moved element has lost the focus.
	if (focused && document.activeElement !== focused) {
		(next?.isConnected ? next : parent.closest("[tabindex]"))?.focus({ preventScroll: true });
	}
}
