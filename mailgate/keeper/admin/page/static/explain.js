// Explains a login: what happened to the last ones of a user, and where the next one would go.

import { byId, make, setText } from "./nodes.js";
import { NONE, client, duration, moment, plural, visible, wait } from "./texts.js";

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
      this.answer.focus();
    } catch (error) {
      this.answer.replaceChildren();
      setText(this.problem, visible(error.message));
    }
  }

  *blocks(found) {
    for (const each of found.missing ?? []) yield make("p", { class: "problem" }, `not complete: ${visible(each)}`);
    yield make("h3", {}, "The next login");
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

function asks(ask) {
  if (ask.kind === "auth_http") {
    const texts = ask.services.map((service) => {
      const rest = service.resting ? `, which failed and rests for ${wait(service.rests)}` : "";
      const queue = service.waiting ? `, after ${plural(service.waiting, "login")} that wait` : "";
      return `asks ${visible(service.url)}${rest || queue}${service.failing ? "; it gave no answer last" : ""}`;
    });
    if (ask.cache) {
      const held = ask.cache.held;
      texts.push(`${held === null ? "an unknown number of answers" : plural(held, "answer")} for this user in the cache`);
    }
    return texts;
  }
  if (ask.kind === "auth_file") {
    return [ask.objection ? `auth_file refuses it: ${visible(ask.objection)}` : "auth_file accepts the right password"];
  }
  return [ask.kind === "proxy_pass" ? "the backend judges it (proxy_pass)" : `asks ${visible(ask.name)}`];
}

function goes(where) {
  const of = where.group ? ` of upstream ${visible(where.group)}` : "";
  const first = where.first.length
    ? `goes to ${where.first.map(visible).join(" or ")} first${of}: ${visible(where.why)}`
    : `${visible(where.why)}${of}`;
  const servers = where.servers.map(
    (each) =>
      `${visible(each.address)}: ${visible(each.state)}, ${plural(each.sessions, "session")}` +
      (each.backup ? ", backup" : "") +
      (each.reason ? `; ${visible(each.reason)}` : ""),
  );
  return [first, ...servers];
}

function named(server) {
  if (!server.named) return [];
  return [server.goes.length ? "unless the answer of the service names another backend" : "the service names the backend"];
}

function story(each) {
  const isRelayed = each.reached === "relay";
  const what = isRelayed
    ? `${visible(each.outcome)} after ${duration(each.seconds)} at ${visible(each.backend)}`
    : `${visible(each.outcome)} in phase ${visible(each.reached)}, after ${wait(each.seconds)}`;
  const causes = [each.reason || each.trouble, each.text && `"${visible(each.text)}"`]
    .filter((cause) => cause && cause !== each.outcome)
    .map(visible);
  const from = client(each.client);
  const words = [`${moment(each.at)} ${what}`, `${visible(each.protocol)} from ${from}`, `session ${visible(each.id)}`];
  return words.join(", ") + (causes.length ? `: ${causes.join(", ")}` : "");
}
