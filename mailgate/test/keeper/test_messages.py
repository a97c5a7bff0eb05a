# -*- test-case-name: mailgate.test.keeper.test_messages -*-
"""
Tests for L{mailgate.keeper.messages}.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.conversation import Conversation
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    FROM_OTHERS,
    LONGEST_HANDOVER,
    LONGEST_ORDER,
    LONGEST_REPORT,
    Ask,
    Check,
    Enough,
    Handover,
    Hello,
    Judged,
    Message,
    Move,
    Moved,
    News,
    OtherVersion,
    Part,
    Received,
    Record,
    Refused,
    Report,
    Sessions,
    Welcome,
    WireError,
    decode,
    encode,
)
from mailgate.keeper.placemessages import Place, Placed, Seat

MESSAGES: tuple[Any, ...] = (
    Hello("5g0qa", 4711, 2),
    Report({"mailgate_users": [[[], 2]]}, [{"user": "j\xf6e"}], False),
    Report(None, [], True),
    Part(1, [{"id": "5g0qa.7k"}], False, ""),
    Part(1, [], True, "it failed"),
    Moved(),
    Handover(("5g0qa", "abcde"), '{"keeper":1}\n', True),
    Welcome("g1"),
    Refused("it is late"),
    Ask(7, "sessions", {"user": "j*"}),
    Enough(7),
    Move(),
    Received(),
    Check(7, 0, ["192.0.2.7", "j\xf6e", None, 1.5, True]),
    Record(70000, "failed unknown", ["192.0.2.7", "joe"]),
    Judged(7, ["go", 70000, 0.0, None, ""]),
    Place(7, "imap", "j\xf6e", "10.0.0.1:143", 86400),
    Placed(7, "10.0.0.2:143"),
    Seat("imap", "j\xf6e", "10.0.0.2:143", "10.0.0.1:143", "took", 86400, 900),
    News([["key", "00ff"], {"host": "192.0.2.7"}]),
    Sessions([["5g0qa.7k", "j\xf6e", "imap", "imaps", "192.0.2.7:4", "10.0.0.1:143", 1.5]], ["5g0qa.7j"], False, True),
)


class MessageTests(SynchronousTestCase):
    """Valid and invalid messages."""

    def test_thereAndBack(self) -> None:
        """Each kind of message is one line in ASCII, which only the side that it is for reads."""
        self.assertEqual({type(each) for each in MESSAGES}, set(get_args(Message)))
        for message in MESSAGES:
            line = encode(message)
            self.assertTrue(line.isascii())
            self.assertNotIn(b"\n", line)
            mine, others = FROM_KEEPERS, FROM_OTHERS
            if type(message) in FROM_OTHERS:
                mine, others = others, mine
            self.assertEqual(decode(line, mine), message)
            self.assertRaises(WireError, decode, line, others)

    def test_invalid(self) -> None:
        """A line that is no message with exactly the right fields is refused. The error does not quote it."""
        hello = json.loads(encode(MESSAGES[0]))
        part = json.loads(encode(MESSAGES[3]))
        report = json.loads(encode(MESSAGES[1]))
        handover = json.loads(encode(MESSAGES[6]))
        check, record = (json.loads(encode(each)) for each in MESSAGES[13:15])
        deep: Any = []
        for _ in range(10):
            deep = [deep]
        for line in (
            b"",
            b"{}",
            b"[]",
            b"7",
            b"\xff",
            b'{"kind": "secret"}',
            b'{"kind": ["hello"]}',
            b"[" * 100000,
            *(
                json.dumps(each).encode()
                for each in (
                    {**hello, "more": 1},
                    {**hello, "member": ""},
                    {**hello, "member": "a b"},
                    {**hello, "member": "secret\n"},
                    {**hello, "member": "x" * 65},
                    {**hello, "pid": 0},
                    {**hello, "pid": True},
                    {**hello, "slot": -1},
                    {**hello, "release": "x" * 41},
                    {**part, "rows": [1] * 201},
                    {**part, "rows": {}},
                    {**part, "rows": deep},
                    {**part, "rows": [float("nan")]},
                    {**part, "isLast": 1},
                    {**part, "failure": "a\nb"},
                    {**part, "failure": "x" * 1001},
                    {**report, "totals": []},
                    {**report, "totals": {"x": deep}},
                    {**report, "stories": [{}] * 101},
                    {**check, "ticket": -1},
                    {**check, "attempt": [1] * 17},
                    {**check, "attempt": deep},
                    {**check, "attempt": "secret"},
                    {**record, "result": "Failed"},
                    {**record, "attempt": None},
                    {**handover, "members": "5g0qa"},
                    {**handover, "members": [1]},
                    {**handover, "members": ["x" * 65]},
                    {**handover, "members": ["x"] * 1001},
                    {**handover, "state": "x" * (LONGEST_HANDOVER + 1)},
                )
            ),
        ):
            error = self.assertRaises(WireError, decode, line, FROM_OTHERS)
            self.assertNotIn("secret", str(error).replace("unexpected message: secret", ""))

    def test_version(self) -> None:
        """Another version is found out first, whatever else has changed."""
        for line in (b'{"kind": "hello", "version": 2, "name": "x"}', b'{"kind": "handover", "version": 2}'):
            self.assertRaises(OtherVersion, decode, line, FROM_OTHERS)

    def test_longest(self) -> None:
        """What the other end would refuse is not sent. The longest part of a state fits."""
        self.assertRaises(WireError, encode, Part(1, ["x" * LONGEST_REPORT], True, ""))
        self.assertRaises(WireError, encode, Part(1, [object()], True, ""))
        # JSON has no such number, but Python reads one from 1e999.
        self.assertRaises(ValueError, Part, 1, [float("inf")], True, "")
        line = b'{"kind": "part", "id": 1, "rows": [[1e999]], "isLast": true, "failure": ""}'
        self.assertRaises(WireError, decode, line, FROM_OTHERS)
        self.assertRaises(ValueError, Ask, 1, "sessions", {"user": "x" * LONGEST_ORDER})
        encode(Handover(("x" * 64,) * 1000, '"' * LONGEST_HANDOVER, True))

    def test_repr(self) -> None:
        """Names of users are not in a representation."""
        for message in (
            Report(None, [{"user": "joe"}], False),
            Part(1, ["joe"], True, ""),
            Ask(1, "x", {"user": "joe"}),
            Check(1, 0, ["joe"]),
            Record(1, "failed", ["joe"]),
            News(["joe"]),
        ):
            self.assertNotIn("joe", repr(message))


class _Heard(Conversation):
    """Collects what happens."""

    kinds = FROM_OTHERS
    MAX_LENGTH = 1000

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def received(self, message: Any) -> None:
        self.heard.append(message)

    def invalid(self, error: WireError) -> None:
        self.heard.append(str(error))
        self.abort()

    def drained(self) -> None:
        self.heard.append("drained")

    def ended(self) -> None:
        self.heard.append("ended")


class ConversationTests(SynchronousTestCase):
    """L{Conversation}."""

    def setUp(self) -> None:
        self.end = _Heard()
        self.transport = StringTransport()
        self.end.makeConnection(self.transport)

    def test_messages(self) -> None:
        """Messages arrive, in whatever pieces."""
        for byte in encode(Moved()) + b"\n":
            self.end.dataReceived(bytes([byte]))
        self.assertEqual(self.end.heard, [Moved()])

    def test_invalid(self) -> None:
        """Behind an invalid message nothing is read."""
        self.end.dataReceived(b"x\n" + encode(Moved()) + b"\n")
        self.assertEqual(self.end.heard, ["invalid message: JSONDecodeError"])
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)

    def test_tooLong(self) -> None:
        """A line that does not end is refused."""
        self.end.dataReceived(b"x" * 1001)
        self.assertEqual(self.end.heard, ["invalid message: longer than 1000 bytes"])

    def test_full(self) -> None:
        """It knows whether the other end reads."""
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.assertTrue(self.end.isFull)
        producer.resumeProducing()
        self.assertFalse(self.end.isFull)
        self.assertEqual(self.end.heard, ["drained"])

    def test_close(self) -> None:
        """After the end nothing is sent."""
        self.end.close()
        self.end.close()
        self.end.send(Moved())
        self.assertEqual(self.transport.value(), b"")
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)
        self.end.connectionLost()
        self.assertEqual(self.end.heard, ["ended"])
