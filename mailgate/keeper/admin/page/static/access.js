// Requests to the gateway. The token lives in one variable of this object: no cookie, no storage, no address has it.

import { byId } from "./nodes.js";

export class Problem extends Error {
	constructor(status, detail) {
		super(detail);
		this.status = status;
	}
}

const LIMIT = 20000;

export class Access {
	#token = null;

	constructor() {
		this.dialog = byId("access");
		this.form = this.dialog.querySelector("form");
		this.problem = this.dialog.querySelector(".problem");
		this.waiting = [];
		this.form.addEventListener("submit", (event) => {
			event.preventDefault();
			this.close(this.form.elements.token.value.trim());
		});
		this.dialog.querySelector(".cancel").addEventListener("click", () => this.close(null));
		this.dialog.addEventListener("cancel", (event) => {
			event.preventDefault();
			this.close(null);
		});
	}

	close(token) {
		// Header fields have no other characters, and a browser would refuse the request without a reason.
		if (token !== null && !/^[!-~]+$/.test(token)) {
			this.problem.textContent = "A token has only letters, digits and signs of ASCII.";
			return;
		}
		if (token !== null) this.#token = token;
		this.form.reset();
		this.dialog.close();
		for (const each of this.waiting.splice(0)) each(token !== null);
	}

	// Asks for a token, once for all who need it. Resolves with whether there is a new one.
	enter(reason = "") {
		this.problem.textContent = reason;
		if (!this.dialog.open) this.dialog.showModal();
		return new Promise((resolve) => this.waiting.push(resolve));
	}

	get isEntering() {
		return this.dialog.open;
	}

	// The response to a request; a token that is refused is asked for again.
	async open(path, options = {}) {
		for (;;) {
			const used = this.#token;
			const headers = { ...options.headers, ...(used === null ? {} : { Authorization: `Bearer ${used}` }) };
			const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
			if (response.status !== 401) return response;
			const { detail } = await reading(response);
			// Another request may have got a new token meanwhile.
			if (used === this.#token && !(await this.enter(used === null ? "" : detail))) throw new Problem(401, detail);
		}
	}

	async ask(path, body, method = "POST") {
		const options = { signal: AbortSignal.timeout(LIMIT) };
		if (body !== undefined) {
			options.method = method;
			options.headers = { "Content-Type": "application/json" };
			options.body = JSON.stringify(body);
			// An order that is spread over some time is answered at its end.
			options.signal = AbortSignal.timeout(LIMIT + 1000 * (body.over ?? 0));
		}
		const response = await this.open(path, options);
		const found = await reading(response);
		if (!response.ok) throw new Problem(response.status, found.detail ?? `the gateway answered ${response.status}`);
		return found;
	}
}

async function reading(response) {
	try {
		return await response.json();
	} catch {
		return { detail: "the answer is not that of an admin server" };
	}
}
