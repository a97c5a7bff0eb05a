"""
Tests for L{mailgate.process.commands}, and for the conversation of L{mailgate.process.commandsocket}.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.process.answer import Answer
from mailgate.process.commands import COMMANDS, CommandError, NoArguments, OperatorCommand, argument, decode, encode
from mailgate.process.commandsocket import LONGEST, CommandConversation

DONE = {"done": True, "reasons": [], "cut": 0, "pid": None, "isUnknown": False, "rows": []}


@frozen
class Shout:
    """The arguments of a command for tests."""

    text: str = argument("what to shout")
    times: int = argument("how often", int, 1)
    pause: float | None = argument("seconds between two times", float, None)
    loud: bool = argument("louder than that", bool)


def shouting(run: Any, **more: Any) -> OperatorCommand:
    return OperatorCommand("shout", run, "shout something", "Has the gateway shout.", Shout, **more)


def add(test: SynchronousTestCase, command: OperatorCommand) -> None:
    """Add C{command} to the table during C{test}."""
    COMMANDS[command.name] = command
    test.addCleanup(COMMANDS.pop, command.name)


class FakeOperation:
    """Records the calls, and returns a Deferred for each."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.results: dict[str, Deferred[Answer]] = {}

    def __getattr__(self, name: str) -> Any:
        def ask() -> Deferred[Answer]:
            self.asked.append(name)
            self.results[name] = Deferred()
            return self.results[name]

        return ask


class DecodeTests(SynchronousTestCase):
    """Valid and invalid lines."""

    def setUp(self) -> None:
        add(self, shouting(None))

    def refused(self, line: bytes) -> str:
        return str(self.assertRaises(CommandError, decode, line))

    def test_commands(self) -> None:
        """Each command of the table is one line, which the other side reads as the same command."""
        orders = {f"backend {word}" for word in ("list", "drain", "resume", "down", "up")}
        self.assertEqual(set(COMMANDS), {"reload", "drain", "stop", "upgrade", "shout", *orders})
        for name in ("reload", "drain", "stop", "upgrade"):
            line = encode(COMMANDS[name], NoArguments())
            self.assertEqual(line, f'{{"do": "{name}"}}\n'.encode())
            self.assertEqual(decode(line), (COMMANDS[name], NoArguments()))

    def test_arguments(self) -> None:
        """Arguments are read as they were given; the others have their defaults."""
        command = shouting(None)
        for arguments in (Shout("m\xfcller"), Shout("a", 3, 0.5, True), Shout("a", 3, 2)):
            line = encode(command, arguments)
            self.assertEqual(line.count(b"\n"), 1)
            self.assertEqual(decode(line), (command, arguments))

    def test_word(self) -> None:
        """The bare word of a client of the previous release is read as a command."""
        self.assertEqual(decode(b"reload"), (COMMANDS["reload"], NoArguments()))
        self.assertEqual(decode(b"stop\r")[0], COMMANDS["stop"])

    def test_unknown(self) -> None:
        """The error names an unknown command, escaped, and lists the known commands."""
        orders = ", ".join(f"backend {word}" for word in ("down", "drain", "list", "resume", "up"))
        known = f"use one of {orders}, drain, reload, shout, stop, upgrade"
        self.assertEqual(self.refused(b'{"do": "destroy"}'), f'unknown command "destroy"; {known}')
        self.assertEqual(self.refused(b"destroy"), f'unknown command "destroy"; {known}')
        self.assertEqual(self.refused(b"\xff\x1b[2J"), f'unknown command "\\\\xff\\u001b[2J"; {known}')
        self.assertEqual(self.refused(b'{"do": "%s"}' % (b"x" * 999)), f'unknown command "{"x" * 40}..."; {known}')

    def test_nonsense(self) -> None:
        """The error for a line that is no command shows an example."""
        for line in (b"", b"[]", b"{}", b'{"do": 1}', b'{"do": null}', b'{"reload": true}', b'"reload"'):
            self.assertEqual(self.refused(line), 'the command must be a JSON object, such as {"do": "reload"}', line)
        for line in (b"{", b'{"do": "reload"', b"[" * 3000, b"{\xff}"):
            self.assertEqual(self.refused(line), "the command is not valid JSON", line[:9])

    def test_badArguments(self) -> None:
        """The error names an argument that is unknown, missing or of the wrong kind."""
        for given, reason in (
            ({"do": "reload", "user": "joe"}, 'reload takes no argument "user"'),
            ({"do": "shout"}, 'shout needs the argument "text"'),
            ({"do": "shout", "text": 7}, 'shout: "text" must be printable text'),
            ({"do": "shout", "text": "a\nb"}, 'shout: "text" must be printable text'),
            ({"do": "shout", "text": "a", "times": True}, 'shout: "times" must be a whole number'),
            ({"do": "shout", "text": "a", "pause": "1"}, 'shout: "pause" must be a number'),
            ({"do": "shout", "text": "a", "pause": float("nan")}, 'shout: "pause" must be a number'),
            ({"do": "shout", "text": "a", "pause": -float("inf")}, 'shout: "pause" must be a number'),
            ({"do": "shout", "text": "a", "loud": 1}, 'shout: "loud" must be true or false'),
        ):
            self.assertEqual(self.refused(json.dumps(given).encode()), reason)


