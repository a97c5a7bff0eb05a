# -*- test-case-name: mailgate.test.system.test_activation -*-
"""
Socket activation: the sockets that systemd has bound for this process (sd_listen_fds(3)).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.python.systemd import ListenFDs

__all__ = ["passedSockets"]


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
