"""Tests for L{mailgate.process.upgrade} without processes. C{integration.test_upgrade} uses real ones."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.net.sockets import ListeningSockets
from mailgate.process.upgrade import READY_WITHIN, VARIABLE, Command, Inheritance, Successor, UpgradeError


class CommandTests(SynchronousTestCase):
    """Tests for L{Command}."""

    def test_ofThisProcess(self) -> None:
        """The command is the interpreter's command line with its options; its C{repr} shows no environment."""
        command = Command.ofThisProcess({"SECRET": "wonderland"})
        self.assertEqual(command.arguments, (sys.executable, *sys.orig_argv[1:]))
        self.assertEqual(command.folder, os.getcwd())
        self.assertNotIn("wonderland", repr(command))


class InheritanceTests(SynchronousTestCase):
    """Tests for L{Inheritance}."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def told(self, **changes: Any) -> dict[str, str]:
        """An environment that passes on a channel and a socket."""
        bound = socket.create_server(("127.0.0.1", 0))
        self.descriptors = {"channel": os.dup(self.theirs.fileno()), "socket": bound.detach()}
        told: dict[str, Any] = {"version": 1, "channel": self.descriptors["channel"], "commands": None}
        told |= {"sockets": {"127.0.0.1:143": self.descriptors["socket"]}, **changes}
        return {VARIABLE: json.dumps(told), "HOME": "/"}

    def closeAll(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)

    def test_nobody(self) -> None:
        """A process without the variable inherits nothing."""
        self.assertIsNone(Inheritance.of({"HOME": "/"}))

    def test_inherited(self) -> None:
        """The sockets are adopted, are not inherited by child processes, and the variable is removed."""
        environ = self.told()
        inheritance = Inheritance.of(environ)
        assert inheritance is not None
        self.assertEqual(environ, {"HOME": "/"})
        self.assertEqual(inheritance.sockets.descriptors(), {"127.0.0.1:143": self.descriptors["socket"]})
        self.assertFalse(any(map(os.get_inheritable, self.descriptors.values())))
        self.assertTrue(inheritance.sockets.keepsFiles)
        inheritance.take(ListeningSockets())
        self.assertEqual(inheritance.sockets.descriptors(), {})
        inheritance.fail("it is \u2026 full\nof faults")
        inheritance._channel.close()
        said = json.loads(self.ours.recv(1000))
        self.assertEqual(said, {"failed": "it is \u2026 full\nof faults"})

    def test_nonsense(self) -> None:
        """An invalid value is refused, and the error does not quote it."""
        noSockets = '{"version": 1, "channel": -1, "commands": null, "sockets": 1}'
        tooLarge = '{"version": 1, "channel": -1, "commands": 1' + 30 * "0" + "}"
        for text in ("", "5", "[]", "{}", '{"version": 1}', noSockets, tooLarge, "[" * 100000):
            error = self.assertRaises(UpgradeError, Inheritance.of, {VARIABLE: text})
            self.assertTrue(str(error).startswith(f"{VARIABLE} is invalid ("), text)

    def test_noSocket(self) -> None:
        """A descriptor that is closed or no socket is refused."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertRaises(UpgradeError, Inheritance.of, self.told(sockets={"127.0.0.1:143": reading}))
        self.closeAll()

    def test_version(self) -> None:
        """The format of another version is refused."""
        error = self.assertRaises(UpgradeError, Inheritance.of, self.told(version=2))
        self.closeAll()
        self.assertEqual(str(error), f"{VARIABLE} comes from an incompatible version of mailgate: restart the gateway")


