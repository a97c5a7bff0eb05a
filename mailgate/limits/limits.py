# -*- test-case-name: mailgate.test.limits.test_limits -*-
"""
The limits of one process, which its gateways share: the current one, and those that a reload has replaced.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from mailgate.directives import ServerSettings
from mailgate.limits.admission import Admission, Ground
from mailgate.limits.counts import Counts
from mailgate.limits.defence import Defence
from mailgate.limits.interfaces import IDefence, ILimitStore, IRates
from mailgate.limits.loginguard import LoginGuard
from mailgate.limits.rates import LocalRates
from mailgate.limits.settings import LimitSettings
from mailgate.limits.sources import Sources
from mailgate.limits.telling import Telling

__all__ = ["Limits"]


class Limits:
    """
    The tables, and what makes the limits of servers from them.

    @param counts: counts connections and sessions, of all workers if there are several; L{None}: of this process.
    @param rates: counts events in time, likewise.
    @param isSteered: whether operators can block: there is a keeper. Their blocks hold where all limits are off, too.
    @param defence: the rules against guessed passwords; L{None} for new ones.
    @ivar defence: as the argument.
    @ivar tagKey: the key of tags of all gateways that share a store; L{None} without a store.
    @ivar store: decides about logins: C{defence}, or what asks the keeper. It may be set until a gateway is made.
    """

    def __init__(
        self,
        counts: Counts | None = None,
        rates: IRates | None = None,
        isSteered: bool = False,
        defence: IDefence | None = None,
    ) -> None:
        self.defence: IDefence = Defence(isFresh=True) if defence is None else defence
        self.store: ILimitStore = self.defence
        self.tagKey: bytes | None = None
        self._counts = Counts() if counts is None else counts
        self._rates: IRates = LocalRates() if rates is None else rates
        self._isSteered = isSteered

    def configure(self, settings: LimitSettings) -> None:
        """
        Use the rules of another configuration. The tables are kept.

        @param settings: those of the whole gateway.
        """
        self.defence.configure(settings.loginPolicy(), settings.prefixes, settings.memory)

    def _holds(self, server: ServerSettings) -> bool:
        return self._isSteered or server[LimitSettings].isAnyOn

    def of(
        self, server: ServerSettings, telling: Telling, clock: IReactorTime, runKey: bytes
    ) -> tuple[Admission, LoginGuard] | tuple[None, None]:
        """
        Return the limits of a server for connections and sessions, and those for logins; L{None} if there are none.

        @param server: the server.
        @param telling: tells when one acts.
        @param clock: the time in which logins wait.
        @param runKey: the key of tags without a store, the same in all processes of the gateway.
        """
        if not self._holds(server):
            return None, None
        settings = server[LimitSettings]
        policy = settings.connectionPolicy()
        sources = Sources(server.name, settings.prefixes, policy.exempt, policy.access)
        ground = Ground(self._counts, self._rates, self.store)
        key = runKey if self.tagKey is None else self.tagKey
        return (
            Admission(server.name, policy, sources, ground, telling.acted),
            LoginGuard(self.store, policy, sources, settings.loginMode, clock, key, telling),
        )
