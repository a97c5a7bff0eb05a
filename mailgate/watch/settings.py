# -*- test-case-name: mailgate.test.watch.test_settings -*-
"""
The directives of the admin side: C{admin}, C{metrics}, and what goes with them.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.directives import directive, path
from mailgate.system.pidfile import PIDSettings

__all__ = ["AdminAddress", "AdminSettings"]


@frozen
class AdminAddress:
    """
    Where the admin server listens.

    @ivar path: of a unix socket; L{None} for TCP.
    @ivar host: an IP address, for TCP.
    @ivar port: its port.
    @ivar ssl: whether it uses TLS.
    """

    path: str | None = None
    host: str = ""
    port: int = 0
    ssl: bool = False


_BESIDE_PID = AdminAddress()
"""The default of C{admin}: a unix socket beside the pid file."""


def _address(value: str, folder: str) -> AdminAddress | None:
    if value == "off":
        return None
    place, *words = value.split()
    if words not in ([], ["ssl"]):
        raise ValueError(f'"{" ".join(words)}" is unknown; only ssl may follow the address')
    if place.startswith("unix:"):
        if words:
            raise ValueError("ssl is for TCP only")
        return AdminAddress(path(place.removeprefix("unix:"), folder))
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    if not (isIPAddress(host) or isIPv6Address(host)) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be unix:PATH, ADDRESS:PORT, ADDRESS:PORT ssl or off")
    return AdminAddress(None, host, int(port), bool(words))


@frozen
class AdminSettings:
    """The admin side of the gateway."""

    admin: AdminAddress | None = directive("admin", _address, _BESIDE_PID, reloadable=False)
    metrics: AdminAddress | None = directive("metrics", _address, None, reloadable=False)

    def adminAt(self, pid: PIDSettings) -> AdminAddress | None:
        """
        Return where the admin server listens; L{None} if nowhere.

        @param pid: where the pid file is. Without one there is no default.
        """
        if self.admin is not _BESIDE_PID:
            return self.admin
        return None if pid.path is None else AdminAddress(f"{pid.path}.admin")

    def isWatched(self, pid: PIDSettings) -> bool:
        """Return whether connections are watched: the admin server or the port for metrics needs that."""
        return self.metrics is not None or self.adminAt(pid) is not None
