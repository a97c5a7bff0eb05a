"""
Tests of L{bench.viewers}.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

from twisted.trial.unittest import SynchronousTestCase

from bench.options import REPOSITORY, viewing
from bench.processes import BenchmarkError
from bench.viewers import Viewer, keeperOf


class Handler(BaseHTTPRequestHandler):
    """Answers with two events, or an error."""

    status = 200

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"event: overview\ndata: {}\n\nevent: stats\ndata: {}\n\n")

    def log_message(self, *arguments):
        pass

    def address_string(self):
        return "a client"


class ViewerTests(SynchronousTestCase):
    """L{Viewer}."""

    def serve(self, handler):
        path = self.mktemp()
        server = UnixStreamServer(path, handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return path

    def test_events(self):
        """It counts events and bytes."""
        viewer = Viewer(self.serve(Handler))
        deadline = time.monotonic() + 10
        while viewer.size < 49 and time.monotonic() < deadline:
            time.sleep(0.01)
        viewer.close()
        self.assertEqual((viewer.events, viewer.size), (2, 49))

    def test_refused(self):
        """An error is one."""
        self.assertRaises(BenchmarkError, Viewer, self.serve(type("Refusing", (Handler,), {"status": 503})))


class OptionsTests(SynchronousTestCase):
    """The options, and the processes."""

    def test_default(self):
        """Ten viewers of this source."""
        given = viewing().parse_args([])
        self.assertEqual((given.viewers, given.mailgate), (10, REPOSITORY))
        self.assertRaises(SystemExit, viewing().parse_args, ["--viewers", "0"])

    def test_noKeeper(self):
        """Without a keeper nothing is measured."""
        self.assertRaises(BenchmarkError, keeperOf, [1 << 30])
