# -*- test-case-name: mailgate.test.store.test_address -*-
"""
Where the store is: the value of the directive C{store}.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import frozen

from mailgate.directives import LONGEST_SOCKET_PATH, isHostName, path

__all__ = ["StoreAddress", "storeAddress"]

_PORT = 6379
_SENTINEL_PORT = 26379
_FORMS = (
    "must be redis://[USER@]HOST[:PORT][/DB], rediss://[USER@]HOST[:PORT][/DB], redis+unix:/PATH[?db=DB] or"
    " sentinel+redis://A,B,C/NAME[/DB]"
)
_SCHEME = re.compile(r"(redis|rediss|redis\+unix|sentinel\+redis|sentinel\+rediss):(.*)", re.DOTALL)
_USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE = re.compile("[0-9]{1,5}")


@frozen
class StoreAddress:
    """
    Where the store is.

    @ivar path: of a unix socket; L{None} for TCP.
    @ivar hosts: host names or IP addresses with ports. Several, or one of a name, are Sentinels.
    @ivar ssl: whether it is reached by TLS.
    @ivar name: how Sentinel calls the store; empty without Sentinel.
    @ivar user: the user of the ACL; empty for C{default}.
    @ivar database: the number of the database.
    """

    path: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    ssl: bool = False
    name: str = ""
    user: str = ""
    database: int = 0

    def __str__(self) -> str:
        """Where it is, for the log."""
        if self.path is not None:
            return f"unix:{self.path}"
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.name} of Sentinel {hosts}" if self.name else hosts


def storeAddress(value: str, folder: str) -> StoreAddress:
    """
    Parse the value of C{store}.

    @param value: the value.
    @param folder: where relative paths begin.
    @raise ValueError: it has another form, or has a password. The text does not repeat it.
    """
    match = _SCHEME.fullmatch(value)
    if match is None:
        raise ValueError(_FORMS)
    scheme, rest = match.groups()
    user, rest = _user(rest)
    if scheme == "redis+unix":
        return _unix(user, rest, folder)
    if not rest.startswith("//"):
        raise ValueError(_FORMS)
    places, _, tail = rest.removeprefix("//").partition("/")
    if scheme.startswith("sentinel"):
        name, _, database = tail.partition("/")
        if not _NAME.fullmatch(name):
            raise ValueError("must end with the name that Sentinel has for the store, such as /mymaster")
        hosts = tuple(_host(place, _SENTINEL_PORT) for place in places.split(","))
        return StoreAddress(None, hosts, scheme == "sentinel+rediss", name, user, _database(database))
    return StoreAddress(None, (_host(places, _PORT),), scheme == "rediss", "", user, _database(tail))


def _user(rest: str) -> tuple[str, str]:
    """Split off the user. A password may contain any character, so that the last C{@} ends it."""
    if not rest.startswith("//") or "@" not in rest:
        return "", rest
    user, _, places = rest.removeprefix("//").rpartition("@")
    if ":" in user:
        raise ValueError(
            "must not contain a password; write it into a file, and the file's name into store_password_file"
        )
    if not _USER.fullmatch(user):
        raise ValueError("the user before the @ must be letters, digits, dots, hyphens and underscores")
    return user, f"//{places}"


def _unix(user: str, rest: str, folder: str) -> StoreAddress:
    name, mark, query = rest.removeprefix("//").partition("?")
    if not name.startswith("/"):
        raise ValueError("the path of the socket must begin with a slash: redis+unix:/PATH")
    if mark and not query.startswith("db="):
        raise ValueError("only ?db=NUMBER may follow the path of the socket")
    if len(name.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of the socket is longer than {LONGEST_SOCKET_PATH} bytes")
    return StoreAddress(path(name, folder), user=user, database=_database(query.removeprefix("db=")))


def _host(place: str, usual: int) -> tuple[str, int]:
    match = _HOST.fullmatch(place)
    port = usual if match is None or match["port"] is None else int(match["port"])
    host = "" if match is None else match["host"].strip("[]")
    if not 0 < port < 65536 or not (isHostName(host) or _isAddress(host)):
        raise ValueError(_FORMS)
    return host, port


def _isAddress(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _database(text: str) -> int:
    if not text:
        return 0
    if not _DATABASE.fullmatch(text):
        raise ValueError("the number of the database, the last part, must be a whole number from 0 to 99999")
    return int(text)
