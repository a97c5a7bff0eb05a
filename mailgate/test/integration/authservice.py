# -*- test-case-name: mailgate.test.integration -*-
"""
An auth_http service. For each user, tests choose whether it accepts, refuses, delays, hangs, or closes the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import unquote

from attrs import frozen

from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.dovecot import PASSWORD

__all__ = ["Answer", "AuthService", "Question", "accept", "deciding", "hang", "hangUp", "refuse"]

Question = Mapping[str, str]
"""The headers of a request; C{Auth-User} and C{Auth-Pass} percent-decoded."""


@frozen
class Answer:
    """
    The headers of a reply, several of a name as a tuple, and its status; a status of 0 closes the connection without a
    reply.
    """

    headers: Mapping[str, str | tuple[str, ...]]
    status: int = 200


Manner = Callable[["AuthService", Question], Answer]


def accept(service: AuthService, question: Question) -> Answer:
    """Accept any password; the backend is that of the header C{X-Backend}, or of the protocol."""
    host, port = service.backends[question.get("X-Backend", question["Auth-Protocol"])]
    return Answer({"Auth-Status": "OK", "Auth-Server": host, "Auth-Port": str(port)})


def refuse(service: AuthService, question: Question) -> Answer:
    """Refuse, without Auth-Wait."""
    return Answer({"Auth-Status": "Invalid login or password"})


def hang(service: AuthService, question: Question) -> Answer:
    """Send no reply until the service stops."""
    service.stopping.wait()
    return Answer({}, 0)


def hangUp(service: AuthService, question: Question) -> Answer:
    """Close the connection without a reply."""
    return Answer({}, 0)


def deciding(**headers: str | tuple[str, ...]) -> Manner:
    """
    Accept any password, with these headers too.

    @param headers: values by names, in which underscores stand for hyphens. An empty tuple is for no such header.
    """

    def decide(service: AuthService, question: Question) -> Answer:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return Answer({**accept(service, question).headers, **more})

    return decide


def judge(service: AuthService, question: Question) -> Answer:
    """
    An ordinary service: it accepts L{PASSWORD}, and the method C{none}. It refuses everything else after a second, and
    the session continues.
    """
    if question["Auth-Pass"] == PASSWORD or question["Auth-Method"] == "none":
        return accept(service, question)
    return Answer({"Auth-Status": "Invalid login or password", "Auth-Wait": "1"})


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        question = dict(self.headers.items())
        for name in ("Auth-User", "Auth-Pass"):
            question[name] = unquote(question.get(name, ""))
        service = self.server.service
        service.asked.append(question)
        answer = service.manners.get(question["Auth-User"], judge)(service, question)
        if not answer.status:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, values in answer.headers.items():
            for value in (values,) if isinstance(values, str) else values:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: the tests read the gateway's log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: AuthService, port: int) -> None:
        self.service = service
        self.connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Request)

    def process_request(self, request: Any, client: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client: Any) -> None:
        """In some tests the gateway gives up a request."""


class AuthService:
    """
    The service at C{url}.

    @ivar backends: hosts and ports by name.
    @ivar manners: how it treats single users, in place of L{judge}.
    @ivar asked: all requests so far.
    """

    def __init__(self, backends: Mapping[str, tuple[str, int]]) -> None:
        self.backends = dict(backends)
        self.manners: dict[str, Manner] = {}
        self.asked: list[Question] = []
        self.stopping = threading.Event()
        self.port = freePort()
        self.url = f"http://127.0.0.1:{self.port}/auth"
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen, also again after L{stop}."""
        self.stopping.clear()
        self._server = _Server(self, self.port)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop: close all connections, and refuse new ones."""
        server, self._server = self._server, None
        if server is None:
            return
        self.stopping.set()
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            _hangUpOn(connection)

    def askedAbout(self, user: str) -> list[Question]:
        """The requests about C{user}."""
        return [question for question in self.asked if question["Auth-User"] == user]


def _hangUpOn(connection: socket) -> None:
    try:
        connection.shutdown(SHUT_RDWR)
    except OSError:
        return
