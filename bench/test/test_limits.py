"""
Tests of L{bench.limits} and L{bench.flood}.
"""

from __future__ import annotations

import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.flood import attempts, flood
from bench.limits import OFF, ON, Crowd, sides
from bench.options import REPOSITORY, limiting
from bench.spread import AFTER, BEFORE
from mailgate.config import parse
from mailgate.limits.attempt import Action, Rule, Verdict
from mailgate.limits.defence import Defence
from mailgate.limits.keys import addressOf, networkOf
from mailgate.limits.policy import Mode, Prefixes
from mailgate.limits.settings import LimitSettings

_PATIENCE = 10.0


class FloodTests(SynchronousTestCase):
    """The flood."""

    def test_distinct(self) -> None:
        """Neither a user, an address, a network nor a password comes twice."""
        found = [*attempts(0, 3000), *attempts(65_536, 3000), *attempts(131_072, 3000), *attempts(20_000_000, 100)]
        hosts = [addressOf(each.host) for each in found]
        networks = {networkOf(host, Prefixes(), True) for host in hosts if host is not None}
        for distinct in (networks, {each.user for each in found}, {each.tag for each in found}):
            self.assertEqual(len(distinct), len(found))

    def test_failures(self) -> None:
        """Each login is a failure, and none is refused."""
        defence = Defence()
        one = next(attempts(5, 1))
        flood(defence, attempts(0, 50))
        found = defence.explain(one.user, one.host, "imap")
        self.assertEqual((found["pair"]["failures"], found["address"]["failures"]), (1, 1))

    def test_refused(self) -> None:
        """A login that is refused has no result."""

        class Refusing(Defence):
            def check(self, attempt, ticket=0, owner=""):
                return Verdict(Action.REFUSE, rule=Rule.BLOCK)

            def record(self, attempt, ticket, result, owner=""):
                raise AssertionError("a refused login has no result")

        flood(Refusing(), attempts(0, 3))


class CrowdTests(SynchronousTestCase):
    """L{Crowd}."""

    def until(self, isTrue) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not isTrue():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def test_returns(self) -> None:
        """Its clients come from their address, and come again when they are disconnected."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(_PATIENCE)
            with Crowd(server.getsockname(), 2).present() as crowd:
                first, (source, _) = server.accept()
                second, _ = server.accept()
                self.assertEqual(source, "127.0.0.9")
                self.until(lambda: crowd.held == 2)
                first.sendall(b"* BYE later\r\n")
                first.close()
                third, _ = server.accept()
                self.until(lambda: crowd.held == 2 and crowd.tries == 3)
                second.close()
                third.close()


class OptionTests(SynchronousTestCase):
    """What is measured."""

    def test_sides(self) -> None:
        """The same tree, with limits that count and without any; with two workers and a keeper for each side."""
        off, on = sides("/source")
        self.assertEqual(
            (off.name, on.name, off.process, on.process), (BEFORE, AFTER, ["admin = off"], ["admin = off"])
        )
        self.assertEqual((off.more, on.more), (OFF, ON))
        off, on = sides("/source", "/folder")
        self.assertEqual([side.process[1] for side in (off, on)], ["worker_processes = 2"] * 2)
        self.assertNotEqual(off.process[0], on.process[0])

    def test_lines(self) -> None:
        """mailgate understands the lines: all limits off, and all on without an exempt network."""
        server = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 127.0.0.1:1143\n"
        off, on = (parse("\n".join(["[mail]", *lines, server]))[LimitSettings] for lines in (OFF, ON))
        self.assertFalse(off.isAnyOn)
        self.assertEqual((on.loginMode, on.exempt.networks), (Mode.ON, ()))
        policy = on.connectionPolicy()
        self.assertTrue(policy.connection and policy.handshake and policy.login)
        self.assertEqual((policy.address, policy.dropMode), (100, Mode.ON))

    def test_quick(self) -> None:
        """C{--quick} does little work, and leaves what it does not know."""
        arguments = limiting().parse_args(["--quick"])
        self.assertEqual((arguments.bursts, arguments.flood, arguments.memory), (2, 20_000, 16))
        self.assertFalse(hasattr(arguments, "sessions"))
        self.assertEqual(arguments.mailgate, REPOSITORY)
