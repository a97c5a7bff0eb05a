# -*- test-case-name: mailgate.test.process.workers.test_master -*-
"""
The master: the process that twistd runs unless C{worker_processes} is 1. It binds the listening sockets and starts and
restarts workers. It serves no clients.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, gatherResults, maybeDeferred, succeed
from zope.interface import implementer

from mailgate.backend.health import CHECKER
from mailgate.config import GatewaySettings, parse, read
from mailgate.config.restart import demoSection, fixed, withFixed
from mailgate.directives import ConfigurationError, Problem
from mailgate.frontend.draining import DrainSettings
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.net.sockets import ListeningSockets
from mailgate.process.interfaces import IGenerations
from mailgate.process.keeper.sockets import KeeperSockets
from mailgate.process.keeper.supervision import Supervision
from mailgate.process.queries import ANSWER_WITHIN, Found
from mailgate.process.reloading import GenerationError, Reloading, Wanted
from mailgate.process.workers.backoff import BackOff
from mailgate.process.workers.environment import environmentOf
from mailgate.process.workers.generation import Generation, Stage
from mailgate.process.workers.inquiries import Inquiries
from mailgate.process.workers.messages import Announce, Begin, Ended, Order, Reply
from mailgate.process.workers.orphan import Orphan
from mailgate.process.workers.tables import Tables
from mailgate.process.workers.talk import OF_WORKERS
from mailgate.system.exitstatus import CANNOT_SERVE, endWith
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.tls.renewal import renewalFaults
from mailgate.upstream.notices import Notice
from mailgate.watch.settings import AdminSettings

__all__ = ["Master"]


@implementer(IGenerations)
class Master(Reloading):
    """
    Starts, reloads and stops generations of workers. Also waits for workers whose zygote has died.

    @param settings: the first configuration.
    @param text: its text, which each zygote parses again.
    @param reactor: the reactor.
    @param logs: opens the log files.
    @param processLog: the log of the process.
    @param sockets: sockets that systemd or the previous process has bound.
    @param keeper: the sockets of the keeper; L{None} without a keeper.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        text: str,
        reactor: Any,
        logs: ErrorLogs,
        processLog: ProcessLog,
        sockets: ListeningSockets | None = None,
        keeper: KeeperSockets | None = None,
    ) -> None:
        super().__init__(settings, reactor, logs, processLog, sockets)
        self._text = text
        # Before the process goes into the background, which changes its working directory.
        self._environment = environmentOf(os.environ)
        self._keeper = None
        if keeper is not None:
            self._keeper = Supervision(reactor, settings.file, text, keeper, self._environment, logs.key)
            self._keeper.whenWorking = self._keeperWorks
            self._keeper.heard = self._heardKeeper
            self._keeper.notices = lambda: list(map(self._announcement, self.notices.held()))
            self.keeping = self._keeper
        self._lock = DeferredLock()
        self._backOff = BackOff(reactor)
        self._current: Generation | None = None
        self._generations: list[Generation] = []
        self._orphans: list[Orphan] = []
        self._stopping = False
        self._tables = Tables()
        self._isReady = False
        self._waiting: list[Deferred[None]] = []
        self._inquiries = Inquiries(reactor)
        self.notices.tell = self._announce

    # As a service.

    def privilegedStartService(self) -> None:
        """
        Bind the listening sockets, and start the zygote, which reads keys as the current user of this process.

        @raise mailgate.net.sockets.ListenError: an address cannot be bound.
        @raise ConfigurationError: the zygote cannot be started.
        """
        if self._current is None:
            self.sockets = self.sockets.opened(self.settings.servers)
            self._tables.open(self.settings[WorkerSettings].count)
            if self._keeper is not None:
                self._keeper.sockets.open()
                # Workers begin no health checks that the keeper would soon do.
                self.notices.receive(CHECKER, "", True)
            self._current = self._generation(self.settings, self._text, self.sockets)
            try:
                self._start(self._current)
            except GenerationError as error:
                raise ConfigurationError([Problem(self.settings.file, str(error))]) from None
            if self._keeper is not None:
                self._keeper.start()
        super().privilegedStartService()

    def startService(self) -> None:
        # `twist` never calls privilegedStartService.
        self.privilegedStartService()
        super().startService()
        assert self._current is not None
        self._tellWarnings(self.settings)
        self._warnOfLimits(self._keeper is not None)
        self._current.fork()
        if self._keeper is not None:
            self._keeper.fork()
        # A reload must wait for the start.
        self._lock.run(self._await, self._current)

    def _await(self, generation: Generation) -> Deferred[None]:
        return generation.ready.addCallbacks(lambda _: self._tellReady(generation), self._neverReady)

    def _tellReady(self, generation: Generation) -> None:
        self._backOff.begun()
        workers = " ".join(map(str, generation.workers))
        self._log.info("workers {workers} serve, forked by zygote {zygote}", workers=workers, zygote=generation.pid)
        self._isReady = True
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(None)

    def _neverReady(self, failure: Any) -> None:
        failure.trap(GenerationError)
        if not self._ending:
            self._ending = True
            self._log.error("the workers did not start: {reason}", reason=str(failure.value))
            waiting, self._waiting = self._waiting, []
            for ready in waiting:
                ready.errback(failure)
            endWith(CANNOT_SERVE)
            self._reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Stop all generations."""
        stopped = maybeDeferred(super().stopService)
        return gatherResults([stopped, self.stop()])

    # IGenerations.

    def whenReady(self) -> Deferred[None]:
        """See L{IGenerations.whenReady}."""
        if self._isReady:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def reload(self, isAsked: bool = True) -> Deferred[Sequence[str]]:
        """
        See L{Reloading.reload}. Reloads run one after the other.

        @param isAsked: whether an operator has ordered the reload.
        """
        return self._lock.run(super().reload, isAsked)

    def _load(self) -> tuple[GatewaySettings, str]:
        text = read(self.settings.file)
        settings = parse(text, self.settings.file)
        demo = demoSection(settings)
        if demo is not None:
            raise ConfigurationError(
                [Problem(settings.file, "cannot be added while the gateway runs with workers; restart it", demo)]
            )
        self._logs.owner = settings[ProcessSettings].owner
        return settings, text

    def _kept(self, wanted: GatewaySettings) -> tuple[GatewaySettings, list[str]]:
        pid, admin = self.settings[PIDSettings], self.settings[AdminSettings]
        changed = ["pid"] if wanted[PIDSettings] != pid else []
        changed += fixed(admin, wanted[AdminSettings])
        return wanted.having(pid).having(withFixed(admin, wanted[AdminSettings])), changed

    async def _replace(self, wanted: Wanted) -> None:
        await self._serve(wanted.settings, wanted.text, wanted.sockets)
        self._follow(wanted.observer)
        self._warnUnchanged(wanted.unchanged)
        self._tellWarnings(wanted.settings)
        if self._keeper is not None:
            self._keeper.reload(wanted.text)
        self._reloads += 1
        self._log.info("reload {number} done: the new configuration is active", number=self._reloads)

    async def _serve(self, settings: GatewaySettings, text: str, sockets: ListeningSockets) -> None:
        """
        Start a generation of C{settings}; when it serves, retire the current one.

        @raise GenerationError: the generation did not start. The current one serves as before.
        """
        generation = self._generation(settings, text, sockets)
        self._start(generation)
        generation.fork()
        await generation.ready
        if self._ending:
            raise GenerationError("the gateway is shutting down")
        before, self._current = self._current, generation
        self._text = text
        self._tellReady(generation)
        retired = succeed(None) if before is None else before.retire()
        self._inForce(settings, sockets)
        await retired
        # The old generation is part of reference cycles, and the collector of cycles runs rarely
        # (L{mailgate.process.rights.tuneCollector}).
        gc.collect()

    def stop(self) -> Deferred[int]:
        """See L{IGenerations.stop}."""
        # Workers that are orphaned from now on must stop, too.
        self._stopping = True
        return super().stop()

    def _endAll(self, order: Order) -> Deferred[int]:
        for generation in list(self._generations):
            generation.tell(order)
        if order is Order.STOP:
            for orphan in self._orphans:
                orphan.stop()
        return self._ended().addCallback(self._stopKeeper)

    def _stopKeeper(self, cut: int) -> int | Deferred[int]:
        """Stop the keeper, which no worker needs any more."""
        return cut if self._keeper is None else self._keeper.stop().addCallback(lambda _: cut)

    def _ended(self) -> Deferred[int]:
        ended: list[Deferred[int]] = [generation.whenEnded() for generation in self._generations]
        ended += [self._endOf(orphan) for orphan in self._orphans]
        return gatherResults(ended).addCallback(self._count).addCallback(self._endedSoFar)

    def _endedSoFar(self, cut: int) -> int | Deferred[int]:
        # A zygote may have died meanwhile, and orphaned its workers.
        return self._ended() if self._orphans else cut

    def _endOf(self, orphan: Orphan) -> Deferred[int]:
        """Fires with 0 when the orphan has exited: it cannot report how many sessions it has cut."""
        ended: Deferred[int] = Deferred()
        orphan.ended.addCallback(lambda _: ended.callback(0))
        return ended

    def reopen(self) -> None:
        """See L{IGenerations.reopen}."""
        if self._reopenQuietly() and self._logs.hasFiles:
            self._log.info("log files reopened")
        for generation in self._generations:
            generation.tell(Order.REOPEN)
        if self._keeper is not None:
            self._keeper.reopen()

    def _reopened(self) -> Iterable[str]:
        return self._logs.reopen(self.settings[ProcessSettings].owner)

    # What workers know of backends, and their answers.

    def _heard(self, generation: Generation, message: Announce | Reply | Ended) -> None:
        if isinstance(message, Reply):
            self._inquiries.heard(generation, message)
        elif isinstance(message, Ended):
            self._inquiries.ended(generation, message.slot)
            if generation.stage is Stage.LEAVING:
                self._tables.free(generation, message.slot)
            if generation.stage is Stage.SERVING:
                self._happened("mailgate_worker_restarts", _whyEnded(message))
        elif message.topic in OF_WORKERS:
            notice = self.notices.receive(message.topic, message.key, message.body, message.age)
            self._announce(notice, generation, message.slot)

    def _announce(self, notice: Notice, origin: Generation | None = None, slot: int | None = None) -> None:
        """Pass a notice on to all generations. C{slot} is the number of the worker of C{origin} that has sent it."""
        message = self._announcement(notice)
        for generation in self._generations:
            generation.passOn(evolve(message, slot=slot) if generation is origin else message)
        if self._keeper is not None:
            self._keeper.passOn(message if origin is not None else evolve(message, slot=slot))

    def _keeperWorks(self, isWorking: bool) -> None:
        """The keeper does the health checks while it works, and otherwise the first worker."""
        if isWorking != any(self.notices.held(CHECKER)):
            self.notices.publish(CHECKER, "", isWorking or None)

    def _heardKeeper(self, message: Announce) -> None:
        if message.topic == "verdict":
            notice = self.notices.receive(message.topic, message.key, message.body, message.age)
            self._announce(notice, None, message.slot)

    def _announcement(self, notice: Notice) -> Announce:
        return Announce(notice.topic, notice.key, notice.body, self.notices.age(notice))

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = ANSWER_WITHIN) -> Deferred[Sequence[Found]]:
        """
        See L{IGenerations.ask}.

        @param word: the name of the question.
        @param arguments: its arguments, by name.
        @param within: seconds until a worker must have answered.
        """
        asked = self._inquiries.ask(self._generations, self._current, word, arguments, within)
        return asked.addCallback(lambda found: [*found, *map(self._unasked, self._orphans)])

    def _unasked(self, orphan: Orphan) -> Found:
        reason = "has lost its zygote and cannot be asked; it exits when its sessions have ended"
        return Found(False, failure=f"worker {orphan.pid} {reason}")

    # Generations.

    def _generation(self, settings: GatewaySettings, text: str, sockets: ListeningSockets) -> Generation:
        keeper = "" if self._keeper is None else self._keeper.sockets.path
        workers = settings[WorkerSettings].count
        columns = self._tables.lease(workers)
        generation = Generation(
            self._reactor,
            Begin(settings.file, text, {}, self._logs.key.hex(), keeper, columns),
            sockets.descriptors() | self._tables.descriptors,
            workers,
            self._environment,
            settings[DrainSettings].patience,
            self._lost,
        )
        self._generations.append(generation)
        self._tables.give(generation, columns)
        generation.heard = self._heard
        generation.whenEnded().addCallback(self._forgetGeneration, generation)
        return generation

    def _forgetGeneration(self, _: object, generation: Generation) -> None:
        self._generations.remove(generation)
        self._tables.freeAll(generation)

    def _start(self, generation: Generation) -> None:
        """
        Start a generation. Its workers know from their start what the workers of others have found out.

        @raise GenerationError: the zygote cannot be started.
        """
        generation.start()
        for notice in self.notices.held():
            generation.passOn(self._announcement(notice))

    def _lost(self, generation: Generation) -> None:
        self._inquiries.ended(generation)
        if generation is self._current:
            for _ in generation.workers:
                self._happened("mailgate_worker_restarts", "zygote")
        for number, pid in generation.running.items():
            column = self._tables.take(generation, number)
            try:
                orphan = Orphan(self._reactor, pid, generation.drainedWithin)
            except (OSError, AttributeError) as error:
                # The worker may have exited, and not every system has pidfd_open(2).
                self._tables.clear(column, isFree=isinstance(error, ProcessLookupError))
                continue
            self._orphans.append(orphan)
            orphan.ended.addCallback(self._forget, orphan, column)
            if self._stopping:
                orphan.stop()
        self._replaceLost(generation)

    def _forget(self, _: object, orphan: Orphan, column: int | None) -> None:
        self._orphans.remove(orphan)
        self._tables.clear(column)

    def _replaceLost(self, generation: Generation) -> None:
        if generation is self._current and not self._ending:
            self._reactor.callLater(self._backOff.delay(), self._revive, generation)

    def _revive(self, lost: Generation) -> Deferred[None]:
        return self._lock.run(lambda: ensureDeferred(self._reviveNow(lost)))

    async def _reviveNow(self, lost: Generation) -> None:
        # A reload may have replaced the generation already.
        if lost is not self._current or self._ending:
            return
        self._backOff.begun()
        for problem in renewalFaults(self._certificates, self.settings.servers):
            # The previous certificate was in the memory of the dead zygote.
            self._log.error(
                "{reason}", reason=f"{problem}; using the new certificate, because the previous one is lost"
            )
        try:
            await self._serve(self.settings, self._text, self.sockets)
        except GenerationError as error:
            self._log.error("no worker accepts clients: the new workers did not start: {reason}", reason=str(error))
            self._replaceLost(lost)

    def _tellWarnings(self, settings: GatewaySettings) -> None:
        for warning in settings.warnings:
            self._log.warn("{reason}", reason=str(warning))


def _whyEnded(message: Ended) -> str:
    """Why a worker is started anew, as the metrics have it."""
    if not message.pid:
        return "fork"
    return "signal" if message.status < 0 else "exit"
