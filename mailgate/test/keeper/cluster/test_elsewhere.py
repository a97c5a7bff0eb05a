"""Tests for L{mailgate.keeper.cluster.elsewhere}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.explain import explain
from mailgate.keeper.interfaces import Collected


class FakeRegistry:
    """Has counts by protocol, which are not known of others."""

    def __init__(self, **counts: tuple[int, int]) -> None:
        self.counts = counts
        self.asked: list[Any] = []

    def elsewhere(self, user: bytes, host: str, protocol: str) -> Deferred[tuple[int, int] | None]:
        self.asked.append((user, host, protocol))
        return succeed(self.counts.get(protocol))


class FakeKeeper:
    """Answers with the rows of servers."""

    limits: Any = None
    others: Any = None

    def __init__(self, registry: Any, *servers: tuple[str, str, Any]) -> None:
        self.registry = registry
        self._servers = servers

    def ask(self, word: str, arguments: Any, within: float = 2.0) -> Deferred[Collected]:
        common = {"by": "", "named": False, "asks": [], "goes": []}
        rows = [
            {"server": server, "protocol": protocol, "limits": limits, **common}
            for server, protocol, limits in self._servers
        ]
        return succeed(Collected(rows))

    def recent(self, user: str | None = None) -> tuple[Any, ...]:
        return ()


def limits(**counts: int) -> dict[str, dict[str, int]]:
    """Rows of counts with the limit 50."""
    return {word: {"count": count, "limit": 50} for word, count in counts.items()}


class ElsewhereTests(SynchronousTestCase):
    """Explanations with and without a store."""

    def explained(self, registry: Any, *servers: Any, address: str | None = "192.0.2.7") -> list[Any]:
        keeper: Any = FakeKeeper(registry, *servers)
        found = self.successResultOf(explain(keeper, "jöe", address, None))
        return [row["limits"] for row in found["would"]]

    def test_added(self) -> None:
        """Sessions of the same protocol elsewhere stand beside the counts of each server."""
        registry = FakeRegistry(imap=(5, 2))
        found = self.explained(
            registry,
            ("imap", "imap", limits(address=1, user=4, user_address=1, server=9)),
            ("imaps", "imap", limits(user=0)),
            ("smtp", "smtp", limits(user=0, user_address=0)),
            ("pop3", "pop3", None),
        )
        self.assertEqual(
            found[0],
            {
                "address": {"count": 1, "limit": 50},
                "user": {"count": 4, "limit": 50, "elsewhere": 5},
                "user_address": {"count": 1, "limit": 50, "elsewhere": 2},
                "server": {"count": 9, "limit": 50},
            },
        )
        self.assertEqual(found[1]["user"]["elsewhere"], 5)
        # The store cannot be used.
        self.assertEqual([found[2][word]["elsewhere"] for word in ("user", "user_address")], [None, None])
        self.assertIsNone(found[3])
        self.assertEqual(registry.asked, [("jöe".encode(), "192.0.2.7", each) for each in ("imap", "smtp")])

    def test_withoutAddress(self) -> None:
        """Without an address those of the user are told."""
        found = self.explained(FakeRegistry(imap=(5, 0)), ("imap", "imap", limits(user=4)), address=None)
        self.assertEqual(found, [{"user": {"count": 4, "limit": 50, "elsewhere": 5}}])

    def test_withoutStore(self) -> None:
        """Without a store there is no such number."""
        self.assertEqual(self.explained(None, ("imap", "imap", limits(user=4))), [limits(user=4)])
