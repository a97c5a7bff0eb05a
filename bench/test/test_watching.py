"""
Tests of L{bench.watching}.
"""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import UnixStreamServer

from twisted.trial.unittest import SynchronousTestCase

from bench.options import REPOSITORY, watching
from bench.processes import BenchmarkError
from bench.proxies import Variant
from bench.spread import AFTER, BEFORE
from bench.watching import UnixConnection, answerTimes, sides


class Handler(BaseHTTPRequestHandler):
    """Answers each request."""

    def do_GET(self):
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass

    def address_string(self):
        return "a client"


class AnswerTests(SynchronousTestCase):
    """L{answerTimes}."""

    def serve(self, server):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)

    def test_tcp(self):
        """One figure for each answer."""
        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.serve(server)
        found = answerTimes(lambda: http.client.HTTPConnection(*server.server_address), "/metrics", 3)
        self.assertEqual(len(found), 3)
        self.assertTrue(all(0 < each < 10_000 for each in found))

    def test_unix(self):
        """The same over a unix socket, and an error is one."""
        path = self.mktemp()
        self.serve(UnixStreamServer(path, Handler))
        self.assertEqual(len(answerTimes(lambda: UnixConnection(path), "/api/1/stats", 2)), 2)
        self.assertRaises(BenchmarkError, answerTimes, lambda: UnixConnection(path), "/missing", 1)


class OptionTests(SynchronousTestCase):
    """What is measured."""

    def test_sides(self):
        """The same tree, without the admin side and with it."""
        off, on = sides("/source", "/folder", 9144)
        self.assertEqual((off.name, on.name), (BEFORE, AFTER))
        self.assertEqual((off.source, on.source), ("/source", "/source"))
        self.assertEqual(off.process, ["admin = off"])
        self.assertEqual(on.process, ["admin = unix:/folder/admin", "metrics = 127.0.0.1:9144"])

    def test_defaults(self):
        """The numbers of the goals."""
        given = watching().parse_args([])
        self.assertEqual((given.mailgate, given.sessions, given.logins), (REPOSITORY, 9000, 500))
        self.assertRaises(SystemExit, watching().parse_args, ["--sessions", "0"])

    def test_known(self):
        """This mailgate knows the options."""
        for side in sides(REPOSITORY, "/folder", 9144):
            self.assertEqual(side.proxy(Variant()).folder, REPOSITORY)
