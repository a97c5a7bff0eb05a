"""
What is known of servers in a gateway with two workers: rests, checks, and orders of operators. What one process finds
out holds in the others, in those that start later, and behind a reload.
"""

from __future__ import annotations

import os
import signal
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.main import main
from mailgate.test.integration.crowd import Crowd
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.faultysite import FaultySite
from mailgate.test.integration.groupsite import FOR_LONG
from mailgate.test.integration.ownwords import ownWords
from mailgate.test.integration.procfs import children, servedBy

WORKERS = 2
CLIENTS = 200

INTERVAL = 0.2
"""Seconds between two checks of a server."""

ENOUGH = 16
"""So many logins in a row reach both workers, and each server of a group."""


def _site():
    # No server of these tests is late, except for health checks. On a busy machine all are.
    site = FaultySite(f"worker_processes = {WORKERS}", connect=8.0, login=9.0)
    for name in ("rest", "reload"):
        site.group(name, [f"A {FOR_LONG}", f"B {FOR_LONG}"])
    for name in ("drained", "killed", "unknown"):
        site.group(name, ["A", "B"])
    check = f"interval={INTERVAL * 1000:.0f}ms jitter=0 fails=2 passes=2"
    for name in ("checked", "survived"):
        site.group(name, ["A", "B"], f"health_check = {check}\nhealth_check_timeout = 1s")
    return site


class StateTestCase(SynchronousTestCase):
    """Each test has a gateway of its own: its health checks would go on beside all later tests of the process."""

    def setUp(self):
        self.site = self.start()
        self.addCleanup(self.site.stop)
        self.logged = len(self.site.gateway.log())
        self.addCleanup(lambda: self.assertNotIn("Traceback", self.log()))

    def start(self):
        site = _site().start()
        waitUntil(lambda: "serve, forked by zygote" in site.gateway.log(), "the workers serve")
        return site

    def workersOf(self, site):
        """The workers of the newest generation."""
        zygotes = children(site.gateway.pid)
        return children(zygotes[-1]) if zygotes else []

    def workers(self):
        """Those of this gateway."""
        return self.workersOf(self.site)

    def log(self):
        """What the gateway has logged since the test began."""
        return self.site.gateway.log()[self.logged :]

    def failures(self):
        """The lines about servers that failed."""
        return [line for line in self.log().splitlines() if "backend failed" in line]

    def backend(self, group, name="A"):
        """A server of a group."""
        return self.site.backends[group, name]

    def address(self, group, name="A"):
        """The address of a server, as operators write it."""
        return f"127.0.0.1:{self.backend(group, name).port}"

    def answers(self, group, count=ENOUGH, user="alice"):
        """The servers that so many logins get, one letter each."""
        return "".join(self.site.login(group, user).removeprefix("OK this is ") for _ in range(count))

    def assertOnlyB(self, group):
        """Each worker sends clients to the second server alone."""
        answers = {client.login("alice", "wonderland").decode().strip() for client in self.clientsOfAll(group)}
        self.assertEqual(answers, {"OK this is B"})

    def clientsOfAll(self, group):
        """Clients that have not logged in, several of each worker."""
        clients = []

        def areSpread():
            for _ in range(ENOUGH):
                clients.append(self.site.client(group))
                self.addCleanup(clients[-1].close)
            owners = servedBy(self.workers(), [client.socket for client in clients])
            return all(owners.count(worker) > 1 for worker in self.workers())

        waitUntil(areSpread, "each worker has clients")
        return clients

    def command(self, *words):
        """C{mailgate backend ...}: its exit status, standard output and standard error."""
        with ownWords() as (said, errors):
            try:
                status = main(("backend", *words, "--config", self.site.gateway.configuration))
            except SystemExit as ended:
                status = ended.code
        return status, said.getvalue(), errors.getvalue()

    def order(self, word, group, name="A"):
        """An operator's order, which succeeds."""
        status, said, errors = self.command(word, self.address(group, name))
        self.assertEqual((status, errors), (0, ""), said)
        return said

    def row(self, group, name="A"):
        """The line about a server in C{mailgate backend list}."""
        status, said, errors = self.command("list")
        self.assertEqual((status, errors), (0, ""))
        (row,) = (line for line in said.splitlines() if self.address(group, name) in line.split())
        self.assertIn(group, row.split())
        return row

    def becomes(self, word, group, name="A"):
        """Wait until C{list} has the C{word} in the line about a server."""
        waitUntil(lambda: word in self.row(group, name).split(), f"{group} {name} is {word}")


class RestTests(StateTestCase):
    """A server that failed a login."""

    def test_other(self):
        """A rest that one worker begins holds in the other."""
        self.backend("rest").refuse()
        self.assertEqual(self.answers("rest", 1), "B")
        self.becomes("resting", "rest")
        self.assertOnlyB("rest")
        self.assertEqual(len(self.failures()), 1)

    def test_reload(self):
        """It rests on behind a reload, although the workers are new."""
        self.backend("reload").refuse()
        self.assertEqual(self.answers("reload", 1), "B")
        self.becomes("resting", "reload")
        before = set(self.workers())
        self.site.reload()
        waitUntil(lambda: len(self.workers()) == WORKERS and before.isdisjoint(self.workers()), "the workers are new")
        self.assertOnlyB("reload")
        self.assertEqual(len(self.failures()), 1)
        self.assertIn("resting", self.row("reload"))


