# -*- test-case-name: mailgate.test.keeper.admin.test_guard -*-
"""
Keeps web pages away from the admin server. C{ssh -L} may put also a unix socket behind a browser, so the checks do not
depend on the transport: the Host must be known (against DNS rebinding), and the request must not come from another
site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.internet.abstract import isIPv6Address

from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.replies import Refused
from mailgate.watch.settings import AdminAddress

__all__ = ["Guard"]

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(rb"https?://(?P<place>[!-~]+)")
_METHODS_WITH_BODY = (b"POST", b"DELETE")


def _bracketed(host: str) -> str:
    return f"[{host}]" if isIPv6Address(host) else host


class Guard:
    """
    Checks the header fields that browsers send.

    @param address: where the server listens.
    @param hosts: further names that it is known by: C{HOST} or C{HOST:PORT}, in lower case (C{admin_host}).
    """

    def __init__(self, address: AdminAddress | None, hosts: Iterable[str]) -> None:
        self._names = set(_LOCAL)
        if address is not None and address.ip is not None and not address.ip.is_unspecified:
            self._names.add(_bracketed(address.host).lower())
        self._hosts = frozenset(hosts)

    def check(self, asked: Asked) -> None:
        """
        Check a request.

        @param asked: the request.
        @raise Refused: it may come from a web page of another site.
        """
        host = self._checkHost(asked)
        if asked.header("Upgrade") is not None:
            raise Refused(400, "this server does not change the protocol", closes=True)
        origin = asked.header("Origin")
        if origin is not None:
            match = _ORIGIN.fullmatch(origin)
            if match is None or match["place"].lower() != host:
                raise Refused(403, "the request comes from a page of another site (Origin)", closes=True)
        site, mode = asked.header("Sec-Fetch-Site"), asked.header("Sec-Fetch-Mode")
        # A link to the page may be on another site: its answer is seen by the user alone.
        isLink = asked.path == b"/" and asked.method == b"GET" and mode == b"navigate" and origin is None
        if site not in (None, b"same-origin", b"none") and not isLink:
            raise Refused(403, "the request comes from a page of another site (Sec-Fetch-Site)", closes=True)
        # The page loads its own parts without a script.
        isPart = asked.path.startswith(b"/static/") and site == b"same-origin" and mode == b"no-cors"
        if mode in (b"no-cors", b"websocket") and not isPart:
            raise Refused(403, "the request is not made by a script (Sec-Fetch-Mode)", closes=True)
        if asked.method in _METHODS_WITH_BODY:
            kind = (asked.header("Content-Type") or b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                # A page of another site may send other types without a question to this server (CORS).
                raise Refused(415, "the header field Content-Type must be application/json")

    def _checkHost(self, asked: Asked) -> bytes:
        host = asked.header("Host")
        if host is None:
            raise Refused(400, "the header field Host is missing", closes=True)
        host = host.lower()
        match = _HOST.fullmatch(host)
        if match is not None:
            text, name = host.decode("ascii"), match["name"].decode("ascii")
            # The address of the gateway's own end: a server at a wildcard address does not know it before.
            own = _bracketed(asked.peer.host).lower() if asked.peer.host else None
            if name in self._names or name == own or not self._hosts.isdisjoint((text, name)):
                return host
        raise Refused(
            421, "the header field Host names another server; add its value to admin_host if it is right", closes=True
        )
