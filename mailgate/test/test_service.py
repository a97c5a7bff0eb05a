"""Tests for L{mailgate.service}, over the loopback: a fake could not show that sockets are bound and closed."""

from __future__ import annotations

import io
import os
import re
import socket
import sys
import tempfile

from twisted.application.service import Application, IService, MultiService
from twisted.internet import udp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate import service
from mailgate.backend.health import HealthChecks
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.lean.transport import StreamTransport
from mailgate.log.settings import LogSettings
from mailgate.net.sockets import ListenError
from mailgate.service import Gateway
from mailgate.test.integration.transports import areLean, withTransports
from mailgate.test.support.gatewaycase import SANDBOX, TEXT, GatewayCase, Stuck, settingsFrom
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.talk import Talk


class LoginTimeTests(GatewayCase):
    """How long a login at backends may take."""

    def test_timeout(self):
        """timeout where that is written, in whatever section, unless proxy_login_timeout says otherwise."""
        text = "[mail]\nproxy_pass = 127.0.0.1:{auth}\n%s[server x]\nprotocol = imap\nlisten = 127.0.0.1:{imap}\n%s"
        for mail, server, expected in (
            ("", "", 30),
            ("timeout = 50s\n", "", 50),
            ("timeout = 50s\n", "timeout = 20s\n", 20),
            ("timeout = 50s\nproxy_login_timeout = 5s\n", "timeout = 20s\n", 5),
        ):
            self.make(text % (mail, server))
            (listener,) = self.gateway.listeners
            self.assertEqual(listener.factory.connector._places._retry.wholeLogin, expected)


class ResolverTests(GatewayCase):
    """Names of clients."""

    server = """
[server {name}]
protocol = {protocol}
listen = 127.0.0.1:{{{port}}}
{directives}
"""

    def serve(self, *servers):
        """Start a gateway with C{servers}: protocol, port and directives."""
        text = "[mail]\nproxy_pass = 127.0.0.1:{auth}\nproxy_smtp_auth = on\n"
        for protocol, port, directives in servers:
            text += self.server.format(name=port, protocol=protocol, port=port, directives=directives)
        self.make(text)

    def reverseDNS(self):
        """What looks up the names of each listener's clients."""
        return [listener.factory.reverseDNS for listener in self.gateway.listeners]

    def test_shared(self):
        """Servers with the same resolver share it and its cache; others do not."""
        same, other = "resolver = 127.0.0.1 valid=1m", "resolver = 127.0.0.1 valid=60\nresolver_timeout = 5s"
        self.serve(("smtp", "imap", same), ("smtp", "other", same.replace("1m", "60s")), ("smtp", "pop3", other))
        first, second, third = self.reverseDNS()
        self.assertIsNotNone(first)
        self.assertIs(first, second)
        self.assertIsNot(first, third)
        self.assertEqual((first.longest, third.longest), (60, 10))

    def test_smtpAlone(self):
        """Other protocols have no resolver, nor does SMTP without the directive."""
        given = "resolver = 127.0.0.1"
        self.serve(("imap", "imap", given), ("pop3", "pop3", given), ("smtp", "other", ""))
        self.assertEqual(self.reverseDNS(), [None, None, None])

    async def test_stop(self):
        """A gateway that stops while a name server is silent leaves no socket and no timer."""
        silent = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(10)
        self.serve(("smtp", "imap", f"resolver = 127.0.0.1:{silent.getsockname()[1]}"))
        self.start()
        client = await self.client()
        await deferToThread(silent.recv, 512)
        await self.gateway.stopService()
        await client.lost
        self.assertEqual(client.heard, b"421 4.3.2 Gateway is shutting down, closing connection\r\n")
        self.assertEqual([reader for reader in self.reactor.getReaders() if isinstance(reader, udp.Port)], [])


class ResolverOverReactorTests(ResolverTests):
    """The same with the reactor's own transports."""

    use = "reactor"


CHECKED = """
[upstream store]
server = 127.0.0.1:{other}
health_check = interval=100ms jitter=0 fails=1 passes=1 mandatory
[server store]
protocol = imap
listen = 127.0.0.1:{imap}
proxy_pass = store
"""


