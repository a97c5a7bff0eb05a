# -*- test-case-name: mailgate.test.cli.top.test_actions -*-
"""
Orders to the gateway. Each one has a trial, which changes nothing and says how many sessions the order would affect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from mailgate.cli.columns import plural
from mailgate.cli.figures import isNumber
from mailgate.cli.sessions import peerName
from mailgate.cli.top.text import Marks, clean, steady
from mailgate.cli.top.values import Row, mapping, number, rows, text
from mailgate.keeper.filters import exactly

__all__ = ["Action", "Question", "drain", "kickSession", "kickUser", "resume", "unblock"]

_KICK = "/api/1/kick"
_REASON = "mailgate top"
_NO_GROUP = "-"
"""The group of backends that are no servers of a group. They take no orders."""


@frozen
class Question:
    """
    A request to the admin server.

    @ivar purpose: what the answer is for. No two questions of a purpose are under way at a time.
    @ivar path: its path.
    @ivar query: its parameters.
    @ivar body: its JSON object; L{None}: it is a GET.
    @ivar isEnd: whether it is a DELETE.
    """

    purpose: str
    path: str
    query: Row = field(factory=dict)
    body: Row | None = None
    isEnd: bool = False


@frozen
class Action:
    """
    An order, which needs a confirmation.

    @ivar name: the order in a few words, such as C{drain 10.0.0.1:143}.
    @ivar level: the level that it needs.
    @ivar trial: the question whose answer says how many sessions it would affect.
    @ivar order: the order itself.
    @ivar judge: makes of the answer to the trial whether the order makes sense, and a text: what it would do, or why it
        makes no sense.
    @ivar report: makes of the answer to the order what it has done.
    """

    name: str
    level: str
    trial: Question
    order: Question
    judge: Callable[[Any], tuple[bool, str]]
    report: Callable[[Any], str]


def _ended(answer: Any) -> int:
    found = mapping(answer).get("ended")
    return found if type(found) is int and isNumber(found) else 0


def _unanswered(answer: Any) -> str:
    return "; not all processes have answered" if mapping(answer).get("unanswered") else ""


def _kicked(answer: Any) -> str:
    forgotten = mapping(answer).get("forgotten")
    count = forgotten if type(forgotten) is int and isNumber(forgotten) else 0
    return f"{plural(_ended(answer), 'session')} ended; {plural(count, 'cached answer')} forgotten{_unanswered(answer)}"


def _kick(name: str, body: Row, what: str) -> Action:
    def judge(answer: Any) -> tuple[bool, str]:
        count = _ended(answer)
        if not count:
            return False, f"{name}: no such session is there any more{_unanswered(answer)}"
        return True, (
            f"End {plural(count, 'session')} {what}{_unanswered(answer)}? Cached answers of the authentication service"
            " for the user are forgotten. The client can log in again."
        )

    order = {**body, "reason": _REASON}
    trial = Question("trial", _KICK, body={**body, "dry_run": True})
    return Action(name, "operate", trial, Question("order", _KICK, body=order), judge, _kicked)


def kickSession(row: Row, marks: Marks) -> Action | None:
    """
    Return the order that ends one session; L{None} if the row is no session.

    @param row: the session.
    @param marks: what the terminal can show.
    """
    id = text(row.get("id"))
    if not id:
        return None
    words = [
        f"of {clean(row.get('user'), marks, 60)}" if row.get("user") else "without a login",
        f"({clean(row.get('protocol'), marks, 20)} from {clean(peerName(row), marks, 60)}",
        f"at {clean(row.get('backend'), marks, 60)})" if row.get("backend") else "at no backend)",
    ]
    return _kick(f"kick {clean(id, marks, 60)}", {"id": id}, " ".join(words))


def kickUser(row: Row, marks: Marks) -> Action | None:
    """
    Return the order that ends all sessions of the user of a row; L{None} if it has none.

    @param row: the session, login or failure.
    @param marks: what the terminal can show.
    """
    user = text(row.get("user"))
    if not user:
        return None
    name = clean(user, marks, 60)
    return _kick(f"kick {name}", {"user": exactly(user)}, f"of {name}, all that this user has")


def _ofAddress(answer: Any, address: str) -> list[Row]:
    every = rows(mapping(answer).get("backends"))
    return [row for row in every if row.get("address") == address and row.get("group") != _NO_GROUP]


def _sessions(found: list[Row]) -> int:
    return int(sum(number(row.get("sessions")) or 0 for row in found))


def _others(answer: Any, found: list[Row]) -> str:
    """Say which groups have no other server for new logins."""
    groups = dict.fromkeys(text(row.get("group")) for row in found)
    up = {
        text(row.get("group"))
        for row in rows(mapping(answer).get("backends"))
        if row.get("state") == "up" and row not in found
    }
    alone = [group for group in groups if group not in up]
    if not alone:
        return "New logins go to the other servers of its group."
    return "Attention: no other server of its group is up, so new logins fail."


def _outcome(answer: Any, address: str, name: str) -> str:
    found = _ofAddress(answer, address)
    states = ", ".join(dict.fromkeys(text(row.get("state"))[:20] for row in found))
    return f"{name}: state {states or '-'}, {plural(_sessions(found), 'session')}"


def _order(word: str, row: Row, marks: Marks, consequence: Callable[[Any, list[Row]], str]) -> Action | None:
    address = text(row.get("address"))
    if not address:
        return None
    name = f"{word} {clean(address, marks, 60)}"

    def judge(answer: Any) -> tuple[bool, str]:
        found = _ofAddress(answer, address)
        if not found:
            return False, f"{name}: no group has a server with this address; other backends take no orders"
        states = ", ".join(dict.fromkeys(clean(each.get("state"), marks, 20) for each in found))
        servers = "" if len(found) == 1 else f", {len(found)} servers"
        return True, f"{name[:1].upper()}{name[1:]} (now {states}{servers})? {consequence(answer, found)}"

    return Action(
        name,
        "admin",
        Question("trial", "/api/1/backends"),
        Question("order", f"/api/1/backends/{quote(address, safe='', errors='replace')}/{word}", body={}),
        judge,
        lambda answer: steady(_outcome(answer, address, name), marks),
    )


def drain(row: Row, marks: Marks) -> Action | None:
    """
    Return the order that sends no new sessions to the backend of a row; L{None} if the row is no backend.

    @param row: the backend.
    @param marks: what the terminal can show.
    """

    def consequence(answer: Any, found: list[Row]) -> str:
        stay = plural(_sessions(found), "session")
        return f"{stay} there {'stays' if _sessions(found) == 1 else 'stay'} until the clients leave. " + _others(
            answer, found
        )

    return _order("drain", row, marks, consequence)


def resume(row: Row, marks: Marks) -> Action | None:
    """
    Return the order that ends drain and down of the backend of a row; L{None} if the row is no backend.

    @param row: the backend.
    @param marks: what the terminal can show.
    """

    def consequence(answer: Any, found: list[Row]) -> str:
        return f"It gets new sessions again; {plural(_sessions(found), 'session')} there now."

    return _order("resume", row, marks, consequence)


def unblock(row: Row, marks: Marks) -> Action | None:
    """
    Return the order that ends the block of a row; L{None} if the row is no block.

    @param row: the block.
    @param marks: what the terminal can show.
    """
    id, thing = text(row.get("id")), text(row.get("thing"))
    if not id or not thing:
        return None
    name = f"unblock {clean(thing, marks, 60)}"

    def judge(answer: Any) -> tuple[bool, str]:
        if not any(each.get("id") == id for each in rows(mapping(answer).get("blocks"))):
            return False, f"{name}: this block has ended"
        rule = clean(row.get("rule"), marks, 20)
        return True, f"U{name[1:]} (rule {rule})? The failed logins are forgotten, so that no rule acts at once."

    def report(answer: Any) -> str:
        return f"{name}: {plural(len(rows(mapping(answer).get('ended'))), 'block')} ended"

    return Action(
        name,
        "operate",
        Question("trial", "/api/1/blocks", {"thing": exactly(thing)}),
        Question("order", f"/api/1/blocks/{quote(id, safe='', errors='replace')}", isEnd=True),
        judge,
        report,
    )
