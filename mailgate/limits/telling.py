# -*- test-case-name: mailgate.test.limits.test_telling -*-
"""
Tells the log and the metrics each time a limit acts.
"""

from __future__ import annotations

from mailgate.interfaces import IWatch
from mailgate.limits.attempt import Rule
from mailgate.log.connection import LIMITED, about
from mailgate.log.journal import Journal, printable
from mailgate.session import Session

__all__ = ["DELAYED", "DRY_RUN", "REFUSED", "Telling"]

REFUSED = "refused"
DELAYED = "delayed"
DRY_RUN = "dry_run"
"""What a limit has done, as the log and metrics say it. With C{dry_run} it has done nothing."""


class Telling:
    """
    Tells the log and the metrics of one gateway.

    @param journal: the log.
    @param level: the level of the lines, C{limit_log_level}: a value of L{mailgate.log.levels.LEVELS}.
    @param watch: counts how often each limit acts; L{None} if nothing does.
    """

    def __init__(self, journal: Journal, level: object, watch: IWatch | None = None) -> None:
        self._journal = journal
        self._level = level
        self._watch = watch

    def acted(self, session: Session, rule: Rule | None, action: str, would: str = "") -> None:
        """
        Tell that a limit has acted. The lines are limited in rate, as strangers can cause them.

        @param session: the record of the connection.
        @param rule: the limit; L{None} if that is not known.
        @param action: what it has done: L{REFUSED}, L{DELAYED} or L{DRY_RUN}.
        @param would: with L{DRY_RUN}: what it would have done, in words.
        """
        journal = session.debugging or self._journal
        if journal.wants(self._level):
            journal.limited(
                self._level,
                LIMITED,
                **about(session),
                rule="-" if rule is None else rule.value,
                action=action,
                would=f", would {would}" if would else "",
                user=printable(session.user),
            )
        if self._watch is not None and rule is not None:
            self._watch.limited(rule.value, action)