class Store(Protocol):
    """An IMAP server that answers every command of a health check."""

    def connectionMade(self):
        self.transport.write(b"* OK ready\r\n")

    def dataReceived(self, data):
        self.transport.write(b"mailgate OK done\r\n")


class HealthTests(GatewayCase):
    """Health checks."""

    def settings(self, text=CHECKED):
        settings, self.ports = settingsFrom(withTransports(text, self.use))
        return settings

    def states(self, gateway):
        """The states of its servers."""
        return [row.state for row in gateway.standing.rows()]

    def test_none(self):
        """Without C{health_check} there is no service for it."""
        self.assertEqual([service for service in self.gateway if isinstance(service, HealthChecks)], [])

    async def test_checks(self):
        """A server is used after its first check. The checks end when the gateway drains, and its connections do."""
        self.gateway = Gateway(self.settings(), self.reactor)
        (checks,) = [service for service in self.gateway if isinstance(service, HealthChecks)]
        port = self.reactor.listenTCP(self.ports["other"], Factory.forProtocol(Store), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.assertEqual(self.states(self.gateway), ["down"])
        found = Deferred()
        self.gateway.notices.subscribe("verdict", lambda key, body, age: found.callback((key, body["failing"])))
        self.start()
        self.assertEqual(await found, (f"store/127.0.0.1:{self.ports['other']}", False))
        self.assertEqual(self.states(self.gateway), ["up"])
        await self.gateway.drain(False, 5)
        self.assertFalse(checks.running)

    async def test_again(self):
        """A gateway that is started again checks its servers, and follows what becomes known of them."""
        self.gateway = Gateway(self.settings(), self.reactor)
        cared = list(self.gateway)
        self.start()
        await self.gateway.stopService()
        self.gateway.startService()
        self.assertEqual(set(self.gateway), set(cared))
        self.assertTrue(all(service.running for service in self.gateway))
        for failing, state in ((False, "up"), (True, "down")):
            key = f"store/127.0.0.1:{self.ports['other']}"
            self.gateway.notices.publish("verdict", key, {"failing": failing})
            self.assertEqual(self.states(self.gateway), [state])

    def test_reload(self):
        """The gateway of the next configuration reviews what it takes over."""
        checked = self.settings()
        unchecked = parse(CHECKED.replace("health_check", "# health_check").format(**self.ports))
        before = Gateway(checked, self.reactor)
        before.notices.publish("verdict", f"store/127.0.0.1:{self.ports['other']}", {"failing": True})
        for settings, state in ((checked, "down"), (unchecked, "up")):
            later = Gateway(settings, self.reactor, state=before.state)
            later.goOnFrom(before)
            self.assertEqual(self.states(later), [state])


class ServingTests(GatewayCase):
    """The gateway as a whole."""

    async def test_login(self):
        """A client logs in and is relayed to the backend."""
        self.start()
        client = await self.loggedIn()
        heard = await client.asks(b"b SELECT INBOX", b"b OK")
        self.assertIn(b" EXISTS\r\n", heard)

    async def test_refused(self):
        """The backend refuses a wrong password; then the right one is accepted on the same connection."""
        text = TEXT.replace("auth_http = http://127.0.0.1:{auth}/auth", "proxy_pass = 127.0.0.1:{auth}")
        sandbox = SANDBOX.replace("{auth}", "0").replace("imap = 127.0.0.1:0", "imap = 127.0.0.1:{auth}")
        self.make(text + sandbox)
        self.start()
        client = await self.client()
        heard = await client.asks(b"a LOGIN alice queen", b"\r\na NO")
        self.assertIn(b"a NO LOGIN failed\r\n", heard)
        await client.asks(b"b LOGIN alice wonderland", b"\r\nb OK")

    async def test_everyAddress(self):
        """Each address of each server is served."""
        self.start()
        for name, greeting in (("imap", b"* OK"), ("other", b"* OK"), ("pop3", b"+OK")):
            client = await self.client(name)
            self.assertTrue((await client.hears(b"\r\n")).startswith(greeting))

    async def test_wildcard(self):
        """A specific address beside its wildcard is served by its own server, and both start and stop."""
        text = TEXT.replace("listen = 127.0.0.1:{pop3}", "listen = {other}")
        self.make(text.replace("    127.0.0.1:{imap}\n    127.0.0.1:{other}", "    127.0.0.1:{other}") + SANDBOX)
        self.start()
        client = await self.client("other")
        await client.hears(b"* OK IMAP4 ready\r\n")
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.2", self.ports["other"])
        stranger = await endpoint.connect(Factory.forProtocol(Talk))
        self.addCleanup(stranger.transport.abortConnection)
        await stranger.hears(b"+OK POP3 ready\r\n")
        self.assertEqual(len(self.gateway.listeners), 1)
        self.assertEqual(len(self.gateway.connections), 2)
        await self.gateway.stopService()
        await client.lost
        await self.assertRefused("other")

    async def test_transports(self):
        """The connections have the configured transport."""
        self.start()
        client = await self.client()
        await client.hears(b"ready\r\n")
        (connection,) = self.gateway.connections
        self.assertIs(isinstance(connection.transport, StreamTransport), areLean(self.use))

    async def test_connections(self):
        """C{connections} has the connected clients only."""
        self.start()
        self.assertEqual(self.gateway.connections, [])
        client = await self.loggedIn()
        (connection,) = self.gateway.connections
        self.assertEqual(connection.session.user, b"alice")
        await client.asks(b"b LOGOUT", b"b OK")
        await client.lost
        await self.quiet()
        self.assertEqual(self.gateway.connections, [])

    async def quiet(self):
        """Let the gateway handle what has happened to its clients."""
        while self.gateway.connections:
            turn = Deferred()
            self.reactor.callLater(0, turn.callback, None)
            await turn

    async def test_story(self):
        """The gateway logs to Twisted's log at the level of error_log; no line has the password."""
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.start()
        client = await self.loggedIn()
        await client.asks(b"b LOGOUT", b"b OK")
        await client.lost
        await self.quiet()
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertIn('user "alice"', told[-1])
        self.assertIn("reached relay, outcome relayed", told[-1])
        self.assertEqual([event for event in events if "wonderland" in repr(event) + formatEvent(event)], [])

    async def test_ownLog(self):
        """
        A server with its own log logs its sessions there, and not to Twisted's log; other servers are not affected.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        path = os.path.abspath(self.mktemp())
        self.make(TEXT + f"error_log = {path} info\n" + SANDBOX)
        self.start()
        for name, quit in (("imap", b"b LOGOUT"), ("pop3", b"QUIT")):
            client = await self.client(name)
            await client.asks(quit, b"OK")
            await client.lost
        await self.quiet()
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        with open(path, encoding="utf-8") as opened:
            own = opened.read()
        self.assertEqual([re.findall("protocol ([a-z0-9]+),", text) for text in told], [["imap"]])
        self.assertEqual(re.findall("protocol ([a-z0-9]+),", own), ["pop3"])


class ServingOverReactorTests(ServingTests):
    """The same with the reactor's own transports."""

    use = "reactor"


class StartTests(GatewayCase):
    """The start of a gateway."""

    def test_notBefore(self):
        """No socket is bound before the service starts, because the process may fork until then."""
        self.assertEqual({listener.port for listener in self.gateway.listeners}, {None})
        for port in self.ports.values():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))

    async def test_once(self):
        """twistd starts the service twice, with and without privileges: the first start binds the ports."""
        self.gateway.privilegedStartService()
        ports = [listener.port for listener in self.gateway.listeners]
        self.assertNotIn(None, ports)
        self.gateway.startService()
        self.addCleanup(self.stop)
        self.assertEqual([listener.port for listener in self.gateway.listeners], ports)
        await self.loggedIn()

    async def test_withoutPrivileges(self):
        """C{twist} does not call C{privilegedStartService}: the ports are bound anyway."""
        self.gateway.startService()
        self.addCleanup(self.stop)
        await self.loggedIn()

    async def test_embedded(self):
        """The gateway starts and stops with another application."""
        application = Application("somebody's")
        self.gateway.setServiceParent(application)
        whole = IService(application)
        whole.privilegedStartService()
        whole.startService()
        self.addCleanup(whole.stopService)
        await self.loggedIn()

    async def test_laterAdded(self):
        """Added to a running application, the gateway starts immediately."""
        whole = MultiService()
        whole.startService()
        self.addCleanup(whole.stopService)
        self.gateway.setServiceParent(whole)
        await self.loggedIn()

    def test_taken(self):
        """An address in use ends the start with an error that names the server, and leaves no socket open."""
        self.addCleanup(self.gateway.stopService)
        with socket.create_server(("127.0.0.1", self.ports["pop3"])):
            error = self.assertRaises(ListenError, self.gateway.privilegedStartService)
        place = f"gateway.ini:15: [server pop3] listen = 127.0.0.1:{self.ports['pop3']}: "
        self.assertTrue(str(error).startswith(place + "cannot be bound: Address already in use"), error)

    async def test_again(self):
        """A stopped gateway can be started again."""
        self.start()
        await self.loggedIn()
        await self.gateway.stopService()
        self.gateway.startService()
        self.assertFalse(self.gateway.isDraining)
        await self.loggedIn()

    async def test_takenLater(self):
        """If one port cannot be bound, startService leaves none open: the application may go on without a gateway."""
        with socket.create_server(("127.0.0.1", self.ports["pop3"])):
            self.assertRaises(ListenError, self.gateway.startService)
        self.assertEqual([listener.port for listener in self.gateway.listeners], [None] * 3)
        self.assertFalse(self.gateway.running)
        await self.assertRefused("imap")
        self.start()
        await self.loggedIn()


