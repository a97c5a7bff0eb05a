# -*- test-case-name: mailgate.test.cli.test_kick -*-
"""
C{mailgate kick}: ends sessions of a running gateway, and makes it forget cached answers for their users.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, duration, printJSON
from mailgate.cli.blocks import told
from mailgate.cli.columns import plural, shown
from mailgate.cli.sessions import addFilters, filterOf
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED

__all__ = ["addKick"]

_MOST_UNASKED = 20
"""A terminal is asked before more sessions end."""

_PATH = "/api/1/kick"


def _ended(answer: Any) -> int:
    ended = answer.get("ended") if isinstance(answer, dict) else None
    if type(ended) is not int:
        raise NoAnswer("the gateway sent no number of sessions", REFUSED)
    return ended


def _where(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many sessions ended at each gateway that had some."""
    gateways = answer.get("gateways") or []
    for place, gateway in enumerate([each for each in gateways if each.get("ended")] or gateways[:1]):
        count, name = gateway.get("ended", 0), gateway.get("name")
        what = plural(count, "session") if place == 0 else str(count)
        yield f"{what} {{ended}} at {shown(name)}" if name else f"{what} {{ended}}"


def _summary(answer: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Such as C{3 sessions ended at g1, 1 at g2; cached answers forgotten}."""
    isTrial, over = body.get("dry_run"), body.get("over")
    counts = [gateway.get("ended") for gateway in answer.get("gateways") or []]
    first = next(filter(None, counts), 0) if counts else _ended(answer)
    ended = "would end" if isTrial else f"end{'s' if first == 1 else ''} within {over:g} s" if over else "ended"
    places = list(_where(answer)) or [f"{plural(_ended(answer), 'session')} {{ended}}"]
    text = ", ".join(
        each.replace("{ended}", ended) if place == 0 else each.replace("{ended} ", "")
        for place, each in enumerate(places)
    )
    if isTrial:
        return text
    forgotten = answer.get("forgotten")
    answers = plural(forgotten, "cached answer") if type(forgotten) is int else "cached answers"
    return f"{text}; {answers} forgotten"


def _isConfirmed(client: AdminClient, body: Mapping[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether the sessions may end. A terminal is asked if there are many; a program is not."""
    if arguments.yes or arguments.dry_run or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    count = _ended(client.post(_PATH, {**body, "dry_run": True}))
    if count <= _MOST_UNASKED:
        return True
    print(f"End {plural(count, 'session')}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = filterOf(arguments)
    if arguments.user is not None:
        body["user"] = arguments.user
    if body in ({}, {"user": "*"}) and not arguments.all:
        arguments.parser.error("USER, a filter or --all is required; all sessions would end")
    if arguments.all:
        body["all"] = True
    for name in ("reason", "over", "hold", "block"):
        if getattr(arguments, name) is not None:
            body[name] = getattr(arguments, name)
    if arguments.dry_run:
        body["dry_run"] = True
    if not _isConfirmed(client, body, arguments):
        print("no session was ended", file=sys.stderr)
        return REFUSED
    answer = client.post(_PATH, body)
    ended = _ended(answer)
    if arguments.json:
        printJSON(answer)
    else:
        print(_summary(answer, body))
        for name in ("blocked", "held"):
            if isinstance(answer.get(name), dict):
                print(told(answer[name]))
    unanswered = answer.get("unanswered") or []
    for each in unanswered:
        print(f"not complete: {shown(each)}", file=sys.stderr)
    if unanswered:
        return REFUSED
    return 0 if ended or answer.get("blocked") or answer.get("held") else NOTHING_MATCHED


def addKick(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "kick",
        "end sessions, as after a change of a password",
        "End the sessions that match all given filters, logins that are under way included, and forget the cached"
        " answers of the authentication service for their users. Clients may log in again at once, unless --block or"
        " --hold is given; the block begins before the sessions end. On a terminal the"
        f" command asks before it ends more than {_MOST_UNASKED} sessions.",
        _run,
        {
            REFUSED: "refused by the gateway or not confirmed, or a process did not answer in time",
            NOTHING_MATCHED: "no session matches; cached answers were forgotten all the same",
        },
        "[USER]",
    )
    parser.add_argument("user", metavar="USER", nargs="?", help="the user; * and ? are wildcards, so quote them")
    addFilters(parser, "user")
    parser.add_argument("--all", action="store_true", help="end all sessions, if there is no filter")
    parser.add_argument("--dry-run", action="store_true", help="print how many sessions would end, and end none")
    parser.add_argument(
        "--over", metavar="TIME", type=duration, help="spread the ends over this time, such as 60s (at most 1h)"
    )
    parser.add_argument(
        "--block",
        metavar="TIME",
        type=duration,
        help="block USER, or --address, from now on for this time, such as 1h; no other filter may be given",
    )
    parser.add_argument(
        "--hold",
        metavar="TIME",
        type=duration,
        help="hold the logins of USER from now on for this time, such as 10m; no filter may be given",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the log of the gateway")
    parser.add_argument("--yes", action="store_true", help="do not ask")
