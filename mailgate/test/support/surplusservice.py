# -*- test-case-name: mailgate.test.auth.http.test_surplus -*-
"""
A service for C{auth_http} that sends more bytes than its Content-Length says, in a separate process: C{python
surplusservice.py CASE ADDRESS [PEM]}.

If a user name begins like an HTTP response, the service sends that name after its complete answer. CASE says when:

- C{same}: in the same write.
- A number: so many milliseconds later.
- C{filled}: in the next write, after an answer as long as the gateway reads at once.
- C{server}: as Python's C{http.server} does if a handler sends C{Content-Length: 0} and a body.

Other users get correct answers: NAME with the password NAME-right is accepted as r-NAME, and refused with any other
password.

ADDRESS is C{HOST:PORT} or the path of a unix socket. With PEM, a file with a certificate and its key, the service uses
TLS.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import unquote_to_bytes

READ_AT_ONCE = 16384
BACKEND = "127.0.0.1"


def judge(user: bytes, password: bytes, backendPort: str) -> list[tuple[str, str]]:
    """Return the headers of the answer."""
    if password != user + b"-right":
        return [("Auth-Status", "Invalid login or password"), ("Auth-Wait", "0")]
    return [
        ("Auth-Status", "OK"),
        ("Auth-Server", BACKEND),
        ("Auth-Port", backendPort),
        ("Auth-User", "r-" + user.decode("latin-1")),
    ]


class Handler(BaseHTTPRequestHandler):
    """One connection. C{case} is that of the service."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    case = ""

    def do_GET(self) -> None:
        """Send the answer, and the surplus when it is due."""
        asked = [unquote_to_bytes(self.headers[name].encode("latin-1")) for name in ("Auth-User", "Auth-Pass")]
        user, password = asked
        fields = judge(user, password, self.headers["X-Backend"])
        surplus = user if user.startswith(b"HTTP/1.1 ") else b""
        if self.case == "server":
            self.send_response(200)
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if surplus:
                self.wfile.write(surplus)
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        head = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n".encode("latin-1")
        self.send(head, surplus)

    def send(self, head: bytes, surplus: bytes) -> None:
        """Send the answer, whose head lacks its end, and the surplus when it is due."""
        if self.case == "filled" and surplus:
            fields = (READ_AT_ONCE - len(head) - 2) // 4096
            for number in range(fields, -1, -1):
                room = READ_AT_ONCE - len(head) - 2 - number * 4096
                head += b"X: %b\r\n" % (b"x" * (room - 5))
        answer = head + b"\r\n"
        if self.case == "same":
            self.wfile.write(answer + surplus)
            return
        self.wfile.write(answer)
        if surplus:
            if self.case != "filled":
                time.sleep(float(self.case) / 1000)
            self.wfile.write(surplus)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class Server(ThreadingMixIn, UnixStreamServer):
    """Serves connections to C{listening} in a thread each, with TLS if there is a C{context}."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        super().__init__("", Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = "localhost", 0
        self._context = context

    def finish_request(self, request: object, client_address: object) -> None:
        """Perform the handshake and serve, in the connection's own thread."""
        with suppress(OSError):
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
            Handler(request, client_address or ("", 0), self)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that end early."""


def main(case: str, address: str, pem: str = "") -> None:
    """Serve until standard input ends."""
    Handler.case = case
    host, _, port = address.rpartition(":")
    if address.startswith("/"):
        Handler.disable_nagle_algorithm = False
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address)
    else:
        listening = socket.create_server((host, int(port)))
    listening.listen(1024)
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
    threading.Thread(target=Server(listening, context).serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    main(*sys.argv[1:])