class FakeProcess:
    """A transport of a process."""

    pid = 4711

    def __init__(self) -> None:
        self.signals: list[str] = []

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class FakeReactor(Clock):
    """Starts no process, and has a channel without a peer."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Any] = []
        self.process = FakeProcess()

    def spawnProcess(self, protocol: Any, *arguments: Any, **named: Any) -> None:
        self.spawned.append((arguments, named))
        protocol.makeConnection(self.process)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.channel = factory.buildProtocol(None)


class SuccessorTests(SynchronousTestCase):
    """Tests for L{Successor}."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        command = Command(("/bin/python", "-n"), "/somewhere", {"HOME": "/", "A": "b"})
        self.successor = Successor(command, {"NOTIFY_SOCKET": "@n"}, self.reactor)

    def start(self) -> Deferred[int]:
        return self.successor.start(ListeningSockets(), None)

    def reason(self, ready: Deferred[int]) -> str:
        """Return the reason of the failure; no delayed call is left."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return str(self.failureResultOf(ready, UpgradeError).value)

    def test_command(self) -> None:
        """The same command is started in the same folder and environment, with the descriptors in addition."""
        self.start()
        ((arguments, named),) = self.reactor.spawned
        program, words, environ, folder = arguments
        self.assertEqual((program, words, folder), ("/bin/python", ("/bin/python", "-n"), "/somewhere"))
        told = json.loads(environ.pop(VARIABLE))
        self.assertEqual(environ, {"HOME": "/", "A": "b", "NOTIFY_SOCKET": "@n"})
        self.assertEqual(
            told, {"version": 1, "channel": 3, "commands": None, "sockets": {}, "orders": [], "keeper": {}}
        )
        self.assertEqual(sorted(named["childFDs"]), [0, 1, 2, 3])

    def test_orders(self) -> None:
        """The orders of operators are passed on."""
        self.successor.start(ListeningSockets(), None, [["192.0.2.1:143", "drain", 7.5]])
        (((*_, environ, _), _),) = self.reactor.spawned
        self.assertEqual(json.loads(environ[VARIABLE])["orders"], [["192.0.2.1:143", "drain", 7.5]])

    def test_keeper(self) -> None:
        """The sockets of the keeper are passed on by their names."""
        self.successor.start(ListeningSockets(), None, (), {"rendezvous": 20, "admin": 21})
        ((arguments, named),) = self.reactor.spawned
        passed = json.loads(arguments[2][VARIABLE])["keeper"]
        descriptors = {name: named["childFDs"][place] for name, place in passed.items()}
        self.assertEqual(descriptors, {"rendezvous": 20, "admin": 21})

    def test_ready(self) -> None:
        """The successor is ready when it reports its pid, which is that of the process in the background."""
        ready = self.start()
        self.reactor.channel.lineReceived(b'{"ready": 5}')
        self.assertEqual(self.successResultOf(ready), 5)
        # That of an earlier release does not know of keepers.
        self.assertFalse(self.successor.hasKeeper)

    def test_hasKeeper(self) -> None:
        """The successor says that it has a keeper."""
        self.start()
        self.reactor.channel.lineReceived(b'{"ready": 5, "keeper": true}')
        self.assertTrue(self.successor.hasKeeper)
        self.assertEqual(self.successor.pid, 5)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reason(self) -> None:
        """The reason that the successor reports takes precedence over its exit status."""
        ready = self.start()
        self.reactor.channel.lineReceived(b'{"failed": "the port is taken"}')
        self.successor.processExited(Failure(ProcessTerminated(78)))
        self.reactor.channel.connectionLost()
        self.assertEqual(self.reason(ready), "the port is taken")

    def test_ends(self) -> None:
        """Without a report the exit status is the reason, whichever is noticed first."""
        ready = self.start()
        self.reactor.channel.connectionLost()
        self.assertNoResult(ready)
        self.successor.processExited(Failure(ProcessTerminated(1)))
        self.assertEqual(self.reason(ready), "the new process exited with status 1")

    def test_background(self) -> None:
        """The exit of the started process means nothing while its child has the channel."""
        ready = self.start()
        self.successor.processExited(Failure(ProcessDone(0)))
        self.assertNoResult(ready)
        self.reactor.channel.connectionLost()
        self.assertEqual(self.reason(ready), "the new process exited with status 0")

    def test_tooLate(self) -> None:
        """A successor that takes too long is ended."""
        ready = self.start()
        self.reactor.advance(READY_WITHIN)
        self.assertEqual(self.reason(ready), "the new process was not ready within 120 s")
        self.assertEqual(self.reactor.process.signals, ["TERM"])

    def test_nonsense(self) -> None:
        """Invalid messages are ignored."""
        ready = self.start()
        for line in (b"", b"ready", b"[5]", b'{"ready": "5"}', b"\xff"):
            self.reactor.channel.lineReceived(line)
        self.assertNoResult(ready)
