# -*- test-case-name: mailgate.test.nginx.test_importer -*-
"""
C{mailgate import-nginx}: a gateway.ini that can be started, of nginx.conf.
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
"""Where Debian's nginx has its files."""

DIFFERENCES = (
    "timeout: counts anew for each command, and ten times as much bounds all that comes before the login. nginx counts"
    " once, from the greeting, and says nothing at its end.",
    "proxy_timeout: bytes in either direction count. In nginx the client's alone do.",
    "xclient: with off a backend that offers XCLIENT or XFORWARD is not used, and behind a PROXY header no XCLIENT is"
    " sent. nginx lets clients have such a backend, and sends it.",
    "pop3_client_buffer: is 4k. nginx has 128 bytes, and no directive.",
    "proxy_buffer: is 4k unless given, as are imap_client_buffer and smtp_client_buffer. nginx's are a page of memory,"
    " which is larger on some hosts.",
    "auth_http: host names are looked up for each connection, and all addresses are tried. nginx looks them up once,"
    " at its start.",
    "user: where nginx.conf names none, nginx's workers become the user that its build names. mailgate stays the one"
    " that it is started as.",
    "worker_rlimit_nofile: where nginx.conf has none, the soft limit of open files is raised to the hard one. nginx"
    " keeps it.",
    "pid: there is no such file unless one is named in [mailgate]. nginx writes one in any case.",
    "error_log: the tag of syslog: is mailgate unless given, and has the number of the process behind it. nginx's is"
    " nginx, without a number.",
    "error_log: root follows no link to a log in a folder where others may write. nginx does.",
    "log_rate: of one kind of line a log gets 100 in a second, and a line that counts the others. nginx has no limit,"
    " as with off.",
    "TCP_NODELAY: is set on connections in the clear and under TLS. nginx's mail never sets it.",
)
"""
Where mailgate differs from nginx and nothing is written: no directive does as nginx does, or it is a matter of the host
or of its logs.
"""


@frozen
class Imported:
    """The C{text} of a gateway.ini, and what is to be told of nginx.conf, in the order of its lines."""

    text: str
    remarks: tuple[Remark, ...]


def pathsFor(filename: str, prefix: str | None = None) -> Paths:
    """
    Where relative names in the nginx.conf C{filename} start. nginx has a C{prefix} compiled in, which C{-p} replaces;
    unless given, it is the folder above where nginx.conf lies in a folder C{conf}, as nginx itself puts it, or else
    that of Debian's nginx.
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
    Read the nginx.conf C{filename}, and write what it says of mail as a gateway.ini.

    @raise Refused: there is nothing that could be written: nginx takes no such file, or it is about no mail.
    """
    mapping = Mapping(filename, read(filename), pathsFor(filename, prefix))
    while not _starts(mapping, filename):
        pass
    files = list(dict.fromkeys(remark.file for remark in mapping.remarks))
    remarks = sorted(mapping.remarks, key=lambda remark: (files.index(remark.file), remark.line))
    return Imported(_render(mapping, filename), tuple(remarks))


# What does not start is put out of force, until the rest does.


def _starts(mapping: Mapping, filename: str) -> bool:
    """Whether the gateway starts as it is written, but for what this host may not have. If not, it is changed."""
    try:
        parse(_render(mapping, filename), filename)
    except ConfigurationError as error:
        return not any(_putRight(mapping, filename, problem) for problem in error.problems)
    return True


def _putRight(mapping: Mapping, filename: str, problem: Problem) -> bool:
    """Whether something has been put out of force because of C{problem}."""
    section = next((section for section in mapping.sections if section.title == problem.section), None)
    entry = None if section is None else section.entry(problem.option)
    isServer = section is not None and section.level == "server"
    if entry is not None and problem.option in PATHS | OF_THE_HOST:
        # Data would be long, and may be a key.
        hasName = problem.option in PATHS and problem.value is not None and "data:" not in problem.value
        mapping.keep(entry, f'"{problem.value}" {problem.message}' if hasName else problem.message)
        return False
    if entry is not None:
        mapping.refuse(entry, problem.message)
    elif section is not None and isServer:
        mapping.refuseServer(section, f"{problem.option} {problem.message}".strip())
    else:
        raise Refused([*mapping.remarks, Remark(filename, 0, f"nothing could be carried over: {problem.message}")])
    return True


# The file.


def _render(mapping: Mapping, filename: str) -> str:
    head = [*_head(filename), *(line for section in mapping.sections for line in _section(section))]
    return "\n".join([*head, "", *_comment("To go on: mailgate check --config FILE, with this file's name."), ""])


def _head(filename: str) -> Iterator[str]:
    yield f"# Made by mailgate {__version__}, mailgate import-nginx, of"
    yield f"# {_oneLine(os.path.abspath(filename))}."
    yield "#"
    yield from _comment("What mailgate does in another way than nginx, and nothing below changes:")
    for difference in DIFFERENCES:
        yield from _comment(difference, "- ")


def _section(section: Section) -> Iterator[str]:
    off = "# " if section.refusal else ""
    yield ""
    if section.origin is not None:
        # A name is of no use in two lines.
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
        # What begins so is a comment unless it stands behind the name.
        yield f"{entry.name} = {entry.items[0]}"
        yield from (f"    {item}" for item in entry.items[1:])
    else:
        yield f"{entry.name} ="
        yield from (f"    {item}" for item in entry.items)


def _comment(text: str, mark: str = "") -> Iterator[str]:
    for line in textwrap.wrap(_oneLine(text), 117, initial_indent=mark, subsequent_indent=" " * len(mark)):
        yield f"# {line}"


def _oneLine(text: str) -> str:
    """C{text} for a comment, which stays one, and is UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
