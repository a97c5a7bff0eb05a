# -*- test-case-name: mailgate.test.backend.test_health -*-
"""
Health checks: C{health_check} of a group. One process of the gateway checks the servers, and tells the others which are
down (L{mailgate.upstream.standing}).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from mailgate.backend.client import ProxyClient
from mailgate.backend.coroutine import Task
from mailgate.backend.errors import FAILURES
from mailgate.backend.place import Place
from mailgate.backend.probing import Finding, Use, findingOf, useOf
from mailgate.backend.visiting import sayGoodbye, within
from mailgate.log.journal import Journal
from mailgate.upstream.group import Upstream
from mailgate.upstream.healthcheck import HealthCheck
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import Peer
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams
from mailgate.upstream.verdicts import Verdict, keyOf, partsOf

__all__ = ["CHECKER", "HealthChecks"]

CHECKER = "checker"
"""The topic of the notice that another process, the keeper, does the health checks. It has one key, which is empty."""

MOST_AT_ONCE = 16
"""The most checks at a time. Each needs a descriptor."""


@define(eq=False)
class _Target:
    """
    A server that is checked.

    @ivar group: its group.
    @ivar peer: the server.
    @ivar use: as what it is checked.
    @ivar check: how it is checked.
    @ivar wasFailing: whether it was down when the last check ended. An operator may have changed that.
    @ivar run: how many checks one after another have contradicted its state.
    @ivar place: where checks connect to; found out by the first one.
    @ivar timer: begins the next check.
    @ivar task: the check that is going on.
    """

    group: Upstream
    peer: Peer
    use: Use
    check: HealthCheck
    wasFailing: bool
    run: int = field(init=False, default=0)
    place: Place | None = field(init=False, default=None)
    timer: Any = field(init=False, default=None)
    task: Task | None = field(init=False, default=None)

    @property
    def key(self) -> str:
        """The key of notices about it."""
        return keyOf(self.group.name, self.peer.backend)


class HealthChecks(Service):
    """
    Checks the servers of all groups that have C{health_check}. It does nothing in processes that are not the first one,
    and while a notice of L{CHECKER} says that another process checks.

    @param upstreams: the groups.
    @param standing: which servers are used.
    @param notices: tells other processes what is found.
    @param uses: how the servers of the configuration speak to backends, in their order.
    @param clock: the time.
    @param journal: the log.
    @param draw: returns a random number from 0 to 1.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        standing: Standing,
        notices: Notices,
        uses: Sequence[Use],
        clock: IReactorTime,
        journal: Journal,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._upstreams = upstreams
        self._standing = standing
        self._notices = notices
        self._uses = uses
        self._clock = clock
        self._journal = journal
        self._draw = draw
        self._usesOf: dict[str, Use] = {}
        self._targets: dict[str, _Target] = {}
        self._waiting: deque[_Target] = deque()
        self._running = 0
        self._isStarting = False
        self._isChecking = False
        self._beginning: Any = None

    def startService(self) -> None:
        super().startService()
        # A worker is connected to the others when its reactor runs. An earlier gateway of this process has ended its
        # checks then.
        self._beginning = self._clock.callLater(0, self._start)

    def _start(self) -> None:
        self._notices.subscribe(CHECKER, self._heard)
        self._look()

    def _heard(self, key: str, body: Any, age: float) -> None:
        self._look()

    def _look(self) -> None:
        """Begin or end the checks, if it is this process's turn or another's."""
        isOurs = self._notices.isFirst and not any(self._notices.held(CHECKER))
        if isOurs and not self._isChecking:
            self._isChecking = True
            self._checkAll()
        elif self._isChecking and not isOurs:
            self._endAll()

    def _checkAll(self) -> None:
        for group in self._upstreams.groups:
            if group.settings.healthCheck is not None:
                use = useOf(group, self._uses, self._upstreams)
                if use is None:
                    self._journal.error(
                        "upstream {group}: health_check does nothing: it is not known which protocol the servers speak;"
                        " add protocol=NAME to health_check",
                        group=group.name,
                    )
                else:
                    self._usesOf[group.name] = use
        self._takeBack()
        for name in self._usesOf:
            group = self._groupOf(name)
            for peer in group.peers:
                self._add(group, peer)
        self._spread()
        self._standing.whenMet.append(self._met)

    def stopService(self) -> None:
        super().stopService()
        if self._beginning is not None and self._beginning.active():
            self._beginning.cancel()
        self._notices.unsubscribe(self._heard)
        self._endAll()

    def _endAll(self) -> None:
        self._isChecking = False
        if self._met in self._standing.whenMet:
            self._standing.whenMet.remove(self._met)
        self._waiting.clear()
        targets, self._targets = self._targets, {}
        for target in targets.values():
            self._end(target)

    # The servers.

    def _groupOf(self, name: str) -> Upstream:
        return next(group for group in self._upstreams.groups if group.name == name)

    def _takeBack(self) -> None:
        """Take back verdicts about servers that this configuration does not check, or checks in another way."""
        for notice in list(self._notices.held("verdict")):
            name, address = partsOf(notice.key)
            use = self._usesOf.get(name)
            if use is not None:
                group = self._groupOf(name)
                peer = next((peer for peer in group.peers if str(peer.backend) == address), None)
                if peer is not None:
                    verdict = Verdict.of(notice.body)
                    if verdict is not None and verdict.check == use.fingerprint(self._upstreams, group, peer):
                        continue
                elif any(line.resolve or line.service for line in group.settings.servers):
                    # The DNS may still say that it is a server.
                    continue
            self._notices.publish("verdict", notice.key, None)

    def _add(self, group: Upstream, peer: Peer) -> _Target | None:
        """Check C{peer} from now on; returns L{None} if another peer has the same address."""
        use, check = self._usesOf[group.name], group.settings.healthCheck
        assert check is not None, "others are not in _usesOf"
        target = _Target(group, peer, use, check, peer.isFailing)
        if target.key in self._targets:
            return None
        verdict = self._standing.verdictOf(group.name, peer)
        if verdict is not None and verdict.check != use.fingerprint(self._upstreams, group, peer):
            self._notices.publish("verdict", target.key, None)
        self._targets[target.key] = target
        return target

    def _spread(self) -> None:
        """Let the first checks begin at different times, but at once where no login may use the server before."""
        targets = list(self._targets.values())
        for place, target in enumerate(targets):
            self._later(target, 0 if self._isUnknown(target) else target.check.interval * place / len(targets))

    def _met(self, name: str, peer: Peer) -> None:
        """The DNS has added C{peer}."""
        if name in self._usesOf:
            target = self._add(self._groupOf(name), peer)
            if target is not None:
                self._later(target, 0 if self._isUnknown(target) else self._draw() * target.check.interval)

    def _isUnknown(self, target: _Target) -> bool:
        """Whether the server waits for its first successful check (C{mandatory})."""
        return target.peer.isFailing and self._standing.verdictOf(target.group.name, target.peer) is None

    def _end(self, target: _Target) -> None:
        timer, target.timer = target.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        task, target.task = target.task, None
        if task is not None:
            task.cancel()

    # The times of checks.

    def _later(self, target: _Target, seconds: float) -> None:
        target.timer = self._clock.callLater(seconds, self._due, target)

    def _due(self, target: _Target) -> None:
        target.timer = None
        if target.peer not in target.group.peers:
            # The DNS names it no more, or with another weight.
            others = (peer for peer in target.group.peers if keyOf(target.group.name, peer.backend) == target.key)
            other = next(others, None)
            if other is None:
                del self._targets[target.key]
                self._notices.publish("verdict", target.key, None)
                return
            target.peer, target.place = other, None
        peer = target.peer
        if peer.limits.down or peer.order == "down":
            # It is out anyway, and may be switched off.
            self._again(target)
        else:
            self._waiting.append(target)
            self._begin()

    def _again(self, target: _Target) -> None:
        if self._targets.get(target.key) is target:
            self._later(target, target.check.interval + self._draw() * target.check.jitter)

    def _begin(self) -> None:
        """Begin checks that are due, as many as may be done at a time."""
        if self._isStarting:
            # A check has ended at once, as its name is not found. The loop below goes on.
            return
        self._isStarting = True
        try:
            while self._waiting and self._running < MOST_AT_ONCE:
                target = self._waiting.popleft()
                self._running += 1
                task = target.task = Task(self._check(target), self._broke)
                task.start()
        finally:
            self._isStarting = False

    def _broke(self, failure: Any) -> None:
        self._journal.failure("a health check failed", failure)

    # One check.

    async def _check(self, target: _Target) -> None:
        client: ProxyClient | None = None
        try:
            if target.place is None:
                target.place = target.use.placeOf(target.peer, target.group, target.check)
            client = target.use.clientFor(target.place)
            timeout = target.group.settings.healthCheckTimeout
            isAnswer = True
            try:
                probe = client.probe(target.place.contexts, target.check.greeting)
                await within(self._clock, timeout, client, probe)
                finding = Finding(True)
            except FAILURES as error:
                finding = findingOf(error, timeout)
                isAnswer = getattr(error, "reply", b"") != b""
            self._found(target, finding)
            if isAnswer:
                await sayGoodbye(self._clock, client)
                client = None
        finally:
            if client is not None:
                client.abandon()
            self._running -= 1
            target.task = None
            if self._isChecking:
                self._again(target)
                self._begin()

    # What it means.

    def _found(self, target: _Target, finding: Finding) -> None:
        """Count the result, and change the server's state after as many as the directive says."""
        if target.peer.isFailing != target.wasFailing:
            target.wasFailing, target.run = target.peer.isFailing, 0
        if finding.passed is None:
            return
        check, isUnknown = target.check, self._isUnknown(target)
        if finding.passed == (isUnknown or not target.peer.isFailing):
            target.run = 0
            if isUnknown or (check.mandatory and self._standing.verdictOf(target.group.name, target.peer) is None):
                self._publish(target, Verdict(False))
            return
        target.run += 1
        if target.run < (check.passes if finding.passed else check.fails):
            return
        if finding.passed:
            self._goesUp(target)
        else:
            self._goesDown(target, finding)

    def _publish(self, target: _Target, verdict: Verdict) -> None:
        fingerprint = target.use.fingerprint(self._upstreams, target.group, target.peer)
        self._notices.publish("verdict", target.key, Verdict(verdict.failing, verdict.reason, fingerprint).body)
        target.wasFailing, target.run = target.peer.isFailing, 0

    def _goesUp(self, target: _Target) -> None:
        before = self._notices.find("verdict", target.key)
        seconds = 0 if before is None else int(self._notices.age(before))
        self._publish(target, Verdict(False))
        self._journal.notice(
            "upstream {group}: backend {backend} is up again after {seconds} s",
            group=target.group.name,
            backend=str(target.peer.backend),
            seconds=seconds,
        )

    def _goesDown(self, target: _Target, finding: Finding) -> None:
        group = target.group
        self._publish(target, Verdict(True, finding.reason))
        self._journal.warn(
            "upstream {group}: backend {backend} is down: {reason}{text}",
            group=group.name,
            backend=str(target.peer.backend),
            reason=finding.reason,
            text=finding.text,
        )
        if all(peer.isFailing or peer.order or peer.limits.down for peer in group.peers):
            self._journal.error(
                "upstream {group}: no server is up: logins get a temporary failure until a health check succeeds",
                group=group.name,
            )
