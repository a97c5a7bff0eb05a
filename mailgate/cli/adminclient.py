# -*- test-case-name: mailgate.test.cli.test_adminclient -*-
"""
Questions to the admin server of a running gateway: HTTP over its unix socket, or over TCP.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import field, frozen

from mailgate.cli.columns import shown
from mailgate.log.journal import oneLine
from mailgate.system.exitstatus import BAD_CONFIGURATION, NOT_PERMITTED, NOT_RUNNING, NOTHING_MATCHED, REFUSED

__all__ = ["AdminClient", "NoAnswer", "Place", "placeOf"]

_LONGEST = 16 * 1024 * 1024
"""Bytes of an answer."""

_LONGEST_TOKEN = 4096

_LONGEST_PROBLEM = 500
"""Characters of an error of the server that are printed."""

_CHUNK = 65536

_NO_PATH = "there is no such path"
"""What the server says of a path that it does not know."""

_ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
_TOKEN = re.compile(r"[!-~]+")


class NoAnswer(Exception):
    """
    The gateway did not answer, or it refused. The text is for the operator.

    @param reason: the text.
    @ivar status: the exit status of the command.
    @ivar code: the HTTP status of the refusal; 0 without an answer.
    @ivar reached: what could not be reached, if that is the reason.
    """

    def __init__(self, reason: str, status: int, code: int = 0, reached: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reached = reached


@frozen
class Place:
    """
    Where the admin server is.

    @ivar path: of its unix socket; L{None} for TCP.
    @ivar host: its host, for TCP.
    @ivar port: its port.
    @ivar ssl: whether it uses TLS.
    @ivar authority: a file with the certificates that it is verified against; L{None} for those of the system.
    @ivar certificate: a file with the client's certificate and key; L{None} for none.
    @ivar token: the token; empty for none.
    """

    path: str | None = None
    host: str = ""
    port: int = 0
    ssl: bool = False
    authority: str | None = None
    certificate: str | None = None
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.ssl else ''}://{host}:{self.port}"


def placeOf(url: str) -> Place:
    """
    Read the value of C{--admin}.

    @param url: C{https://HOST[:PORT]}, C{http://ADDRESS[:PORT]} of this host, or C{unix:/PATH}.
    @raise ValueError: it is none of these.
    """
    if url.startswith("unix:/"):
        return Place(url.removeprefix("unix:"))
    parts = urlsplit(url)
    isPlain = parts.scheme == "http"
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be https://HOST:PORT, http://127.0.0.1:PORT or unix:/PATH")
    if parts.username is not None or parts.fragment:
        raise ValueError("must not contain a user or a fragment; put the token into a file, for --token-file")
    if isPlain and not _isLoopback(parts.hostname):
        raise ValueError("must begin with https:// for another host: the token would be sent in the clear")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must have a port from 1 to 65535") from None
    return Place(None, parts.hostname, port or (80 if isPlain else 443), not isPlain)


def _isLoopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def readToken(file: str) -> str:
    """
    Read a token.

    @param file: the file with it. Its first line is the token; in a line of C{admin_token_file}, NAME LEVEL TOKEN, it
        is the last word.
    @raise NoAnswer: the file cannot be read, or has no token.
    """
    try:
        with open(file, encoding="ascii", errors="replace") as opened:
            line = opened.read(_LONGEST_TOKEN).partition("\n")[0]
    except OSError as error:
        raise NoAnswer(f"{file}: cannot be read: {error.strerror}", BAD_CONFIGURATION) from None
    token = (line.split() or [""])[-1]
    if not _TOKEN.fullmatch(token):
        raise NoAnswer(f"{file}: the first line has no token", BAD_CONFIGURATION)
    return token


class _UnixConnection(http.client.HTTPConnection):
    """
    A connection to a unix socket.

    @param path: the path of the socket.
    @param timeout: seconds for each operation.
    """

    def __init__(self, path: str, timeout: float) -> None:
        # The admin server accepts this name on its socket.
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AdminClient:
    """
    Asks the admin server, one question after the other, each on a connection of its own.

    @param place: where it is.
    @param timeout: seconds for each question.
    """

    def __init__(self, place: Place, timeout: float) -> None:
        self.place = place
        self._timeout = timeout

    def get(self, path: str, query: Mapping[str, Any] = {}, isBusyGood: bool = False) -> Any:
        """
        Return a resource.

        @param path: its path.
        @param query: the parameters; those that are L{None} are left out.
        @param isBusyGood: whether an answer with status 503 is what is asked for, as of C{/readyz}.
        @raise NoAnswer: there is no answer, or a refusal.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None, isBusyGood)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """
        Return the answer to an order or a question with a body.

        @param path: its path.
        @param body: the values of JSON.
        @raise NoAnswer: there is no answer, or a refusal.
        """
        return self._ask("POST", path, json.dumps(body).encode("ascii"))

    def delete(self, path: str) -> Any:
        """
        Return the answer to an order that ends something.

        @param path: its path.
        @raise NoAnswer: there is no answer, or a refusal. Its status is L{NOTHING_MATCHED} if there is no such thing.
        """
        return self._ask("DELETE", path, b"{}")

    def _ask(self, method: str, path: str, body: bytes | None, isBusyGood: bool = False) -> Any:
        deadline = time.monotonic() + self._timeout
        connection = self._connection()
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from None
        try:
            connection.request(method, path, body, self._headers(body))
            response = connection.getresponse()
            content = _read(connection, response, deadline)
        except TimeoutError:
            consequence = "" if body is None else "; the gateway may still carry out the command"
            raise NoAnswer(f"{self.place}: no answer in time{consequence}", REFUSED) from None
        except (OSError, http.client.HTTPException) as error:
            reason = shown(str(error) or type(error).__name__)
            raise NoAnswer(f"{self.place}: no valid answer: {reason}", REFUSED) from None
        finally:
            connection.close()
        return self._judge(response, content, path, isBusyGood)

    def _connection(self) -> http.client.HTTPConnection:
        place = self.place
        if place.path is not None:
            return _UnixConnection(place.path, self._timeout)
        if not place.ssl:
            return http.client.HTTPConnection(place.host, place.port, timeout=self._timeout)
        try:
            context = ssl.create_default_context(cafile=place.authority)
            if place.certificate is not None:
                context.load_cert_chain(place.certificate)
        except OSError as error:
            # ssl.SSLError is an OSError.
            named = " or ".join(filter(None, (place.authority, place.certificate)))
            raise NoAnswer(f"{named}: cannot be read: {error.strerror or error}", BAD_CONFIGURATION) from None
        return http.client.HTTPSConnection(place.host, place.port, timeout=self._timeout, context=context)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json, application/problem+json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.place.token:
            headers["Authorization"] = f"Bearer {self.place.token}"
        return headers

    def _unreachable(self, error: OSError) -> NoAnswer:
        if error.errno in _ABSENT:
            reached = f"cannot connect to {self.place}"
            return NoAnswer(f"no gateway is running: {reached}", NOT_RUNNING, reached=reached)
        if isinstance(error, ssl.SSLCertVerificationError):
            return NoAnswer(f"{self.place}: its certificate is not valid: {shown(error.verify_message)}", REFUSED)
        # The numbers of errors of TLS are others.
        if error.errno in (errno.EACCES, errno.EPERM) and not isinstance(error, ssl.SSLError):
            reason = "run the command as root or as the user of the gateway"
            return NoAnswer(f"{self.place}: cannot connect: {error.strerror}; {reason}", NOT_PERMITTED)
        return NoAnswer(f"{self.place}: cannot connect: {shown(error.strerror or str(error))}", REFUSED)

    def _judge(self, response: http.client.HTTPResponse, content: bytes, path: str, isBusyGood: bool) -> Any:
        try:
            found = json.loads(content) if content else None
        except (ValueError, RecursionError):
            found = None
        isGood = 200 <= response.status < 300
        if (isGood or (isBusyGood and response.status == 503)) and found is not None:
            return found
        if isGood:
            raise NoAnswer(f"{self.place} is not an admin server of mailgate", REFUSED)
        if response.status == 404 and isinstance(found, dict) and _NO_PATH not in str(found.get("detail", _NO_PATH)):
            raise NoAnswer(_sentence(str(found["detail"])), NOTHING_MATCHED, response.status)
        if response.status == 404:
            reason = "is it the address of metrics, or of a gateway of another release?"
            raise NoAnswer(f"{self.place} has no {path.partition('?')[0]}: {reason}", REFUSED, response.status)
        status = NOT_PERMITTED if response.status in (401, 403) else REFUSED
        raise NoAnswer(f"refused: {_problem(found, response)}", status, response.status)


def _read(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    content = b""
    while True:
        if connection.sock is not None:
            # 0 would make the socket non-blocking.
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        elif time.monotonic() > deadline:
            raise TimeoutError
        chunk = response.read1(_CHUNK)
        if not chunk:
            return content
        content += chunk
        if len(content) > _LONGEST:
            raise http.client.HTTPException(f"more than {_LONGEST} bytes")


def _problem(found: Any, response: http.client.HTTPResponse) -> str:
    """A problem of RFC 9457 as one line."""
    if isinstance(found, dict):
        title, detail = found.get("title"), found.get("detail")
        texts = [text for text in (title, detail) if isinstance(text, str) and text]
        if texts:
            return _sentence(": ".join(texts))
    return shown(f"{response.status} {response.reason}")


def _sentence(text: str) -> str:
    """Words of the gateway for a terminal. Their quotes stay as they are."""
    cut = "..." if len(text) > _LONGEST_PROBLEM else ""
    return oneLine(text[:_LONGEST_PROBLEM].encode("utf-8", "backslashreplace").decode()) + cut
