// News from the gateway: server-sent events, read by fetch, because EventSource cannot send a token but in its address.
// Where streaming fails, the overview is asked for every two seconds instead.

const POLL = 2000;
const SILENT = 5000; // numbers come every second: after so many milliseconds without any, the connection is lost
const DEAD = 10000; // and after so many it is given up
const LONGEST = 20000;
const MOST = 4_000_000; // characters of an event

const sleep = (milliseconds, signal) =>
	new Promise((resolve) => {
		const timer = setTimeout(resolve, milliseconds);
		signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
	});

export class Stream {
	// `tell(name, data)` gets each event; `show(state, since)` gets "live", "polling", "lost" or "refused".
	constructor(access, tell, show) {
		this.access = access;
		this.tell = tell;
		this.show = show;
		this.lastNews = Date.now();
		this.round = null;
		this.wake = new AbortController();
		setInterval(() => this.check(), 1000);
		for (const name of ["online", "pageshow"]) addEventListener(name, () => this.hurry());
	}

	start() {
		if (this.round) return;
		this.round = new AbortController();
		this.lastNews = Date.now();
		this.run(this.round.signal);
	}

	stop() {
		this.round?.abort();
		this.round = null;
		this.hurry();
	}

	hurry() {
		this.wake.abort();
		this.wake = new AbortController();
	}

	check() {
		if (this.access.isEntering) this.lastNews = Date.now();
		if (this.round && Date.now() - this.lastNews > SILENT) this.show("lost", this.lastNews);
	}

	heard(state) {
		this.lastNews = Date.now();
		this.show(state);
	}

	async run(signal) {
		let failures = 0;
		while (!signal.aborted) {
			failures = (await this.follow(signal)) ? 0 : failures + 1;
			if (signal.aborted) return;
			// Viewers that have lost their gateway at one time must not come back at one time.
			const pause = Math.min(LONGEST, 250 * 2 ** failures) * (0.5 + Math.random());
			await this.bridge(Date.now() + pause, signal);
		}
	}

	// Poll until it is time to stream again.
	async bridge(end, signal) {
		let isLost = false;
		while (!signal.aborted) {
			const left = end - Date.now();
			if (left <= 0) return;
			await sleep(Math.min(left, POLL), AbortSignal.any([signal, this.wake.signal]));
			if (signal.aborted || Date.now() >= end) return;
			try {
				const overview = await this.access.ask("/api/1/overview");
				if (signal.aborted) return;
				this.tell("overview", overview);
				this.heard("polling");
				// The gateway is there again, and so may be its stream.
				if (isLost) return;
			} catch (error) {
				if (signal.aborted || this.isRefused(error)) return;
				isLost = true;
				this.show("lost", this.lastNews);
			}
		}
	}

	// Without a valid token there is no news until the operator enters one.
	isRefused(error) {
		if (error.status !== 401) return false;
		this.stop();
		this.show("refused");
		return true;
	}

	// Returns whether there was any event before the stream ended.
	async follow(signal) {
		let heard = false;
		const own = new AbortController();
		let begun = Date.now();
		const beat = setInterval(() => {
			// An operator may take a while to find the token.
			if (this.access.isEntering) begun = Date.now();
			else if (Date.now() - begun > DEAD) own.abort();
		}, 1000);
		try {
			const both = AbortSignal.any([signal, own.signal]);
			const headers = { Accept: "text/event-stream" };
			const response = await this.access.open("/api/1/events", { headers, signal: both });
			if (!response.ok || !response.body) {
				response.body?.cancel();
				return false;
			}
			begun = Date.now();
			for await (const { name, data } of events(response.body)) {
				if (signal.aborted) break;
				begun = Date.now();
				heard = true;
				this.tell(name, data);
				this.heard("live");
			}
		} catch (error) {
			this.isRefused(error);
		} finally {
			clearInterval(beat);
			own.abort();
		}
		return heard;
	}
}

// The events of a body (https://html.spec.whatwg.org/multipage/server-sent-events.html).
export async function* events(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		const blocks = (rest + value.replaceAll("\r", "")).split("\n\n");
		rest = blocks.pop();
		if (rest.length > MOST) throw new Error("an event is too long");
		for (const block of blocks) {
			const found = { name: "message", data: [] };
			for (const line of block.split("\n")) {
				const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
				if (field === "event") found.name = text;
				if (field === "data") found.data.push(text);
			}
			if (found.data.length) yield { name: found.name, data: JSON.parse(found.data.join("\n")) };
		}
	}
}
