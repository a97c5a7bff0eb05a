# -*- test-case-name: mailgate.test.test_listensockets -*-
"""
The sockets that a process listens on, apart from whoever serves them.

A socket's queue belongs to the socket: as long as it stays open, nobody who connects while one gateway takes another's
place is refused or reset.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from mailgate.directives import ConfigurationError, ListenAddress, ServerSettings
from mailgate.listen import bind, setOptions

if TYPE_CHECKING:
    from mailgate.config import GatewaySettings

__all__ = ["ListenError", "ListeningSockets", "openSocket", "ownSockets"]


class ListenError(ConfigurationError):
    """An address cannot be listened on: it is taken, not of this host, or needs more rights."""


def ownSockets(addresses: Iterable[ListenAddress]) -> dict[ListenAddress, list[ListenAddress]]:
    """
    Those of C{addresses} that get a socket of their own, each with those that its wildcard takes in: beside the
    wildcard the system would not let them be bound.
    """
    byPlace = {(address.host, address.port): address for address in addresses}
    own: dict[ListenAddress, list[ListenAddress]] = {}
    for address in byPlace.values():
        wildcard = address if address.wildcard is None else byPlace.get(address.wildcard, address)
        own.setdefault(wildcard, [])
        if wildcard is not address:
            own[wildcard].append(address)
    return own


def openSocket(server: ServerSettings, address: ListenAddress) -> socket.socket:
    """
    A socket that listens at C{address} of C{server}.

    @raise ListenError: the address cannot be bound.
    """
    try:
        return bind(address)
    except OSError as error:
        raise _refused(server, address, error) from None


def _refused(server: ServerSettings, address: ListenAddress, error: OSError) -> ListenError:
    reason = f"cannot be bound: {os.strerror(error.errno) if error.errno else error}"
    return ListenError([server.problem("listen", reason, str(address))])


class ListeningSockets:
    """Bound, listening, non-blocking sockets, by the text of their address (C{str(ListenAddress)}, as in logs)."""

    def __init__(self, sockets: Mapping[str, socket.socket] = {}) -> None:
        self._sockets = dict(sockets)

    @classmethod
    def adopted(cls, descriptors: Mapping[str, int]) -> ListeningSockets:
        """Those that another process has bound; they are this one's from now on."""
        sockets = {}
        for name, descriptor in descriptors.items():
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            sockets[name] = socket.socket(fileno=descriptor)
        return cls(sockets)

    def opened(self, settings: GatewaySettings) -> ListeningSockets:
        """
        Those that C{settings} want: kept where they are here already, and given the options that can be given to an
        open socket; bound where they are not.

        @raise ListenError: an address cannot be bound, or an option needs a new socket. Nothing has changed then.
        """
        servers = {address: server for server in settings.servers for address in server.listen}
        wanted: dict[str, socket.socket] = {}
        with ExitStack() as undone:
            for address in ownSockets(servers):
                kept = self._sockets.get(str(address))
                if kept is None:
                    kept = undone.enter_context(openSocket(servers[address], address))
                else:
                    _checkKept(kept, servers[address], address)
                wanted[str(address)] = kept
            undone.pop_all()
        for address in ownSockets(servers):
            if str(address) in self._sockets:
                setOptions(wanted[str(address)], address.socket)
        return ListeningSockets(wanted)

    def find(self, address: ListenAddress) -> socket.socket | None:
        """The socket of C{address}."""
        return self._sockets.get(str(address))

    def descriptors(self) -> dict[str, int]:
        """Their descriptors, to be handed over to another process."""
        return {name: opened.fileno() for name, opened in self._sockets.items()}

    def close(self, but: ListeningSockets | None = None) -> None:
        """Close those that are not in C{but}; with a unix socket goes its file, which is nobody else's."""
        kept = set() if but is None else set(but._sockets.values())
        for name, opened in list(self._sockets.items()):
            if opened not in kept:
                del self._sockets[name]
                # Another set may have closed it.
                path = opened.getsockname() if opened.family == socket.AF_UNIX and opened.fileno() >= 0 else ""
                opened.close()
                if path and isinstance(path, str):
                    # Somebody else may have removed it, and it may belong to whom we are no longer.
                    with suppress(OSError):
                        os.unlink(path)

    def disown(self) -> None:
        """Close all of them in this process alone: others go on, and keep the files of unix sockets."""
        sockets, self._sockets = self._sockets, {}
        for opened in sockets.values():
            opened.close()


def _checkKept(kept: socket.socket, server: ServerSettings, address: ListenAddress) -> None:
    """@raise ListenError: C{address} wants of C{kept} what an open socket cannot be given."""
    changed = None
    if kept.family == socket.AF_INET6:
        only = bool(kept.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        changed = "ipv6only" if only != address.socket.ipv6only else None
    if kept.family != socket.AF_UNIX:
        isMultipath = kept.proto == getattr(socket, "IPPROTO_MPTCP", -1)
        changed = "multipath" if isMultipath != address.socket.multipath else changed
    if changed is not None:
        reason = f"{changed} cannot change while the socket is open: it takes a restart"
        raise ListenError([server.problem("listen", reason, str(address))])