class ConversationTests(SynchronousTestCase):
    """A client of the command socket."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Connect a client."""
        self.clock = Clock()
        self.operation = FakeOperation()
        asked: Any = self.operation
        self.conversation = CommandConversation(asked, self.clock)
        self.transport = StringTransport()
        self.conversation.makeConnection(self.transport)
        (self.greeting,) = self.heard()

    def heard(self) -> list[Any]:
        lines = [json.loads(line) for line in self.transport.value().splitlines()]
        self.transport.clear()
        return lines

    def test_greeting(self) -> None:
        """The gateway greets with its version, its pid and its commands."""
        self.assertEqual(self.greeting["mailgate"], mailgate.__version__)
        orders = [f"backend {word}" for word in ("down", "drain", "list", "resume", "up")]
        self.assertEqual(self.greeting["commands"], [*orders, "drain", "reload", "stop", "upgrade"])

    def test_answer(self) -> None:
        """A command is carried out and answered; the connection closes unless the command ends the process."""
        for line in (b'{"do": "reload"}\n', b"reload\n"):
            self.begin()
            with capturedLogs() as events:
                self.conversation.dataReceived(line)
            self.assertEqual(self.operation.asked, ["reload"])
            self.assertEqual([formatEvent(event) for event in events], ["received command reload"])
            self.assertEqual(self.heard(), [])
            self.operation.results["reload"].callback(Answer(True))
            self.assertEqual(self.heard(), [DONE])
            self.assertTrue(self.transport.disconnecting)

    def test_end(self) -> None:
        """After a command that ends the process the connection stays open."""
        for name in ("drain", "stop"):
            self.begin()
            self.conversation.dataReceived(encode(COMMANDS[name], NoArguments()))
            self.operation.results[name].callback(Answer(True, cut=2))
            self.assertEqual(self.heard(), [{**DONE, "cut": 2}])
            self.assertFalse(self.transport.disconnecting)

    def test_refused(self) -> None:
        """An invalid line is answered with an error, and nothing is done."""
        for line, reason in (
            (b"\n", 'the command must be a JSON object, such as {"do": "reload"}'),
            (b'{"do": "reload", "now": true}\n', 'reload takes no argument "now"'),
            (b"x" * (LONGEST + 1) + b"\n", f"the command is longer than {LONGEST} bytes"),
            (b"x" * (LONGEST + 10), f"the command is longer than {LONGEST} bytes"),
        ):
            self.begin()
            self.conversation.dataReceived(line)
            (answer,) = self.heard()
            self.assertEqual((answer["done"], answer["reasons"]), (False, [reason]))
            self.assertTrue(self.transport.disconnecting)
            self.assertEqual(self.operation.asked, [])

    def test_once(self) -> None:
        """A second command closes the connection."""
        self.conversation.dataReceived(b'{"do": "stop"}\n')
        self.conversation.dataReceived(b'{"do": "reload"}\n')
        self.assertEqual(self.operation.asked, ["stop"])
        self.assertTrue(self.transport.disconnecting)

    def test_endless(self) -> None:
        """A line without an end closes the connection, so that it does not fill the memory while a command runs."""
        self.conversation.dataReceived(b'{"do": "drain"}\n' + b"x" * LONGEST)
        self.assertFalse(self.transport.disconnecting)
        self.conversation.dataReceived(b"x")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual((self.operation.asked, self.heard()), (["drain"], []))

    def test_silent(self) -> None:
        """A client that sends nothing is disconnected."""
        self.clock.advance(10)
        self.assertTrue(self.transport.disconnecting)
