# -*- test-case-name: mailgate.test.cli.test_sessions -*-
"""
A stand-in for the admin server: an HTTP server on a unix socket, in a thread, that answers as the test says.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socketserver
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.main import main
from mailgate.test.integration.daemon import newFolder

__all__ = ["AdminServer", "AdminTestCase", "Asked", "Terminal"]


class Asked:
    """
    A request that the server has received.

    @ivar method: its method.
    @ivar path: its path without the query.
    @ivar query: its parameters.
    @ivar body: its JSON; L{None} without a body.
    @ivar headers: its headers.
    """

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        self.method = handler.command
        self.path = parts.path
        self.query = dict(parse_qsl(parts.query))
        content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.body: Any = json.loads(content) if content else None
        self.headers = dict(handler.headers.items())


Answerer = Callable[[Asked], tuple[int, Any]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AdminServer

    def _answer(self) -> None:
        asked = Asked(self)
        self.server.asked.append(asked)
        status, body = self.server.answer(asked)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer

    def address_string(self) -> str:
        return "unix:"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


class AdminServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """
    The server.

    @ivar asked: the requests so far.
    @ivar answer: returns the status and the JSON, or the bytes, of each answer.
    """

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.asked: list[Asked] = []
        self.answer: Answerer = lambda asked: (404, {"title": "not found", "status": 404})
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The command may have ended before it has read the answer."""

    def stop(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class AdminTestCase(SynchronousTestCase):
    """
    Commands, and the server that answers them.

    @ivar out: what the commands have printed.
    @ivar errors: what they have printed on standard error.
    """

    def setUp(self) -> None:
        self.folder = newFolder("cli")
        self.addCleanup(shutil.rmtree, self.folder)
        self.pidFile = os.path.join(self.folder, "pid")
        self.server = AdminServer(f"{self.pidFile}.admin")
        self.addCleanup(self.server.stop)
        self.out, self.errors = io.StringIO(), io.StringIO()
        self.patch(os, "environ", {**os.environ, "COLUMNS": "200"})

    def bare(self, *arguments: str) -> int:
        """Run a command; return its exit status."""
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.errors)
        try:
            return main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)

    def command(self, word: str, *arguments: str) -> int:
        """The same for the gateway of this test."""
        return self.bare(word, "--pid", self.pidFile, "--timeout", "20s", *arguments)

    def answers(self, *answers: Any) -> None:
        """Have the server answer with these values of JSON, one after the other; the last one again and again."""
        left = list(answers)
        self.server.answer = lambda asked: (200, left.pop(0) if len(left) > 1 else left[0])
