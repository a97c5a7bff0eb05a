# -*- test-case-name: bench.test.test_bytecodes -*-
"""
C{python -m bench.bytecodes}: the bytecodes that a gateway executes for a login, over real sockets.

On a busy machine some microseconds cannot be seen in CPU time. The number of bytecodes is nearly the same in each run,
whatever else the machine does. It is no measure of time, but a good one of what a change of Python code costs. The
kernel's work and that of functions in C are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from attrs import define, evolve, field, frozen

from bench.dialogues import DIALOGUES, Dialogue, serving, visit
from bench.limits import OFF, ON
from bench.load import Connection, Script, login, logout, ping, run
from bench.measuring import Meter, Sessions, started
from bench.options import REPOSITORY, tracing
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.program import conclude, machine, openSite, publish, revision, say
from bench.proxies import MailgateProxy, Site, Variant
from bench.report import number, simpleTable
from bench.traced import SIGNAL

__all__ = ["KINDS", "Counts", "Kind", "TracedMailgate", "added", "addresses", "main", "table"]

_PATIENCE = 60.0
_PAUSE = 0.05
_SESSIONS = 8
"""The sessions in which messages are sent at a time."""


@frozen
class Kind:
    """
    A kind of login, or of message.

    @ivar process: lines of C{[mailgate]}.
    @ivar more: lines of C{[mail]}.
    @ivar isTLS: whether clients use TLS, with full handshakes.
    @ivar asksAuth: as in L{Variant}.
    @ivar since: the kind that it is compared with.
    """

    title: str
    process: Sequence[str] = ("admin = off",)
    more: Sequence[str] = OFF
    isTLS: bool = False
    asksAuth: bool = True
    since: str = ""

    def way(self, folder: str) -> Variant:
        """
        How to run mailgate.

        @param folder: where its sockets may be.
        """
        process = "\n".join(line.format(folder=folder) for line in self.process)
        return Variant(process=process, more="\n".join(self.more), asksAuth=self.asksAuth)

    @contextmanager
    def work(self, meter: Meter) -> Iterator[Callable[[int], object]]:
        """What does so many logins, or messages there and back."""
        yield lambda count: meter.logins(count, self.isTLS)


@frozen
class _New(Kind):
    """Each login is of another user at another address."""

    @contextmanager
    def work(self, meter: Meter) -> Iterator[Callable[[int], object]]:
        """See L{Kind.work}."""
        sources = addresses()
        yield lambda count: run(_newcomers(meter, count, sources), meter.concurrency)


@frozen
class _Pings(Kind):
    """A message there and back is counted, rather than a login."""

    @contextmanager
    def work(self, meter: Meter) -> Iterator[Callable[[int], object]]:
        """See L{Kind.work}."""
        sessions = Sessions(meter, self.isTLS)
        sessions.grow(_SESSIONS)
        yield lambda count: sessions.all(lambda one: ping(one, count // _SESSIONS))
        sessions.close()


@frozen
class _Other(Kind):
    """
    A login by another protocol than IMAP, which the backend judges.

    @ivar protocol: its name.
    """

    protocol: str = "pop3"

    def way(self, folder: str) -> Variant:
        """See L{Kind.way}."""
        return evolve(super().way(folder), protocol=self.protocol, judge=f"proxy_pass = unix:{folder}/{self.protocol}")

    @contextmanager
    def work(self, meter: Meter) -> Iterator[Callable[[int], object]]:
        """See L{Kind.work}."""
        dialogue = DIALOGUES[self.protocol]
        with serving(dialogue, os.path.join(os.path.dirname(meter.running.folder), self.protocol)):
            yield lambda count: run(_visits(meter, count, dialogue), meter.concurrency)


_ADMIN = ("admin = unix:{folder}/admin",)

KINDS = {
    "asked": Kind("asked, limits and admin side off"),
    "cached": Kind("cached", more=(*OFF, "auth_cache_ttl = 1h", "auth_cache_size = 10m"), asksAuth=False),
    "tls": Kind("TLS, full handshake, asked", isTLS=True),
    "limits": Kind("asked, limits on", more=ON, since="asked"),
    "admin": Kind("asked, admin side on", process=_ADMIN, since="asked"),
    "all": Kind("asked, both on", process=_ADMIN, more=ON, since="limits"),
    "new": _New("new users, limits and admin side off"),
    "new-limits": _New("new users, limits on", more=ON, since="new"),
    "ping": _Pings("100 bytes there and back"),
    "ping-tls": _Pings("100 bytes there and back, TLS", isTLS=True),
    "pop3": _Other(
        "POP3, limits and admin side off", more=(*OFF, "pop3_capabilities = UIDL"), asksAuth=False, protocol="pop3"
    ),
    "smtp": _Other(
        "SMTP, limits and admin side off",
        more=(*OFF, "proxy_smtp_auth = on", "smtp_capabilities = 8BITMIME"),
        asksAuth=False,
        protocol="smtp",
    ),
}


class TracedMailgate(MailgateProxy):
    """
    mailgate, whose bytecodes can be counted.

    @ivar path: the file in which the counts will be.
    """

    def __init__(self, source: str, way: Variant, path: str) -> None:
        """
        @param source: its source tree.
        @param way: how to run it.
        @param path: see L{path}.
        """
        super().__init__(source, way=way)
        self.path = path

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        """See L{MailgateProxy.commands}."""
        ((python, _, _, *arguments),) = super().commands(folder, site, plain, tls)
        return [[python, os.path.join(REPOSITORY, "bench", "traced.py"), self.path, *arguments]]


@define
class Counts:
    """
    What a login of one kind takes.

    @ivar functions: bytecodes and calls by function.
    """

    functions: dict[str, tuple[float, float]] = field(factory=dict)

    @property
    def bytecodes(self) -> float:
        return sum(bytecodes for bytecodes, _ in self.functions.values())

    @property
    def calls(self) -> float:
        return sum(calls for _, calls in self.functions.values())


def addresses() -> Iterator[str]:
    """Addresses of this machine that differ in their first 24 bits."""
    for place in range(1, 1 << 16):
        yield f"127.{place >> 8}.{place & 255}.1"


def _newcomers(meter: Meter, count: int, sources: Iterator[str]) -> Iterator[tuple[Connection, Script[None]]]:
    def visit(connection: Connection, source: str) -> Script[None]:
        yield from login(connection, f"u{source}")
        yield from logout(connection)

    for source in islice(sources, count):
        connection = meter.connection(tls=False, source=source)
        yield connection, visit(connection, source)


def _visits(meter: Meter, count: int, dialogue: Dialogue) -> Iterator[tuple[Connection, Script[None]]]:
    for _ in range(count):
        connection = meter.connection(tls=False)
        yield connection, visit(connection, dialogue)


@contextmanager
def _counting(meter: Meter, path: str) -> Iterator[list[tuple[str, int, int]]]:
    """Count during the block; the rows are in the list afterwards."""
    rows: list[tuple[str, int, int]] = []
    (pid,) = meter.running.pids
    meter.settle()
    os.kill(pid, SIGNAL)
    yield rows
    meter.settle()
    os.kill(pid, SIGNAL)
    deadline = time.monotonic() + _PATIENCE
    while not os.path.exists(path):
        meter.running.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{meter.name} has written no counts in {_PATIENCE:.0f} seconds")
        time.sleep(_PAUSE)
    with open(path, encoding="utf-8") as stream:
        rows += json.load(stream)


def _proxy(source: str, kind: Kind, site: Site) -> TracedMailgate:
    path = os.path.join(site.folder, f"counts-{time.monotonic_ns()}")
    # Trees older than limits and admin side do not know how to switch them off.
    old = evolve(kind, process=(), more=kind.more[len(OFF) :])
    for each in (kind, old) if kind.more[: len(OFF)] == OFF and kind.process == ("admin = off",) else (kind,):
        proxy = TracedMailgate(source, each.way(site.folder), path)
        reason = proxy.find()
        if not reason:
            return proxy
    raise BenchmarkError(f"{source}: {reason}")


def _count(source: str, kind: Kind, site: Site, children: Children, logins: int) -> Counts:
    proxy = _proxy(source, kind, site)
    with started([proxy], site, children) as (meter,), kind.work(meter) as work:
        # Connections to the service are open, caches are full, and all code has run.
        work(max(100, logins // 2))
        with _counting(meter, proxy.path) as rows:
            work(logins)
    return Counts({name: (bytecodes / logins, calls / logins) for name, bytecodes, calls in rows})


def table(name: str, counts: dict[str, Counts]) -> str:
    """
    Return the rows of a tree.

    @param name: the name of the tree.
    @param counts: what was counted, by kind.
    """
    rows: list[tuple[str, ...]] = [(f"A login in {name}", "bytecodes", "calls", "more bytecodes", "more calls")]
    for kind, found in counts.items():
        since = counts.get(KINDS[kind].since)
        more = (None, None) if since is None else (found.bytecodes - since.bytecodes, found.calls - since.calls)
        figures = (found.bytecodes, found.calls, *more)
        rows.append((KINDS[kind].title, *map(number, figures)))
    return simpleTable(rows)


def added(counts: Counts, since: Counts | None, most: int) -> str:
    """
    Return the functions that execute most.

    @param counts: of one kind.
    @param since: of the kind that it is compared with; L{None} for none.
    @param most: the number of functions.
    """
    before = {} if since is None else since.functions
    rows = []
    for name, (bytecodes, calls) in counts.functions.items():
        bytecodesBefore, callsBefore = before.get(name, (0.0, 0.0))
        rows.append((bytecodes - bytecodesBefore, calls - callsBefore, name))
    rows.sort(reverse=True)
    shown = [(name, f"{bytecodes:.1f}", f"{calls:.2f}") for bytecodes, calls, name in rows[:most]]
    return simpleTable([("function", "bytecodes", "calls"), *shown])


def _functions(counts: dict[str, Counts], most: int) -> Iterator[str]:
    for name, found in counts.items() if most else ():
        since = counts.get(KINDS[name].since)
        yield f"{KINDS[name].title}{', more' if since else ''}:\n\n{added(found, since, most)}"


def _report(arguments: argparse.Namespace) -> str:
    facts, tables = [*machine(), ("logins", f"{arguments.logins} counted of each kind")], []
    for source in filter(None, (arguments.before, arguments.mailgate)):
        counts: dict[str, Counts] = {}
        facts.append(("mailgate", f"{source}, revision {revision(source)}"))
        with openSite(raiseOpenFiles()) as (site, children):
            for name in arguments.only:
                try:
                    counts[name] = _count(source, KINDS[name], site, children, arguments.logins)
                except BenchmarkError as error:
                    if source != arguments.before:
                        raise
                    # It is older than the option.
                    say(str(error))
                    continue
                say(f"{source}, {KINDS[name].title}: {counts[name].bytecodes:.0f} bytecodes")
        tables.append(table(os.path.basename(source), counts))
        if source == arguments.mailgate:
            tables += _functions(counts, arguments.functions)
    return "\n\n".join(["\n".join(f":{name}: {text}" for name, text in facts), *tables])


def main() -> int:
    """Count, print and write; return the exit status."""
    arguments = tracing().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
