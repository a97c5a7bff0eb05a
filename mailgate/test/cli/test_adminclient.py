"""Tests for L{mailgate.cli.adminclient} and L{mailgate.cli.asking}, with real sockets."""

from __future__ import annotations

import errno
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli import adminclient
from mailgate.cli.adminclient import AdminClient, NoAnswer, Place, placeOf
from mailgate.cli.adminclient import readToken as read
from mailgate.cli.asking import foundPlace
from mailgate.directives import ConfigurationError
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.system.exitstatus import BAD_CONFIGURATION, NOT_PERMITTED, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase
from mailgate.test.cli.test_sessions import page


class PlaceTests(SynchronousTestCase):
    """C{--admin}."""

    def test_good(self) -> None:
        """TLS to any host, without TLS to this host, and a unix socket."""
        for url, expected in (
            ("https://g1.example.com", Place(None, "g1.example.com", 443, True)),
            ("https://192.0.2.1:9143/", Place(None, "192.0.2.1", 9143, True)),
            ("https://[2001:db8::1]:9143", Place(None, "2001:db8::1", 9143, True)),
            ("http://127.0.0.1:9143", Place(None, "127.0.0.1", 9143, False)),
            ("http://[::1]:9143", Place(None, "::1", 9143, False)),
            ("http://localhost", Place(None, "localhost", 80, False)),
            ("unix:/run/mailgate/pid.admin", Place("/run/mailgate/pid.admin")),
        ):
            self.assertEqual(placeOf(url), expected, url)

    def test_bad(self) -> None:
        """A token must not cross the network in the clear, and the URL has nothing else."""
        for url in (
            "http://192.0.2.1:9143",
            "http://g1.example.com",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
        ):
            self.assertRaises(ValueError, placeOf, url)
        for url in (
            "127.0.0.1:9143",
            "unix:run",
            "https://",
            "https://a:b@host",
            "https://host/api",
            "https://h:99999",
        ):
            self.assertRaises(ValueError, placeOf, url)

    def test_secret(self) -> None:
        """The token is not in the repr."""
        self.assertNotIn("sesame", repr(Place(token="sesame")))


