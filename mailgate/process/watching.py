# -*- test-case-name: mailgate.test.process.test_watching -*-
"""
Watches files and reloads the gateway when they change, so that it picks up renewed certificates automatically.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import astuple
from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from mailgate.auth.http.settings import HTTPSettings
from mailgate.config.serverchecks import authenticatorKind
from mailgate.directives import SectionSettings, ServerSettings
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["LOOK", "FileWatch", "watchedFiles"]

LOOK = 10.0
"""Seconds between two checks of the files."""


def watchedFiles(
    servers: Iterable[ServerSettings], sections: Iterable[SectionSettings] = (), others: Iterable[str] = ()
) -> Iterator[str]:
    """
    Yield the paths of the files that servers and groups of backends read for TLS: certificates, keys, lists of revoked
    certificates and so on. Account files are not among them: their authenticators notice changes themselves.

    @param servers: the servers of the current configuration.
    @param sections: its other sections.
    @param others: further files.
    """
    yield from others
    for section in sections:
        if BackendTLSSettings in section.groups:
            yield from _paths(astuple(section[BackendTLSSettings], recurse=False))
    for server in servers:
        yield from _paths(astuple(server[BackendTLSSettings], recurse=False))
        if usesTLS(server):
            yield from _paths(astuple(server[TLSSettings], recurse=False))
        kind = authenticatorKind(server)
        if kind is not None and kind.settings is HTTPSettings:
            yield from _paths((server[HTTPSettings].trusted,))


def _paths(values: Iterable[Any]) -> Iterator[str]:
    """
    Yield the paths in C{values}, and in tuples in C{values}. The configuration makes paths absolute, and no other
    setting of TLS starts with a slash.
    """
    for value in values:
        if isinstance(value, tuple):
            yield from _paths(value)
        elif isinstance(value, str) and os.path.isabs(value):
            yield value


def _state(name: str) -> tuple[int, ...] | None:
    """A value that changes when the file C{name} is written or replaced; L{None} while the file is missing."""
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class FileWatch(Service):
    """
    Checks files every L{LOOK} seconds. Reports changes once no file has changed between two checks, because a key and
    its certificate are not written at the same moment.

    @param clock: the reactor, or another C{IReactorTime}.
    @param changed: called with the paths of the files that have changed.
    """

    def __init__(self, clock: Any, changed: Callable[[list[str]], object]) -> None:
        self._looking = LoopingCall(self.look)
        self._looking.clock = clock
        self._changed = changed
        self._known: dict[str, Any] = {}
        self._last: dict[str, Any] = {}

    def startService(self) -> None:
        super().startService()
        self._looking.start(LOOK, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    def watch(self, names: Iterable[str]) -> None:
        """
        Watch these files instead of the previous ones, and compare with their present state from now on.

        @param names: the paths.
        """
        self._known = {name: _state(name) for name in names}
        self._last = dict(self._known)

    def look(self) -> None:
        """Check the files once."""
        seen = {name: _state(name) for name in self._known}
        last, self._last = self._last, seen
        changed = [name for name, state in seen.items() if state != self._known[name]]
        if changed and seen == last:
            # The same state is reported once, whether the reload succeeds or not.
            self._known = seen
            self._changed(changed)
