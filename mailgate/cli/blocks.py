# -*- test-case-name: mailgate.test.cli.test_blocks -*-
"""
C{mailgate block}, C{unblock}, C{blocked}, C{hold} and C{release}: keep clients from a running gateway, and let them in
again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, duration, printJSON
from mailgate.cli.columns import Column, shown, table, terminalWidth
from mailgate.cli.moments import left, local
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED

__all__ = ["addBlocks", "told"]

_PATH = "/api/1/blocks"

_COLUMNS = (
    Column("ID"),
    Column("BLOCKED", isFlexible=True),
    Column("RULE"),
    Column("SINCE"),
    Column("LEFT", isNumber=True),
    Column("REASON", isFlexible=True),
)


def told(row: Mapping[str, Any]) -> str:
    """
    Return a block as a sentence, such as C{joe is blocked until 12:13:03 (b7): abuse}.

    @param row: the block, as the admin server has it.
    """
    verb = "held" if row.get("rule") == "hold" else "blocked"
    reason = f": {shown(row['reason'])}" if row.get("reason") else ""
    until = local(row.get("until"), time.time())
    return f"{shown(row.get('thing'))} is {verb} until {until} ({shown(row.get('id'))}){reason}"


def _made(client: AdminClient, arguments: argparse.Namespace, path: str, **given: Any) -> int:
    body = {"for": getattr(arguments, "for"), **given}
    if arguments.reason is not None:
        body["reason"] = arguments.reason
    found = _object(client, client.post(path, body), "id")
    if arguments.json:
        printJSON(found)
    else:
        print(told(found))
    _doubts(found)
    return 0


def _doubts(found: Mapping[str, Any]) -> bool:
    """Say on standard error what the other gateways keep an answer from; return whether there is something."""
    doubts = found.get("unanswered") or []
    for each in doubts:
        print(f"not complete: {shown(each)}", file=sys.stderr)
    return bool(doubts)


def _object(client: AdminClient, found: Any, member: str) -> dict[str, Any]:
    if not isinstance(found, dict) or member not in found:
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return found


def _block(client: AdminClient, arguments: argparse.Namespace) -> int:
    return _made(client, arguments, _PATH, thing=arguments.thing)


def _hold(client: AdminClient, arguments: argparse.Namespace) -> int:
    return _made(client, arguments, f"{_userPath(arguments.user)}/hold")


def _userPath(user: str) -> str:
    return f"/api/1/users/{quote(user, safe='', errors='replace')}"


def _unblock(client: AdminClient, arguments: argparse.Namespace) -> int:
    path = f"{_PATH}/{quote(arguments.thing, safe='', errors='replace')}"
    return _ended(client, client.delete(path), arguments)


def _release(client: AdminClient, arguments: argparse.Namespace) -> int:
    return _ended(client, client.post(f"{_userPath(arguments.user)}/release", {}), arguments)


def _ended(client: AdminClient, answer: Any, arguments: argparse.Namespace) -> int:
    found = _object(client, answer, "ended")
    if arguments.json:
        printJSON(found)
    else:
        for row in _rows(found["ended"]):
            verb = "held" if row.get("rule") == "hold" else f"blocked by {shown(row.get('rule'))}"
            print(f"{shown(row.get('thing'))} is no longer {verb} ({shown(row.get('id'))})")
    _doubts(found)
    return 0


def _rows(value: Any) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _blocked(client: AdminClient, arguments: argparse.Namespace) -> int:
    query = {"thing": arguments.thing, "rule": arguments.rule, "limit": arguments.limit}
    found = _object(client, client.get(_PATH, query), "blocks")
    rows = _rows(found["blocks"])
    if arguments.json:
        printJSON(found)
    elif rows:
        now = time.time()
        print(table(_COLUMNS, _cells(rows, now), terminalWidth()))
        more = found.get("total", 0) - len(rows)
        if more > 0:
            print(f"and {more} more; --limit shows up to 1000", file=sys.stderr)
    else:
        print("nothing is blocked" if arguments.thing is None and arguments.rule is None else "no block matches")
    isDoubtful = _doubts(found)
    if rows:
        return 0
    return REFUSED if isDoubtful else NOTHING_MATCHED


def _cells(rows: Sequence[Mapping[str, Any]], now: float) -> Iterator[Sequence[Any]]:
    for row in rows:
        yield (
            row.get("id"),
            row.get("thing"),
            row.get("rule"),
            local(row.get("since"), now),
            left(row.get("until"), now),
            row.get("reason"),
        )


_THINGS = (
    "THING is a user name; an address, such as 192.0.2.7; a network, such as 198.51.100.0/24; or 'USER ADDRESS', the"
    " logins of a user from one address."
)


def addBlocks(commands: Any) -> None:
    """
    Add the commands.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    _addBlock(commands)
    _addUnblock(commands)
    _addBlocked(commands)
    _addHold(commands)
    _addRelease(commands)


