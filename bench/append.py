# -*- test-case-name: bench.test.test_append -*-
"""
C{python -m bench.append}: the delay for a client that writes one command in two pieces.

Such a client (imaplib with the literal of APPEND and the line end after it, net/imap of Ruby with a tag and the rest)
does not send the second piece until the first is acknowledged. A server whose system delays the acknowledgement costs
it 40 ms each time. The same commands are sent to a backend directly and through mailgate, in turns. The backend is
Dovecot, or if that is not installed, the one of the benchmark, which has neither a disk nor TLS.
"""

from __future__ import annotations

import argparse
import imaplib
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from attrs import define, field, frozen

from bench.options import appending
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import SEARCH, MailgateProxy, Site, Variant
from bench.report import number, simpleTable

__all__ = ["GOAL", "KINDS", "MESSAGE", "Endpoint", "Row", "append", "main", "measure", "noop"]

GOAL = 2.0
"""Milliseconds that mailgate may add, in the median."""

MESSAGE = b"From: bench@example.com\r\nSubject: two writes\r\n\r\n" + b"Down the rabbit-hole.\r\n" * 60
"""About 1.4 kB; it ends with a line end like all messages."""

_PASSWORD = "wonderland"
_PATIENCE = 20


@frozen
class Endpoint:
    """
    One of the servers to measure.

    @ivar ports: its ports at 127.0.0.1, C{plain}, and C{tls} if there is one.
    @ivar user: the user to log in. Each server has a mailbox of its own, so that it does not wait for messages of the
        others.
    """

    name: str
    ports: Mapping[str, int]
    user: str

    @contextmanager
    def session(self, kind: str) -> Iterator[imaplib.IMAP4]:
        """
        A session that has logged in and selected a mailbox.

        @raise BenchmarkError: that fails.
        """
        context = ssl._create_unverified_context()
        made: Callable[[], imaplib.IMAP4] = {
            "plain": lambda: imaplib.IMAP4("127.0.0.1", self.ports["plain"], _PATIENCE),
            "tls": lambda: imaplib.IMAP4_SSL("127.0.0.1", self.ports["tls"], ssl_context=context, timeout=_PATIENCE),
        }[kind]
        try:
            with made() as client:
                client.login(self.user, _PASSWORD)
                yield client
        except (imaplib.IMAP4.error, OSError) as error:
            raise BenchmarkError(f"{self.name}, {kind}: {error}") from error


def append(client: imaplib.IMAP4) -> None:
    """
    Add L{MESSAGE} to the mailbox, as imaplib does: with three writes, of which the last two belong together.

    @raise imaplib.IMAP4.error: it is refused.
    """
    status, _ = client.append("INBOX", "", "", MESSAGE)
    if status != "OK":
        raise imaplib.IMAP4.error(f"APPEND was answered with {status}")


def noop(client: imaplib.IMAP4) -> None:
    """
    Send NOOP as net/imap of Ruby does: the tag, and then the rest.

    @raise imaplib.IMAP4.error: it is refused.
    """
    client.send(b"two ")
    client.send(b"NOOP\r\n")
    while not (line := client.readline()).startswith(b"two "):
        if not line:
            raise imaplib.IMAP4.error("the connection has ended")
    if not line.startswith(b"two OK"):
        raise imaplib.IMAP4.error(f"NOOP was answered with {line!r}")


KINDS = {"append": ("APPEND of 1.4 kB", append), "noop": ("NOOP in two writes", noop)}


@define
class Row:
    """Milliseconds of one command, by the names of the servers, the direct connection first."""

    title: str
    figures: dict[str, list[float]] = field(factory=dict)

    def medians(self) -> dict[str, float]:
        """The median of each."""
        return {name: median(taken) for name, taken in self.figures.items()}

    def cells(self) -> tuple[str, ...]:
        """The cells of a table: the medians, and whether the last one is near the first one."""
        medians = list(self.medians().values())
        added = medians[-1] - medians[0]
        return (self.title, *map(number, medians), number(max(0.0, added)), "yes" if added <= GOAL else "no")


