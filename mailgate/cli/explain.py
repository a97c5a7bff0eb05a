# -*- test-case-name: mailgate.test.cli.test_explain -*-
"""
C{mailgate explain}: says what happened to the last logins of a user, and what the next one would do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, printJSON
from mailgate.cli.columns import plural, shown
from mailgate.cli.limitlines import blocks, counts, dryRuns, failures, known, verdict
from mailgate.cli.moments import local
from mailgate.log.journal import oneLine
from mailgate.net.networks import plainAddress
from mailgate.process.tables import duration
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED

__all__ = ["addExplain", "lines"]

_LONGEST = 1100
"""The most characters of a text that are shown: as many as the log has, each of which may be escaped."""
_LABEL = 10
"""Cells of the words at the beginning of lines."""


def lines(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """
    Yield an explanation as text.

    @param found: the answer of the admin server.
    @param now: the time in seconds since 1970.
    """
    limits, hasAddress = found.get("limits") or {}, found.get("address") is not None
    for server in found.get("would") or []:
        yield _title(found, server)
        yield from _paragraph("limits", counts(server.get("limits") or {}))
        yield from _paragraph("failures", failures(limits, now))
        yield from _paragraph("known", known(limits, hasAddress, now))
        yield from _paragraph("blocks", blocks(limits, now))
        yield from _paragraph("dry run", dryRuns(limits))
        yield from _paragraph("would", [*verdict(limits), *_asks(server)])
        for goes in server["goes"]:
            yield from _paragraph("backends", _goes(goes))
        if server["named"]:
            yield from _paragraph("", [_NAMED if server["goes"] else _ONLY_NAMED])
    if not found.get("would"):
        yield f"login of {shown(found.get('user'))}: no server takes it"
    recent = [_story(story, now) for story in found.get("recent") or []]
    yield from _paragraph("last", recent or ["nothing is known: no connection or login of this user has ended lately"])


_NAMED = "unless the answer of the authentication service names another backend"
_ONLY_NAMED = "the answer of the authentication service names the backend"


def _title(found: Mapping[str, Any], server: Mapping[str, Any]) -> str:
    address = found.get("address")
    place = "" if address is None else f" from {shown(address)}"
    return f"login of {shown(found.get('user'))}{place} ({shown(server['protocol'])}, server {shown(server['server'])})"


def _paragraph(label: str, texts: Sequence[str]) -> Iterator[str]:
    for place, text in enumerate(texts):
        yield f"  {label if place == 0 else '':<{_LABEL}} {text}"


def _asks(server: Mapping[str, Any]) -> list[str]:
    texts = []
    for ask in server["asks"]:
        texts += {"auth_http": _services, "auth_file": _file, "proxy_pass": _passed}.get(ask["kind"], _other)(ask)
    return texts


def _services(ask: Mapping[str, Any]) -> list[str]:
    used = [service for service in ask["services"] if not service["resting"]]
    resting = [service for service in ask["services"] if service["resting"]]
    texts = []
    for place, service in enumerate(used or resting):
        waiting = service["waiting"]
        when = "at once" if not waiting else f"after {plural(waiting, 'login')} that wait"
        fails = ", though it gave no answer to its last login" if service["failing"] else ""
        texts.append(f"{'be asked of' if place == 0 else 'then of'} {shown(service['url'])} {when}{fails}")
    for service in resting if used else ():
        texts.append(f"not of {shown(service['url'])}, which failed: it rests for {service['rests']:.0f} s")
    cache = ask["cache"]
    if cache is not None:
        held = cache["held"]
        answers = "whether an answer is held is not known" if held is None else _held(held)
        texts.append(f"{answers} (auth_cache_ttl {cache['ttl']:g} s)")
    return texts


def _held(held: int) -> str:
    if not held:
        return "no answer for this user is held in the cache"
    isOne = held == 1
    return (
        f"{plural(held, 'answer')} for this user {'is' if isOne else 'are'} held in the cache:"
        " the same login again is not asked"
    )


def _file(ask: Mapping[str, Any]) -> list[str]:
    objection = ask["objection"]
    result = f"be refused by auth_file: {shown(objection)}" if objection else "be accepted with the right password"
    texts = [f"{result} ({shown(ask['file'])})"]
    if ask["changed"]:
        texts.append("the file has changed since it was read; the next login reads it first")
    return texts


def _passed(ask: Mapping[str, Any]) -> list[str]:
    return ["be judged by the backend (proxy_pass)"]


def _other(ask: Mapping[str, Any]) -> list[str]:
    return [f"be asked of {shown(ask.get('name'))}, an authenticator of this installation"]


def _goes(goes: Mapping[str, Any]) -> list[str]:
    of = "" if goes["group"] is None else f" of upstream {shown(goes['group'])}"
    method = "" if goes["method"] is None else f" ({shown(goes['method'])})"
    first = goes["first"]
    if not first:
        texts = [f"{shown(goes['why'])}{of}{method}"]
    else:
        places = f"{shown(first[0])} first" if len(first) == 1 else f"{' or '.join(map(shown, first))}, by worker"
        texts = [f"{places}{of}: {shown(goes['why'])}"]
        rest = [address for address in goes["order"] if address != first[0]]
        if rest:
            texts.append(f"then, if that fails: {', '.join(map(shown, rest))}")
    if goes["guessed"]:
        texts.append("this depends on the address of the client: give --address")
    return texts + [_server(server) for server in goes["servers"]]


def _server(server: Mapping[str, Any]) -> str:
    words = [
        f"{shown(server['address'])} {shown(server['state'])}",
        plural(server["sessions"], "session"),
        f"weight {shown(server['weight'])}" if server["weight"] != 1 else "",
        "backup" if server["backup"] else "",
        f"{'last failure: ' if server['state'] == 'up' else ''}{shown(server['reason'])}" if server["reason"] else "",
    ]
    return ", ".join(filter(None, words))


def _story(story: Mapping[str, Any], now: float) -> str:
    """One line of the past, such as C{10:02:11 denied in phase auth, 8 ms, session g1.5g0qa.7j: wrong password}."""
    outcome, reached = shown(story.get("outcome")), shown(story.get("reached"))
    seconds = story.get("seconds") or 0
    if reached == "relay":
        what = f"{outcome} {duration(seconds)} by {shown(story.get('backend'))}"
    else:
        what = f"{outcome} in phase {reached}, {_elapsed(story, seconds)}"
    client = story.get("client") or {}
    words = [
        f"{local(story.get('at'), now)} {what}",
        f"{shown(story.get('protocol'))} from {shown(client.get('address'))}",
        f"session {shown(story.get('id'))}",
    ]
    causes = [text for text in (story.get("reason"), story.get("trouble")) if text and text != story.get("outcome")]
    texts = [*map(shown, causes[:1]), *([_quoted(story["text"])] if story.get("text") else [])]
    return ", ".join(words) + (f": {', '.join(texts)}" if texts else "")


def _quoted(text: Any) -> str:
    # Its quotes and backslashes are escaped already, as in the log.
    return f'text "{oneLine(str(text)[:_LONGEST])}"'


def _elapsed(story: Mapping[str, Any], seconds: float) -> str:
    """The time in the phase that the login has reached, or else of all."""
    times = story.get("times") or {}
    milliseconds = times.get(str(story.get("reached")).replace("-", "_"))
    return f"{milliseconds:.0f} ms" if isinstance(milliseconds, int | float) else f"{1000 * seconds:.0f} ms"


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    if arguments.address is not None and plainAddress(arguments.address) is None:
        arguments.parser.error(f"--address {arguments.address} is no IP address")
    question = {"user": arguments.user, "address": arguments.address, "protocol": arguments.protocol}
    found = client.post("/api/1/explain", {name: value for name, value in question.items() if value is not None})
    if not isinstance(found, dict):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    if arguments.json:
        printJSON(found)
    else:
        try:
            print("\n".join(lines({**question, **found}, time.time())))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise NoAnswer("the gateway is of another release: its explanation has another form", REFUSED) from None
    missing = found.get("missing") or []
    for each in missing:
        print(f"not complete: {shown(each)}", file=sys.stderr)
    if missing:
        return REFUSED
    return 0 if found.get("would") or found.get("recent") else NOTHING_MATCHED


def addExplain(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "explain",
        "explain the last logins of a user, and what the next one would do",
        "Print for each server what the next login of USER would do: the sessions that limits count, the failed logins,"
        " whether the network is known, and which limit would act; which authentication services it would be asked of,"
        " and which backend it would go to first and why; then the last logins and connections of USER with their"
        " phases and reasons. No login takes place: nothing is asked, counted or changed.",
        _run,
        {NOTHING_MATCHED: "no server takes the login, and nothing is known of the user"},
        "USER",
    )
    parser.add_argument("user", metavar="USER", help="the user name, without wildcards")
    parser.add_argument("--address", metavar="ADDRESS", help="the address of the client")
    protocols = tuple(PROTOCOLS)
    parser.add_argument("--protocol", metavar="NAME", choices=protocols, help=", ".join(protocols))
