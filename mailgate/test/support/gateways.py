"""
Several gateways with one store, in simulated time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Attempt, Result, Verdict
from mailgate.limits.defence import Defence
from mailgate.limits.shared import SharedDefence
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import Memory
from mailgate.store.seal import Seal
from mailgate.test.support.attacks import KEY, START, Scene, login
from mailgate.test.support.stores import SwitchedStore

__all__ = ["KEYS", "Gateway", "GatewaysCase", "SplitScene", "answer"]

KEYS = StoreKeys(b"the secret of all gateways")


def answer(verdict: Any) -> Any:
    """Return a verdict that is there, or that a Deferred has."""
    if not isinstance(verdict, Deferred):
        return verdict
    found: list[Any] = []
    verdict.addBoth(found.append)
    assert found, "there is no verdict yet"
    return found[0]


class Gateway:
    """
    One gateway.

    @ivar name: its name.
    @ivar store: its connection to the store.
    @ivar local: its tables.
    @ivar shared: its limits.
    @ivar news: what it tells other processes.
    """

    def __init__(self, name: str, clock: Any, memory: Memory, local: Defence) -> None:
        self.name = name
        self.local = local
        self.store = SwitchedStore(clock, memory, name)
        self.shared = SharedDefence(local, self.store, KEYS, Seal(KEYS.derived(b"seal")), name, clock)
        self.news: list[Any] = []
        self.shared.changed = self.news.append
        self.store.heard = self._heard
        self.store.resumed = self.shared.resumed
        self.store.start()
        self.shared.start()

    def _heard(self, channel: str, message: bytes) -> None:
        if channel == "events":
            self.shared.heard(message)

    @property
    def blocks(self) -> list[str]:
        """What is blocked, in words."""
        return sorted(block.thing for block in self.shared.blocks())


class _SceneClock(Clock):
    """The time of a scene. Its calls are made as the scene goes on."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def seconds(self) -> float:
        return self._scene.now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Any:
        call = super().callLater(delay, callable, *args, **kw)
        self._scene.later(delay, lambda: self.advance(self._scene.now - self.rightNow))
        return call


class _Split:
    """The limits of a scene: its logins come to the gateways in turn. All else is the first gateway's."""

    def __init__(self, gateways: list[Gateway], clock: Clock) -> None:
        self._gateways = gateways
        self._clock = clock
        self._turn = 0

    def check(self, attempt: Attempt, ticket: int = 0, owner: object = "") -> Verdict:
        number = len(self._gateways)
        if not ticket:
            self._turn += 1
        at = ticket % number if ticket else self._turn % number
        verdict = answer(self._gateways[at].shared.check(attempt, ticket // number, owner))
        given = verdict.ticket * number + at if verdict.ticket else 0
        return Verdict(verdict.action, given, verdict.seconds, verdict.rule, verdict.would)

    def record(self, attempt: Attempt, ticket: int, result: Result, owner: object = "") -> None:
        number = len(self._gateways)
        self._gateways[ticket % number].shared.record(attempt, ticket // number, result, owner)

    def forget(self, owner: object) -> None:
        for each in self._gateways:
            each.shared.forget(owner)

    def configure(self, *policy: Any) -> None:
        for each in self._gateways:
            each.shared.configure(*policy)

    def block(self, *block: Any, **more: Any) -> Any:
        """Block at one gateway; the others hear of it at once."""
        made = self._gateways[0].shared.block(*block, **more)
        self._clock.advance(0)
        return made

    def unblock(self, thing: str) -> Any:
        ended = self._gateways[0].shared.unblock(thing)
        self._clock.advance(0)
        return ended

    def explain(self, user: bytes, host: str, protocol: str) -> Any:
        answer(self._gateways[0].shared.look(user, host))
        return self._gateways[0].shared.explain(user, host, protocol)

    def __getattr__(self, name: str) -> Any:
        shared = self._gateways[0].shared
        return getattr(shared if hasattr(shared, name) else self._gateways[0].local, name)


class SplitScene(Scene):
    """
    A scene with two gateways, to which the logins come in turn.

    @ivar gateways: they.
    @ivar memory: what their stores share.
    """

    def __init__(self, **more: Any) -> None:
        self.gateways: list[Gateway] = []
        self.memory = Memory()
        super().__init__(**more)

    def make(self, **more: Any) -> Any:
        """Two new gateways with the same store."""
        if not hasattr(self, "clock"):
            self.clock = _SceneClock(self)
        self.gateways = [Gateway(name, self.clock, self.memory, self._local(more)) for name in ("g1", "g2")]
        return _Split(self.gateways, self.clock)

    def _local(self, more: Any) -> Defence:
        return super().make(**{**more, "key": KEYS.secret})

    def run(self, seconds: float) -> None:
        super().run(seconds)
        self.clock.advance(self.now - self.clock.rightNow)


class GatewaysCase(SynchronousTestCase):
    """Two gateways with one store."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = Memory()
        self.first, self.second = self.gateway("g1"), self.gateway("g2")
        self.clock.advance(10)

    def gateway(self, name: str, **more: Any) -> Gateway:
        local = Defence(
            monotonic=self.clock.seconds,
            wall=lambda: START + self.clock.seconds(),
            chance=lambda: 0.0,
            **{"key": KEY, **more},
        )
        return Gateway(name, self.clock, self.memory, local)

    def check(self, gateway: Gateway, host: str, user: str, password: str = "x", **more: Any) -> Verdict:
        """The verdict about a login, which is not undecided any more."""
        attempt = login(host, user, password, **more)
        verdict: Verdict = answer(gateway.shared.check(attempt))
        gateway.shared.record(attempt, verdict.ticket, Result.UNDECIDED)
        return verdict

    def end(self, gateway: Gateway, host: str, user: str, password: str, result: Result, **more: Any) -> None:
        attempt = login(host, user, password, **more)
        verdict = answer(gateway.shared.check(attempt))
        gateway.shared.record(attempt, verdict.ticket, result)

    def guess(self, gateway: Gateway, host: str, user: str, times: int) -> None:
        """Let logins fail at a gateway without a look at verdicts."""
        for each in range(times):
            attempt = login(host, user, f"{gateway.name} {each}")
            gateway.shared.record(attempt, answer(gateway.shared.check(attempt)).ticket, Result.FAILED)

    def failures(self, gateway: Gateway, user: str, host: str, what: str = "pair") -> int:
        answer(gateway.shared.look(user.encode(), host))
        return int(gateway.shared.explain(user.encode(), host, "imap")[what]["failures"])
