"""
Tests of debug lines in a whole gateway, with TLS, over both kinds of transports.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from mailgate.log.levels import DEBUGGED
from mailgate.test.support.gatewaycase import SANDBOX, GatewayCase
from mailgate.test.support.tlspair import clientContext, makePair

TEXT = """
[mailgate]
error_log = stderr crit
{lines}
[mail]
server_name = mx.test
auth_http = http://127.0.0.1:{{auth}}/auth
auth_http_traceparent = on
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
[server imap]
protocol = imap
listen = 127.0.0.1:{{imap}} ssl
"""


class DebugTests(GatewayCase):
    """Two logins, the second of which resumes the TLS session of the first."""

    def begin(self, lines):
        folder = self.mktemp()
        os.mkdir(folder)
        self.make(TEXT.format(lines=lines, pair=makePair(folder, "x")) + SANDBOX)
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.start()

    def visit(self, session=None):
        """Log in and out, in a thread. Return the TLS session."""
        plain = socket.create_connection(("127.0.0.1", self.ports["imap"]), 20)
        with self.context.wrap_socket(plain, server_hostname="imap.test", session=session) as secured:
            secured.recv(1000)
            secured.sendall(b"a LOGIN alice wonderland\r\n")
            secured.recv(1000)
            secured.sendall(b"b LOGOUT\r\n")
            while secured.recv(1000):
                pass
            return secured.session

    async def lines(self):
        self.context = clientContext("TLSv1_2")
        session = await deferToThread(self.visit)
        await deferToThread(self.visit, session)
        while len([line for line in self.logged() if line.startswith("connection ended: ")]) < 2:
            await self.pause()
        return self.logged()

    def logged(self):
        return [formatEvent(event) for event in self.events if DEBUGGED in event]

    def pause(self):
        return deferLater(self.reactor, 0.02)

    async def test_chosen(self):
        """A listed client has a line for each step although error_log has the level crit."""
        self.begin("debug_connection = 127.0.0.0/8")
        lines = await self.lines()
        (session,) = {line.partition(", session ")[2].partition(",")[0] for line in lines[:3]}
        first = [line for line in lines if f", session {session}," in line]
        steps = [line.partition(":")[0] for line in first]
        self.assertEqual(
            steps[:13],
            [
                *("connection begun", "TLS established", "command received", "login begun", "auth service asked"),
                *("auth service answered", "login accepted", "backend chosen", "backend connected"),
                *("backend login begun", "backend login accepted", "logged in", "relay begun"),
            ],
            lines,
        )
        self.assertIn("relay ended", steps)
        self.assertEqual(steps[-1], "connection ended")
        self.assertIn("relay half closed", steps)
        established = [line for line in lines if line.startswith("TLS established: ")]
        self.assertIn(", resumed no, ", established[0])
        self.assertIn(', name "imap.test"', established[0])
        self.assertIn(", resumed yes, ", established[1])
        traces = {line.partition(", trace ")[2].partition(",")[0] for line in lines}
        self.assertEqual({len(trace) for trace in traces}, {32})
        self.assertEqual(len(traces), 2)
        self.assertFalse([line for line in lines if "wonderland" in line])

    async def test_others(self):
        """Another client has no line."""
        self.begin("debug_connection = 192.0.2.0/24\ndebug_user = bob")
        self.context = clientContext()
        await deferToThread(self.visit)
        self.assertEqual(self.logged(), [])

    async def test_user(self):
        """A chosen user has lines from the login on."""
        self.begin("debug_user = AL*")
        steps = [line.partition(":")[0] for line in await self.lines()]
        self.assertEqual(steps[0], "login begun")
        self.assertEqual(steps.count("login begun"), 2)
        self.assertNotIn("TLS established", steps)


class ReactorDebugTests(DebugTests):
    """The same over Twisted's transports."""

    use = "reactor"
