# -*- test-case-name: bench.test.test_guessing -*-
"""
C{python -m bench.guessing}: the effect on the owners of accounts while passwords are guessed.

A gateway with auth_file runs. Many connections from one address guess as fast as they get replies. An owner at another
address logs in once a second with the right password. An older session sends NOOPs, which show whether the gateway
still relays. With C{--rates} only the guesses are counted.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

from attrs import define, field

from bench.accountfile import PASSWORD, WATCHER, ownerName, writeAccounts
from bench.attackers import Counts, attack
from bench.measuring import Meter, percentile, started
from bench.options import ATTACKED, RATED, guessing
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.procfs import cpu
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import MailgateProxy, Site, Variant
from bench.report import number, simpleTable

__all__ = ["GOAL", "Watcher", "logIn", "main", "meanwhile", "ownerCells", "percent"]

GOAL = 1.5
"""The highest allowed median of the time of an owner's login, in seconds."""

_ATTACKERS = "127.0.0.2"
_OWNER = "127.0.0.3"
_OTHERS = "127.0.0.4"
_PATIENCE = 60
"""Seconds without a reply after which an owner gives up."""

_RAMP = 3
"""Seconds of attack before anything counts."""

_PAUSE = 0.01
"""Seconds between two NOOPs."""

_PIPELINED = 900
"""Guesses that one connection sends at once, when guesses are counted."""

_MANY = 300
"""Connections that guess one after the other, when guesses are counted."""


def percent(figures: Sequence[float], part: int) -> float | None:
    """The figure that C{part} percent of C{figures} do not exceed; L{None} without figures."""
    return percentile(figures, part) if len(figures) > 1 else figures[0] if figures else None


@contextmanager
def logIn(address: tuple[str, int], source: str, name: str) -> Iterator[socket.socket]:
    """
    Log in with the right password, from the address C{source}.

    @raise OSError: it is refused, or there is no reply for a minute.
    """
    with socket.create_connection(address, _PATIENCE, (source, 0)) as connection:
        _await(connection, b"* OK")
        connection.sendall(f"a1 LOGIN {name} {PASSWORD}\r\n".encode("ascii"))
        _await(connection, b"a1 OK")
        yield connection


def _await(connection: socket.socket, start: bytes) -> None:
    """Read lines up to one that is not untagged, or begins with C{start}, as expected."""
    heard = b""
    while not (heard.endswith(b"\r\n") and (heard.startswith(start) or b"\r\n" + start in heard)):
        data = connection.recv(4096)
        if not data or (heard + data).startswith((b"a1 NO", b"a1 BAD", b"* BYE")):
            raise ConnectionAbortedError(f"{start!r} was awaited, and {heard + data!r} was heard")
        heard += data


