// Orders: each is asked about in a dialog that says what will happen, and to how many. The dialog opens when the
// gateway has counted, and stays until the operator has read the result.

import { byId, make, setText } from "./nodes.js";
import { moment, plural, visible } from "./texts.js";

export class Orders {
	constructor(access) {
		this.access = access;
		this.dialog = byId("order");
		this.form = this.dialog.querySelector("form");
		this.title = byId("order-title");
		this.effect = this.dialog.querySelector(".effect");
		this.reason = this.dialog.querySelector(".reason");
		this.problem = this.dialog.querySelector(".problem");
		this.go = this.dialog.querySelector(".go");
		this.leave = this.dialog.querySelector(".cancel");
		this.leave.addEventListener("click", () => this.dialog.close());
		this.dialog.addEventListener("close", () => {
			// The row of the session that was ended may be gone, and its button with it.
			if (!this.from.isConnected) this.region?.focus({ preventScroll: true });
		});
		this.form.addEventListener("submit", (event) => {
			event.preventDefault();
			this.carryOut();
		});
	}

	// `effect` and the result of `run` are lists of sentences. `run` gets the reason.
	confirm({ title, effect, verb, hasReason = false, run }) {
		setText(this.title, title);
		this.say(effect);
		setText(this.go, verb);
		setText(this.leave, "Cancel");
		setText(this.problem, "");
		this.form.reset();
		this.go.hidden = !run;
		this.go.disabled = false;
		this.reason.hidden = !hasReason || !run;
		this.run = run;
		if (!this.dialog.open) {
			this.from = document.activeElement;
			this.region = this.from.closest(".scroll");
			this.dialog.showModal();
		}
		// Not the button that does it: Enter must not be enough.
		(this.reason.hidden ? this.leave : this.form.elements.reason).focus();
	}

	say(sentences) {
		this.effect.replaceChildren(...sentences.map((each) => make("span", {}, each)));
	}

	async carryOut() {
		if (this.go.disabled || this.go.hidden) return;
		this.go.disabled = true;
		setText(this.problem, "");
		try {
			this.say(await this.run(this.form.elements.reason.value.trim()));
			this.go.hidden = this.reason.hidden = true;
			setText(this.leave, "Close");
			this.leave.focus();
		} catch (error) {
			setText(this.problem, `Not done: ${visible(error.message)}.`);
			this.go.disabled = false;
		}
	}

	fail(title, error) {
		this.confirm({ title, effect: [], verb: "", run: null });
		setText(this.problem, `Not done: ${visible(error.message)}.`);
		setText(this.leave, "Close");
	}

	// End sessions: those that `filter` means. `whose` says in words which.
	async kick(filter, whose, done) {
		const title = "End sessions";
		try {
			const counted = await this.access.ask("/api/1/kick", { ...filter, dry_run: true });
			const found = counted.ended;
			const effect = [
				found ? `${plural(found, "session")} will end: ${whose}.` : `No session matches: ${whose}.`,
				...(found ? ["Clients may connect and log in again at once; cached answers about the users are forgotten."] : []),
				...counted.unanswered.map((each) => `Not counted: ${visible(each)}.`),
			];
			const run = async (reason) => {
				const ended = await this.access.ask("/api/1/kick", { ...filter, ...(reason && { reason }) });
				done();
				return [
					`${plural(ended.ended, "session")} ended.`,
					`${plural(ended.forgotten, "cached answer")} forgotten.`,
					...ended.unanswered.map((each) => `Not complete: ${visible(each)}.`),
				];
			};
			this.confirm({ title, effect, verb: `End ${plural(found, "session")}`, hasReason: true, run: found ? run : null });
		} catch (error) {
			this.fail(title, error);
		}
	}

	unblock({ id, thing, rule, until }) {
		const name = visible(thing);
		const effect = [`${name} is blocked by ${visible(rule)} until ${moment(until)}.`, "Its failed logins are forgotten."];
		const run = async () => {
			await this.access.ask(`/api/1/blocks/${encodeURIComponent(id)}`, {}, "DELETE");
			return [`${name} is not blocked any more.`];
		};
		this.confirm({ title: `Unblock ${name}`, effect, verb: "Unblock", run });
	}

	backend(row, rows) {
		const isOut = row.state === "drain" || row.state === "down";
		const word = isOut ? "resume" : "drain";
		const address = visible(row.address);
		const isOther = ({ group, address, state }) => group === row.group && address !== row.address && state === "up";
		const effect = isOut
			? [`New logins are sent to ${address} again.`, `${plural(row.sessions ?? 0, "session")} there go on.`]
			: [
					`New logins are no longer sent to ${address}.`,
					`${plural(row.sessions ?? 0, "session")} there go on until their clients end them.`,
					...(rows.some(isOther) ? [] : ["No other server of its group is up: new logins fail."]),
				];
		const run = async () => {
			const { missing } = await this.access.ask(`/api/1/backends/${encodeURIComponent(row.address)}/${word}`, {});
			return [
				isOut ? `${address} takes new logins.` : `${address} drains.`,
				...missing.map((each) => `Not complete: ${visible(each)}.`),
			];
		};
		const label = isOut ? "Resume" : "Drain";
		this.confirm({ title: `${label} ${address}`, effect, verb: label, run });
	}
}
