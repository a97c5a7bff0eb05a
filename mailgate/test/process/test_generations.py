"""Tests for L{mailgate.process.generations} with real sockets, and a reactor that does not run."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.config import GatewaySettings, parse
from mailgate.config.restart import untouchable
from mailgate.directives import ConfigurationError, Problem
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings
from mailgate.login import Trouble
from mailgate.process.generations import Generations
from mailgate.process.interfaces import IGenerations
from mailgate.process.watching import LOOK
from mailgate.session import Outcome, Phase
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.nowhere import NOWHERE
from mailgate.testing.fakes import makeSession

TEXT = """
[mailgate]
use = {use}
error_log = {log} info
{process}
[mail]
proxy_pass = 127.0.0.1:1
[server imap]
protocol = imap
listen = 127.0.0.1:{port}
"""


class Relayed:
    """A proxied session, which ends when it is dismissed."""

    def __init__(self, crowd: Any) -> None:
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.1:1", 0.0, Phase.RELAY)
        self._crowd = crowd
        crowd.connections.add(self)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self.session.conclude(outcome)
        self.leave()

    def leave(self) -> None:
        self.session.conclude(Outcome.RELAYED)
        self._crowd.ended(self)


class GenerationsTests(SynchronousTestCase):
    """Tests for L{Generations}."""

    def setUp(self) -> None:
        self.log = os.path.abspath(self.mktemp())
        self.port = freePort()
        self.reactor = MemoryReactorClock()
        self.next: GatewaySettings | Exception = self.settings()
        logs = ErrorLogs()
        settings = self.settings()
        self.process = ProcessLog(logs.observerFor(settings[LogSettings].errorLog, "gateway.ini", "mailgate"))
        self.generations = Generations(settings, self.reactor, logs, self.process, self.read)
        self.generations.privilegedStartService()
        self.generations.startService()
        self.addCleanup(self.end)

    def end(self) -> None:
        """After the stop no delayed call is left on the reactor, and the port is free."""
        stopped = self.generations.stopService()
        self.reactor.pump([0, 2.0, 0])
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        with socket.create_server(("127.0.0.1", self.port)):
            pass

    def settings(self, process: str = "", **values: Any) -> GatewaySettings:
        given = {"port": self.port, "log": self.log, "process": process, "use": "reactor", **values}
        return parse(TEXT.format(**given))

    def read(self, file: str) -> GatewaySettings:
        self.assertEqual(file, "gateway.ini")
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def session(self) -> Relayed:
        """A client of the current gateway."""
        return Relayed(self.generations.gateway.listeners[0].factory)

    def reload(self) -> list[str]:
        """Reload; return the logged messages."""
        with capturedLogs() as events:
            self.successResultOf(self.generations.reload())
            self.reactor.advance(0)
        return [formatEvent(event) or "" for event in events if event["log_namespace"] == "mailgate"]

    def listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def test_interface(self) -> None:
        """The class provides L{IGenerations}."""
        self.assertTrue(verifyObject(IGenerations, self.generations))

    def test_reload(self) -> None:
        """
        After a reload a new gateway serves new clients on the same socket; the previous one ends with its last session.
        """
        before, session = self.generations.gateway, self.session()
        (told,) = self.reload()
        self.assertEqual(told, "reload 1 done: the new configuration is active; sessions on older configurations: 1")
        after = self.generations.gateway
        self.assertIsNot(after, before)
        self.assertIs(after.listeners[0].shared, before.listeners[0].shared)
        self.assertIsNone(before.listeners[0].port)
        self.assertIsNotNone(after.listeners[0].port)
        self.assertTrue(self.listens(self.port))
        self.reactor.advance(86400)
        self.assertIs(before.parent, self.generations)
        self.assertIsNone(session.session.outcome)
        session.leave()
        self.reactor.advance(0)
        self.assertIsNone(before.parent)
        self.assertIs(after.parent, self.generations)
        self.assertTrue(self.listens(self.port))

    def test_several(self) -> None:
        """Each generation lasts as long as it has sessions, in any order."""
        gateways, sessions = [], []
        for _ in range(3):
            gateways.append(self.generations.gateway)
            sessions.append(self.session())
            self.reload()
        for number in (1, 0, 2):
            sessions[number].leave()
            self.reactor.advance(0)
            self.assertIsNone(gateways[number].parent)
            self.assertEqual(len([each for each in gateways if each.parent]), 2 - (1, 0, 2).index(number))

    def test_connectionLimit(self) -> None:
        """The current worker_connections limits the clients of all generations together."""
        places = self.generations.gateway.places
        for most in (3, 2):
            self.session()
            places.taken += 1
            self.next = self.settings(f"worker_connections = {most}")
            self.reload()
            self.assertIs(self.generations.gateway.listeners[0].factory.places, places)
        self.assertIs(self.generations.gateway.factories[0].places, places)
        with capturedLogs() as events:
            self.assertEqual(places.room(lambda: None), 0)
        (told,) = [formatEvent(event) or "" for event in events]
        self.assertIn("worker_connections are not enough: 2 client connections are open", told)

    def test_connectionLimitRefused(self) -> None:
        """A refused reload leaves the limit unchanged."""
        places = self.generations.gateway.places
        places.taken = 5
        room = places.room(lambda: None)
        other = freePort()
        with socket.create_server(("127.0.0.1", other)):
            self.next = self.settings("worker_connections = 1", port=other)
            self.reload()
        self.assertEqual(places.room(lambda: None), room)
        places.taken = 0

    def test_faulty(self) -> None:
        """Each error of the configuration is logged, and the current gateway stays."""
        before = self.generations.gateway
        self.next = ConfigurationError([Problem("gateway.ini", f"is bad {number}", "mail") for number in (1, 2)])
        told = self.reload()
        self.assertEqual(
            told,
            [
                "reload refused: gateway.ini: [mail]: is bad 1",
                "reload refused: gateway.ini: [mail]: is bad 2",
                "reload refused: the current configuration stays active",
            ],
        )
        self.assertIs(self.generations.gateway, before)
        self.assertIsNotNone(before.listeners[0].port)
        self.next = self.settings()
        self.assertEqual(len(self.reload()), 1)

    def test_unopenableLog(self) -> None:
        """The same holds if a log file cannot be opened."""
        before = self.generations.gateway
        self.next = self.settings(log=f"{NOWHERE}/x.log")
        told = self.reload()
        self.assertIn(f"error_log = {NOWHERE}/x.log: cannot be opened", told[0])
        self.assertIs(self.generations.gateway, before)

    def test_surprise(self) -> None:
        """If the new gateway cannot start, the old one keeps serving, and the new sockets are closed."""
        before, other = self.generations.gateway, freePort()
        self.next = self.settings(port=other)

        def adopt(*arguments: Any) -> None:
            raise OSError("a surprise")

        self.patch(self.reactor, "adoptStreamPort", adopt)
        self.failureResultOf(self.generations.reload(), OSError)
        self.assertIs(self.generations.gateway, before)
        self.assertEqual([each for each in self.generations if isinstance(each, type(before))], [before])
        self.assertIsNotNone(before.listeners[0].port)
        self.assertTrue(self.listens(self.port))
        self.assertFalse(self.listens(other))

    def test_log(self) -> None:
        """The log of the new configuration replaces the old one, whose file is closed when it is no longer used."""
        other = f"{self.log}.other"
        session = self.session()
        self.next = self.settings(log=other)
        self.reload()
        self.process(self.event("after"))
        with open(other, encoding="utf-8") as opened:
            self.assertIn("after", opened.read())
        session.leave()
        self.reactor.advance(0)
        os.unlink(self.log)
        self.generations.reopen()
        self.assertFalse(os.path.exists(self.log))

    def test_stateFile(self) -> None:
        """The start says in which section a state file is missing."""
        with capturedLogs() as events:
            self.generations._warnOfLimits(hasKeeper=True)
        lines = [formatEvent(event) for event in events]
        self.assertTrue(any(line.startswith("state_file is not set: ") and "[mail]" in line for line in lines), lines)

    def reopening(self) -> list[str]:
        """Return the messages that reopening the log files logs."""
        with capturedLogs() as events:
            self.generations.reopen()
        return [formatEvent(event) for event in events]

    def test_reopen(self) -> None:
        """
        The log reports that the files were reopened, or only the file that cannot be opened, or that there are none.
        """
        self.assertEqual(self.reopening(), ["log files reopened"])
        folder = f"{self.log}.folder"
        self.next = self.settings(log=os.path.join(folder, "x.log"))
        os.mkdir(folder)
        self.reload()
        os.rename(folder, f"{folder}.1")
        told = f"cannot reopen {folder}/x.log; logging continues in the old file: No such file or directory"
        self.assertIn(told, self.reopening())
        self.assertNotIn("log files reopened", self.reopening())

    def test_reopenNothing(self) -> None:
        """Without log files there is nothing to reopen, and the log says so."""
        self.generations._logs.retain(())
        self.assertEqual(self.reopening(), ["no error_log is a file: nothing to reopen"])

    def event(self, text: str) -> Any:
        with capturedLogs() as events:
            self.generations._log.info(text)
        return events[0]

    def test_patience(self) -> None:
        """Older sessions keep the worker_shutdown_timeout that they started with; the other sessions continue."""
        self.next = self.settings("worker_shutdown_timeout = 10s")
        self.reload()
        first = self.session()
        self.next = self.settings("worker_shutdown_timeout = 99s")
        self.reload()
        second = self.session()
        with capturedLogs() as events:
            self.reactor.advance(10)
            self.reactor.advance(5)
            self.reactor.advance(0)
        self.assertIs(first.session.outcome, Outcome.STOPPED)
        self.assertIsNone(second.session.outcome)
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertEqual(told[1:], ["worker_shutdown_timeout expired: 1 proxied sessions were cut"])
        self.assertEqual(self.generations.cut, 0)

    def test_restart(self) -> None:
        """Each reload warns of options that it cannot change."""
        self.next = self.settings("pid = /x.pid\nworker_rlimit_nofile = 5000\nworker_processes = 2", use="epoll")
        for _ in range(2):
            told = self.reload()
            self.assertEqual(
                told[:-1],
                [
                    f"{name} changed; it takes effect after a restart"
                    for name in ("worker_rlimit_nofile", "pid", "worker_processes")
                ],
            )
        self.assertEqual(list(untouchable(self.settings(), self.settings("worker_shutdown_timeout = 1s"))), [])

    def test_drain(self) -> None:
        """A drain closes the port and waits for the sessions of all generations; meanwhile reloads are refused."""
        first = self.session()
        self.reload()
        second = self.session()
        drained = self.generations.drain()
        self.reactor.advance(0)
        self.assertEqual(self.reload(), ["reload refused: the gateway is shutting down"])
        second.leave()
        self.reactor.advance(0)
        self.assertNoResult(drained)
        first.leave()
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.generations.cut, 0)

    def test_stop(self) -> None:
        """A stop cuts and counts all sessions; the Deferred of an earlier drain fires, too."""
        for _ in range(2):
            self.session()
            self.reload()
        drained = self.generations.drain()
        self.assertNoResult(drained)
        stopped = self.generations.stop()
        self.reactor.advance(0)
        self.assertEqual((self.successResultOf(drained), self.successResultOf(stopped)), (2, 2))
        self.assertEqual(self.generations.cut, 2)

    def test_stopService(self) -> None:
        """Stopping the service, as twistd does at its end, has the same effect."""
        self.session()
        stopped: Deferred[Any] = self.generations.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.generations.cut, 1)

    def test_files(self) -> None:
        """A change to a file of the current configuration triggers a reload; files of previous ones are not watched."""
        trusted = os.path.abspath(self.mktemp())
        self.generations._watch.watch([trusted])
        with open(trusted, "w", encoding="ascii") as opened:
            opened.write("new")
        before = self.generations.gateway
        with capturedLogs() as events:
            self.reactor.pump([LOOK, LOOK, 0])
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertEqual(told[0], f"reloading because files changed: {trusted}")
        self.assertIsNot(self.generations.gateway, before)
        after = self.generations.gateway
        os.unlink(trusted)
        self.reactor.pump([LOOK, LOOK, 0])
        self.assertIs(self.generations.gateway, after)
