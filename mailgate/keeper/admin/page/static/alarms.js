// The alarms, and the one place of the page from which screen readers announce changes.

import { byId, keyed, make, setText } from "./nodes.js";
import { duration, moment, visible } from "./texts.js";

export class Alarms {
	constructor() {
		this.section = byId("alarms");
		this.list = byId("alarm-list");
		this.announcer = byId("announcer");
		this.known = null;
		this.all = [];
	}

	update(alarms) {
		this.all = alarms;
		this.section.hidden = !alarms.length;
		keyed(this.list, alarms, ({ id }) => id, create, (node, each) => this.change(node, each));
		this.announce(new Map(alarms.map(({ id, text }) => [id, text])));
	}

	// "for 4 min" grows without any event.
	tick() {
		for (const each of this.all) {
			const node = this.list.known?.get(each.id);
			if (node) this.change(node, each);
		}
	}

	change(node, { severity, text, since }) {
		const [mark, words, age] = node.children;
		node.className = severity === "warning" ? severity : "critical";
		setText(mark, node.className);
		setText(words, visible(text));
		setText(age, `for ${duration((Date.now() - Date.parse(since)) / 1000)}`);
		age.title = `since ${moment(since)}`;
	}

	announce(now) {
		const known = this.known ?? new Map();
		this.known = now;
		const begun = [...now].filter(([id]) => !known.has(id)).map(([, text]) => `Alarm: ${visible(text)}.`);
		const ended = [...known].filter(([id]) => !now.has(id)).map(([, text]) => `Alarm ended: ${visible(text)}.`);
		if (begun.length || ended.length) this.say([...begun, ...ended].join(" "));
	}

	say(text) {
		setText(this.announcer, text);
	}
}

function create() {
	return make("li", {}, make("span", { class: "mark" }), make("bdi"), make("span", { class: "quiet" }));
}
