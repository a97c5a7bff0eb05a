# -*- test-case-name: mailgate.test.limits.test_limits -*-
"""
Tests for L{mailgate.limits.limits}: which limits the servers of a gateway have, and that a reload keeps the tables.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.keeper.service import KeeperService
from mailgate.limits.attempt import Attempt, Result
from mailgate.limits.interfaces import ILimitStore
from mailgate.limits.limits import Limits
from mailgate.limits.settings import LimitSettings
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.service import Gateway, ProcessState
from mailgate.test.support.loginguards import ScriptedStore
from mailgate.testing import requestFor
from mailgate.testing.fakes import makeSession

OFF = "limit_conn = off\nlimit_req = off\nlimit_early_drop = off\nlimit_login = off\n"


def settings(mail: str = "", server: str = "") -> GatewaySettings:
    server = f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:2143\nproxy_pass = 127.0.0.1:9\n{server}"
    return parse(f"[mailgate]\nuse = reactor\n[mail]\n{mail}\n{server}", "gateway.ini")


class LimitsTests(SynchronousTestCase):
    """L{Limits}."""

    telling: Any = type("Telling", (), {"acted": None})()

    def made(self, limits: Limits, mail: str = "", server: str = "") -> tuple[Any, Any]:
        (own,) = settings(mail, server).servers
        clock: Any = Clock()
        return limits.of(own, self.telling, clock, bytes(32))

    def test_defaults(self) -> None:
        """A server without a directive has limits for connections and for logins."""
        self.assertNotIn(None, self.made(Limits()))

    def test_off(self) -> None:
        """A server without any limit costs nothing, unless operators can block."""
        self.assertEqual(self.made(Limits(), server=OFF), (None, None))
        self.assertNotIn(None, self.made(Limits(isSteered=True), server=OFF))

    def test_tags(self) -> None:
        """With a store, gateways of different runs give a password the same tag, so that a repeat is one at all."""
        (own,) = settings().servers
        clock: Any = Clock()
        request = requestFor("imap", credentials=Credentials(Method.PLAIN, b"joe", b"sesame"))
        found = []
        for tagKey, runKey in ((None, b"1"), (None, b"2"), (b"shared", b"1"), (b"shared", b"2")):
            limits, store = Limits(), ScriptedStore()
            limits.tagKey, limits.store = tagKey, cast(ILimitStore, store)
            _, guard = limits.of(own, self.telling, clock, runKey * 32)
            assert guard is not None
            session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:40123", 0.0, id="s1")
            begun: Any = guard.begin(request, session, lambda seconds: None)
            guard.ended(begun, Denial(Trouble.DENIED))
            ((attempt, _, _),) = store.records
            found.append(attempt.tag)
        self.assertEqual([found.index(tag) for tag in found], [0, 1, 2, 2])

    def test_reload(self) -> None:
        """Other rules act on what was counted before."""
        limits = Limits()
        limits.configure(settings()[LimitSettings])
        for number in range(3):
            limits.defence.record(Attempt("192.0.2.7", b"joe", tag=bytes([number]) * 16), 0, Result.FAILED)
        self.assertIsNone(limits.defence.explain(b"joe", "192.0.2.7", "imap")["rule"])
        limits.configure(settings("limit_login_pair = delay=2")[LimitSettings])
        self.assertEqual(limits.defence.explain(b"joe", "192.0.2.7", "imap")["rule"], "R1")
        limits.configure(settings("limit_login_pair = delay=2 dry_run")[LimitSettings])
        found = limits.defence.explain(b"joe", "192.0.2.7", "imap")
        self.assertEqual((found["rule"], found["would"]), (None, ["R1 would delay by 2 s"]))


class EmbeddedTests(SynchronousTestCase):
    """An application with a gateway."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def gateway(self, state: ProcessState | None = None, mail: str = "") -> Gateway:
        made = Gateway(settings(mail), self.reactor, state=state)
        self.addCleanup(made.stopService)
        return made

    def test_withoutKeeper(self) -> None:
        """It has a defence of its own, which it shares with the gateway that replaces it. There is no state file."""
        first = self.gateway()
        second = self.gateway(first.state)
        (one,), (other,) = first.factories, second.factories
        self.assertIsNot(one.guard, other.guard)
        self.assertIs(first.state.limits.store, second.state.limits.store)
        self.assertIs(first.state.limits.store, first.state.limits.defence)

    def test_withKeeper(self) -> None:
        """Operators reach the same defence."""
        gateway = self.gateway(ProcessState.of(self.reactor, isWatched=True), OFF)
        keeper = KeeperService.of(gateway, self.reactor).keeper
        assert keeper.limits is not None
        keeper.limits.block("192.0.2.0/24", 60, "abuse")
        self.assertIsNotNone(gateway.state.limits.store.blockOf("192.0.2.7"))
        self.assertIsNotNone(gateway.factories[0].guard)
