# -*- test-case-name: bench.test.test_cluster -*-
"""
C{python -m bench.cluster}: many gateways and millions of sessions at one store: its memory by kind of key, and its
commands and CPU. The gateways are simulated by the commands that they would send, over one connection.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice

from attrs import define, field, frozen

from bench.options import clustering
from bench.processes import BenchmarkError, Children
from bench.program import conclude, machine, publish, say
from bench.report import number, simpleTable
from bench.storeserver import Direct, Server, serve
from mailgate.store.counts import packedCounts
from mailgate.store.interfaces import Beat, Failure, Mark, Question, Success
from mailgate.store.keys import StoreKeys
from mailgate.store.redis.store import RedisStore
from mailgate.store.seal import Seal

__all__ = ["Flow", "Population", "Simulation", "flow", "main"]

USER_RENEWAL = 1800.0
"""Seconds after which a gateway tells the counts of a user anew, because they last for an hour."""

BEATS = 10.0
"""Beats of a gateway in a second, at most."""

_PART = 200
_MIB = 1024 * 1024
_SPARE = 1.3


@frozen
class Population:
    """
    Who uses the gateways.

    @ivar gateways: how many gateways there are.
    @ivar sessions: the sessions at all of them.
    @ivar each: the sessions of a user, such as those of a phone and a notebook.
    @ivar minutes: how long a session lasts.
    @ivar networks: how many networks each user is known in.
    @ivar wrong: which part of the logins have a wrong password that was not used before.
    @ivar isSticky: whether users have places (C{sticky}).
    """

    gateways: int = 50
    sessions: int = 5_000_000
    each: int = 2
    minutes: float = 30.0
    networks: int = 2
    wrong: float = 0.02
    isSticky: bool = True

    @property
    def users(self) -> int:
        """How many users there are."""
        return max(1, self.sessions // self.each)

    @property
    def logins(self) -> float:
        """Logins a second, if there are always as many sessions."""
        return self.sessions / (self.minutes * 60)


@frozen
class Flow:
    """
    What all gateways send in a second.

    @ivar checks: questions about logins.
    @ivar failures: failures.
    @ivar successes: successes that are written: of pairs that have not succeeded in the last five minutes.
    @ivar places: questions for places, and at the end of the last session of a user.
    @ivar beats: beats, some of them of sessions.
    """

    checks: float
    failures: float
    successes: float
    places: float
    beats: float


def flow(population: Population) -> Flow:
    """
    Return what the gateways of a population send.

    @param population: who uses them.
    """
    logins = population.logins
    failures = logins * population.wrong
    each = logins / population.gateways
    # A session that begins, one that ends, and counts that are renewed: each is in some beat.
    happens = 2 * each + population.users / population.gateways / USER_RENEWAL
    places = 2 * logins if population.isSticky else 0.0
    beats = population.gateways * max(1 / 15, min(BEATS, happens))
    return Flow(logins + failures, failures, logins, places, beats)


@define
class Simulation:
    """
    The gateways.

    @ivar store: the store, by the commands of a gateway.
    @ivar direct: the connection.
    @ivar population: who uses them.
    """

    population: Population
    direct: Direct
    store: RedisStore = field(init=False)
    _keys: StoreKeys = field(factory=lambda: StoreKeys(b"the secret of the benchmark"))
    _random: random.Random = field(factory=lambda: random.Random(5))
    _seal: Seal = field(init=False)
    _numbers: Iterator[int] = field(factory=count)

    def __attrs_post_init__(self) -> None:
        self.store = RedisStore(self.direct)
        self._seal = Seal(self._keys.derived(b"seal"))

    # Who and where.

    def user(self, at: int) -> bytes:
        """The digest of a user."""
        return self._keys.digest(b"user", b"user%d@example.com" % at)

    def address(self, at: int, network: int = 0) -> bytes:
        """The digest of an address of a user: ten users share one."""
        return self._keys.digest(b"address", (at // 10 * 16 + network).to_bytes(8, "big"))

    def network(self, at: int, network: int = 0) -> bytes:
        """The digest of the network of that address."""
        return self._keys.digest(b"network", (at // 10 * 16 + network).to_bytes(8, "big"))

    def record(self, gateway: str, session: str, at: int) -> bytes:
        """The sealed record of a session, as L{mailgate.keeper.cluster.sessionrecords} writes it."""
        text = (
            f'["user{at}@example.com","imap","imap","192.0.2.{at % 250}:56416","10.0.0.{at % 250}:143",1764400000.123]'
        )
        return self._seal.close(text.encode(), f"r:{gateway}:{session}".encode())

    def _done(self, deferred: object) -> None:
        """The call has been answered already; what it has raised is raised here."""
        failures: list[object] = []
        deferred.addErrback(failures.append)  # type: ignore[attr-defined]
        if failures:
            raise BenchmarkError(f"the store does not work: {failures[0]}")

    # Filling.

    def sessions(self) -> None:
        """All gateways tell all their sessions, without the counts of users."""
        for which, own in enumerate(self._shares(self.population.sessions)):
            gateway, run = f"g{which}", f"run{which}"
            self._done(self.store.beat(Beat(gateway, run, isAll=True)))
            for first in range(own.start, own.stop, _PART):
                began = {}
                for at in range(first, min(first + _PART, own.stop)):
                    session = f"{gateway}.{at % 8}.{at:x}"
                    began[session] = self.record(gateway, session, at // self.population.each)
                self._done(self.store.beat(Beat(gateway, run, began)))

    def counts(self) -> None:
        """All gateways tell the counts of their users."""
        for which, own in enumerate(self._shares(self.population.users)):
            for first in range(own.start, own.stop, _PART):
                counts = {self.user(at): self._countsOf(at) for at in range(first, min(first + _PART, own.stop))}
                self._done(self.store.beat(Beat(f"g{which}", f"run{which}", counts=counts)))

    def _countsOf(self, at: int) -> bytes:
        return packedCounts({b"im" + self.address(at, which)[:4]: 1 for which in range(self.population.each)})

    def _shares(self, all: int) -> Iterator[range]:
        each = -(-all // self.population.gateways)
        return (range(first, min(first + each, all)) for first in range(0, all, each))

    def places(self) -> None:
        """Each user has a place."""
        for at in range(self.population.users):
            self._done(self.store.place(self.user(at), b"10.0.0.%d:143" % (at % 250), 86400.0))

    def known(self) -> None:
        """Each user has succeeded in his networks, which also counts for the addresses."""
        for at in range(self.population.users):
            for which in range(self.population.networks):
                self._done(self.store.succeeded(self._success(at, which)))

    def _success(self, at: int, number: int) -> Success:
        user, address = self.user(at), self.address(at, number)
        return Success(user, address, self.network(at, number), StoreKeys.both(user, address))

    def failures(self, pairs: int, each: int = 3) -> None:
        """
        Strangers fail.

        @param pairs: of how many pairs, each at another address.
        @param each: how often each.
        """
        for at in range(pairs):
            for tag in range(each):
                self._done(self.store.failed(self._failure(at, tag, b"attacker")))

    def _failure(self, at: int, tag: int, who: bytes) -> Failure:
        address = self._keys.digest(b"address", b"%b%d" % (who, at))
        user = self.user(at)
        network = self._keys.digest(b"network", b"%b%d" % (who, at))
        return Failure(user, address, network, StoreKeys.both(user, address), tag.to_bytes(2, "big"), 8, 8, True)

    def blocks(self, many: int) -> None:
        """Rules have blocked C{many} things."""
        for at in range(many):
            name = self._seal.close(b"user%d@example.com at 192.0.2.7" % at, b"block")
            self._done(self.store.mark(Mark(self.user(at), "R2", 900.0, 1, name), 86400.0))

    # A second of all gateways.

    def second(self, sent: Flow, share: float = 1.0) -> None:
        """
        Send what all gateways send in a second, or in a share of it.

        @param sent: how much that is.
        @param share: which part of it.
        """
        logins = self._rounded(sent.successes * share)
        for at in self._some(logins):
            which = self._random.randrange(self.population.networks)
            user, address, network = self.user(at), self.address(at, which), self.network(at, which)
            self._done(self.store.check(Question(user, address, network, interval=1.0, burst=30)))
            if sent.places:
                self._done(self.store.place(user, b"10.0.0.1:143", 86400.0))
            self._done(self.store.succeeded(self._success(at, which)))
        for at in self._some(self._rounded(sent.failures * share)):
            failure = self._failure(at, self._random.randrange(65536), b"guest")
            self._done(
                self.store.check(Question(failure.user, failure.address, failure.network, interval=1.0, burst=30))
            )
            self._done(self.store.failed(failure))
        if sent.places:
            self._done(self.store.retain([self.user(at) for at in self._some(logins)], 86400.0))
        renewed = self.population.users / USER_RENEWAL
        for _ in range(self._rounded(sent.beats * share)):
            self._beat(self._rounded(sent.successes / sent.beats), self._rounded(renewed / sent.beats))

    def _rounded(self, number: float) -> int:
        """A whole number: the next larger one as often as the fraction says."""
        return int(number + self._random.random())

    def _some(self, many: int) -> Iterator[int]:
        return islice(iter(lambda: self._random.randrange(self.population.users), -1), many)

    def _beat(self, sessions: int, renewed: int) -> None:
        which = self._random.randrange(self.population.gateways)
        gateway, run = f"g{which}", f"run{which}"
        began, counts = {}, {}
        for at in self._some(sessions):
            session = f"{gateway}.9.{next(self._numbers):x}"
            began[session] = self.record(gateway, session, at)
        for at in self._some(2 * sessions + renewed):
            counts[self.user(at)] = self._countsOf(at)
        self._done(self.store.beat(Beat(gateway, run, began, [*began], counts=counts)))


@define
class _Memory:
    """The rows of the table of memory."""

    server: Server
    direct: Direct
    rows: list[tuple[str, str, str, str]] = field(factory=list)

    def used(self) -> int:
        found = self.direct.ask("INFO", "memory").decode()
        return int(found.partition("used_memory:")[2].split("\r")[0])

    def stage(self, title: str, many: int, work: Callable[[], None]) -> None:
        """Do something that makes C{many} things, and note their memory."""
        before, began = self.used(), time.monotonic()
        work()
        taken = self.used() - before
        self.rows.append((title, f"{many:,}", number(taken / max(1, many)), number(taken / _MIB)))
        say(f"{title}: {taken / _MIB:.0f} MiB, {time.monotonic() - began:.0f} s")


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as opened:
        return int(opened.read().partition("MemAvailable:")[2].split()[0]) * 1024


def _fits(population: Population, perSession: float) -> None:
    """
    @raise BenchmarkError: the machine has not the memory for so many sessions.
    """
    needed, has = perSession * population.sessions * _SPARE, _available()
    if needed > has:
        raise BenchmarkError(
            f"{population.sessions:,} sessions need some {needed / _MIB:,.0f} MiB, and {has / _MIB:,.0f} are free:"
            " take fewer (--sessions)"
        )


def _fill(simulation: Simulation, memory: _Memory, arguments: argparse.Namespace) -> None:
    population = simulation.population
    users, known = population.users, population.users * population.networks
    memory.stage("session (r)", population.sessions, simulation.sessions)
    memory.stage("user with sessions (c)", users, simulation.counts)
    memory.stage("user with a place (a)", users, simulation.places)
    memory.stage("known network of a user (k, and g of addresses)", known, simulation.known)
    memory.stage("failing pair (p, f, n, u)", arguments.pairs, lambda: simulation.failures(arguments.pairs))
    memory.stage("block (b)", arguments.blocks, lambda: simulation.blocks(arguments.blocks))


def _run(simulation: Simulation, server: Server, seconds: int) -> list[tuple[str, ...]]:
    """Send what the gateways send in some seconds, as fast as the store takes it, and return the table."""
    sent = flow(simulation.population)
    calls, began, taken = simulation.direct.calls, time.monotonic(), server.seconds
    for _ in range(seconds):
        simulation.second(sent)
    passed, cost = time.monotonic() - began, server.seconds - taken
    commands = (simulation.direct.calls - calls) / seconds
    say(f"{seconds} seconds of the gateways took {passed:.1f} s, and {cost:.1f} s of the store's CPU")
    return [
        ("All gateways together", ""),
        ("logins a second", f"{simulation.population.logins:,.0f}"),
        ("beats a second", f"{sent.beats:,.0f}"),
        ("commands a second", f"{commands:,.0f}"),
        ("the store's CPU (percent of a core)", number(100 * cost / seconds)),
        ("the store's CPU for a command (us)", number(1e6 * cost / max(1.0, commands * seconds))),
    ]


def _report(arguments: argparse.Namespace) -> str:
    population = Population(arguments.gateways, arguments.sessions, minutes=float(arguments.minutes))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Children(folder) as children:
        server = serve(folder, children)
        small = Population(1, 2000)
        simulation = Simulation(small, server.connect())
        trial = _Memory(server, simulation.direct)
        trial.stage("trial", small.sessions, lambda: _everything(simulation))
        _fits(population, float(trial.rows[0][2].replace(",", "")))
        simulation.direct.ask("FLUSHALL")
        simulation = Simulation(population, simulation.direct)
        memory = _Memory(server, simulation.direct)
        empty = memory.used()
        _fill(simulation, memory, arguments)
        memory.rows.append(("all", "", "", number((memory.used() - empty) / _MIB)))
        table = _run(simulation, server, arguments.seconds)
        endless = [key for key in _sample(simulation.direct) if simulation.direct.ask("PTTL", key) == -1]
        if endless:
            raise BenchmarkError(f"{len(endless)} keys have no end, such as {endless[0]!r}")
    facts = [*machine(), ("store", server.name)]
    facts.append(
        ("gateways", f"{population.gateways}, with {population.sessions:,} sessions of {population.users:,} users")
    )
    facts.append(("a session", f"lasts {population.minutes:g} minutes; 2 % of the logins have a new wrong password"))
    head = ("Memory", "how many", "bytes each", "MiB")
    return "\n\n".join(
        ["\n".join(f":{name}: {text}" for name, text in facts), simpleTable([head, *memory.rows]), simpleTable(table)]
    )


def _everything(simulation: Simulation) -> None:
    for work in (simulation.sessions, simulation.counts, simulation.places, simulation.known):
        work()


def _sample(direct: Direct) -> list[bytes]:
    """Some keys."""
    return [direct.ask("RANDOMKEY") for _ in range(1000)]


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = clustering().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
