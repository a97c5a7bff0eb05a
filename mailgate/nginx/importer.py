# -*- test-case-name: mailgate.test.nginx.test_importer -*-
"""
C{mailgate import-nginx}: makes a gateway.ini from an nginx.conf, with which a gateway starts.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator

from attrs import frozen

from mailgate._version import __version__
from mailgate.config import parse
from mailgate.directives import ConfigurationError, Problem
from mailgate.nginx.conf import Refused, Remark, read
from mailgate.nginx.mapping import Mapping
from mailgate.nginx.sections import Entry, Section
from mailgate.nginx.values import OF_THE_HOST, PATHS, Paths

__all__ = ["DIFFERENCES", "Imported", "importNginx", "pathsFor"]

_PREFIX, _ERROR_LOG = "/usr/share/nginx", "/var/log/nginx/error.log"
"""The folder and the log of Debian's nginx."""

DIFFERENCES = (
    "timeout: the time for each command; a client has ten times as long for everything before the login. In nginx it is"
    " the time for everything before the login, counted once, and the client gets no message when it ends.",
    "proxy_timeout: data in either direction restarts it. In nginx only data from the client does.",
    "xclient: with off, mailgate does not use a backend that offers XCLIENT or XFORWARD. After a PROXY header mailgate"
    " sends no XCLIENT. nginx uses such a backend, and sends XCLIENT after the header.",
    "pop3_client_buffer: 4k. In nginx it is 128 bytes, and there is no directive.",
    "proxy_buffer: the default is 4k, as that of imap_client_buffer and smtp_client_buffer. In nginx it is a page of"
    " memory, which is larger on some hosts.",
    "auth_http: mailgate looks up host names for each connection, and tries all addresses. nginx looks them up once,"
    " when it starts.",
    "user: if nginx.conf does not set it, nginx's workers run as the user that was compiled in. mailgate runs as the"
    " user that starts it.",
    "worker_rlimit_nofile: if nginx.conf does not set it, mailgate raises the soft limit of open files to the hard"
    " limit. nginx does not.",
    "pid: mailgate writes a pid file only if pid is set in [mailgate]. nginx always writes one.",
    "error_log: the default tag of syslog: is mailgate, followed by the process id. In nginx it is nginx, without the"
    " process id.",
    "error_log: as root, mailgate does not follow a symbolic link to a log in a folder that other users may write to."
    " nginx does.",
    "log_rate: a log accepts 100 lines of one kind per second, and a line with the number of the others. nginx has no"
    " limit, as with log_rate = off.",
    "TCP_NODELAY: mailgate sets it on all connections. nginx's mail proxy never sets it.",
)
"""
Differences for which the gateway.ini has no option, because no directive behaves like nginx, or because they concern
the host or its logs.
"""


@frozen
class Imported:
    """
    The result of an import.

    @ivar text: the text of the gateway.ini.
    @ivar remarks: what was not carried over, or not exactly, in the order of the lines of nginx.conf.
    """

    text: str
    remarks: tuple[Remark, ...]


def pathsFor(filename: str, prefix: str | None = None) -> Paths:
    """
    The folders where relative paths of an nginx.conf start.

    @param filename: the path of the nginx.conf.
    @param prefix: nginx's prefix, which is compiled in, or set by C{nginx -p}. The default is the parent folder if
        nginx.conf is in a folder C{conf}, as nginx installs it, or else the prefix of Debian's nginx.
    """
    folder = os.path.dirname(os.path.abspath(filename))
    if prefix is None and os.path.basename(folder) == "conf":
        prefix = os.path.dirname(folder)
    if prefix is None:
        return Paths(folder, _PREFIX, _ERROR_LOG)
    prefix = os.path.abspath(prefix)
    return Paths(folder, prefix, os.path.join(prefix, "logs", "error.log"))


