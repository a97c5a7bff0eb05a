# -*- test-case-name: mailgate.test.cli.test_sessions -*-
"""
C{mailgate sessions}: lists the sessions of a running gateway, or counts them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, duration, printJSON
from mailgate.cli.columns import Column, amount, plural, shown, table, terminalWidth, width
from mailgate.process.tables import duration as inWords
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED

__all__ = ["FILTERS", "Listing", "addFilters", "addSessions", "filterOf", "incomplete", "listed", "peerName"]

FILTERS = ("user", "address", "backend", "protocol", "server", "phase", "id", "older", "stuck")
"""The parameters that choose sessions, by the names of the admin server."""

_PAGE = 500
"""Sessions of one answer."""

_MOST = 100_000
"""Sessions that are listed without C{--limit}. A gateway can have more; the list would need too much memory."""

_MOST_GROUPS = 1000
"""Lines of C{--by}."""

_WAYS = ("user", "backend", "address", "protocol")

_COLUMNS = (
    Column("SESSION"),
    Column("PROTO"),
    Column("USER", isFlexible=True),
    Column("CLIENT", isFlexible=True),
    Column("BACKEND", isFlexible=True),
    Column("PHASE"),
    Column("SINCE"),
    Column("IDLE"),
    Column("IN", isNumber=True),
    Column("OUT", isNumber=True),
)


def addFilters(parser: argparse.ArgumentParser, *others: str) -> None:
    """
    Add the options that choose sessions.

    @param parser: the parser of the command.
    @param others: filters for which it has arguments of its own, or none.
    """
    for name, metavar, kind, help in (
        ("user", "MASK", str, "sessions of these users; * and ? are wildcards"),
        ("address", "ADDRESS", str, "sessions of clients at this address, or in this network"),
        ("backend", "ADDRESS", str, "sessions at this backend"),
        ("protocol", "NAME", str, "sessions of this protocol: imap, pop3, smtp or sieve"),
        ("server", "NAME", str, "sessions of this server section"),
        ("phase", "NAME", str, "sessions in this phase, such as relay"),
        ("id", "ID", str, "the session with this id"),
        ("older", "TIME", duration, "sessions that are older, such as 1h"),
        ("stuck", "TIME", duration, "logins that have been under way for longer, such as 5s"),
    ):
        if name not in others:
            how: dict[str, Any] = {"metavar": metavar, "type": kind, "help": help}
            parser.add_argument(f"--{name}", dest=f"only_{name}", **how)


def filterOf(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    Return the filters of a command line, by the names of the admin server.

    @param arguments: the parsed command line.
    """
    found = {name: getattr(arguments, f"only_{name}", None) for name in FILTERS}
    return {name: value for name, value in found.items() if value is not None}


class Listing:
    """
    A list of sessions, of all its pages.

    @ivar sessions: the sessions, as the admin server lists them.
    @ivar gateways: C{name}, C{age} and C{complete} of each gateway, the least complete of all pages.
    @ivar isCut: whether there are more sessions.
    """

    def __init__(self) -> None:
        self.sessions: list[Mapping[str, Any]] = []
        self.gateways: dict[str, Mapping[str, Any]] = {}
        self.isCut = False

    def add(self, gateways: Sequence[Any]) -> None:
        """
        Take the gateways of a page.

        @param gateways: C{gateways} of the answer.
        """
        for gateway in gateways:
            if isinstance(gateway, dict):
                known = self.gateways.get(str(gateway.get("name")))
                if known is None or known.get("complete"):
                    self.gateways[str(gateway.get("name"))] = gateway

    @property
    def isComplete(self) -> bool:
        """Whether every process has answered."""
        return all(gateway.get("complete") for gateway in self.gateways.values())


