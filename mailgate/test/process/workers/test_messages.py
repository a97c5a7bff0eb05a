"""
Tests for L{mailgate.process.workers.messages}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mailgate._version import __version__
from mailgate.process.keeper.talk import Configure, Duty, Event, Instruct, NotStarted, Request, Result, Taken
from mailgate.process.workers.messages import (
    Announce,
    Become,
    Begin,
    ControlError,
    Cut,
    Ended,
    Failed,
    Fork,
    Kill,
    Lines,
    Loaded,
    Order,
    OtherRelease,
    Query,
    Ready,
    Reply,
    Retired,
    Started,
    Tell,
    decode,
    encode,
    otherRelease,
)

KEY = "0f" * 32

MESSAGES = (
    Begin("/etc/gateway.ini", "[mail]\nserver_name = m\xfcller\n", {"0.0.0.0:143": 5, "unix:/run/x": 6}, KEY),
    Become(1000, 1000, (1000, 27)),
    Fork(0),
    Kill(3),
    Tell(Order.RETIRE),
    Loaded(),
    Failed("a\nb"),
    Started(2, 4711),
    Ready(),
    Ready(2),
    Retired(),
    Retired(2),
    Cut(0),
    Ended(2, 4711, -9, 3),
    Announce("order", "192.0.2.1:143", {"word": "drain"}, 0.25),
    Announce("rest", "store/m\xfcller:143", None, 7, 2),
    Query(1, "backend list", {}),
    Query(2, "sessions", {"user": "joe", "older": 3600}),
    Reply(1, [], True, ""),
    Reply(1, [{"address": "unix:/x", "sessions": 3}, None, 4], False, "it failed", 2),
    Configure("/etc/gateway.ini", "[mail]\nserver_name = m\xfcller\n"),
    Instruct(Duty.TAKE_OVER, 3),
    Taken(),
    Taken(2),
    NotStarted("a\nb"),
    NotStarted("a", 2),
    Event("mailgate_reloads", ["ok"]),
    Request(1, "backend drain", {"address": "192.0.2.1:143"}),
    Result(1, 2, True, {"done": True, "rows": [{"a": 1}]}),
)


class MessageTests(SynchronousTestCase):
    """Valid and invalid messages."""

    def test_thereAndBack(self):
        """Each kind of message is one line, which the other side reads as the same message."""
        for message in MESSAGES:
            line = encode(message)
            self.assertEqual(line.count(b"\n"), 1)
            self.assertTrue(line.endswith(b"\n"))
            self.assertEqual(decode(line[:-1]), message)

    def test_none(self):
        """A message of an unknown kind, with missing or other fields, or with values of wrong types is refused."""
        for line in (
            b"",
            b"{}",
            b"[]",
            b"7",
            b"{",
            b"\xff",
            b'{"kind": "loaded"',
            b'{"kind": "nothing"}',
            b'{"kind": ["fork"], "slot": 1}',
            b'{"kind": "fork"}',
            b'{"kind": "fork", "slot": "1"}',
            b'{"kind": "fork", "slot": true}',
            b'{"kind": "fork", "slot": 1.0}',
            b'{"kind": "fork", "slot": -1}',
            b'{"kind": "fork", "slot": 1, "more": 1}',
            b'{"kind": "started", "slot": 1, "pid": 0}',
            b'{"kind": "tell", "order": "dance"}',
            b'{"kind": "become", "uid": 0, "gid": 0, "groups": []}',
            b'{"kind": "become", "uid": 1, "gid": 1, "groups": 27}',
            b'{"kind": "become", "uid": 1, "gid": 1, "groups": ["27"]}',
            b"[" * 100000,
        ):
            self.assertRaises(ControlError, decode, line)

    def test_bounds(self):
        """What workers pass on from the network is bounded, and has no control characters in names."""
        good = {"kind": "announce", "topic": "rest", "key": "a:1", "body": {}, "age": 1, "slot": None}
        decode(json.dumps(good).encode())
        for bad in (
            {"topic": "Rest"},
            {"topic": ""},
            {"topic": "x" * 33},
            {"topic": ["rest"]},
            {"key": "a\nb"},
            {"key": "a\x9b2J"},
            {"key": "x" * 1025},
            {"key": None},
            {"body": "x" * 16384},
            {"age": -1},
            {"age": True},
            {"age": "1"},
            {"age": float("nan")},
            {"age": float("inf")},
            {"age": 10**10},
            {"age": 10**400},
            {"slot": 10**400},
            {"body": json.loads("[" * 100 + "]" * 100)},
            {"slot": -1},
            {"more": 1},
        ):
            self.assertRaises(ControlError, decode, json.dumps({**good, **bad}).encode())
        good = {"kind": "reply", "id": 1, "rows": [], "isLast": True, "failure": "", "slot": None}
        decode(json.dumps(good).encode())
        for bad in ({"rows": {}}, {"rows": ["x" * 1024 * 1024]}, {"isLast": 1}, {"failure": "x" * 1001}, {"id": -1}):
            self.assertRaises(ControlError, decode, json.dumps({**good, **bad}).encode())
        good = {"kind": "query", "id": 1, "word": "backend list", "arguments": {}}
        decode(json.dumps(good).encode())
        for bad in ({"word": "x" * 41}, {"word": 1}, {"arguments": []}, {"arguments": {"a": "x" * 4096}}):
            self.assertRaises(ControlError, decode, json.dumps({**good, **bad}).encode())

    def test_ofKeeper(self):
        """What a keeper requests, and what is answered, is bounded."""
        for good, bad in (
            ({"kind": "request", "id": 1, "command": "reload", "arguments": {}, "slot": None}, {"command": "x" * 41}),
            ({"kind": "request", "id": 1, "command": "reload", "arguments": {}, "slot": None}, {"command": "re\nload"}),
            ({"kind": "request", "id": 1, "command": "reload", "arguments": {}, "slot": None}, {"arguments": []}),
            ({"kind": "notstarted", "reason": "x", "slot": None}, {"reason": "x" * 4001}),
            ({"kind": "instruct", "duty": "serve", "slot": 1}, {"duty": "rest"}),
            ({"kind": "event", "name": "a_b", "labels": [], "reasons": []}, {"name": "a b"}),
            ({"kind": "event", "name": "a_b", "labels": [], "reasons": []}, {"labels": {}}),
            ({"kind": "event", "name": "a_b", "labels": [], "reasons": []}, {"reasons": ["x" * 33_000]}),
            ({"kind": "result", "id": 1, "slot": 0, "done": True, "answer": {}}, {"answer": {"a": "x" * 600000}}),
        ):
            decode(json.dumps(good).encode())
            self.assertRaises(ControlError, decode, json.dumps({**good, **bad}).encode())

    def test_otherRelease(self):
        """
        A L{Begin} of another release is refused, whatever else it contains; the reason has both releases and the
        remedy.
        """
        another = "is of another version"
        for release, named in (("98.7.dev1", "is version 98.7.dev1"), (None, another), (7, another)):
            given = {"kind": "begin", "release": release, "more": 1, "text": "sesame"}
            error = self.assertRaises(OtherRelease, decode, json.dumps(given).encode())
            self.assertIn(f"the running mailgate {named}, ", str(error))
            self.assertIn(f"the installed one is version {__version__}: run mailgate upgrade or restart", str(error))
            self.assertNotIn("sesame", str(error))

    def test_noRelease(self):
        """A L{Begin} without a release, or with an odd one, is refused; the reason does not quote it."""
        self.assertRaises(
            OtherRelease, decode, b'{"kind": "begin", "file": "x", "text": "", "sockets": {}, "version": 1}'
        )
        for odd in ("1\x1b[2J", "9" * 100, "", "1 2"):
            self.assertEqual(otherRelease(odd), otherRelease())

    def test_standardDescriptors(self):
        """A socket cannot have the descriptor of a standard stream."""
        given = json.loads(encode(MESSAGES[0]))
        given["sockets"] = {"127.0.0.1:143": 2}
        self.assertRaises(ControlError, decode, json.dumps(given).encode())

    def test_tooLong(self):
        """A configuration that is too long for a message is not sent."""
        self.assertRaises(ControlError, encode, Begin("x", "\x01" * 2000000, {}, KEY))

    def test_secret(self):
        """Neither the C{repr} of a message nor an error about it contains the configuration."""
        shown = repr(Begin("x", "sesame", {}, KEY))
        self.assertNotIn("sesame", shown)
        self.assertNotIn(KEY, shown)
        error = self.assertRaises(ControlError, decode, b'{"kind": "begin", "text": "sesame"}')
        self.assertNotIn("sesame", str(error))


class LinesTests(SynchronousTestCase):
    """Splitting a stream of bytes."""

    def test_anywhere(self):
        """The messages do not depend on how the bytes are split."""
        data = b"".join(map(encode, MESSAGES))
        for size in (1, 7, 100, len(data)):
            lines = Lines()
            heard = [message for i in range(0, len(data), size) for message in lines.feed(data[i : i + size])]
            self.assertEqual(heard, list(MESSAGES), size)

    def test_bound(self):
        """A line that is too long is refused, with and without its end."""
        for pieces in ([b"x" * 60, b"x" * 60], [b"x" * 101 + b"\n"], [b"x" * 60, b"x" * 60 + b"\n"]):
            lines = Lines(100)
            with self.assertRaises(ControlError):
                for piece in pieces:
                    lines.feed(piece)

    def test_boundOfOne(self):
        """The limit applies to a single message, not to their sum."""
        lines = Lines(100)
        for _ in range(100):
            self.assertEqual(lines.feed(encode(Fork(1))), [Fork(1)])
