# -*- test-case-name: mailgate.test.process.test_startchecks -*-
"""
Checks that a gateway with a valid configuration could start: log files, the pid file, the command socket, the sockets
of the keeper and the addresses of listeners. The checks are safe beside a running gateway: they write nothing, create
nothing and bind nothing. So they do not find a port that another program uses.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
from collections.abc import Iterator

from mailgate.config import GatewaySettings
from mailgate.directives import LONGEST_SOCKET_PATH, ConfigurationError, ListenAddress, Problem
from mailgate.limits.settings import LimitSettings
from mailgate.limits.statefile import StateFile
from mailgate.log.settings import LogSettings, ServerLogSettings
from mailgate.net.bind import checkAddress
from mailgate.process.commandsocket import socketPath
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.system.rootfiles import checkToWrite
from mailgate.watch.settings import AdminSettings

__all__ = ["checkStart"]

_FIRST_FREE = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_MOST_OPEN = "/proc/sys/fs/nr_open"
_BIND_SERVICE = 10  # CAP_NET_BIND_SERVICE of linux/capability.h


def checkStart(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Check whether this process could start the gateway. Yields warnings about rights that this process lacks and that
    the process of the gateway may have, and about a C{state_file} without which the gateway starts, too.

    @param settings: the configuration.
    @raise ConfigurationError: the gateway could not start.
    """
    problems = [*_logs(settings), *(list(_pid(settings)) or _keeper(settings)), *_addresses(settings)]
    if problems:
        raise ConfigurationError(map(settings.lines.located, problems))
    for warning in (*_ports(settings), *_openFiles(settings), *_stateFile(settings)):
        yield settings.lines.located(warning)


def _logs(settings: GatewaySettings) -> Iterator[Problem]:
    owner = settings[ProcessSettings].owner
    sections = [("mailgate", settings[LogSettings].errorLog)]
    for server in settings.servers:
        sections.append((server.sectionOf("error_log"), server[ServerLogSettings].errorLog))
    # A log of [mail] is that of all servers: check it once.
    places = {log.file: section for section, logs in reversed(sections) for log in logs if log.file is not None}
    for file, section in reversed(places.items()):
        try:
            checkToWrite(file, os.O_APPEND, None if owner is None else owner[0])
        except OSError as error:
            yield Problem(settings.file, f"cannot be opened: {_reason(error, file)}", section, "error_log", file)


def _reason(error: OSError, file: str) -> str:
    if error.errno == errno.ENOENT:
        return "its directory does not exist"
    return str(error.strerror)


def _pid(settings: GatewaySettings) -> Iterator[Problem]:
    """Check the pid file and the command socket beside it."""
    file = settings[PIDSettings].path
    if file is None:
        return
    try:
        checkToWrite(file, os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        yield Problem(settings.file, f"cannot be written: {_reason(error, file)}", "mailgate", "pid", file)
        return
    reason = _unbindable(socketPath(file))
    if reason:
        message = f"cannot bind the command socket {socketPath(file)}: {reason}"
        yield Problem(settings.file, message, "mailgate", "pid", file)


def _keeper(settings: GatewaySettings) -> Iterator[Problem]:
    """Check the sockets of the keeper."""
    pid, admin = settings[PIDSettings], settings[AdminSettings]
    address = admin.adminAt(pid)
    paths = [f"{pid.path}.keeper"] if admin.isWatched(pid) and pid.path is not None else []
    if address is not None and address.path is not None:
        paths.append(address.path)
    for path in paths:
        reason = _unbindable(path)
        if reason:
            option, value = ("pid", pid.path) if path.startswith(f"{pid.path}.") else ("admin", f"unix:{path}")
            message = f"cannot bind {path} for the keeper: {reason}"
            yield Problem(settings.file, message, "mailgate", option, value)
            return
    for option, tcp in (("admin", address), ("metrics", admin.metrics)):
        if tcp is not None and tcp.path is None:
            try:
                checkAddress(tcp.host)
            except OSError as error:
                yield Problem(settings.file, f"cannot be bound: {error.strerror}", "mailgate", option, str(tcp))


def _unbindable(path: str) -> str:
    """
    Why no unix socket can be bound at C{path}. An existing one is a running gateway's, or is removed at the start.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return f"its path is longer than {LONGEST_SOCKET_PATH} bytes"
    folder = os.path.dirname(path)
    try:
        os.stat(os.path.join(folder, ""))
    except OSError as error:
        return _reason(error, path)
    if os.path.lexists(path):
        return "" if stat.S_ISSOCK(os.lstat(path).st_mode) else "a file that is not a socket has this name"
    return "" if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def _addresses(settings: GatewaySettings) -> Iterator[Problem]:
    for server in settings.servers:
        seen: set[str] = set()
        for address in server.listen:
            if address.isPassed or address.host in seen:
                continue
            seen.add(address.host)
            reason = _unavailable(address)
            if reason:
                yield server.problem("listen", f"cannot be bound: {reason}", str(address))


def _unavailable(address: ListenAddress) -> str:
    """Why this host cannot listen at the host of C{address}, whatever the port."""
    if address.host.startswith("unix:"):
        return _unbindable(address.host.removeprefix("unix:"))
    try:
        checkAddress(address.host)
    except OSError as error:
        return str(error.strerror)
    return ""


def _ports(settings: GatewaySettings) -> Iterator[Problem]:
    first = _firstFreePort()
    if first == 0:
        return
    for server in settings.servers:
        for address in server.listen:
            if address.wildcard is not None and address.port < first:
                needed = f"ports below {first} need root or CAP_NET_BIND_SERVICE"
                reason = f"{needed}; this check runs without, as uid {os.geteuid()}"
                yield server.problem("listen", reason, str(address))


def _firstFreePort() -> int:
    """The first port that this process may listen on; 0: it may use all ports."""
    if os.geteuid() == 0 or _mayBind():
        return 0
    try:
        with open(_FIRST_FREE, encoding="ascii") as opened:
            return int(opened.read())
    except (OSError, ValueError):
        return 1024


def _mayBind() -> bool:
    """Whether this process may listen on ports below the first unprivileged one."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as opened:
            found = re.search("^CapEff:\\s*([0-9a-f]+)$", opened.read(), re.MULTILINE)
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) >> _BIND_SERVICE & 1)


def _mostOpenFiles() -> int | None:
    """The highest limit of open files that this process may set; L{None} if that is unlimited or unknown."""
    if os.geteuid() != 0:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if hard == resource.RLIM_INFINITY else hard
    try:
        with open(_MOST_OPEN, encoding="ascii") as opened:
            return int(opened.read())
    except (OSError, ValueError):
        return None


def _openFiles(settings: GatewaySettings) -> Iterator[Problem]:
    limit = settings[ProcessSettings].openFiles
    most = _mostOpenFiles()
    if limit is not None and most is not None and limit > most:
        reason = f"will be refused by the system: this process may have at most {most} open files"
        yield Problem(settings.file, reason, "mailgate", "worker_rlimit_nofile", str(limit))


def _stateFile(settings: GatewaySettings) -> Iterator[Problem]:
    """Check the file of the limits' tables."""
    file = settings[LimitSettings].stateFile
    if file:
        try:
            StateFile(file).check()
        except OSError as error:
            message = f"cannot be written: {_reason(error, file)}; a restart forgets known networks and blocks"
            yield Problem(settings.file, message, "mail", "state_file", file)
