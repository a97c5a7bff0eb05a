# -*- test-case-name: mailgate.test.net.test_sockets -*-
"""
The listening sockets of a process, independent of the gateway that accepts their connections.

The queue of new connections belongs to the socket. As long as the socket stays open, a reload or an upgrade neither
refuses nor resets a connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress

from mailgate.directives import ConfigurationError, ListenAddress, ServerSettings
from mailgate.net.bind import bind, setOptions

__all__ = ["ListenError", "ListeningSockets", "openSocket", "ownSockets"]


_PASSED = "systemd:"


class ListenError(ConfigurationError):
    """The gateway cannot listen at an address: it is in use, does not belong to this host, or needs more rights."""


def ownSockets(addresses: Iterable[ListenAddress]) -> dict[ListenAddress, list[ListenAddress]]:
    """
    Return the addresses that need a socket of their own.

    @param addresses: all addresses of C{listen}.
    @return: each of these addresses, with the other addresses that its socket covers. A wildcard socket covers all
        addresses with its family and port; the system does not allow sockets for them beside it.
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
    Make a socket that listens at an address.

    @param server: the server to which the address belongs.
    @param address: the address.
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
    """
    Bound, listening, non-blocking sockets.

    @param sockets: the sockets, by their address as text (C{str(ListenAddress)}, as in the log). If systemd passed
        several sockets with one name, the others have a number: C{systemd:imap}, C{systemd:imap:1}.
    @ivar keepsFiles: whether the files of unix sockets stay when the sockets are closed, because another process uses
        them.
    """

    def __init__(self, sockets: Mapping[str, socket.socket] = {}, keepsFiles: bool = False) -> None:
        self._sockets = dict(sockets)
        self.keepsFiles = keepsFiles

    @classmethod
    def adopted(cls, descriptors: Mapping[str, int], keepsFiles: bool = False) -> ListeningSockets:
        """
        Take over sockets that another process bound.

        @param descriptors: the file descriptors, by their address as text.
        @param keepsFiles: see the constructor.
        @raise OSError: a descriptor is not a socket.
        """
        sockets = {}
        for name, descriptor in descriptors.items():
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            sockets[name] = socket.socket(fileno=descriptor)
        return cls(sockets, keepsFiles)

    def opened(self, servers: Iterable[ServerSettings]) -> ListeningSockets:
        """
        Return the sockets for a new configuration. Open sockets are kept, and get the new options. Missing ones are
        bound.

        @param servers: the servers of the configuration.
        @raise ListenError: an address cannot be bound, or an option needs a new socket. Nothing has changed then.
        """
        wantedBy = {address: server for server in servers for address in server.listen}
        # Keep all sockets from systemd, even unused ones: systemd passes them only once.
        wanted = {name: passed for name, passed in self._sockets.items() if name.startswith(_PASSED)}
        with ExitStack() as undone:
            for address in ownSockets(wantedBy):
                kept = self._sockets.get(str(address))
                if address.isPassed:
                    self._checkPassed(wantedBy[address], address)
                    continue
                if kept is None:
                    kept = undone.enter_context(openSocket(wantedBy[address], address))
                else:
                    _checkKept(kept, wantedBy[address], address)
                wanted[str(address)] = kept
            undone.pop_all()
        for address in ownSockets(wantedBy):
            if str(address) in self._sockets and not address.isPassed:
                setOptions(wanted[str(address)], address.socket)
        return ListeningSockets(wanted, self.keepsFiles)

    def _checkPassed(self, server: ServerSettings, address: ListenAddress) -> None:
        passed = self.findAll(address)
        if not passed:
            names = ", ".join(dict.fromkeys(name.split(":")[1] for name in self._sockets if name.startswith(_PASSED)))
            reason = f"systemd passed no socket with this name; it passed {names or 'none'}"
            raise ListenError([server.problem("listen", reason, str(address))])
        if not all(_listens(each) for each in passed):
            reason = "systemd passed a socket that is not a listening stream socket; use ListenStream= and Accept=no"
            raise ListenError([server.problem("listen", reason, str(address))])

    def find(self, address: ListenAddress) -> socket.socket | None:
        """Return the socket of C{address}, the first one if there are several; L{None} if there is none."""
        return self._sockets.get(str(address))

    def findAll(self, address: ListenAddress) -> list[socket.socket]:
        """Return all sockets of C{address}. systemd may pass several with one name."""
        name = str(address)
        if not address.isPassed:
            return [self._sockets[name]] if name in self._sockets else []
        return [each for key, each in self._sockets.items() if key == name or key.startswith(f"{name}:")]

    def descriptors(self) -> dict[str, int]:
        """Return the file descriptors, by their address as text, to hand them over to another process."""
        return {name: opened.fileno() for name, opened in self._sockets.items()}

    def close(self, but: ListeningSockets | None = None) -> None:
        """
        Close the sockets, and remove the files of unix sockets, except those from systemd and with C{keepsFiles}.

        @param but: sockets that stay open; L{None} for none.
        """
        kept = set() if but is None else set(but._sockets.values())
        for name, opened in list(self._sockets.items()):
            if opened not in kept:
                del self._sockets[name]
                isOurs = opened.family == socket.AF_UNIX and not self.keepsFiles and not name.startswith(_PASSED)
                # Another ListeningSockets may have closed the socket.
                path = opened.getsockname() if isOurs and opened.fileno() >= 0 else ""
                opened.close()
                if path and isinstance(path, str):
                    # The file may be gone, or belong to root, which this process no longer is.
                    with suppress(OSError):
                        os.unlink(path)

    def disown(self) -> None:
        """Close the sockets in this process only. Other processes go on, so the files of unix sockets stay."""
        sockets, self._sockets = self._sockets, {}
        for opened in sockets.values():
            opened.close()


def _listens(passed: socket.socket) -> bool:
    isStream = passed.type == socket.SOCK_STREAM
    return isStream and bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _checkKept(kept: socket.socket, server: ServerSettings, address: ListenAddress) -> None:
    """@raise ListenError: an option of C{address} differs, and the open socket C{kept} cannot change it."""
    changed = None
    if kept.family == socket.AF_INET6:
        only = bool(kept.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        changed = "ipv6only" if only != address.socket.ipv6only else None
    if kept.family != socket.AF_UNIX:
        isMultipath = kept.proto == getattr(socket, "IPPROTO_MPTCP", -1)
        changed = "multipath" if isMultipath != address.socket.multipath else changed
    if changed is not None:
        reason = f"{changed} cannot change while the socket is open; restart the gateway"
        raise ListenError([server.problem("listen", reason, str(address))])