class CheckTests(StateTestCase):
    """C{health_check}."""

    def test_hanging(self):
        """A server that hangs is taken out before a client meets it, and used again when it works."""
        backend = self.backend("checked")
        backend.fail("hangs")
        self.becomes("down", "checked")
        self.assertOnlyB("checked")
        self.assertEqual(self.failures(), [])
        backend.recover()
        self.becomes("up", "checked")
        waitUntil(lambda: "A" in self.answers("checked", 4), "it gets clients again")
        address = self.address("checked")
        lines = [line.partition(address)[2] for line in self.log().splitlines() if f"backend {address} is" in line]
        self.assertEqual(len(lines), 2, lines)
        self.assertIn(" is down: did not answer", lines[0])
        self.assertIn(" is up again", lines[1])

    def test_firstKilled(self):
        """When the worker that checks is killed, another one goes on with it."""
        first = min(self.workers())
        os.kill(first, signal.SIGKILL)
        waitUntil(lambda: first not in self.workers() and len(self.workers()) == WORKERS, "it is replaced")
        self.backend("survived").fail("garbage")
        self.becomes("down", "survived")
        self.assertOnlyB("survived")
        self.assertEqual(self.failures(), [])

    def test_once(self):
        """The gateway checks each server once at a time, not each worker."""
        backend = self.backend("checked", "B")
        checks, logins = len(backend.heard), backend.logins
        began = time.monotonic()
        waitUntil(lambda: len(backend.heard) >= checks + 13, "it has been checked")
        # Two workers would need half of 12 intervals. The first checks may be earlier ones that were late.
        self.assertGreater(time.monotonic() - began, 8 * INTERVAL)
        self.assertEqual(backend.logins, logins)


class OrderTests(StateTestCase):
    """C{mailgate backend}."""

    def test_drain(self):
        """
        While 200 clients log in and out a server is drained: none is refused, none goes there once the command has
        answered; its sessions stay, and C{list} counts them. C{resume} brings it back.
        """
        backend = self.backend("drained")
        stayed = []
        while len(stayed) < 3:
            client = self.site.client("drained")
            self.addCleanup(client.close)
            if client.login("resident", "wonderland").strip().endswith(b"A"):
                stayed.append(client)
        with Crowd(self.site.at("drained").port, CLIENTS, "early") as crowd:
            waitUntil(lambda: all(crowd.rounds), "each client has logged in", 60)
            self.assertTrue(backend.heardOf("early"))
            self.order("drain", "drained")
            crowd.mark = "late"
            before = list(crowd.rounds)
            # The login that a client had begun, and another one.
            waitUntil(lambda: all(now > was + 1 for now, was in zip(crowd.rounds, before, strict=True)), "again", 60)
            self.assertFalse(backend.heardOf("late"))
            self.assertTrue(self.backend("drained", "B").heardOf("late"))
            self.assertIn("drain", self.row("drained").split())
            waitUntil(lambda: self.row("drained").split().count("3") == 1, "the residents are left")
            stayed.pop().close()
            waitUntil(lambda: self.row("drained").split().count("2") == 1, "one has left")
            self.assertTrue(all(client.noop().startswith(b"OK") for client in stayed))
            self.order("resume", "drained")
            crowd.mark = "back"
            waitUntil(lambda: backend.heardOf("back"), "it gets clients again")
        self.assertEqual(crowd.refused, [])
        self.assertEqual(self.failures(), [])

    def test_killed(self):
        """The successor of a killed worker knows what has been ordered."""
        self.order("drain", "killed")
        for victim in self.workers():
            os.kill(victim, signal.SIGKILL)
            waitUntil(lambda: f"worker {victim} was killed" in self.log(), "that is noticed")  # noqa: B023
            waitUntil(lambda: victim not in self.workers() and len(self.workers()) == WORKERS, "it is replaced")  # noqa: B023
        self.assertOnlyB("killed")
        self.order("resume", "killed")
        self.assertIn("A", self.answers("killed"))

    def test_down(self):
        """So do workers that a reload starts, of a server that is down."""
        self.order("down", "unknown")
        self.assertOnlyB("unknown")
        self.site.reload()
        self.assertOnlyB("unknown")
        self.order("up", "unknown")
        self.assertIn("A", self.answers("unknown"))

    def test_unknown(self):
        """An address that no server has is named, and the status is not 0."""
        for word in ("drain", "down", "resume", "up"):
            status, said, errors = self.command(word, "127.0.0.1:1")
            self.assertNotEqual(status, 0)
            self.assertEqual(said, "")
            self.assertIn("127.0.0.1:1", errors)
