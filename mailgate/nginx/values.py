# -*- test-case-name: mailgate.test.nginx.test_values -*-
"""
The arguments of nginx's directives as values of an ini file, where these are written otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from attrs import frozen

from mailgate.auth.http.dialect import quoted

__all__ = ["OF_THE_HOST", "PATHS", "Paths", "fitsIni", "written"]


@frozen
class Paths:
    """Where relative names start: files from nginx.conf's folder, logs from the C{prefix}; and the log of old."""

    configuration: str
    prefix: str
    errorLog: str


# Each gives items, or raises ValueError with the reason why there are none.


def _joined(args: Sequence[str], paths: Paths) -> list[str]:
    if len(args) > 1 and any(re.search(r"\s", arg) for arg in args):
        raise ValueError("one of its words holds a blank")
    return [" ".join(args)]


def _words(args: Sequence[str], paths: Paths) -> list[str]:
    if any(re.search(r"\s", arg) for arg in args):
        raise ValueError("one of its words holds a blank")
    return [" ".join(args)]


def _each(args: Sequence[str], paths: Paths) -> list[str]:
    return list(args)


def _pair(args: Sequence[str], paths: Paths) -> list[str]:
    name, value = args
    if re.search(r"\s", name):
        raise ValueError("its name holds a blank")
    return [f"{name} {value.strip(' ')}".rstrip(" ")]


def _header(args: Sequence[str], paths: Paths) -> list[str]:
    """nginx's mail knows no variables: what is one in mailgate is meant as it stands."""
    name, value = args
    literal = quoted(value.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    return _pair((name, literal), paths)


_FILE_COMMANDS = {
    *("certificate", "privatekey", "serverinfofile", "chaincapath", "chaincafile", "verifycapath", "verifycafile"),
    *("requestcapath", "requestcafile", "clientcapath", "clientcafile", "dhparameters"),
}
"""Commands of C{SSL_CONF_cmd} that take a file or a folder."""


def _command(args: Sequence[str], paths: Paths) -> list[str]:
    name, value = args
    if name.lower() in _FILE_COMMANDS:
        (value,) = _file((value,), paths)
    return _pair((name, value), paths)


def _file(args: Sequence[str], paths: Paths) -> list[str]:
    (value,) = args
    if value.startswith("data:"):
        return [value.replace("\r\n", "\n").replace("\n", "\\n")]
    if value.startswith(("engine:", "store:")):
        return [value]
    return [os.path.join(paths.configuration, value)]


def _listen(args: Sequence[str], paths: Paths) -> list[str]:
    address = args[0]
    if not address.startswith("unix:") and not re.search(r"(?:^|:)[0-9]+(?:-[0-9]+)?$", re.sub(r"\[.*\]", "", address)):
        raise ValueError("the address has no port, and nginx takes any that is free")
    return _words(args, paths)


_DEBUG_WORDS = {f"debug_{part}" for part in ("core", "alloc", "mutex", "event", "http", "mail", "stream")}
"""The parts of nginx that can be debugged alone: any of them, in the place of a level."""


def _errorLog(args: Sequence[str], paths: Paths) -> list[str]:
    target, *levels = args
    if levels and _DEBUG_WORDS.issuperset(levels):
        levels = ["debug"]
    if len(levels) > 1:
        raise ValueError("what stands behind the level is unknown")
    if target.startswith("memory:"):
        raise ValueError("a log in memory is for nginx's developers: a file, stderr or syslog can be logged to")
    if re.search(r"\s", target):
        raise ValueError("the file's name holds a blank")
    if target != "stderr" and not target.startswith("syslog:"):
        target = os.path.join(paths.prefix, target)
    return [f"{target} {levels[0] if levels else 'error'}"]


def _halved(args: Sequence[str], paths: Paths) -> list[str]:
    """Of connections: nginx counts those to backends as well, and each client has one."""
    (value,) = args
    if not re.fullmatch("[0-9]{1,12}", value):
        raise ValueError("it is no number")
    return [str(-(-int(value) // 2))]


PATHS = {
    *("ssl_certificate", "ssl_certificate_key", "ssl_password_file", "ssl_dhparam", "ssl_client_certificate"),
    *("ssl_trusted_certificate", "ssl_crl"),
}
"""Directives whose value is a file, whose name starts at nginx.conf's folder."""

OF_THE_HOST = {"user"}
"""Others that name what this host may lack, and the one that the gateway will run on may have."""

_WRITTEN: dict[str, Callable[[Sequence[str], Paths], list[str]]] = {
    **dict.fromkeys(PATHS, _file),
    **dict.fromkeys(("imap_capabilities", "pop3_capabilities", "smtp_capabilities"), _each),
    **dict.fromkeys(("imap_auth", "pop3_auth", "smtp_auth", "ssl_protocols", "resolver", "user"), _words),
    "auth_http_header": _header,
    "error_log": _errorLog,
    "listen": _listen,
    "ssl_conf_command": _command,
    # Not one of PATHS: it is not for the file alone that it may have to be left out.
    "ssl_session_ticket_key": _file,
    "worker_connections": _halved,
}


def written(name: str, args: Sequence[str], paths: Paths) -> list[str]:
    """
    The items that an ini file has for one use of nginx's directive C{name}.

    @raise ValueError: there are none that mean the same.
    """
    return _WRITTEN.get(name, _joined)(args, paths)


def fitsIni(item: str, isFirst: bool) -> None:
    """
    Whether C{item} is the same when it comes out of an ini file.

    @raise ValueError: it is not.
    """
    if re.search(r"[\x00-\x1f\x7f]", item):
        raise ValueError("its value holds a control character or a line end")
    if not item:
        raise ValueError("its value is empty")
    if item != item.strip():
        raise ValueError("its value begins or ends with a blank")
    if re.search("[\ud800-\udfff]", item):
        raise ValueError("its value is not UTF-8")
    if item[0] in "#;" and not isFirst:
        raise ValueError("what begins with # or ; is a comment in a list of an ini file: put it first")
