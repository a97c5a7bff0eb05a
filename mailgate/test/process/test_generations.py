"""
Tests for L{mailgate.process.generations}: real sockets, and a reactor that stands still.
"""

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
from mailgate.session import Outcome, Phase, Session
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.nowhere import NOWHERE

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
    """A proxied session, which goes when it is told to."""

    def __init__(self, crowd: Any) -> None:
        self.session = Session("imap", "127.0.0.1:143", "192.0.2.1:1", 0.0, Phase.RELAY)
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
        """Nothing is left on the reactor when it stops, and the port is free."""
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
        """Somebody who is served by the gateway that there is now."""
        return Relayed(self.generations.gateway.listeners[0].factory)

    def reload(self) -> list[str]:
        """Reload; gives what is told of it."""
        with capturedLogs() as events:
            self.successResultOf(self.generations.reload())
            self.reactor.advance(0)
        return [formatEvent(event) or "" for event in events if event["log_namespace"] == "mailgate"]

    def listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def test_interface(self) -> None:
        """They are what signals ask."""
        self.assertTrue(verifyObject(IGenerations, self.generations))

    def test_reload(self) -> None:
        """Another gateway serves newcomers, on the same socket; the one before goes when its last session has gone."""
        before, session = self.generations.gateway, self.session()
        (told,) = self.reload()
        self.assertEqual(told, "reload 1: the configuration is in force; sessions of before: 1")
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
        """Each generation lasts for as long as it has sessions, whichever goes first."""
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
        """worker_connections is for the clients of all of them together, and that of the last reload."""
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
        """A reload that fails leaves the limit as it was."""
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
        """Each line of what is wrong is told of as an error, and the gateway is the one that it was."""
        before = self.generations.gateway
        self.next = ConfigurationError([Problem("gateway.ini", f"is bad {number}", "mail") for number in (1, 2)])
        told = self.reload()
        self.assertEqual(
            told,
            [
                "gateway.ini: [mail]: is bad 1",
                "gateway.ini: [mail]: is bad 2",
                "the configuration is not reloaded: nothing changes",
            ],
        )
        self.assertIs(self.generations.gateway, before)
        self.assertIsNotNone(before.listeners[0].port)
        self.next = self.settings()
        self.assertEqual(len(self.reload()), 1)

    def test_unopenableLog(self) -> None:
        """So it is where a log cannot be opened."""
        before = self.generations.gateway
        self.next = self.settings(log=f"{NOWHERE}/x.log")
        told = self.reload()
        self.assertIn(f"error_log = {NOWHERE}/x.log: cannot be opened", told[0])
        self.assertIs(self.generations.gateway, before)

    def test_surprise(self) -> None:
        """Whatever goes wrong when the new one starts, the old one serves on, and what was bound for it is closed."""
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
        """The process's log is the new one's, and the old file is closed once nobody uses it."""
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

    def reopening(self) -> list[str]:
        """What is logged when the logs are opened again."""
        with capturedLogs() as events:
            self.generations.reopen()
        return [formatEvent(event) for event in events]

    def test_reopen(self) -> None:
        """The log says that its files are open again, or which is not and nothing else, or that there are none."""
        self.assertEqual(self.reopening(), ["the logs are open again"])
        folder = f"{self.log}.folder"
        self.next = self.settings(log=os.path.join(folder, "x.log"))
        os.mkdir(folder)
        self.reload()
        os.rename(folder, f"{folder}.1")
        told = f"{folder}/x.log cannot be opened again, the old file stays: No such file or directory"
        self.assertIn(told, self.reopening())
        self.assertNotIn("the logs are open again", self.reopening())

    def test_reopenNothing(self) -> None:
        """Where no log is a file there is nothing to open, and the log says so."""
        self.generations._logs.retain(())
        self.assertEqual(self.reopening(), ["no error_log is a file: there is nothing to open again"])

    def event(self, text: str) -> Any:
        with capturedLogs() as events:
            self.generations._log.info(text)
        return events[0]

    def test_patience(self) -> None:
        """Sessions of before have the worker_shutdown_timeout that they began with; the others are left alone."""
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
        self.assertEqual(told[1:], ["worker_shutdown_timeout is over: 1 proxied sessions were ended"])
        self.assertEqual(self.generations.cut, 0)

    def test_restart(self) -> None:
        """What a reload cannot change is told of, each time."""
        self.next = self.settings("pid = /x.pid\nworker_rlimit_nofile = 5000\nworker_processes = 2", use="epoll")
        for _ in range(2):
            told = self.reload()
            self.assertEqual(
                told[:-1],
                [
                    f"{name} is not what it was: that takes a restart"
                    for name in ("worker_rlimit_nofile", "pid", "worker_processes")
                ],
            )
        self.assertEqual(list(untouchable(self.settings(), self.settings("worker_shutdown_timeout = 1s"))), [])

    def test_drain(self) -> None:
        """A drain waits for the sessions of all generations; the port is closed meanwhile, and nothing is reloaded."""
        first = self.session()
        self.reload()
        second = self.session()
        drained = self.generations.drain()
        self.reactor.advance(0)
        self.assertEqual(self.reload(), ["nothing is reloaded: the gateway is going down"])
        second.leave()
        self.reactor.advance(0)
        self.assertNoResult(drained)
        first.leave()
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.generations.cut, 0)

    def test_stop(self) -> None:
        """A stop cuts them all, and counts; whoever had been waiting for a drain hears of it as well."""
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
        """So does who stops the service, by which twistd ends, if nobody has asked by a signal."""
        self.session()
        stopped: Deferred[Any] = self.generations.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.generations.cut, 1)

    def test_files(self) -> None:
        """Files of a configuration that change have it reloaded; those of the one before are looked at no longer."""
        trusted = os.path.abspath(self.mktemp())
        self.generations._watch.watch([trusted])
        with open(trusted, "w", encoding="ascii") as opened:
            opened.write("new")
        before = self.generations.gateway
        with capturedLogs() as events:
            self.reactor.pump([LOOK, LOOK, 0])
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertEqual(told[0], f"reloading, as these have changed: {trusted}")
        self.assertIsNot(self.generations.gateway, before)
        after = self.generations.gateway
        os.unlink(trusted)
        self.reactor.pump([LOOK, LOOK, 0])
        self.assertIs(self.generations.gateway, after)