def importNginx(filename: str, prefix: str | None = None) -> Imported:
    """
    Make a gateway.ini from the mail block of an nginx.conf.

    @param filename: the path of the nginx.conf.
    @param prefix: as for L{pathsFor}.
    @raise Refused: there is no result: nginx would refuse the file, or it has no mail block, or nothing of it can be
        carried over.
    """
    mapping = Mapping(filename, read(filename), pathsFor(filename, prefix))
    while not _starts(mapping, filename):
        pass
    files = list(dict.fromkeys(remark.file for remark in mapping.remarks))
    remarks = sorted(mapping.remarks, key=lambda remark: (files.index(remark.file), remark.line))
    return Imported(_render(mapping, filename), tuple(remarks))


# Options and servers that mailgate refuses become comments, until it accepts the rest.


def _starts(mapping: Mapping, filename: str) -> bool:
    """
    Return whether mailgate accepts the configuration, apart from files and users that this host may lack. Otherwise
    turn the options and servers that it refuses into comments: the caller tries again.
    """
    try:
        parse(_render(mapping, filename), filename)
    except ConfigurationError as error:
        return not any(_putRight(mapping, filename, problem) for problem in error.problems)
    return True


def _putRight(mapping: Mapping, filename: str, problem: Problem) -> bool:
    """Comment out what causes C{problem}. Return whether that changed anything."""
    section = next((section for section in mapping.sections if section.title == problem.section), None)
    entry = None if section is None else section.entry(problem.option)
    isServer = section is not None and section.level == "server"
    if entry is not None and problem.option in PATHS | OF_THE_HOST:
        # A data: value is long, and may be a key.
        hasName = problem.option in PATHS and problem.value is not None and "data:" not in problem.value
        mapping.keep(entry, f'"{problem.value}" {problem.message}' if hasName else problem.message)
        return False
    if entry is not None:
        mapping.refuse(entry, problem.message)
    elif section is not None and isServer:
        mapping.refuseServer(section, f"{problem.option} {problem.message}".strip())
    else:
        raise Refused([*mapping.remarks, Remark(filename, 0, f"nothing can be carried over: {problem.message}")])
    return True


# The file.


def _render(mapping: Mapping, filename: str) -> str:
    head = [*_head(filename), *(line for section in mapping.sections for line in _section(section))]
    return "\n".join([*head, "", *_comment("Next step: mailgate check --config FILE, with the name of this file."), ""])


def _head(filename: str) -> Iterator[str]:
    yield f"# mailgate {__version__}, mailgate import-nginx, made this file from"
    yield f"# {_oneLine(os.path.abspath(filename))}."
    yield "#"
    yield from _comment("Where mailgate differs from nginx, whatever this file says:")
    for difference in DIFFERENCES:
        yield from _comment(difference, "- ")


def _section(section: Section) -> Iterator[str]:
    off = "# " if section.refusal else ""
    yield ""
    if section.origin is not None:
        # Keep the path on one line, however long it is.
        yield f"# {_oneLine(section.origin.file)}, line {section.origin.line}"
    if section.refusal:
        yield from _comment(f"Not carried over: {section.refusal}")
    yield f"{off}[{section.title}]"
    for entry in section.entries:
        yield from (f"{off}{line}" for line in _entry(entry))


def _entry(entry: Entry) -> Iterator[str]:
    if entry.comment:
        yield from _comment(entry.comment)
    if entry.refusal:
        yield from _comment(f"Not carried over: {entry.refusal}")
        for item in entry.items:
            yield f"# {_oneLine(entry.name)} = {_oneLine(item)}"
    elif len(entry.items) == 1 or entry.items[0][0] in "#;":
        # On a line of its own, such an item would be a comment.
        yield f"{entry.name} = {entry.items[0]}"
        yield from (f"    {item}" for item in entry.items[1:])
    else:
        yield f"{entry.name} ="
        yield from (f"    {item}" for item in entry.items)


def _comment(text: str, mark: str = "") -> Iterator[str]:
    for line in textwrap.wrap(_oneLine(text), 117, initial_indent=mark, subsequent_indent=" " * len(mark)):
        yield f"# {line}"


def _oneLine(text: str) -> str:
    """C{text} for a comment: on one line, and encodable as UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
