"""
Tests for L{mailgate.protocols.sieve.capabilities}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.frontend.capabilities import configured
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.capabilities import itemsOf, learnable, lineOf, missing

PIGEONHOLE = itemsOf(
    {
        b"IMPLEMENTATION": b"Dovecot Pigeonhole",
        b"SIEVE": b"fileinto vacation Vnd.x",
        b"NOTIFY": b"mailto",
        b"SASL": b"PLAIN",
        b"STARTTLS": b"",
        b"VERSION": b"1.0",
        b"XCLIENT": b"",
        b"MAXREDIRECTS": b"4",
    }
)
CYRUS = itemsOf(
    {
        b"IMPLEMENTATION": b"Cyrus timsieved",
        b"SIEVE": b"vacation fileinto index",
        b"NOTIFY": b"mailto xmpp",
        b"VERSION": b"1.0",
        b"UNAUTHENTICATE": b"",
        b"OWNER": b"joe",
        b"MAXREDIRECTS": b"2",
        b"LANGUAGE": b"en",
    }
)


class LearnableTests(SynchronousTestCase):
    """L{learnable}."""

    def test_items(self) -> None:
        """Each word of a list is an item, so that none is too long and the log names what differs."""
        self.assertEqual(PIGEONHOLE[1:5], (b"SIEVE fileinto", b"SIEVE vacation", b"SIEVE Vnd.x", b"NOTIFY mailto"))
        self.assertEqual(itemsOf({b"SIEVE": b"", b"NOOP": b""}), (b"SIEVE", b"NOOP"))

    def test_one(self) -> None:
        """What is the gateway's own, and what it never announces, is left out. The case of extensions stays."""
        self.assertEqual(
            learnable([PIGEONHOLE]),
            (b"SIEVE fileinto vacation Vnd.x", b"NOTIFY mailto", b"VERSION 1.0", b"MAXREDIRECTS 4"),
        )
        self.assertNotIn(b"UNAUTHENTICATE", b" ".join(learnable([CYRUS])))

    def test_intersection(self) -> None:
        """Clients see what all backends have, in the order of the first; of numbers the smallest."""
        self.assertEqual(
            learnable([PIGEONHOLE, CYRUS]),
            (b"SIEVE fileinto vacation", b"NOTIFY mailto", b"VERSION 1.0", b"MAXREDIRECTS 2"),
        )

    def test_always(self) -> None:
        """SIEVE is mandatory. A backend without it does not count."""
        self.assertEqual(learnable([]), (b"SIEVE",))
        self.assertEqual(learnable([(b"VERSION 1.0",), (b"SIEVE a",)]), (b"SIEVE a",))
        self.assertEqual(learnable([(b"SIEVE a", b"NOTIFY x"), (b"SIEVE b", b"NOTIFY y")]), (b"SIEVE",))

    def test_odd(self) -> None:
        """Values that cannot be compared are left out."""
        for one, other in (
            (b"MAXREDIRECTS x", b"MAXREDIRECTS 4"),
            (b"MAXREDIRECTS", b"MAXREDIRECTS 4"),
            (b"VERSION 1.0", b"VERSION 2.0"),
            (b"VERSION", b"VERSION"),
            (b"VND.NEW 1", b"VND.NEW 1"),
        ):
            self.assertEqual(learnable([(b"SIEVE", one), (b"SIEVE", other)]), (b"SIEVE",))
        self.assertEqual(learnable([(b"sieve a", b"noop"), (b"SIEVE a", b"NOOP")]), (b"SIEVE a", b"NOOP"))


class LineTests(SynchronousTestCase):
    """L{lineOf}."""

    def test_forms(self) -> None:
        """Names and values are quoted strings; a list has a value even if it is empty."""
        for item, line in (
            (b"SIEVE a b", b'"SIEVE" "a b"\r\n'),
            (b"SIEVE", b'"SIEVE" ""\r\n'),
            (b"SASL ", b'"SASL" ""\r\n'),
            (b"STARTTLS", b'"STARTTLS"\r\n'),
            (b'IMPLEMENTATION a "b"', b'"IMPLEMENTATION" "a \\"b\\""\r\n'),
        ):
            self.assertEqual(lineOf(item), line)


class MissingTests(SynchronousTestCase):
    """L{missing}."""

    def test_words(self) -> None:
        """The words that the backend lacks, of lists only."""
        there = {b"SIEVE": b"fileinto index", b"NOTIFY": b""}
        announced = (b"SIEVE fileinto vacation", b"NOTIFY mailto", b"VERSION 1.0")
        self.assertEqual(missing(announced, there), [b"vacation", b"mailto"])
        self.assertEqual(missing((b"SIEVE index", b"SIEVE"), there), [])


class ConfiguredTests(SynchronousTestCase):
    """C{sieve_capabilities}."""

    def test_default(self) -> None:
        """Until something is learned, what most servers have is announced."""
        (server,) = parse("[server s]\nlisten = 4190\nproxy_pass = 10.0.0.1:4190\n").servers
        self.assertEqual(configured(SIEVE, server)[1], b"NOTIFY mailto")

    def test_leftOut(self) -> None:
        """What is the gateway's own is left out of the operator's list."""
        text = "[server s]\nlisten = 4190\nproxy_pass = 10.0.0.1:4190\nsieve_capabilities =\n SIEVE a\n SASL PLAIN\n"
        (server,) = parse(text + " UNAUTHENTICATE\n XCLIENT\n IMPLEMENTATION x\n").servers
        self.assertEqual(configured(SIEVE, server), (b"SIEVE a",))
