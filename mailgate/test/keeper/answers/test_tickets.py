"""
Tests for L{mailgate.keeper.answers.tickets}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.answers.tickets import MOST_SECRETS
from mailgate.keeper.view import ProcessView

SECRETS = [bytes([number]) * 32 for number in (1, 2)]


class Taking:
    """A gateway that takes secrets, or cannot."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.given: list[bytes] = []

    def giveTicketKeys(self, secrets: Sequence[bytes]) -> bool:
        self.given += secrets
        return self.takes


class TicketsTests(SynchronousTestCase):
    """The question C{tickets}."""

    def setUp(self) -> None:
        self.gateways: Any = [Taking(True), Taking(False)]
        self.view = ProcessView("m", None, lambda: self.gateways)  # type: ignore[arg-type]

    def ask(self, secrets: Any) -> list[Any]:
        return list(self.view.answer("tickets", {"secrets": secrets}))

    def test_given(self) -> None:
        """All gateways of the process get them, and say whether they use them."""
        self.assertEqual(self.ask([each.hex() for each in SECRETS]), [True, False])
        self.assertEqual([each.given for each in self.gateways], [SECRETS, SECRETS])

    def test_invalid(self) -> None:
        """Anything else is refused, and the reason does not quote it."""
        for bad in (None, [], "00", ["secret"], [1], ["00"] * (MOST_SECRETS + 1)):
            error = self.assertRaises(ValueError, self.ask, bad)
            self.assertNotIn("secret ", f"{error} ".replace("secrets", ""))
        self.assertEqual(self.gateways[0].given, [])
