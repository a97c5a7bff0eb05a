# -*- test-case-name: mailgate.test.system.test_systemd -*-
"""
What systemd and the gateway say to each other: the sockets that systemd has bound for this process (sd_listen_fds(3));
and that the gateway serves, reloads, ends, which process is the main one, and that it still lives (sd_notify(3)).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.systemd import ListenFDs

__all__ = ["Notifier", "NotifySettings", "passedSockets"]


def _taken(count: int) -> Iterator[int]:
    """
    The first C{count} of those that Twisted's endpoints have found, if it is for this process: when they are imported,
    mostly before us, they take everything but the names from the environment.
    """
    for index in range(count):
        try:
            endpoint: Any = serverFromString(None, f"systemd:domain=INET:index={index}")
        except IndexError:
            return
        yield endpoint.fileno


def passedSockets(environ: MutableMapping[str, str]) -> dict[str, int]:
    """
    Their descriptors, by C{systemd:NAME}, and C{systemd:NAME:1} and so on for further ones of the same name. They are
    no longer in C{environ} then: they are not for processes that this one starts.
    """
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    descriptors = ListenFDs.fromEnvironment(environ).inheritedDescriptors() or list(_taken(len(names)))
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    found: dict[str, int] = {}
    for name, descriptor in zip(names, descriptors, strict=False):
        number = sum(key == f"systemd:{name}" or key.startswith(f"systemd:{name}:") for key in found)
        found[f"systemd:{name}:{number}" if number else f"systemd:{name}"] = descriptor
    return found


@frozen
class NotifySettings:
    """Where to tell it, a path or an abstract C{@name}, and the seconds within which systemd wants a sign of life."""

    place: str | None = None
    watchdog: float | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> NotifySettings:
        """
        Those of C{environ} that are for the process C{pid}. They are gone from C{environ} then: other processes are not
        to speak for this one.
        """
        place = environ.pop("NOTIFY_SOCKET", None)
        watchdog = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", str(pid))
        isWatched = watched == str(pid) and watchdog.isascii() and watchdog.isdigit() and int(watchdog) > 0
        isPlace = place is not None and place.startswith(("/", "@"))
        return cls(place if isPlace else None, int(watchdog) / 1e6 if isWatched else None)

    def environ(self) -> dict[str, str]:
        """The same for another process, which becomes the main one."""
        if self.place is None:
            return {}
        watchdog = {} if self.watchdog is None else {"WATCHDOG_USEC": str(round(self.watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self.place, **watchdog}


class Notifier:
    """
    Tells systemd, if it listens. It never waits, and what cannot be said is left unsaid: the gateway serves all the
    same.
    """

    def __init__(self, settings: NotifySettings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self._beat: IDelayedCall | None = None

    def ready(self, status: str) -> None:
        """The gateway serves: it has come up, or has reloaded. From now on there are signs of life."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        if self._beat is None:
            self._live()

    def reloading(self) -> None:
        """It reads its configuration. Is followed by L{ready}, whatever comes of it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """It is about to end."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def handOver(self, pid: int) -> None:
        """The process C{pid} is the main one from now on, and speaks for the service."""
        self._tell(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """No more signs of life."""
        if self._beat is not None and self._beat.active():
            self._beat.cancel()
        self._beat = None

    def _live(self) -> None:
        if self._settings.watchdog is not None:
            self._tell("WATCHDOG=1")
            self._beat = self._clock.callLater(self._settings.watchdog / 2, self._live)

    def _tell(self, text: str) -> None:
        place = self._settings.place
        if place is None:
            return
        address = f"\0{place[1:]}" if place.startswith("@") else place
        # Systemd may be starting anew, or its queue be full.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.setblocking(False)
            told.sendto(text.encode("utf-8", "replace"), address)