class Watcher:
    """A session that sends some hundred NOOPs per second while the C{with} block runs."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self.figures: list[float] = []
        """Milliseconds of each round trip."""
        self.trouble = ""
        """The error that has ended the session too early."""

    def __enter__(self) -> Watcher:
        self._thread.start()
        self._ready.wait(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """
        Check that the session is alive.

        @raise BenchmarkError: it has ended.
        """
        if self.trouble:
            raise BenchmarkError(f"the session that was logged in has ended: {self.trouble}")

    def _run(self) -> None:
        try:
            with logIn(self._address, _OTHERS, WATCHER) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ready.set()
                while not self._ended.wait(_PAUSE):
                    began = time.perf_counter()
                    connection.sendall(b"a2 NOOP\r\n")
                    _await(connection, b"a2 OK")
                    self.figures.append((time.perf_counter() - began) * 1000)
        except OSError as error:
            self.trouble = str(error)
            self._ready.set()


_MEANWHILE = ("judged/s", "turned away/s", "closed", "guesses each", "most", "CPU")


def meanwhile(seconds: float, taken: float, before: Counts, after: Counts) -> tuple[str, ...]:
    """
    The cells of the table below L{_MEANWHILE}, of guesses in C{seconds} during which the gateway used C{taken} seconds
    of CPU. Closed connections count from the beginning of the attack.
    """
    each = after.endedAnswers / after.ended if after.ended else None
    return (
        f"{(after.judged - before.judged) / seconds:,.1f}",
        f"{(after.turnedAway - before.turnedAway) / seconds:,.1f}",
        f"{after.ended:,}",
        "-" if each is None else f"{each:,.1f}",
        f"{after.most:,}",
        f"{taken / seconds:.0%}",
    )


@define
class _Attacked:
    """A gateway under attack. C{cells} are those of L{meanwhile}, after L{window} has ended."""

    meter: Meter
    connections: int
    pipelined: int
    children: Children
    cells: tuple[str, ...] = ()

    @contextmanager
    def window(self) -> Iterator[None]:
        """Attack, wait for a while, and then count until the block ends."""
        pids = self.meter.running.pids
        with attack(self.children, self.meter.running.plain, _ATTACKERS, self.connections, self.pipelined) as attackers:
            time.sleep(_RAMP)
            before, taken, began = attackers.counts(), cpu(pids), time.perf_counter()
            yield
            seconds = time.perf_counter() - began
            self.cells = meanwhile(seconds, cpu(pids) - taken, before, attackers.counts())
        self.meter.running.check()


def _login(address: tuple[str, int], name: str) -> float | None:
    """Seconds of a login; L{None} if it failed."""
    began = time.perf_counter()
    try:
        with logIn(address, _OWNER, name):
            return time.perf_counter() - began
    except OSError:
        return None


def _eachSecond(address: tuple[str, int], names: Sequence[str]) -> list[float | None]:
    """Log in with each of C{names} at intervals of a second, whether or not there are replies."""
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        logins = []
        for name in names:
            logins.append(pool.submit(_login, address, name))
            time.sleep(1)
        return [login.result() for login in logins]


def ownerCells(logins: Sequence[float | None]) -> tuple[str, ...]:
    """The cells of a table about one or more logins of an owner, in seconds, or L{None} for failed ones."""
    taken = [seconds for seconds in logins if seconds is not None]
    middle = median(taken) if taken else None
    figures = (middle, percent(taken, 95), max(taken, default=None))
    # A failed login counts as the longest.
    inTime = len(taken) * 2 > len(logins) and sorted(taken)[len(logins) // 2] < GOAL
    return (str(len(logins)), str(len(logins) - len(taken)), *map(number, figures), "yes" if inTime else "no")


@define
class _Bench:
    """One run."""

    site: Site
    children: Children
    arguments: argparse.Namespace
    owners: list[tuple[str, ...]] = field(factory=list)
    others: list[tuple[str, ...]] = field(factory=list)

    @contextmanager
    def _gateway(self, scheme: str, owners: int) -> Iterator[Meter]:
        accounts = writeAccounts(self.site.folder, scheme, owners)
        judge = f"auth_file = {accounts}\nproxy_pass = 127.0.0.1:{{backendPort}}"
        way = Variant(judge=judge).withLines(self.arguments.process, self.arguments.more)
        proxy = MailgateProxy(self.arguments.mailgate, scheme, way)
        reason = proxy.find()
        if reason:
            raise BenchmarkError(reason)
        with started([proxy], self.site, self.children) as (meter,):
            yield meter

    def waits(self, scheme: str, connections: int) -> None:
        """
        Measure how long owners wait while C{connections} guess.

        @raise BenchmarkError: it failed.
        """
        names = [ownerName(place) for place in range(self.arguments.owners)]
        with self._gateway(scheme, len(names)) as meter, Watcher(meter.running.plain) as watcher:
            watcher.check()
            attacked = _Attacked(meter, connections, 1, self.children)
            with attacked.window():
                begin = len(watcher.figures)
                first = _eachSecond(meter.running.plain, names)
                again = _eachSecond(meter.running.plain, names * self.arguments.again)
                figures = watcher.figures[begin:]
            watcher.check()
        title = (scheme, str(connections))
        for which, logins in (("first", first), ("again", again)):
            if logins:
                self._note(self.owners, (*title, which, *ownerCells(logins)))
        trips = [number(percent(figures, part)) for part in (50, 95)]
        self._note(self.others, (*title, *attacked.cells, *trips))

    def rates(self, scheme: str, connections: int, pipelined: int) -> None:
        """
        Count the guesses of C{connections} that get replies.

        @raise BenchmarkError: it failed.
        """
        with self._gateway(scheme, 1) as meter:
            attacked = _Attacked(meter, connections, pipelined, self.children)
            with attacked.window():
                time.sleep(self.arguments.seconds)
        self._note(self.others, (scheme, f"{connections} x {pipelined}", *attacked.cells))

    def _note(self, rows: list[tuple[str, ...]], row: tuple[str, ...]) -> None:
        rows.append(row)
        say("  ".join(row))

    def tables(self) -> str:
        """All results."""
        if self.arguments.rates:
            return simpleTable([("Guesses", "connections", *_MEANWHILE), *self.others]) + "\n"
        head = ("Owner's login (s)", "attackers", "", "logins", "refused", "median", "95 %", "most", f"under {GOAL:g}")
        second = ("Meanwhile", "attackers", *_MEANWHILE, "NOOP (ms)", "95 %")
        return f"{simpleTable([head, *self.owners])}\n\n{simpleTable([second, *self.others])}\n"


_EXPLANATION = """\
All attackers come from one address, guess as fast as they are answered, and connect again as soon as they are
disconnected. *judged* guesses were answered as wrong, others were *turned away* with a temporary failure. *closed*: how
many connections the gateway has closed since the attack began, *guesses each*: how many were answered on these, on
average, and *most* on any connection. CPU is that of the gateway, of one processor."""

_OWNERS = """\
The owner logs in once a second from another address: *first* with an account that the gateway has not seen since its
start, *again* with one that has logged in before. *under 1.5*: whether half of all logins succeeded in less time; a
refused login counts as slower than all others. NOOP: the round trip on a session that was logged in before."""


def _facts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    yield from machine()
    proxy = MailgateProxy(arguments.mailgate)
    yield "mailgate", f"{proxy.location()}, revision {revision(arguments.mailgate)}; {proxy.version()}"
    if arguments.more or arguments.process:
        yield "set", "; ".join([*arguments.process, *arguments.more])
    yield "load", f"{os.getloadavg()[0]:.1f} at the start"


def _report(arguments: argparse.Namespace) -> str:
    facts = "\n".join(f":{name}: {text}" for name, text in _facts(arguments))
    with openSite(raiseOpenFiles()) as (site, children):
        bench = _Bench(site, children, arguments)
        for scheme in arguments.schemes:
            if arguments.rates:
                bench.rates(scheme, 1, _PIPELINED)
                bench.rates(scheme, _MANY, 1)
                continue
            for connections in arguments.attackers:
                bench.waits(scheme, connections)
    explained = _EXPLANATION if arguments.rates else f"{_EXPLANATION}\n{_OWNERS}"
    return "\n\n".join([facts, explained, bench.tables()])


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = guessing().parse_args()
    if arguments.schemes is None:
        arguments.schemes = list(RATED if arguments.rates else ATTACKED)
    return conclude(lambda: print(_report(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
