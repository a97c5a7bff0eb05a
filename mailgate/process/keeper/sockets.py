# -*- test-case-name: mailgate.test.process.keeper.test_sockets -*-
"""
The listening sockets of the keeper: the rendezvous, to which all processes that serve clients connect, the admin
server's socket, and the one for C{metrics}. The process that twistd runs binds them, and hands them on, with the memory
in which a keeper leaves its state to the next one.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError, Problem
from mailgate.keeper.memory import newFile
from mailgate.net.bind import bindPath
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.watch.settings import AdminAddress, AdminSettings

__all__ = ["ADMIN", "MEMORY", "METRICS", "RENDEZVOUS", "KeeperSockets"]

RENDEZVOUS, ADMIN, METRICS = "rendezvous", "admin", "metrics"
"""The names of the sockets."""

MEMORY = "memory"
"""The name of the memory among the descriptors."""

_FOLDER = "mailgate-keeper-"
"""How the name of a private folder for the rendezvous begins."""


class KeeperSockets:
    """
    The sockets, by their names.

    @param settings: the configuration.
    @param inherited: the sockets of the old process of an upgrade, by their names.
    @param memory: the descriptor of the memory of the old process; L{None} if it has none.
    @ivar path: the path of the rendezvous; empty until the sockets are open.
    """

    def __init__(
        self, settings: GatewaySettings, inherited: Mapping[str, socket.socket] = {}, memory: int | None = None
    ) -> None:
        self.path = ""
        self._memory = memory
        self._settings = settings
        self._inherited = dict(inherited)
        self._sockets: dict[str, socket.socket] = {}

    def open(self) -> None:
        """
        Bind the sockets, unless the old process has passed on those with the same addresses.

        @raise ConfigurationError: one of them cannot be bound.
        """
        if self._sockets:
            return
        pid, admin = self._settings[PIDSettings], self._settings[AdminSettings]
        try:
            for name, address in ((ADMIN, admin.adminAt(pid)), (METRICS, admin.metrics)):
                if address is not None:
                    self._sockets[name] = self._opened(name, address)
            # Processes that serve clients already know the path of an inherited one.
            kept = self._inherited.get(RENDEZVOUS)
            self._sockets[RENDEZVOUS] = self._newRendezvous(pid.path) if kept is None else kept
        except ConfigurationError:
            self.leave()
            raise
        self.path = str(self._sockets[RENDEZVOUS].getsockname())
        if self._memory is None:
            # Without it a state dies with the zygote.
            with suppress(OSError):
                self._memory = newFile()

    def _opened(self, name: str, address: AdminAddress) -> socket.socket:
        inherited = self._inherited.get(name)
        if inherited is not None and _isAt(inherited, address):
            return inherited
        try:
            return self._boundPath(address.path) if address.path is not None else _boundTCP(address)
        except OSError as error:
            raise self._refused(name, str(address.path or f"{address.host}:{address.port}"), error) from None

    def _newRendezvous(self, pidFile: str | None) -> socket.socket:
        path = "" if pidFile is None else f"{pidFile}.keeper"
        try:
            if not path:
                folder = tempfile.mkdtemp(prefix=_FOLDER)
                path = os.path.join(folder, "socket")
                bound = self._boundPath(path)
                # Not before: root would make the socket in a folder of another user, who could replace the file.
                self._give(folder)
                return bound
            return self._boundPath(path)
        except OSError as error:
            raise self._refused("pid", path or tempfile.gettempdir(), error) from None

    def _refused(self, option: str, place: str, error: OSError) -> ConfigurationError:
        why = error.strerror or str(error)
        pidFile = self._settings[PIDSettings].path
        isBeside = place.startswith(f"{pidFile}.")
        if error.errno == errno.EADDRINUSE:
            why = "another mailgate with this pid file is running" if isBeside else "another process listens there"
        reason = f"cannot bind {place} for the keeper: {why}"
        if isBeside:
            # The file of pid decides about this place.
            return ConfigurationError([Problem(self._settings.file, reason, "mailgate", "pid", pidFile)])
        return ConfigurationError([Problem(self._settings.file, reason, "mailgate", option)])

    def _boundPath(self, path: str) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX)
        # The owner alone may connect. chmod(2) would follow a link that another user put there in the meantime.
        mask = os.umask(0o177)
        try:
            bindPath(bound, path)
            self._give(path)
            bound.listen()
        except BaseException:
            bound.close()
            raise
        finally:
            os.umask(mask)
        bound.setblocking(False)
        return bound

    def _give(self, path: str) -> None:
        """Make the user of the workers the owner of a file that root has made."""
        owner = self._settings[ProcessSettings].owner
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)

    def opened(self) -> dict[str, socket.socket]:
        """Return the open sockets, by their names."""
        return dict(self._sockets)

    def descriptors(self) -> dict[str, int]:
        """Return the file descriptors, by the names of the sockets, and that of the memory as L{MEMORY}."""
        memory = {} if self._memory is None else {MEMORY: self._memory}
        return {name: opened.fileno() for name, opened in self._sockets.items()} | memory

    def give(self, uid: int, gid: int) -> None:
        """
        Make the user of C{twistd --uid} the owner of the files. Only root can do that.

        @param uid: the user.
        @param gid: its group; -1: that of the files stays.
        @raise ConfigurationError: the system refuses it.
        """
        for opened in self._sockets.values():
            if opened.family != socket.AF_UNIX or opened in self._inherited.values():
                continue
            path = str(opened.getsockname())
            folder = os.path.dirname(path)
            try:
                os.chown(path, uid, gid, follow_symlinks=False)
                if os.path.basename(folder).startswith(_FOLDER):
                    os.chown(folder, uid, gid, follow_symlinks=False)
            except OSError as error:
                raise self._refused("pid", path, error) from None

    def take(self) -> None:
        """The upgrade is confirmed: this process owns the sockets. Close those that it does not use."""
        inherited, self._inherited = self._inherited, {}
        for opened in inherited.values():
            if opened not in self._sockets.values():
                _remove(opened)

    def leave(self) -> None:
        """Close the sockets. Keep the files of those that belong to another process, in an upgrade."""
        self._closeMemory()
        sockets, self._sockets = self._sockets, {}
        for opened in sockets.values():
            if opened in self._inherited.values():
                opened.close()
            else:
                _remove(opened)

    def handOver(self) -> None:
        """Close the sockets, and keep their files: the successor of an upgrade has taken the sockets over."""
        self._closeMemory()
        sockets, self._sockets = self._sockets, {}
        for opened in sockets.values():
            opened.close()

    def end(self) -> None:
        """Nothing listens any more, also not where another process has inherited the sockets. Remove their files."""
        for opened in self._sockets.values():
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        self.leave()

    def _closeMemory(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            os.close(memory)


def _boundTCP(address: AdminAddress) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address.host, address.port))
        bound.listen()
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def _isAt(opened: socket.socket, address: AdminAddress) -> bool:
    name = opened.getsockname()
    if address.path is not None:
        return bool(name == address.path)
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    if opened.family != family or name[1] != address.port:
        return False
    return socket.inet_pton(family, name[0]) == socket.inet_pton(family, address.host)


def _remove(opened: socket.socket) -> None:
    """Close a socket, and remove its file, with the private folder that it may have."""
    path = opened.getsockname() if opened.family == socket.AF_UNIX and opened.fileno() >= 0 else ""
    opened.close()
    # Both fail in a folder of root's once this process runs as another user.
    if path:
        with suppress(OSError):
            os.unlink(path)
        folder = os.path.dirname(path)
        if os.path.basename(folder).startswith(_FOLDER):
            with suppress(OSError):
                os.rmdir(folder)
