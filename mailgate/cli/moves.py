# -*- test-case-name: mailgate.test.cli.test_moves -*-
"""
C{mailgate move} and C{where}: give a user of a sticky group another backend, and see where he is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, duration, printJSON
from mailgate.cli.blocks import told
from mailgate.cli.columns import Column, plural, shown, table, terminalWidth
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED

__all__ = ["addMoves"]

_COLUMNS = (Column("GATEWAY"), Column("BACKEND", isFlexible=True), Column("SESSIONS", isNumber=True))


def _path(user: str) -> str:
    return f"/api/1/users/{quote(user, safe='', errors='replace')}"


def _object(client: AdminClient, found: Any, member: str) -> dict[str, Any]:
    if not isinstance(found, dict) or member not in found:
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return found


def _move(client: AdminClient, arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"backend": arguments.backend}
    if arguments.group is not None:
        body["group"] = arguments.group
    wait = getattr(arguments, "for")
    if arguments.when_quiet:
        body["when_quiet"] = True
        if wait is not None:
            body["for"] = wait
    elif wait is not None:
        arguments.parser.error("--for goes with --when-quiet")
    path = _path(arguments.user)
    found = _object(client, client.post(f"{path}/move", body), "state")
    last: Any = None
    while found["state"] == "waiting":
        left = found.get("sessions")
        if left != last:
            last = left
            count = plural(left if type(left) is int else 0, "session")
            print(f"waiting until {count} of {shown(arguments.user)} end", file=sys.stderr)
        found = _object(client, client.get(f"{path}/moves/{quote(str(found.get('id')), safe='')}"), "state")
    if arguments.json:
        printJSON(found)
    else:
        print(_moved(found))
    return 0


def _moved(found: Mapping[str, Any]) -> str:
    """Such as C{joe goes to 10.0.0.2:143 from now on (upstream imap), before 10.0.0.1:143; 2 sessions were ended}."""
    user, backend, before = (shown(found.get(name)) for name in ("user", "backend", "before"))
    text = f"{user} goes to {backend} from now on (upstream {_names(found.get('groups'))})"
    if found.get("before"):
        text += f", before {before}"
    sessions, ended = found.get("sessions"), found.get("ended")
    if found.get("id") is not None:
        text += f"; {plural(ended if type(ended) is int else 0, 'session')} ended, and logins are no longer held"
    elif type(sessions) is int and sessions:
        text += f"; {plural(sessions, 'session')} elsewhere go on until they end"
    return text


def _names(value: Any) -> str:
    return ", ".join(shown(each) for each in value) if isinstance(value, list) else ""


def _rows(value: Any) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _where(client: AdminClient, arguments: argparse.Namespace) -> int:
    found = _object(client, client.get(_path(arguments.user)), "where")
    where = found["where"] if isinstance(found["where"], dict) else {}
    sessions, holds = _rows(where.get("sessions")), _rows(found.get("holds"))
    places = _rows(where.get("places"))
    gateways = _rows(found.get("gateways"))
    if arguments.json:
        printJSON({"user": found.get("user"), **where, "holds": holds, "gateways": gateways})
    else:
        user = shown(arguments.user)
        for place in places:
            groups = _names(place.get("groups"))
            if place.get("backend"):
                print(f"{user} has the place {shown(place['backend'])} (upstream {groups})")
            else:
                print(f"{user} has no place (upstream {groups})")
        if where.get("places") is None:
            print("the places are not known: the store does not answer", file=sys.stderr)
        elif not places:
            print("no group of backends is sticky, so that no user has a place", file=sys.stderr)
        if sessions:
            cells = [[row.get("gateway") or "-", row.get("backend"), row.get("sessions")] for row in sessions]
            print(table(_COLUMNS, cells, terminalWidth()))
        else:
            print(f"{user} has no session at a backend")
        for hold in holds:
            print(told(hold))
    missing = [gateway for gateway in gateways if not gateway.get("complete", True)]
    for gateway in missing:
        why = "; ".join(shown(each) for each in gateway.get("missing") or ()) or "it has not answered"
        print(f"not complete: gateway {shown(gateway.get('name') or '-')}: {why}", file=sys.stderr)
    if missing or where.get("places") is None:
        return REFUSED
    return 0 if sessions or holds or any(place.get("backend") for place in places) else NOTHING_MATCHED


def addMoves(commands: Any) -> None:
    """
    Add the commands.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "move",
        "give a user of a sticky group another backend",
        "Give USER the place BACKEND in the groups of backends with the directive sticky that have it: logins by all"
        " protocols go there from now on, at all gateways. Sessions that are logged in go on where they are. With"
        " --when-quiet the command holds the logins of the user at all gateways, ends the sessions, and waits until no"
        " backend has any of them; then it moves the user, and lets logins in again. If that fails, the hold ends, the"
        " user stays where he was, and the command says what was done. Copy the mailbox between mailgate hold and"
        " mailgate release if its data must move, too.",
        _move,
        {
            REFUSED: "refused by the gateway: the user stays where he was",
            NOTHING_MATCHED: "the gateway has lost the move, as after an upgrade; see mailgate where",
        },
        "USER BACKEND",
    )
    parser.add_argument("user", metavar="USER", help="the user name")
    parser.add_argument("backend", metavar="BACKEND", help="address and port of the backend, such as 10.0.0.2:143")
    parser.add_argument("--group", metavar="NAME", help="the name of the group, if several have that backend")
    parser.add_argument("--when-quiet", action="store_true", help="hold, end the sessions, and move when all are gone")
    parser.add_argument(
        "--for",
        metavar="TIME",
        type=duration,
        help="with --when-quiet: how long that may take (default: 1m; at most 1h)",
    )
    parser = addCommand(
        commands,
        "where",
        "show at which backend a user is",
        "Print the places of USER in groups of backends with the directive sticky, how many sessions there are at each"
        " gateway and backend, and the holds.",
        _where,
        {NOTHING_MATCHED: "the user has no place, no session and no hold"},
        "USER",
    )
    parser.add_argument("user", metavar="USER", help="the user name")
