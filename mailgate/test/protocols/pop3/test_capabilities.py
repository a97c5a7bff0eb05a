"""
What the gateway learns from the CAPA of POP3 backends.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.capabilities import learnable

DOVECOT = (b"CAPA", b"TOP", b"UIDL", b"RESP-CODES", b"PIPELINING", b"AUTH-RESP-CODE", b"STLS", b"USER", b"SASL PLAIN")
_CYRUS = (b"SASL PLAIN", b"STLS", b"EXPIRE NEVER", b"LOGIN-DELAY 0", b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES")
CYRUS = (*_CYRUS, b"AUTH-RESP-CODE", b"USER", b"IMPLEMENTATION Cyrus POP3 3.8")
EXCHANGE = (b"TOP", b"UIDL", b"SASL XOAUTH2")

CUTS: tuple[tuple[tuple[tuple[bytes, ...], ...], tuple[bytes, ...]], ...] = (
    ((), (b"USER",)),
    (((),), (b"USER",)),
    ((DOVECOT,), (b"CAPA", b"TOP", b"UIDL", b"RESP-CODES", b"PIPELINING", b"AUTH-RESP-CODE", b"USER")),
    (
        (CYRUS,),
        (
            b"EXPIRE NEVER",
            b"LOGIN-DELAY 0",
            b"TOP",
            b"UIDL",
            b"PIPELINING",
            b"RESP-CODES",
            b"AUTH-RESP-CODE",
            b"USER",
        ),
    ),
    ((DOVECOT, CYRUS), (b"TOP", b"UIDL", b"RESP-CODES", b"PIPELINING", b"AUTH-RESP-CODE", b"USER")),
    ((DOVECOT, EXCHANGE), (b"TOP", b"UIDL", b"USER")),
    # The gateway takes passwords, whatever the backends do.
    ((EXCHANGE,), (b"TOP", b"UIDL", b"USER")),
    (((b"UTF8 USER", b"LANG", b"XCLIENT", b"IMPLEMENTATION X", b"STLS", b"SASL PLAIN", b"X-TOP"),), (b"USER",)),
    # EXPIRE is the shortest, LOGIN-DELAY the longest; USER says that another value may hold after the login.
    (((b"EXPIRE 60",), (b"EXPIRE NEVER",)), (b"EXPIRE 60 USER", b"USER")),
    (((b"EXPIRE 60 USER",), (b"EXPIRE 60",)), (b"EXPIRE 60 USER", b"USER")),
    (((b"EXPIRE NEVER",), (b"expire never",)), (b"EXPIRE NEVER", b"USER")),
    (((b"EXPIRE 60",), ()), (b"USER",)),
    (((b"EXPIRE soon",),), (b"USER",)),
    (((b"LOGIN-DELAY 10",), (b"LOGIN-DELAY 900",)), (b"LOGIN-DELAY 900 USER", b"USER")),
    (((b"LOGIN-DELAY 10",), (b"LOGIN-DELAY",)), (b"USER",)),
)
"""What the backends offer, and what the gateway may announce."""


class LearnableTests(SynchronousTestCase):
    """L{learnable}."""

    def test_cuts(self) -> None:
        """The gateway announces what all backends have, and USER."""
        for offers, expected in CUTS:
            self.assertEqual(learnable(offers), expected, offers)

    def test_never(self) -> None:
        """No word that the gateway announces itself, or does not support, is learned."""
        for word in (*POP3.own, *POP3.unkept, "IMPLEMENTATION"):
            self.assertEqual(learnable([(word.encode(), b"TOP")] * 2), (b"TOP", b"USER"))
