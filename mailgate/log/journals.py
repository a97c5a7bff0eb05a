# -*- test-case-name: mailgate.test.test_service -*-
"""
The journals of a gateway: its own, and one for each server with an C{error_log} of its own.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogPublisher

from mailgate.directives import GatewaySettings, ServerSettings
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal
from mailgate.log.settings import LogSettings, ServerLogSettings, leastLevel

__all__ = ["Journals"]


class Journals:
    """
    The journals of one gateway.

    @param settings: the configuration.
    @param logs: opens the log files of servers.
    @param clock: the time in seconds.
    @ivar own: the journal of the gateway itself.
    """

    def __init__(self, settings: GatewaySettings, logs: ErrorLogs, clock: IReactorTime) -> None:
        self._settings = settings[LogSettings]
        self._logs = logs
        self._clock = clock
        self._privacy = self._settings.privacy
        # An application that embeds the gateway has observers of its own, which do not mask.
        observer = None if self._privacy.isFull else logs.masking(globalLogPublisher, self._privacy)
        self.own = Journal(self._settings.level, observer, self._settings.rate, clock)
        self._journals = [self.own]

    def of(self, server: ServerSettings) -> Journal:
        """
        Return the journal of a server.

        @param server: the server.
        @raise ConfigurationError: its C{error_log} cannot be opened.
        """
        targets = server[ServerLogSettings].errorLog
        if not targets:
            return self.own
        section = server.sectionOf("error_log")
        observer = self._logs.observerFor(targets, server.file, section, server.lines, self._privacy)
        self._journals.append(Journal(leastLevel(targets), observer, self._settings.rate, self._clock))
        return self._journals[-1]

    def flush(self) -> None:
        """Log the counts of the messages that were left out."""
        for journal in self._journals:
            journal.flush()