def _page(client: AdminClient, query: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], Any, Sequence[Any]]:
    found = client.get("/api/1/sessions", query)
    sessions = found.get("sessions") if isinstance(found, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return sessions, found.get("next"), found.get("gateways") or []


def listed(client: AdminClient, filters: Mapping[str, Any], most: int | None = None) -> Listing:
    """
    Ask for all pages of a list of sessions.

    @param client: asks the admin server.
    @param filters: what chooses the sessions.
    @param most: the most sessions; L{None} for a bound that few gateways reach.
    """
    listing, cursor = Listing(), None
    left = _MOST if most is None else most
    while True:
        query = {**filters, "limit": min(left, _PAGE), "cursor": cursor}
        sessions, cursor, gateways = _page(client, query)
        listing.sessions += sessions[:left]
        listing.add(gateways)
        left -= len(sessions)
        listing.isCut = cursor is not None
        if cursor is None or not isinstance(cursor, str) or left <= 0:
            return listing


def peerName(session: Mapping[str, Any]) -> str | None:
    """
    Return the client of a session, such as C{192.0.2.7:56416}.

    @param session: the session or story, as the admin server has it.
    """
    client = session.get("client")
    if not isinstance(client, dict):
        return None
    address, port = client.get("address"), client.get("port")
    host = f"[{address}]" if ":" in str(address) and not str(address).startswith("unix:") else address
    return f"{host}:{port}" if port else str(host)


def _cells(session: Mapping[str, Any], hasPorts: bool) -> Iterator[Any]:
    yield session.get("id")
    yield session.get("protocol")
    yield session.get("user")
    yield peerName(session) if hasPorts else _address(session)
    yield session.get("backend")
    yield session.get("phase")
    yield inWords(session.get("age"))
    yield inWords(session.get("idle"))
    isRelayed = session.get("phase") == "relay"
    yield amount(session.get("received") if isRelayed else None)
    yield amount(session.get("sent") if isRelayed else None)


def _summary(listing: Listing) -> str:
    """Such as C{2 sessions of 1 user at 1 gateway}."""
    users = {session["user"] for session in listing.sessions if session.get("user")}
    count = f"{'the first ' if listing.isCut else ''}{plural(len(listing.sessions), 'session')}"
    return f"{count} of {plural(len(users), 'user')} at {plural(max(1, len(listing.gateways)), 'gateway')}"


def _address(session: Mapping[str, Any]) -> Any:
    client = session.get("client")
    return client.get("address") if isinstance(client, dict) else None


def _table(sessions: Sequence[Mapping[str, Any]]) -> str:
    """The table of sessions. The ports of clients are the first that a narrow terminal does without."""
    most = terminalWidth()
    text = table(_COLUMNS, [tuple(_cells(session, True)) for session in sessions], None)
    if most is None or all(width(line) <= most for line in text.split("\n")):
        return text
    return table(_COLUMNS, [tuple(_cells(session, False)) for session in sessions], most)


def _count(client: AdminClient, filters: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    """Print how many sessions each user, backend, address or protocol has."""
    way = arguments.by
    limit = _MOST_GROUPS if arguments.limit is None else min(arguments.limit, _MOST_GROUPS)
    found = client.get("/api/1/sessions", {**filters, "by": way, "limit": limit})
    counts = found.get("counts") if isinstance(found, dict) else None
    if not isinstance(counts, list) or not all(isinstance(row, dict) for row in counts):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    listing = Listing()
    listing.add(found.get("gateways") or [])
    sessions, groups = found.get("sessions") or 0, found.get("groups") or 0
    if arguments.json:
        printJSON(found)
    else:
        columns = (Column(way.upper(), isFlexible=True), Column("SESSIONS", isNumber=True))
        if counts:
            print(table(columns, [(row.get(way), row.get("sessions")) for row in counts], terminalWidth()))
        left = groups - sum(row.get(way) is not None for row in counts)
        if left > 0:
            print(f"and {left} more")
        of = f" of {plural(groups, 'user')}" if way == "user" else ""
        print(f"{plural(sessions, 'session')}{of} at {plural(max(1, len(listing.gateways)), 'gateway')}")
    return _status(listing, filters, sessions)


def _status(listing: Listing, filters: Mapping[str, Any], sessions: int) -> int:
    """Say which gateways have not answered completely; return the exit status."""
    incomplete(listing)
    if not listing.isComplete:
        return REFUSED
    return NOTHING_MATCHED if filters and not sessions else 0


def incomplete(listing: Listing) -> None:
    """
    Say on standard error which gateways have not answered completely.

    @param listing: the list.
    """
    for name, gateway in listing.gateways.items():
        if not gateway.get("complete"):
            where = f"gateway {shown(name)}: " if name else ""
            for reason in dict.fromkeys(gateway.get("missing") or ["a process has not answered in time"]):
                print(f"{where}{shown(reason)}; sessions may be missing", file=sys.stderr)


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    filters = filterOf(arguments)
    if arguments.by:
        return _count(client, filters, arguments)
    listing = listed(client, filters, arguments.limit)
    if arguments.json:
        gateways = list(listing.gateways.values())
        printJSON({"sessions": listing.sessions, "complete": not listing.isCut, "gateways": gateways})
    else:
        if listing.sessions:
            print(_table(listing.sessions))
        print(_summary(listing))
    return _status(listing, filters, len(listing.sessions))


def _limit(value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_MOST}")
    return int(value)


def addSessions(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "sessions",
        "list sessions, or count them",
        "List the sessions of the running gateway that match all given filters, those of draining processes included."
        " A session is a connection of a client, before or after its login. SINCE is how long it has lasted, IDLE how"
        " long no byte was relayed, IN what the client has sent and OUT what it has received.",
        _run,
        {NOTHING_MATCHED: "no session matches the filters"},
    )
    addFilters(parser)
    parser.add_argument("--by", choices=_WAYS, help="print how many sessions each has")
    parser.add_argument(
        "--limit", type=_limit, metavar="N", help=f"the most lines (default: {_MOST}; --by: {_MOST_GROUPS})"
    )
