"""Tests for L{mailgate.cli.top.past}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.top.past import KEPT, Past
from mailgate.keeper.rings import MOST_SERIES


def stats(**logins: float) -> dict[str, Any]:
    return {"logins": {name: {"per_second": value} for name, value in logins.items()}, "login_wait": {"p95": 0.5}}


class PastTests(SynchronousTestCase):
    """The numbers of the last minutes."""

    def test_add(self) -> None:
        """One number a second; a series that begins later has gaps before, one that ends has gaps behind."""
        past = Past()
        past.add(stats(accepted=1.0))
        past.add(stats(denied=2.0))
        past.gap()
        self.assertEqual(past.of("logins.accepted"), (1.0, None, None))
        self.assertEqual(past.of("logins.denied"), (None, 2.0, None))
        self.assertEqual(past.of("login_wait.p95"), (0.5, 0.5, None))
        self.assertEqual(past.of("other"), ())

    def test_load(self) -> None:
        """What the gateway has kept takes the place of what is shorter, and not of what is longer."""
        past = Past()
        past.add(stats(accepted=1.0))
        past.load({"series": {"logins.accepted": [3, None, "x"], "short": [1], "bad": 7}})
        self.assertEqual(past.of("logins.accepted"), (3, None, None))
        self.assertEqual(past.of("short"), (None, None, 1))
        past.load({"series": {"logins.accepted": [9]}})
        past.load({})
        self.assertEqual(past.of("logins.accepted"), (3, None, None))
        past.add(stats(accepted=4.0))
        self.assertEqual(past.of("logins.accepted"), (3, None, None, 4.0))

    def test_bounds(self) -> None:
        """Neither the length nor the number of series grows without end."""
        past = Past()
        past.load({"series": {f"s{number}": list(range(5000)) for number in range(200)}})
        past.add(stats(accepted=1.0))
        self.assertEqual(len(past.of("s0")), KEPT)
        self.assertEqual(past.of("s0")[0], 4401)
        self.assertEqual((past.of(f"s{MOST_SERIES}"), past.of("logins.accepted")), ((), ()))
        for _ in range(2 * KEPT):
            past.gap()
        self.assertEqual(past.of("s0"), (None,) * KEPT)
