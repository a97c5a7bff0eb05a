// A table whose head the server has written: the head says which field each column shows, and how. Rows are changed in
// place, so that focus, selection and the place of reading stay.

import { CELLS, NUMBERS } from "./cells.js";
import { fill, keyed, make, setText } from "./nodes.js";
import { isNumber } from "./texts.js";

export class Table {
	// `orders` makes the buttons of a row: by the kind of the column, a function of the row that returns
	// {label, name, run}, or null for none.
	constructor(section, orders = {}, isSorted = true) {
		this.section = section;
		this.table = section.querySelector("table");
		this.body = this.table.tBodies[0];
		this.orders = orders;
		this.key = this.table.dataset.key.split(" ");
		this.columns = [...this.table.tHead.rows[0].cells].map((head) => {
			// An empty field is that of a column of orders.
			const [kind, field = ""] = head.dataset.is.split(" ");
			head.scope = "col";
			if (NUMBERS.has(kind)) head.className = "number";
			return { head, kind, field, level: head.dataset.level };
		});
		this.rows = [];
		this.more = 0;
		this.sortedBy = null;
		this.empty = make("tr", { class: "empty" }, make("td", { colspan: this.columns.length }, this.table.dataset.empty));
		this.rest = make("p", { class: "quiet rest", hidden: "" });
		const region = this.table.parentNode;
		const label = section.querySelector("h2").textContent;
		section.ariaLabel = label;
		for (const [name, value] of [["role", "region"], ["tabindex", 0], ["aria-label", `${label}: table`]]) region.setAttribute(name, value);
		region.after(this.rest);
		if (isSorted) this.columns.filter((each) => each.field).forEach((each) => this.makeSortable(each));
	}

	makeSortable(column) {
		const button = make("button", { type: "button", class: "sort" }, column.head.textContent);
		column.head.replaceChildren(button);
		button.addEventListener("click", () => {
			const wasUp = this.sortedBy?.column === column && this.sortedBy.direction > 0;
			// Numbers are wanted with the largest first, texts from A on.
			const first = NUMBERS.has(column.kind) ? -1 : 1;
			const direction = this.sortedBy?.column === column ? (wasUp ? -1 : 1) : first;
			this.columns.forEach((each) => each.head.removeAttribute("aria-sort"));
			column.head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
			this.sortedBy = { column, direction };
			this.draw();
		});
	}

	update(rows, more = 0) {
		this.rows = rows ?? [];
		this.more = more;
		this.draw();
	}

	draw() {
		const rows = this.sorted();
		this.most = {};
		for (const { field, kind } of this.columns) {
			if (kind === "bar") this.most[field] = Math.max(1, ...rows.map((row) => row[field] || 0));
		}
		const name = (row) => JSON.stringify(this.key.map((field) => row[field]));
		keyed(this.body, rows, name, () => this.create(), (node, row) => this.change(node, row));
		if (rows.length) this.empty.remove();
		else if (!this.empty.isConnected) this.body.append(this.empty);
		this.rest.hidden = !this.more;
		setText(this.rest, this.more ? `and ${this.more} more` : "");
	}

	sorted() {
		if (!this.sortedBy) return this.rows;
		const { column, direction } = this.sortedBy;
		const value = (row) => (column.kind === "client" ? row.client?.address : row[column.field]);
		return [...this.rows].sort((one, other) => direction * compared(value(one), value(other)));
	}

	create() {
		const row = make("tr");
		this.columns.forEach(({ kind, level }, place) => {
			const cell = place ? make("td") : make("th", { scope: "row" });
			if (NUMBERS.has(kind)) cell.className = "number";
			if (kind in this.orders) cell.className = "orders";
			cell.dataset.kind = kind;
			if (level) cell.dataset.level = level;
			row.append(cell);
		});
		return row;
	}

	change(node, row) {
		this.columns.forEach(({ field, kind }, place) => {
			const cell = node.cells[place];
			if (kind in this.orders) this.offer(cell, this.orders[kind](row));
			else if (kind in CELLS) fill(cell, CELLS[kind](row[field], row));
			if (kind === "bar") cell.style.setProperty("--part", `${(100 * (row[field] || 0)) / this.most[field]}%`);
		});
	}

	// The button of a row stays the same element, whatever it offers.
	offer(cell, order) {
		let button = cell.firstChild;
		if (!button) {
			cell.append((button = make("button", { type: "button" })));
			button.addEventListener("click", () => button.order?.run());
		}
		button.order = order;
		button.hidden = !order;
		if (!order) return;
		setText(button, order.label);
		button.setAttribute("aria-label", `${order.label} ${order.name}`);
	}
}

function compared(one, other) {
	if (isNumber(one) && isNumber(other)) return one - other;
	const [first, second] = [one, other].map((each) => (each === null || each === undefined ? "" : String(each)));
	return first.localeCompare(second, "en", { numeric: true });
}
