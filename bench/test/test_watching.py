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
from bench.watching import Probe, UnixConnection, answer, sides


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
        """The body of an answer."""
        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.serve(server)
        self.assertEqual(answer(lambda: http.client.HTTPConnection(*server.server_address), "/metrics"), b"ok")

    def test_unix(self):
        """The same over a unix socket, and an error is one."""
        path = self.mktemp()
        self.serve(UnixStreamServer(path, Handler))
        self.assertEqual(answer(lambda: UnixConnection(path), "/api/1/stats"), b"ok")
        self.assertRaises(BenchmarkError, answer, lambda: UnixConnection(path), "/missing")


class ProbeTests(SynchronousTestCase):
    """L{Probe}."""

    def test_longest(self):
        """Waits that begin before some time count for it if they end in it; those before and behind it do not."""
        probe = Probe([(1.0, 1.5), (1.5, 1.501), (1.6, 1.9), (2.0, 9.0)])
        self.assertEqual(probe.longest(1.4, 1.55), 500.0)
        self.assertAlmostEqual(probe.longest(1.55, 1.95), 300.0)
        self.assertEqual(probe.longest(9.5, 9.6), 0.0)


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

    def test_quick(self):
        """All numbers are small."""
        given = watching().parse_args(["--quick"])
        self.assertEqual((given.bursts, given.logins, given.sessions, given.answers), (2, 100, 200, 2))

    def test_known(self):
        """This mailgate knows the options."""
        for side in sides(REPOSITORY, "/folder", 9144):
            self.assertEqual(side.proxy(Variant()).folder, REPOSITORY)
