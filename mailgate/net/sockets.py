# -*- test-case-name: mailgate.test.net.test_sockets -*-
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

from mailgate.directives import ConfigurationError, ListenAddress, ServerSettings
from mailgate.net.bind import bind, setOptions

__all__ = ["ListenError", "ListeningSockets", "openSocket", "ownSockets"]


_PASSED = "systemd:"


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
    """
    Bound, listening, non-blocking sockets, by the text of their address (C{str(ListenAddress)}, as in logs). Further
    ones that systemd passes by the same name have a number behind it: C{systemd:imap}, C{systemd:imap:1}.

    @ivar keepsFiles: whether the files of unix sockets stay when these are closed, as another process has them too.
    """

    def __init__(self, sockets: Mapping[str, socket.socket] = {}, keepsFiles: bool = False) -> None:
        self._sockets = dict(sockets)
        self.keepsFiles = keepsFiles

    @classmethod
    def adopted(cls, descriptors: Mapping[str, int], keepsFiles: bool = False) -> ListeningSockets:
        """
        Those that another process has bound.

        @raise OSError: one of C{descriptors} is no socket.
        """
        sockets = {}
        for name, descriptor in descriptors.items():
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            sockets[name] = socket.socket(fileno=descriptor)
        return cls(sockets, keepsFiles)

    def opened(self, servers: Iterable[ServerSettings]) -> ListeningSockets:
        """
        Those that C{servers} want: kept where they are here already, and given the options that can be given to an
        open socket; bound where they are not.

        @raise ListenError: an address cannot be bound, or an option needs a new socket. Nothing has changed then.
        """
        wantedBy = {address: server for server in servers for address in server.listen}
        # Nobody else could give these back.
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
        """The socket of C{address}, the first of them if there are several."""
        return self._sockets.get(str(address))

    def findAll(self, address: ListenAddress) -> list[socket.socket]:
        """All sockets of C{address}: systemd may pass several by one name."""
        name = str(address)
        if not address.isPassed:
            return [self._sockets[name]] if name in self._sockets else []
        return [each for key, each in self._sockets.items() if key == name or key.startswith(f"{name}:")]

    def descriptors(self) -> dict[str, int]:
        """Their descriptors, to be handed over to another process."""
        return {name: opened.fileno() for name, opened in self._sockets.items()}

    def close(self, but: ListeningSockets | None = None) -> None:
        """Close those that are not in C{but}; with a unix socket goes its file, unless it is somebody else's."""
        kept = set() if but is None else set(but._sockets.values())
        for name, opened in list(self._sockets.items()):
            if opened not in kept:
                del self._sockets[name]
                isOurs = opened.family == socket.AF_UNIX and not self.keepsFiles and not name.startswith(_PASSED)
                # Another set may have closed it.
                path = opened.getsockname() if isOurs and opened.fileno() >= 0 else ""
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


def _listens(passed: socket.socket) -> bool:
    isStream = passed.type == socket.SOCK_STREAM
    return isStream and bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


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
        reason = f"{changed} cannot change while the socket is open; restart the gateway"
        raise ListenError([server.problem("listen", reason, str(address))])
