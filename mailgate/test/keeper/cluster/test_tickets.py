"""
Tests for L{mailgate.keeper.cluster.tickets}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.keeper.cluster import tickets
from mailgate.keeper.cluster.tickets import LEAD, LOOK, SHELF, TELL, TicketKeys, ticketsLifetime
from mailgate.keeper.interfaces import Collected
from mailgate.store.memory import Memory
from mailgate.store.seal import Seal
from mailgate.test.support.stores import SwitchedStore
from mailgate.test.support.tlspair import makePair
from mailgate.tls.tickets import PERIOD

LIFETIME = 300.0


class Processes:
    """In the place of a keeper: what its processes are told, and what they answer."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.answer = True

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = 2.0) -> Deferred[Collected]:
        assert word == SHELF
        self.told.append(arguments["secrets"])
        return succeed(Collected([self.answer]))


class TicketKeysTests(SynchronousTestCase):
    """Two gateways with a store."""

    def setUp(self) -> None:
        self.clock = Clock()
        memory, self.numbers = Memory(), count(1)
        self.stores = [SwitchedStore(self.clock, memory, name) for name in ("g1", "g2")]
        self.processes = [Processes(), Processes()]
        self.keys = [
            self.gateway(processes, store) for processes, store in zip(self.processes, self.stores, strict=True)
        ]

    def gateway(self, processes: Any, store: SwitchedStore, key: bytes = bytes(32)) -> TicketKeys:
        made = TicketKeys(processes, store, Seal(key), LIFETIME, self.clock, self.randomness)
        self.addCleanup(made.stop)
        return made

    def randomness(self, size: int) -> bytes:
        return next(self.numbers).to_bytes(size, "big")

    def start(self) -> None:
        for each in self.keys:
            each.start()
        self.passes(LOOK)

    def passes(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)

    def secrets(self) -> list[int]:
        """The numbers of the secrets, which both gateways have in the same order."""
        first, second = ([int.from_bytes(each, "big") for each in keys.secrets] for keys in self.keys)
        self.assertEqual(first, second)
        return first

    def test_same(self) -> None:
        """One gateway makes a secret, and both use it. All their processes are told all the time."""
        self.start()
        (secret,) = self.secrets()
        self.assertEqual(self.stores[0].calls.count("put") + self.stores[1].calls.count("put"), 1)
        for processes in self.processes:
            self.assertEqual(processes.told[-1], [secret.to_bytes(32, "big").hex()])
            before = len(processes.told)
            self.passes(TELL)
            self.assertGreater(len(processes.told), before)

    def test_sealed(self) -> None:
        """The store does not see it."""
        self.start()
        (secret,) = self.keys[0].secrets
        values = [sealed for sealed, _ in self.successResultOf(self.stores[0].notes(SHELF)).values()]
        self.assertEqual(len(values), 1)
        self.assertNotIn(secret, values[0])

    def test_turns(self) -> None:
        """
        After a period there is a second one, which all accept before anybody issues tickets by it. The first is dropped
        when its tickets are no longer valid.
        """
        self.start()
        (first,) = self.secrets()
        self.passes(PERIOD - LOOK)
        made = self.secrets()
        self.assertEqual((made[0], len(made)), (first, 2))
        self.passes(LEAD + LOOK)
        self.assertEqual(self.secrets(), [made[1], first])
        self.passes(LIFETIME)
        self.assertEqual(self.secrets(), [made[1], first])
        self.passes(LEAD + LOOK)
        self.assertEqual(self.secrets(), [made[1]])

    def test_day(self) -> None:
        """Over a day each secret has one turn, and no more than three are known at a time."""
        self.start()
        turns: list[int] = []
        for _ in range(24 * 60):
            self.passes(60)
            secrets = self.secrets()
            self.assertLessEqual(len(secrets), 3)
            if secrets[0] not in turns[-1:]:
                turns.append(secrets[0])
        self.assertEqual(len(set(turns)), len(turns))
        self.assertIn(len(turns), (24, 25))

    def test_down(self) -> None:
        """
        While the store is gone the secret is used until the end of its turn, and then each gateway has its own. Then
        they share one again.
        """
        self.start()
        (first,) = self.secrets()
        for store in self.stores:
            store.switch(False)
        self.passes(PERIOD - 2 * LOOK)
        self.assertEqual(self.secrets(), [first])
        self.passes(2 * LOOK + 2 * LEAD + LOOK)
        one, other = (keys.secrets for keys in self.keys)
        self.assertNotEqual(one[0], other[0])
        self.assertEqual({one[1], other[1]}, {first.to_bytes(32, "big")})
        for store in self.stores:
            store.switch(True)
        self.passes(LEAD + 2 * LOOK)
        one, other = (keys.secrets for keys in self.keys)
        self.assertEqual(one[0], other[0])
        self.assertNotIn(one[0], (first.to_bytes(32, "big"),))

    def test_stranger(self) -> None:
        """What is sealed with another secret of the store is ignored."""
        stranger = self.gateway(Processes(), self.stores[0], b"x" * 32)
        stranger.start()
        self.assertEqual(len(stranger.secrets), 1)
        self.start()
        self.passes(LOOK)
        self.assertNotIn(stranger.secrets[0], self.keys[0].secrets)
        self.assertEqual(len(self.secrets()), 1)

    def test_prolonged(self) -> None:
        """A secret that a stranger keeps in the store has its turn, and no other."""
        self.start()
        ((id, (sealed, _)),) = self.successResultOf(self.stores[0].notes(SHELF)).items()
        (first,) = self.secrets()
        for _ in range(int((PERIOD + 600) / 60)):
            self.stores[0].put(SHELF, id, sealed, 9e6)
            self.passes(60)
        self.assertNotEqual(self.secrets()[0], first)

    def test_notTaken(self) -> None:
        """One warning says that OpenSSL does not issue tickets with them."""
        self.processes[0].answer = False
        with capturedLogs() as captured:
            self.start()
            self.passes(10 * TELL)
        (warning,) = [event for event in captured if event["log_level"] is LogLevel.warn]
        self.assertIn("TLS tickets are not shared", warning["log_format"])


class LifetimeTests(SynchronousTestCase):
    """L{ticketsLifetime}."""

    def lifetime(self, more: str = "", reaches: bool = True) -> float | None:
        self.patch(tickets, "ticketKeyCall", lambda: (lambda context, key: True) if reaches else None)
        folder = self.mktemp()
        os.mkdir(folder)
        pair = makePair(folder, "server")
        return ticketsLifetime(
            parse(
                f"[mail]\nproxy_pass = 127.0.0.1:1143\nssl_certificate = {pair.certificate}\n"
                f"ssl_certificate_key = {pair.key}\n[server one]\nprotocol = imap\nlisten = 127.0.0.1:1 ssl\n{more}\n"
            )
        )

    def test_longest(self) -> None:
        """The longest of all servers."""
        self.assertEqual(self.lifetime("ssl_session_timeout = 5m"), 300.0)
        other = "[server two]\nprotocol = imap\nlisten = 127.0.0.1:2 ssl\nssl_session_timeout = 2h"
        self.assertEqual(self.lifetime(f"ssl_session_timeout = 5m\n{other}"), 7200.0)

    def test_none(self) -> None:
        """There is none without tickets, or where OpenSSL's call is hidden."""
        self.assertIsNone(self.lifetime(reaches=False))
        self.assertIsNone(self.lifetime("ssl_session_tickets = off"))