def measure(kind: str, command: str, endpoints: Sequence[Endpoint], count: int) -> Row:
    """
    Measure C{command}, one of L{KINDS}, C{count} times at each of C{endpoints}, in turns.

    @raise BenchmarkError: a command was refused.
    """
    title, act = KINDS[command]
    row = Row(f"{title}, {'TLS' if kind == 'tls' else kind}", {each.name: [] for each in endpoints})
    with ExitStack() as stack:
        clients = [(each.name, stack.enter_context(each.session(kind))) for each in endpoints]
        for turn in range(count + 1):
            # The order matters if all have one disk.
            for name, client in (*clients[turn % len(clients) :], *clients[: turn % len(clients)]):
                began = time.perf_counter()
                try:
                    act(client)
                except (imaplib.IMAP4.error, OSError) as error:
                    raise BenchmarkError(f"{name}, {row.title}: {error}") from error
                # The first one makes the mailbox.
                if turn:
                    row.figures[name].append((time.perf_counter() - began) * 1000)
    return row


@contextmanager
def _backend(site: Site) -> Iterator[tuple[str, dict[str, int]]]:
    """The name of the backend, and its ports."""
    if not shutil.which("dovecot", path=SEARCH):
        yield "the benchmark's own, there is no Dovecot", {"plain": site.backendPort}
        return
    from mailgate.test.integration.certificates import Authority
    from mailgate.test.integration.dovecot import Dovecot

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.chmod(folder, 0o755)
        dovecot = Dovecot(Authority(folder, "authority"))
        try:
            yield "Dovecot", {"plain": dovecot.ports["imap"], "tls": dovecot.ports["imaps"]}
        finally:
            dovecot.stop()


def _gateways(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The names of the trees to measure, and their folders."""
    before = [("before", arguments.before)] if arguments.before else []
    return [*before, ("mailgate", arguments.mailgate)]


def _rows(arguments: argparse.Namespace, site: Site, children: Children, ports: dict[str, int]) -> Iterator[Row]:
    way = Variant(judge=f"proxy_pass = 127.0.0.1:{ports['plain']}").withLines(arguments.process, arguments.more)
    with ExitStack() as stack:
        endpoints: list[Endpoint] = []
        for name, source in _gateways(arguments):
            running = MailgateProxy(source, name, way).start(site, children)
            stack.callback(running.stop)
            endpoints.append(
                Endpoint(name, {"plain": running.plain[1], "tls": running.tls[1]}, f"user{len(endpoints)}")
            )
        for kind in ports:
            for command in KINDS:
                row = measure(kind, command, [Endpoint("direct", ports, "user9"), *endpoints], arguments.count)
                say("  ".join(row.cells()))
                yield row


def _report(arguments: argparse.Namespace) -> str:
    facts = machine()
    for name, source in _gateways(arguments):
        proxy = MailgateProxy(source)
        facts.append((name, f"{proxy.location()}, revision {revision(source)}; {proxy.version()}"))
    if arguments.more or arguments.process:
        facts.append(("set", "; ".join([*arguments.process, *arguments.more])))
    with openSite(raiseOpenFiles()) as (site, children), _backend(site) as (backend, ports):
        facts += [("backend", backend), ("load", f"{os.getloadavg()[0]:.1f} at the start")]
        rows = [row.cells() for row in _rows(arguments, site, children, ports)]
    names = ("direct", *(name for name, _ in _gateways(arguments)))
    head = ("Milliseconds", *names, "added", f"at most {GOAL:g}")
    text = "\n".join(f":{name}: {fact}" for name, fact in facts)
    return "\n\n".join([text, _EXPLANATION.format(arguments.count), simpleTable([head, *rows])])


_EXPLANATION = """\
Medians of {} commands each, in turns, of clients that write a command in two pieces and do not set TCP_NODELAY.
*added*: what mailgate adds to the direct connection."""


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = appending().parse_args()
    return conclude(lambda: print(_report(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
