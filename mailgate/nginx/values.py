# -*- test-case-name: mailgate.test.nginx.test_values -*-
"""
Converts the arguments of nginx's directives to values of gateway.ini, where the two are written differently.
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
    """
    Where relative paths of an nginx.conf start.

    @ivar configuration: the folder of nginx.conf, for files.
    @ivar prefix: nginx's prefix, for logs.
    @ivar errorLog: the path of nginx's default log.
    """

    configuration: str
    prefix: str
    errorLog: str


# Each of these functions returns the items of a value, or raises ValueError with a reason.


def _joined(args: Sequence[str], paths: Paths) -> list[str]:
    if len(args) > 1 and any(re.search(r"\s", arg) for arg in args):
        raise ValueError("one of its words contains a blank")
    return [" ".join(args)]


def _words(args: Sequence[str], paths: Paths) -> list[str]:
    if any(re.search(r"\s", arg) for arg in args):
        raise ValueError("one of its words contains a blank")
    return [" ".join(args)]


def _each(args: Sequence[str], paths: Paths) -> list[str]:
    return list(args)


def _pair(args: Sequence[str], paths: Paths) -> list[str]:
    name, value = args
    if re.search(r"\s", name):
        raise ValueError("its name contains a blank")
    return [f"{name} {value.strip(' ')}".rstrip(" ")]


def _header(args: Sequence[str], paths: Paths) -> list[str]:
    """nginx's mail proxy has no variables in headers, but mailgate has: quote the value."""
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
        raise ValueError("the address has no port, so nginx listens at any free port")
    return _words(args, paths)


_DEBUG_WORDS = {f"debug_{part}" for part in ("core", "alloc", "mutex", "event", "http", "mail", "stream")}
"""Words of nginx in place of a level, for debugging a part of nginx only."""


def _errorLog(args: Sequence[str], paths: Paths) -> list[str]:
    target, *levels = args
    isJSON = levels[1:] == ["json"]
    if isJSON:
        levels.pop()
    if levels and _DEBUG_WORDS.issuperset(levels):
        levels = ["debug"]
    if len(levels) > 1:
        raise ValueError("the word after the level is unknown")
    if target.startswith("memory:"):
        raise ValueError("mailgate cannot log to memory; use a file, stderr or syslog")
    if re.search(r"\s", target):
        raise ValueError("the file name contains a blank")
    if target != "stderr" and not target.startswith("syslog:"):
        target = os.path.join(paths.prefix, target)
    return [f"{target} {levels[0] if levels else 'error'}{' json' if isJSON else ''}"]


def _halved(args: Sequence[str], paths: Paths) -> list[str]:
    """Half a number of connections: nginx also counts connections to backends, one for each client."""
    (value,) = args
    if not re.fullmatch("[0-9]{1,12}", value):
        raise ValueError("its value is not a number")
    return [str(-(-int(value) // 2))]


PATHS = {
    *("ssl_certificate", "ssl_certificate_key", "ssl_password_file", "ssl_dhparam", "ssl_client_certificate"),
    *("ssl_trusted_certificate", "ssl_crl"),
}
"""Directives whose value is the path of a file. Relative paths start at nginx.conf's folder."""

OF_THE_HOST = {"user"}
"""
Other directives whose value may exist on the host that the gateway will run on, but not on the host of the import.
"""

_WRITTEN: dict[str, Callable[[Sequence[str], Paths], list[str]]] = {
    **dict.fromkeys(PATHS, _file),
    **dict.fromkeys(("imap_capabilities", "pop3_capabilities", "smtp_capabilities"), _each),
    **dict.fromkeys(("imap_auth", "pop3_auth", "smtp_auth", "ssl_protocols", "resolver", "user"), _words),
    "auth_http_header": _header,
    "error_log": _errorLog,
    "listen": _listen,
    "ssl_conf_command": _command,
    # Not in PATHS: it may have to be left out for other reasons than a missing file.
    "ssl_session_ticket_key": _file,
    "worker_connections": _halved,
}


def written(name: str, args: Sequence[str], paths: Paths) -> list[str]:
    """
    Convert one use of an nginx directive.

    @param name: the name of the directive.
    @param args: its arguments.
    @param paths: where relative paths start.
    @return: the items of the value in gateway.ini.
    @raise ValueError: no value means the same.
    """
    return _WRITTEN.get(name, _joined)(args, paths)


def fitsIni(item: str, isFirst: bool) -> None:
    """
    Check that an ini file can hold an item.

    @param item: the item.
    @param isFirst: whether it is the first item of its list.
    @raise ValueError: the item would change when read from an ini file.
    """
    if re.search(r"[\x00-\x1f\x7f]", item):
        raise ValueError("its value contains a control character or a line end")
    if not item:
        raise ValueError("its value is empty")
    if item != item.strip():
        raise ValueError("its value begins or ends with a blank")
    if re.search("[\ud800-\udfff]", item):
        raise ValueError("its value is not UTF-8")
    if item[0] in "#;" and not isFirst:
        raise ValueError("an item that begins with # or ; must be the first of its list; elsewhere it is a comment")