class FoundTests(AdminTestCase):
    """Where C{--config} and C{--pid} find the admin server."""

    def found(self, text: str, pid: str | None = None) -> Place:
        path = os.path.join(self.folder, "gateway.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"[mailgate]\n{text}\n")
        return foundPlace(path, pid)

    def test_found(self) -> None:
        """Beside the pid file, or where admin says; a pid file of the command line goes before the configured one."""
        folder = self.folder
        for text, pid, expected in (
            ("pid = x.pid", None, Place(f"{folder}/x.pid.admin")),
            ("pid = x.pid", "/run/y.pid", Place("/run/y.pid.admin")),
            ("admin = unix:a.sock", None, Place(f"{folder}/a.sock")),
            ("admin = 127.0.0.1:9143", None, Place(None, "127.0.0.1", 9143, False)),
            ("admin = 0.0.0.0:9143 ssl", None, Place(None, "127.0.0.1", 9143, True)),
            ("admin = [::]:9143 ssl", None, Place(None, "::1", 9143, True)),
            ("pid = x.pid\nworker_processes = nonsense", None, Place(f"{folder}/x.pid.admin")),
        ):
            self.assertEqual(self.found(text, pid), expected, text)
        self.assertEqual(foundPlace(None, "/run/y.pid"), Place("/run/y.pid.admin"))

    def test_nowhere(self) -> None:
        """Without an admin server the configuration is at fault."""
        for text in ("admin = off\npid = x.pid", ""):
            self.assertRaises(ConfigurationError, self.found, text)
        path = os.path.join(self.folder, "gateway.ini")
        self.assertEqual(self.bare("sessions", "--config", path), BAD_CONFIGURATION)
        self.assertIn(f"{path}: [mailgate] pid: must be set", self.errors.getvalue())
        error = self.assertRaises(ConfigurationError, self.found, "admin = off\npid = x.pid")
        self.assertIn("[mailgate] admin: must be set", str(error))

    def test_required(self) -> None:
        """One of the options is needed, and those of --admin are checked."""
        self.assertEqual(self.bare("sessions"), 2)
        self.assertEqual(self.bare("sessions", "--admin", "http://192.0.2.1:9143"), 2)
        self.assertIn("must begin with https:// for another host", self.errors.getvalue())


class AnswerTests(AdminTestCase):
    """Answers that are no success."""

    def test_problem(self) -> None:
        """A problem of the server is one escaped line; the status says whether the caller may do it."""
        problem = {"type": "about:blank", "title": "bad query", "detail": '"usr" is no known parameter\n\x1b'}
        for status, expected in ((400, REFUSED), (401, NOT_PERMITTED), (403, NOT_PERMITTED), (503, REFUSED)):
            self.errors.truncate(0)
            self.errors.seek(0)
            self.server.answer = lambda asked, status=status: (status, problem)  # type: ignore[misc]
            self.assertEqual(self.command("sessions"), expected)
            self.assertEqual(self.errors.getvalue(), 'refused: bad query: "usr" is no known parameter\\n\\x1b\n')

    def test_notOurs(self) -> None:
        """What is not JSON, or other JSON, is no admin server."""
        for answer in (b"<html>", b"", b"[" * 100_000, b"[]", b'{"sessions": 1}', b'{"sessions": [1]}'):
            self.errors.truncate(0)
            self.errors.seek(0)
            self.server.answer = lambda asked, answer=answer: (200, answer)  # type: ignore[misc]
            self.assertEqual(self.command("sessions"), REFUSED, answer[:10])
            self.assertEqual(self.errors.getvalue(), f"{self.pidFile}.admin is not an admin server of mailgate\n")

    def test_tooLong(self) -> None:
        """An answer without end is not collected."""
        self.patch(adminclient, "_LONGEST", 1000)
        self.answers(page(*[{"id": "x"}] * 1000))
        self.assertEqual(self.command("sessions"), REFUSED)
        self.assertIn("no valid answer: more than 1000 bytes", self.errors.getvalue())

    def test_late(self) -> None:
        """An answer that does not come ends the command."""
        release = threading.Event()
        self.addCleanup(release.set)
        self.server.answer = lambda asked: (release.wait(20), (200, page()))[1]
        client = AdminClient(Place(f"{self.pidFile}.admin"), 0.2)
        error = self.assertRaises(NoAnswer, client.get, "/api/1/sessions")
        self.assertEqual((str(error), error.status), (f"{self.pidFile}.admin: no answer in time", REFUSED))
        error = self.assertRaises(NoAnswer, client.post, "/api/1/kick", {})
        self.assertIn("the gateway may still carry out the command", str(error))

    def test_notPermitted(self) -> None:
        """A socket that this user may not open has a status of its own."""

        def refuse(connection: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(adminclient._UnixConnection, "connect", refuse)
        self.assertEqual(self.command("sessions"), NOT_PERMITTED)
        self.assertEqual(
            self.errors.getvalue(),
            f"{self.pidFile}.admin: cannot connect: Permission denied; run the command as root or as the user of the"
            " gateway\n",
        )


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = b'{"token": "%s"}' % self.headers.get("Authorization", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


class TCPTests(AdminTestCase):
    """C{--admin}, with and without TLS."""

    def served(self, certificate: str | None = None) -> int:
        server = HTTPServer(("127.0.0.1", 0), _Echo)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def test_token(self) -> None:
        """The token of the file is sent; it may be a line of admin_token_file."""
        port = self.served()
        for content in ("sesame\n", "ops operate sesame\nothers read x\n"):
            client = AdminClient(Place(None, "127.0.0.1", port, token=readToken(self, content)), 20)
            self.assertEqual(client.get("/"), {"token": "Bearer sesame"})

    def test_badToken(self) -> None:
        """A file without a token, or that cannot be read, is named."""
        path = os.path.join(self.folder, "token")
        for content in (None, "", "\n", "caf\u00e9\n"):
            if content is not None:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(content)
            status = self.bare("sessions", "--admin", "https://127.0.0.1:1", "--token-file", path)
            self.assertEqual(status, BAD_CONFIGURATION)
            self.assertIn(path, self.errors.getvalue())

    def test_tls(self) -> None:
        """The certificate is verified, against the given file or those of the system."""
        paths = ensureCertificate(self.folder, ())
        certificate = os.path.join(self.folder, "both.pem")
        with open(certificate, "w", encoding="ascii") as both:
            for path in paths:
                with open(path, encoding="ascii") as file:
                    both.write(file.read())
        port = self.served(certificate)
        client = AdminClient(Place(None, "localhost", port, True, paths[0]), 20)
        self.assertEqual(client.get("/"), {"token": ""})
        client = AdminClient(Place(None, "localhost", port, True), 20)
        error = self.assertRaises(NoAnswer, client.get, "/")
        self.assertIn("its certificate is not valid", str(error))
        error = self.assertRaises(NoAnswer, AdminClient(Place(None, "x", 1, True, "/nonexistent"), 1).get, "/")
        self.assertEqual(error.status, BAD_CONFIGURATION)


def readToken(case: AdminTestCase, content: str) -> str:
    path = os.path.join(case.folder, "token")
    with open(path, "w", encoding="ascii") as file:
        file.write(content)
    return read(path)
