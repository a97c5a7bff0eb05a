# -*- test-case-name: mailgate.test.process -*-
"""
What signals and commands are obeyed with.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

__all__ = ["IGenerations"]


class IGenerations(Interface):
    """
    The gateways that serve clients: the current one and those that are draining. One generation is one loaded
    configuration and its sessions.
    """

    servesClients = Attribute("Whether clients are served in this process itself, and not by its workers.")

    def whenReady() -> Deferred[None]:
        """Fires when the first of them serves; fails, with a reason for the log, if it does not come up."""

    def reload() -> Deferred[Sequence[str]]:
        """
        Read the configuration again, and serve those who come from now on by it; if it is bad, say so in the log and
        change nothing. Fires when that is done, with what was wrong, if anything; those who are connected go on.
        """

    def drain() -> Deferred[int]:
        """
        Let nobody in any more, and wait until all have left, for worker_shutdown_timeout at most. Fires with how many
        proxied sessions had to be cut.
        """

    def stop() -> Deferred[int]:
        """The same, without waiting; the second time without courtesy."""

    def retire() -> Deferred[int]:
        """
        Another process has taken over: let nobody in any more, and wait as in C{drain} until all have left; those
        before login go on, too.
        """

    def reopen() -> None:
        """Open the log files again: they have been renamed."""
