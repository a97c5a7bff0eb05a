"""Tests for L{mailgate.keeper.filters}."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.filters import Filter, exactly, nearest, userMatcher
from mailgate.session import Phase, Session
from mailgate.testing.fakes import makeSession

HOSTILE = (
    b"joe\xe2\x80\xae@example.org",
    b"joe\0",
    b"\xff\xfe\x80",
    b"x" * 300,
    b"a\nb",
    b"[joe]*?",
    "jörg@example.org".encode(),
    b"",
)
"""User names with marks from right to left, NUL, bytes that are not UTF-8, wildcards, and 300 characters."""


def session(**values: Any) -> Session:
    """A session that began at 100 seconds."""
    given = {"user": b"Joe@Example.org", "backend": "10.0.0.1:143", "id": "5g0qa.7k", "phase": Phase.RELAY, **values}
    return makeSession("imap", "0.0.0.0:993", given.pop("client", "192.0.2.7:40123"), 100.0, **given)


def matches(given: dict[str, Any], record: Session | None = None, now: float = 160.0, began: float = 150.0) -> bool:
    """Whether the session of L{session}, or another one, is meant."""
    return Filter.fromJSON(given).compiled()(record or session(), "imaps", now, began)


class ReadingTests(SynchronousTestCase):
    """L{Filter.fromJSON} and L{Filter.fromQuery}."""

    def refused(self, given: dict[str, Any]) -> str:
        """The reason of the refusal."""
        return str(self.assertRaises(ValueError, Filter.fromJSON, given))

    def test_empty(self) -> None:
        """Without conditions all sessions are meant."""
        self.assertEqual(Filter.fromJSON({}), Filter())
        self.assertEqual(Filter.fromJSON({"user": None}), Filter())
        self.assertTrue(matches({}))

    def test_unknown(self) -> None:
        """An unknown name is refused with the nearest known one."""
        self.assertEqual(self.refused({"usr": "joe"}), "usr is no known parameter; did you mean user?")
        self.assertIn("known are address, backend", self.refused({"\x1b[2J": "joe"}))
        self.assertNotIn("\x1b", self.refused({"\x1b[2J": "joe"}))
        self.assertLess(len(self.refused({"x" * 10000: "joe"})), 300)

    def test_words(self) -> None:
        """Protocols and phases are words."""
        self.assertEqual(Filter.fromJSON({"protocol": "IMAP"}).protocol, "imap")
        self.assertEqual(self.refused({"protocol": "imp"}), "imp is no known protocol; did you mean imap?")
        self.assertEqual(self.refused({"phase": "relai"}), "relai is no known phase; did you mean relay?")

    def test_query(self) -> None:
        """A query has texts, and each name once."""
        query = [("user", "j*"), ("older", "1h30m"), ("stuck", "2.5")]
        self.assertEqual(Filter.fromQuery(query), Filter(user="j*", older=5400.0, stuck=2.5))
        with self.assertRaisesRegex(ValueError, "user is given twice"):
            Filter.fromQuery([("user", "joe"), ("user", "jane")])

    def test_ages(self) -> None:
        """An age is a number of seconds, 0 or more, and finite."""
        self.assertEqual(Filter.fromJSON({"older": 5}).older, 5.0)
        values: tuple[Any, ...] = (
            -1,
            float("nan"),
            float("inf"),
            True,
            [],
            {},
            "",
            "soon",
            "-3",
            "1e9",
            "9" * 30,
            1e12,
        )
        for value in values:
            self.assertIn("older must be", self.refused({"older": value}), value)

    def test_texts(self) -> None:
        """A text is not empty, and bounded."""
        values: tuple[Any, ...] = ("", 5, [], {}, True, "x" * 3000)
        for name in ("user", "address", "backend", "protocol", "server", "phase", "id"):
            for value in values:
                self.assertIn(name, self.refused({name: value}), value)
        self.assertIn("valid Unicode", self.refused({"user": "\ud800"}))

    def test_ids(self) -> None:
        """An id has the form of ids, with or without the gateway's name."""
        self.assertEqual(Filter.fromJSON({"id": "g1.5g0qa.7k"}).member, "5g0qa")
        self.assertEqual(Filter.fromJSON({"id": "5g0qa.00"}).member, "5g0qa")
        self.assertIsNone(Filter().member)
        for value in ("5g0qa", "*.7k", "5g0qa.7k.7k.7k", "5g0qa.7k\n", "ABCDE.7k"):
            self.assertIn("id of a session", self.refused({"id": value}), value)

    def test_again(self) -> None:
        """The JSON of a filter makes the same filter."""
        full = {
            "user": "j\u202e*",
            "address": "192.0.2.0/24",
            "backend": "10.0.0.1:143",
            "protocol": "imap",
            "server": "imaps",
            "phase": "relay",
            "id": "5g0qa.7k",
            "older": 1.0,
            "stuck": 2.0,
        }
        made = Filter.fromJSON(full)
        self.assertEqual(Filter.fromJSON(json.loads(json.dumps(made.asJSON()))), made)
        self.assertEqual(Filter().asJSON(), {})

    def test_everything(self) -> None:
        """Conditions that exclude nothing are noticed."""
        for given in ({}, {"user": "*"}, {"user": "**?"}, {"address": "::/0"}, {"address": "0.0.0.0/0"}, {"older": 0}):
            self.assertTrue(Filter.fromJSON(given).isEverything, given)
        for given in ({"user": "j*"}, {"user": "*", "protocol": "imap"}, {"address": "10.0.0.0/8"}, {"older": 1}):
            self.assertFalse(Filter.fromJSON(given).isEverything, given)

    def test_nearest(self) -> None:
        """Without a near word all known ones are named."""
        self.assertEqual(nearest("zzz", ("b", "a"), "word"), "zzz is no known word; known are a, b")


