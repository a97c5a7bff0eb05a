# -*- test-case-name: mailgate.test.process -*-
"""
The interface by which signals and commands control the gateways of a process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailgate.process.queries import Found

__all__ = ["IGenerations"]


class IGenerations(Interface):
    """
    The gateways that serve clients: the current one and those that are draining. One generation is one loaded
    configuration and the sessions that it serves.
    """

    notices = Attribute("What the processes and generations of the gateway tell each other about backends.")

    def whenReady() -> Deferred[None]:
        """
        Return a Deferred that fires when the first generation serves. It fails, with a reason, if that cannot start.
        """

    def serving() -> None:
        """
        The gateway serves; if it is the new process of an upgrade, the old one has handed over. From now on what this
        process knows is what must survive a restart.
        """

    def reload() -> Deferred[Sequence[str]]:
        """
        Load the configuration again and serve new clients with it. Sessions continue with the configuration that they
        started with. If the new configuration has errors, log them and change nothing. The Deferred fires with these
        errors; with an empty sequence after a success.
        """

    def drain() -> Deferred[int]:
        """
        Refuse new clients, disconnect clients that have not logged in, and wait until all proxied sessions have ended.
        End those that remain after C{worker_shutdown_timeout}. The Deferred fires with the number of proxied sessions
        that were cut.
        """

    def stop() -> Deferred[int]:
        """
        End all sessions now. A second call closes the remaining connections at once. The Deferred fires as that of
        C{drain}.
        """

    def retire() -> Deferred[int]:
        """
        Another process has taken over: refuse new clients and wait as C{drain} does. Clients that have not logged in
        continue, too.
        """

    def reopen() -> None:
        """Open the log files again, after log rotation has renamed them."""

    def ask(word: str, arguments: Mapping[str, Any]) -> Deferred[Sequence[Found]]:
        """
        Ask all processes that serve clients, and all their generations, a question. The Deferred fires with an answer
        of each, those of the generation that accepts new clients first. A process that does not answer in time has an
        answer that says so.

        @param word: a name of L{QUERIES<mailgate.process.queries.QUERIES>}.
        @param arguments: its arguments, values of JSON by name.
        """
