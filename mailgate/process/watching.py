# -*- test-case-name: mailgate.test.process.test_watching -*-
"""
Files whose change means a reload: a certificate that has been renewed is used without anybody's asking.
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
"""Seconds between two looks."""


def watchedFiles(servers: Iterable[ServerSettings], sections: Iterable[SectionSettings] = ()) -> Iterator[str]:
    """
    The certificates, keys, lists and whatever else C{servers}, and groups of backends among C{sections}, have read for
    TLS. Accounts are not among them: those are read again by whoever judges by them.
    """
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
    The paths among C{values}, and in tuples among them. Paths are absolute once they have been read, and nothing else
    in settings of TLS begins as they do.
    """
    for value in values:
        if isinstance(value, tuple):
            yield from _paths(value)
        elif isinstance(value, str) and os.path.isabs(value):
            yield value


def _state(name: str) -> tuple[int, ...] | None:
    """What is another once the file C{name} has been written or replaced; L{None} while it is not there."""
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class FileWatch(Service):
    """
    Looks at files every L{LOOK} seconds of C{clock}, and calls C{changed} with the names of those that are not what
    they were, once all have been quiet from one look to the next: a key and its certificate are not written at once.
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
        """From now on look at C{names}, as they are now, and at no others."""
        self._known = {name: _state(name) for name in names}
        self._last = dict(self._known)

    def look(self) -> None:
        """One look."""
        seen = {name: _state(name) for name in self._known}
        last, self._last = self._last, seen
        changed = [name for name, state in seen.items() if state != self._known[name]]
        if changed and seen == last:
            # Whatever comes of it, the same state is not tried twice.
            self._known = seen
            self._changed(changed)