class SlowTLSTests(GatewayCase):
    """A gateway with a pyOpenSSL whose private API differs."""

    def warnings(self, text):
        """Return the warnings at a start with C{text}."""
        self.patch(service, "fastEngineWorks", lambda: False)
        self.make(TEXT.replace("[server imap]", f"{text}[server imap]") + SANDBOX)
        with capturedLogs() as events:
            self.start()
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]

    def test_told(self):
        """One warning says that TLS costs more."""
        (warning,) = self.warnings("starttls = on\n")
        self.assertTrue(
            warning.startswith("using pyOpenSSL's public API only (private API differs): TLS costs"), warning
        )
        self.assertIn("pyOpenSSL 26.2", warning)

    def test_withoutTLS(self):
        """Without TLS there is no warning."""
        self.assertEqual(self.warnings(""), [])


class StartOverReactorTests(StartTests):
    """The same with the reactor's own transports."""

    use = "reactor"


class ConstructionTests(SynchronousTestCase):
    """Tests without sockets."""

    def gateway(self, text=TEXT):
        settings, _ = settingsFrom(text)
        self.reactor = MemoryReactorClock()
        return Gateway(settings, self.reactor)

    def test_quiet(self):
        """The constructor uses neither sockets nor the clock."""
        self.gateway(TEXT + SANDBOX)
        self.assertEqual((self.reactor.tcpServers, self.reactor.tcpClients), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_shared(self):
        """The addresses of a server share its authenticator and its TLS context; two servers do not."""
        imap, other, pop3 = (listener.factory for listener in self.gateway().listeners)
        self.assertIs(imap.authenticator, other.authenticator)
        self.assertIs(imap.connector, other.connector)
        self.assertIsNot(imap.authenticator, pop3.authenticator)

    def test_contexts(self):
        """A TLS context that is passed in is used, and no file is read for it."""
        settings, _ = settingsFrom(TEXT)
        context = object()
        gateway = Gateway(settings, MemoryReactorClock(), contexts={"imap": context})
        self.assertEqual([listener.factory.tls for listener in gateway.listeners], [context, context, None])

    def test_plain(self):
        """A server that never speaks TLS loads no certificate."""
        gateway = self.gateway(TEXT + f"ssl_certificate = {NOWHERE}\nssl_certificate_key = {NOWHERE}\n")
        self.assertEqual({listener.factory.tls for listener in gateway.listeners}, {None})

    def test_level(self):
        """Events below the level of error_log are not created."""
        wanted = {
            level: self.gateway(TEXT.replace("stderr info", f"stderr {level}")).listeners[0].factory.journal.wantsInfo
            for level in ("debug", "info", "warn", "error")
        }
        self.assertEqual(wanted, {"debug": True, "info": True, "warn": False, "error": False})
        self.assertIs(parse(TEXT.format(imap=1, other=2, pop3=3, auth=4))[LogSettings].level, LogLevel.info)

    def test_rate(self):
        """log_rate limits each log; at the end the number of suppressed events is logged."""
        text = TEXT.replace("[mailgate]", "[mailgate]\nlog_rate = 2r/s") + "error_log = stderr info\n"
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        with capturedLogs() as events:
            gateway = self.gateway(text)
            for factory in (listener.factory for listener in gateway.listeners):
                for number in range(5):
                    factory.journal.error("trouble {number}", number=number)
            self.assertEqual(len(self.reactor.getDelayedCalls()), 2)
            # Other delayed calls do not matter here.
            gateway.drain(farewell=True, patience=0, pace=0)
        told = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        counted = "log_rate suppressed {} more lines like this: trouble {{number}}"
        # imap and other use the log of the process.
        self.assertEqual(told, ["trouble 0", "trouble 1", counted.format(8)])
        lines = [line.split(": ", 1)[1] for line in stderr.getvalue().splitlines()]
        self.assertEqual(lines, ["trouble 0", "trouble 1", counted.format(3)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noRate(self):
        """The limit can be switched off, and has a default."""
        for words, expected in (("log_rate = off", 1000), ("", 100)):
            with capturedLogs() as events:
                gateway = self.gateway(TEXT.replace("[mailgate]", f"[mailgate]\n{words}"))
                for number in range(1000):
                    gateway.listeners[0].factory.journal.error("trouble {number}", number=number)
            self.assertEqual(
                len([event for event in events if event.get("log_format") == "trouble {number}"]), expected
            )

    def test_levelOfServer(self):
        """A server's own error_log has its own level, higher or lower than that of the process."""
        text = TEXT.replace("[server pop3]", "error_log = stderr error\n[server pop3]") + "error_log = stderr debug\n"
        for level in ("info", "error"):
            gateway = self.gateway(text.replace("error_log = stderr info", f"error_log = stderr {level}"))
            imap, other, pop3 = (listener.factory.journal.wantsInfo for listener in gateway.listeners)
            self.assertEqual((imap, other, pop3), (False, False, True))

    def test_inheritedLog(self):
        """An error_log in [mail] applies to servers without their own, and not to the process."""
        gateway = self.gateway(TEXT.replace("[mail]", "[mail]\nerror_log = stderr crit"))
        self.assertIs(gateway.settings[LogSettings].level, LogLevel.info)
        self.assertEqual([listener.factory.journal.wantsInfo for listener in gateway.listeners], [False] * 3)

    def test_unopenableLog(self):
        """A server's own log that cannot be opened is an error at once."""
        error = self.assertRaises(ConfigurationError, self.gateway, TEXT + f"error_log = {NOWHERE}/x.log\n")
        place = f"gateway.ini:15: [server pop3] error_log = {NOWHERE}/x.log: "
        self.assertEqual(str(error), place + "cannot be opened: No such file or directory")

    def test_patience(self):
        """A connection that does not end is dismissed, then closed, and delays the stop by two seconds at most."""
        gateway, stuck = self.gateway(), Stuck()
        gateway.listeners[0].factory.connections.add(stuck)
        stopped = gateway.stopService()
        self.reactor.pump([0.01] * 150)
        self.assertNoResult(stopped)
        self.reactor.pump([0.01] * 60)
        self.successResultOf(stopped)
        self.assertEqual((stuck.dismissed, stuck.stopped), (1, 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_missingFolder(self):
        """A unix socket in a missing folder is an error when the service starts."""
        # Not mktemp(), whose paths may be too long for a socket.
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        path = os.path.join(folder, "missing", "imap.sock")
        gateway = self.gateway(TEXT.replace("127.0.0.1:{other}", f"unix:{path}"))
        self.addCleanup(gateway.stopService)
        error = self.assertRaises(ListenError, gateway.listeners[1].privilegedStartService)
        self.assertIn(f"[server imap] listen = unix:{path}: cannot be bound: ", str(error))
