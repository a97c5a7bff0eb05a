# -*- test-case-name: mailgate.test.test_master -*-
"""
The master: the process that twistd runs where C{worker_processes} is not 1. It binds the sockets, keeps no client, and
sees to it that there are workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from mailgate.config import GatewaySettings, parse, read
from mailgate.control import ControlError, Order
from mailgate.directives import ConfigurationError
from mailgate.interfaces import IGenerations
from mailgate.listensockets import ListeningSockets
from mailgate.supervision import BackOff, Generation, GenerationError, Stage, environmentOf

__all__ = ["Master"]


@implementer(IGenerations)
class Master(Service):
    """
    The workers of C{settings}, which the C{text} of their file makes. C{reopenLogs()} opens this process's logs anew;
    C{giveUp(reason)} is called where the first generation does not come up, and ends the process.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        settings: GatewaySettings,
        text: str,
        reactor: Any,
        reopenLogs: Callable[[], object],
        giveUp: Callable[[str], object],
    ) -> None:
        self.settings = settings
        self.sockets = ListeningSockets()
        self._text = text
        self._reactor = reactor
        self._reopenLogs = reopenLogs
        self._giveUp = giveUp
        # Before the process goes into the background, and into another folder.
        self._environment = environmentOf(os.environ)
        self._lock = DeferredLock()
        self._backOff = BackOff(reactor)
        self._current: Generation | None = None
        self._generations: list[Generation] = []
        self._ending = False
        self._stopping = False

    # As a service.

    def privilegedStartService(self) -> None:
        """
        Bind, and start the zygote, which reads keys as whoever this process is now.

        @raise ListenError: an address cannot be bound.
        """
        if self._current is None:
            self.sockets = self.sockets.opened(self.settings)
            self._current = self._generation(self.settings, self._text, self.sockets)
            self._current.start()

    def startService(self) -> None:
        # `twist` starts services without ever calling privilegedStartService.
        self.privilegedStartService()
        super().startService()
        assert self._current is not None
        self._tellWarnings(self.settings)
        self._current.fork()
        self._current.ready.addCallbacks(self._tellReady, self._neverReady)

    def _tellReady(self, _: object) -> None:
        self._backOff.begun()
        assert self._current is not None
        self._log.info("the zygote is {zygote}, workers are {workers}", **_pids(self._current))

    def _neverReady(self, failure: Any) -> None:
        failure.trap(GenerationError)
        if not self._ending:
            self._giveUp(str(failure.value))

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.stop()

    # As signals want it.

    def reload(self) -> Deferred[None]:
        """See L{IGenerations.reload}; one after the other."""
        return self._lock.run(lambda: ensureDeferred(self._reload()))

    async def _reload(self) -> None:
        if self._ending:
            return
        try:
            text = read(self.settings.file)
            settings = parse(text, self.settings.file)
            sockets = self.sockets.opened(settings)
        except ConfigurationError as error:
            self._refuse(error)
            return
        if await self._replace(settings, text, sockets):
            self._tellWarnings(settings)

    def _refuse(self, error: Exception) -> None:
        for line in str(error).split("\n"):
            self._log.error("not reloaded: {line}", line=line)

    async def _replace(self, settings: GatewaySettings, text: str, sockets: ListeningSockets) -> bool:
        """Whether a generation of C{settings} serves in the place of the present one."""
        generation = self._generation(settings, text, sockets)
        try:
            generation.start()
            generation.fork()
            await generation.ready
        except (GenerationError, ControlError, OSError) as error:
            sockets.close(but=self.sockets)
            if not self._ending:
                self._refuse(error)
            return False
        before, self._current = self._current, generation
        gone, self.sockets = self.sockets, sockets
        self.settings, self._text = settings, text
        self._backOff.begun()
        self._log.info("reloaded: the zygote is {zygote}, workers are {workers}", **_pids(generation))
        if before is not None:
            before.tell(Order.RETIRE)
        gone.close(but=sockets)
        return True

    def drain(self) -> Deferred[int]:
        """See L{IGenerations.drain}."""
        return self._end(Order.DRAIN)

    def stop(self) -> Deferred[int]:
        """See L{IGenerations.stop}."""
        if self._stopping:
            for generation in self._generations:
                generation.kill()
            return self._ended()
        self._stopping = True
        return self._end(Order.STOP)

    def _end(self, order: Order) -> Deferred[int]:
        self._ending = True
        for generation in list(self._generations):
            generation.tell(order)
        self.sockets.close()
        return self._ended()

    def _ended(self) -> Deferred[int]:
        return gatherResults([generation.whenEnded() for generation in self._generations]).addCallback(sum)

    def reopen(self) -> None:
        """See L{IGenerations.reopen}."""
        self._reopenLogs()
        for generation in self._generations:
            generation.tell(Order.REOPEN)

    # Generations.

    def _generation(self, settings: GatewaySettings, text: str, sockets: ListeningSockets) -> Generation:
        generation = Generation(
            self._reactor,
            settings.file,
            text,
            sockets.descriptors(),
            settings.workers.count,
            self._environment,
            self._lost,
        )
        self._generations.append(generation)
        generation.whenEnded().addCallback(lambda _: self._generations.remove(generation))
        return generation

    def _lost(self, generation: Generation) -> None:
        if generation is self._current and not self._ending:
            self._reactor.callLater(self._backOff.delay(), self._revive, generation)

    def _revive(self, lost: Generation) -> Deferred[None]:
        return self._lock.run(lambda: ensureDeferred(self._reviveNow(lost)))

    async def _reviveNow(self, lost: Generation) -> None:
        # A reload may have been quicker.
        if lost is not self._current or self._ending:
            return
        if not await self._replace(self.settings, self._text, self.sockets):
            self._lost(lost)

    def _tellWarnings(self, settings: GatewaySettings) -> None:
        for warning in settings.warnings:
            self._log.warn("{reason}", reason=str(warning))


def _pids(generation: Generation) -> dict[str, Any]:
    return {"zygote": generation.pid, "workers": " ".join(map(str, generation.workers))}
