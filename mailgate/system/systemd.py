# -*- test-case-name: mailgate.test.system.test_systemd -*-
"""
The interface to systemd: the sockets that systemd passes to this process (sd_listen_fds(3)), and notifications to
systemd about start, reload, stop, main process and watchdog (sd_notify(3)).
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
    Yield the first C{count} descriptors that Twisted's endpoints found. When these are imported, which is usually
    earlier, they remove all variables but the names from the environment.
    """
    for index in range(count):
        try:
            endpoint: Any = serverFromString(None, f"systemd:domain=INET:index={index}")
        except IndexError:
            return
        yield endpoint.fileno


def passedSockets(environ: MutableMapping[str, str]) -> dict[str, int]:
    """
    Return the sockets that systemd passed to this process.

    @param environ: the environment. The variables are removed from it, as they are not for child processes.
    @return: the file descriptors by C{systemd:NAME}. If several have the same name, the others are C{systemd:NAME:1},
        C{systemd:NAME:2} and so on.
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
    """
    How to notify systemd.

    @ivar place: systemd's socket: a path, or C{@name} for an abstract one. L{None} without systemd.
    @ivar watchdog: seconds within which systemd expects the next sign of life; L{None} without a watchdog.
    """

    place: str | None = None
    watchdog: float | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> NotifySettings:
        """
        Read the settings from the environment.

        @param environ: the environment. The variables are removed from it, so that child processes do not notify
            systemd.
        @param pid: the pid of this process. A watchdog for another process is ignored.
        """
        place = environ.pop("NOTIFY_SOCKET", None)
        watchdog = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", str(pid))
        isWatched = watched == str(pid) and watchdog.isascii() and watchdog.isdigit() and int(watchdog) > 0
        isPlace = place is not None and place.startswith(("/", "@"))
        return cls(place if isPlace else None, int(watchdog) / 1e6 if isWatched else None)

    def environ(self) -> dict[str, str]:
        """Return the variables for the environment of another process, which becomes the main process."""
        if self.place is None:
            return {}
        watchdog = {} if self.watchdog is None else {"WATCHDOG_USEC": str(round(self.watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self.place, **watchdog}


class Notifier:
    """
    Notifies systemd, if it is there. It never blocks, and ignores errors: the gateway serves clients all the same.

    @param settings: how to notify systemd.
    @param clock: times the signs of life for the watchdog.
    """

    def __init__(self, settings: NotifySettings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self._beat: IDelayedCall | None = None

    def ready(self, status: str) -> None:
        """
        Notify that the gateway has started or reloaded. From now on send signs of life.

        @param status: the text for C{systemctl status}.
        """
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        if self._beat is None:
            self._live()

    def reloading(self) -> None:
        """Notify that a reload begins. L{ready} must follow, even if the reload fails."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """
        Notify that the gateway stops.

        @param status: the text for C{systemctl status}.
        """
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def handOver(self, pid: int) -> None:
        """Notify that the process C{pid} is the main process from now on. It sends the further notifications."""
        self._tell(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """Send no more signs of life for systemd's watchdog."""
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
        # systemd may be restarting, or its queue may be full.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.sendto(text.encode("utf-8", "replace"), address)