class MatchingTests(SynchronousTestCase):
    """L{Filter.compiled}."""

    def test_user(self) -> None:
        """A mask is for the whole name, without regard to case."""
        for mask in ("joe@example.org", "JOE@*", "*", "j?e@example.org", "[ij]oe@*"):
            self.assertTrue(matches({"user": mask}), mask)
        for mask in ("joe", "oe@example.org", "joe@example.org*x", "[!j]*", "j.e@example.org"):
            self.assertFalse(matches({"user": mask}), mask)

    def test_noUser(self) -> None:
        """A connection without a user has none, not even an empty one."""
        self.assertFalse(matches({"user": "*"}, session(user=b"")))

    def test_hostile(self) -> None:
        """Any user name is matched by itself, and by no other."""
        for name in HOSTILE:
            matcher = userMatcher(exactly(name.decode("utf-8", "replace")))
            self.assertEqual([other for other in HOSTILE if matcher(other)], [name])

    def test_slowMask(self) -> None:
        """A mask with many wildcards takes no time that grows without a bound."""
        matcher = userMatcher("*a" * 100 + "b")
        self.assertFalse(matcher(b"a" * 300))

    def test_manyWildcards(self) -> None:
        """A mask of many wildcards would take long to compile. A name may contain any number of them."""
        for mask in ("[a-z]*" * 341, "*a" * 1000, "?" * 129):
            with self.assertRaisesRegex(ValueError, "user has more than 128 wildcards"):
                Filter.fromJSON({"user": mask})
        Filter.fromJSON({"user": "?" * 128})
        name = "*?[a]" * 50
        self.assertTrue(userMatcher(exactly(name))(name.encode()))

    def test_address(self) -> None:
        """Addresses and networks, in any spelling."""
        cases = {
            "192.0.2.7": ["192.0.2.7:40123", "[::ffff:192.0.2.7]:40123", "[::ffff:c000:207]:1"],
            "::ffff:192.0.2.7": ["192.0.2.7:40123"],
            "192.0.2.0/24": ["192.0.2.7:40123", "192.0.2.255:1"],
            "::ffff:192.0.2.0/120": ["192.0.2.7:40123"],
            "2001:DB8::7": ["[2001:db8::7]:40123"],
            "[2001:db8::7]": ["[2001:db8::7]:40123"],
            "2001:db8::/32": ["[2001:db8:1::9]:40123"],
            "fe80::1": ["[fe80::1%eth0]:40123"],
            "unix:": ["unix:"],
            "0.0.0.0/0": ["192.0.2.7:40123", "192.0.2.255:1"],
        }
        clients = {client for found in cases.values() for client in found} | {"198.51.100.1:5"}
        for address, _ in cases.items():
            found = {client for client in clients if matches({"address": address}, session(client=client))}
            self.assertLessEqual(set(cases[address]), found, address)
        self.assertFalse(matches({"address": "192.0.2.6"}))
        self.assertFalse(matches({"address": "::/0"}))
        self.assertFalse(matches({"address": "0.0.0.0/0"}, session(client="unix:")))
        self.assertFalse(matches({"address": "192.0.2.0/25"}, session(client="192.0.2.128:1")))

    def test_badAddress(self) -> None:
        """Anything else is refused."""
        for value in ("example.org", "192.0.2", "192.0.2.0/33", "192.0.2.0/255.255.255.0", "10.0.0.0/8/8"):
            self.assertRaises(ValueError, Filter.fromJSON, {"address": value})

    def test_words(self) -> None:
        """The other conditions are equal or not."""
        cases = {
            "backend": ("10.0.0.1:143", "10.0.0.1:144"),
            "protocol": ("imap", "pop3"),
            "phase": ("relay", "auth"),
            "id": ("5g0qa.7k", "5g0qa.7l"),
            "server": ("imaps", "imap"),
        }
        for name, (right, wrong) in cases.items():
            self.assertTrue(matches({name: right}), name)
            self.assertFalse(matches({name: wrong}), name)
        self.assertTrue(matches({"server": "0.0.0.0:993"}))

    def test_older(self) -> None:
        """The age counts from the beginning of the connection."""
        self.assertTrue(matches({"older": 60}))
        self.assertFalse(matches({"older": 61}))

    def test_stuck(self) -> None:
        """Only logins that are under way get stuck, and their time counts from the credentials."""
        for phase in Phase:
            isLogin = phase in (Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN)
            self.assertEqual(matches({"stuck": 10}, session(phase=phase)), isLogin, phase)
        self.assertFalse(matches({"stuck": 11}, session(phase=Phase.AUTH)))

    def test_all(self) -> None:
        """All conditions must hold."""
        self.assertTrue(matches({"user": "joe*", "protocol": "imap", "older": 5}))
        self.assertFalse(matches({"user": "joe*", "protocol": "imap", "older": 500}))