def _addMaking(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "--for", metavar="TIME", type=duration, required=True, help=f"how long, such as {example}; required"
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the list of blocks and for the log of the gateway")


def _addBlock(commands: Any) -> None:
    parser = addCommand(
        commands,
        "block",
        "keep a user, an address or a network from logging in",
        f"Block THING for a time. {_THINGS} Clients from a blocked address or network cannot connect. Logins of a"
        " blocked user are refused without a question to the authentication service; clients hear that they may try"
        " again later, never that a password is wrong. Sessions that are logged in go on: mailgate kick --block ends"
        " them, too. A block survives a reload and an upgrade, and with state_file a restart.",
        _block,
        {NOTHING_MATCHED: ""},
        "THING --for TIME",
    )
    parser.add_argument("thing", metavar="THING", help="what to block")
    _addMaking(parser, "30m or 2h")


def _addUnblock(commands: Any) -> None:
    parser = addCommand(
        commands,
        "unblock",
        "end blocks, those of an operator and those after failed logins",
        "End all blocks of THING, and forget its failed logins, so that no rule acts on it at once."
        f" {_THINGS} Or it is the id of a block, as mailgate blocked prints it. A user whose passwords are guessed from"
        " many networks can log in from a new network after this.",
        _unblock,
        {NOTHING_MATCHED: "nothing was blocked; failed logins were forgotten all the same"},
        "THING",
    )
    parser.add_argument("thing", metavar="THING", help="what to unblock, or the id of a block")


def _addBlocked(commands: Any) -> None:
    parser = addCommand(
        commands,
        "blocked",
        "list what is blocked, by which rule, and until when",
        "List the blocks and holds in force, the latest first. The rules block and hold are those of operators."
        " R2 blocks the logins of one user from one address, R4 an address for users that it has not logged in before,"
        " R7 a user from unknown networks; docs/limits.rst describes them. After a restart, what a rule has blocked is"
        " shown as a hash: its name is not stored.",
        _blocked,
        {NOTHING_MATCHED: "nothing is blocked, or no block matches"},
        "[THING]",
    )
    parser.add_argument("thing", metavar="THING", nargs="?", help="user, address or network; * and ? are wildcards")
    parser.add_argument("--rule", metavar="RULE", help="the blocks of one rule, such as R4")
    parser.add_argument("--limit", metavar="NUMBER", type=int, help="the most rows (default: 500; at most 1000)")


def _addHold(commands: Any) -> None:
    parser = addCommand(
        commands,
        "hold",
        "hold the logins of a user, as while a mailbox moves",
        "Hold the logins of USER for a time: they wait some seconds, and are then asked to try again later. Sessions"
        " that are logged in go on: mailgate kick USER --hold TIME ends them, too. mailgate release USER lets logins in"
        " again.",
        _hold,
        {NOTHING_MATCHED: ""},
        "USER --for TIME",
    )
    parser.add_argument("user", metavar="USER", help="the user name")
    _addMaking(parser, "10m, at most 1d")


def _addRelease(commands: Any) -> None:
    parser = addCommand(
        commands,
        "release",
        "let the logins of a held user in again",
        "End the holds of USER. Blocks stay: mailgate unblock ends them.",
        _release,
        {NOTHING_MATCHED: "the user is not held"},
        "USER",
    )
    parser.add_argument("user", metavar="USER", help="the user name")
