# -*- test-case-name: mailgate.test.test_snippets -*-
"""
The pieces of Python in the documents do what the documents say, on real sockets.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Any
from unittest import TestResult

from attrs import evolve
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailgate.auth.http import authenticator as http
from mailgate.config import authenticatorKind, load, parse
from mailgate.config.entrypoints import GROUP
from mailgate.config.serverchecks import WHO
from mailgate.directives import ConfigurationError
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.sandbox.certificate import withCertificate
from mailgate.sandbox.service import SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.distributions import writeDistribution
from mailgate.test.support.documents import MISSING, codeBlocks, document
from mailgate.testing import requestFor


class _Dialogue(Protocol):
    """A client that sends its commands after the greeting, and collects everything that it receives."""

    transport: Any

    def __init__(self, says: bytes) -> None:
        self._says = says
        self._heard = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self._heard:
            self.transport.write(self._says)
        self._heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(self._heard)


class SnippetTests(TestCase):
    """The pieces of Python in the documents, run on real sockets."""

    skip = MISSING
    timeout = 30

    def configure(self, ini: str) -> None:
        """Change to a new folder with the C{gateway.ini} C{ini}."""
        folder = self.mktemp()
        os.mkdir(folder)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        with open("gateway.ini", "w", encoding="ascii") as opened:
            opened.write(ini)

    def serve(self, service: Any) -> Any:
        """Run C{service} until the end of the test."""
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def embed(self, port: int) -> Any:
        """Start the application of docs/embedding.rst with a configuration that listens on C{port}."""
        snippet = codeBlocks(document("docs", "embedding.rst"), "python")[0]
        self.configure(f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{port}\nproxy_pass = 127.0.0.1:1\n")
        namespace: dict[str, Any] = {}
        exec(snippet, namespace)
        self.serve(IService(namespace["application"]))
        return namespace["gateway"]

    async def talk(self, port: int, says: bytes, host: str = "127.0.0.1") -> bytes:
        """Return what the server at C{host} and C{port}, or at the path C{host}, sends after C{says}."""
        client = _Dialogue(says)
        endpoint: Any = TCP4ClientEndpoint(reactor, host, port) if port else UNIXClientEndpoint(reactor, host)
        await connectProtocol(endpoint, client)
        return await client.ended

    async def test_demo(self) -> None:
        """README's client sends a message and reads it, at a gateway with the demo's configuration and other ports."""
        (snippet,) = codeBlocks(document("README.rst"), "python")
        ini = document("etc", "demo.ini")
        others = {port: str(freePort()) for port in re.findall(r"127\.0\.0\.1:(\d+)", ini)}
        ini, snippet = (re.sub(r"\d{4,}", lambda port: others.get(port[0], port[0]), text) for text in (ini, snippet))
        self.configure(ini)
        settings = load("gateway.ini")
        self.serve(SandboxService(settings[SandboxSettings], reactor))
        self.serve(Gateway(withCertificate(settings, ".", lambda server: "localhost"), reactor))
        printed: list[str] = []
        await deferToThread(exec, snippet, {"print": printed.append})
        (message,) = printed
        self.assertTrue(message.endswith("Subject: Hello\r\n\r\nHello, bob.\r\n"), message)

    async def test_keeper(self) -> None:
        """The application of docs/embedding.rst with a keeper counts a connection and lists it among its numbers."""
        (snippet,) = (
            each for each in codeBlocks(document("docs", "embedding.rst"), "python") if "KeeperService" in each
        )
        port = freePort()
        self.configure(f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{port}\nproxy_pass = 127.0.0.1:1\n")
        printed: list[Any] = []
        namespace: dict[str, Any] = {"print": lambda *values: printed.append(values)}
        exec(snippet, namespace)
        self.serve(IService(namespace["application"]))
        await self.talk(port, b"a LOGOUT\r\n")
        await Deferred.fromCoroutine(namespace["show"]())
        self.assertEqual(printed, [(1, 0)])
        unwatched = Gateway(load("gateway.ini"), reactor)
        self.assertRaises(ValueError, namespace["KeeperService"].of, unwatched, reactor)

    async def test_application(self) -> None:
        """The application of docs/embedding.rst is a gateway that answers on its port."""
        port = freePort()
        gateway = self.embed(port)
        heard = await self.talk(port, b"a NOOP\r\nb LOGOUT\r\n")
        self.assertEqual(heard, b"* OK IMAP4 ready\r\na OK completed\r\n* BYE Logging out\r\nb OK completed\r\n")
        self.assertEqual([listener.port.getHost().port for listener in gateway.listeners], [port])

    async def test_embeddedAuthenticator(self) -> None:
        """The authenticator of docs/embedding.rst judges logins at both addresses of its configuration."""
        port = freePort()
        ini, _ = codeBlocks(document("docs", "embedding.rst"), "ini")
        self.configure(ini.replace("143", str(port)).replace("[server imap]", "[server imap]\nprotocol = imap"))
        gateway = self.serve(self.embedding()["serve"](reactor))
        self.assertEqual((len(gateway.factories), len(gateway.listeners)), (2, 1))
        for host in ("127.0.0.1", "127.0.0.2"):
            heard = await self.talk(port, b"a LOGIN joe@elsewhere.example secret\r\nb LOGOUT\r\n", host)
            self.assertIn(b"\r\na NO [AUTHENTICATIONFAILED] ", heard)
            self.assertTrue(heard.endswith(b"\r\nb OK completed\r\n"), heard)

    async def test_everywhere(self) -> None:
        """
        It judges at every address of every server, one beside another's wildcard included: there is no factory without
        it, and it answers there. Where it says so it takes other methods, too.
        """
        port, other, path = freePort(), freePort(), self.freePath()
        self.configure(
            f"""[mail]
auth_delay = 0
[server wild]
protocol = imap
imap_auth = plain cram-md5
listen =
    0.0.0.0:{port}
    unix:{path}
[server beside]
protocol = imap
listen =
    127.0.0.1:{port}
    127.0.0.2:{port}
    127.0.0.1:{other}
"""
        )
        mine = self.embedding()["ByDomain"]({})
        mine.methods = {Method.PLAIN, Method.CRAM_MD5}
        settings = load("gateway.ini", authenticators={"wild": mine, "beside": mine})
        gateway = self.serve(Gateway(settings, reactor))
        self.assertEqual(len(gateway.factories), 5)
        self.assertEqual(len(gateway.listeners), 3)
        self.assertEqual({factory.authenticator for factory in gateway.factories}, {mine})
        says = b"a LOGIN joe@elsewhere.example secret\r\nb LOGOUT\r\n"
        places = [("127.0.0.1", port), ("127.0.0.2", port), ("127.0.0.3", port), ("127.0.0.1", other), (path, 0)]
        for host, number in places:
            self.assertIn(b"\r\na NO [AUTHENTICATIONFAILED] ", await self.talk(number, says, host), host)

    def test_leftOut(self) -> None:
        """A server without an authenticator is a configuration error."""
        self.configure("[server imap]\nlisten = 143\n[server pop3]\nlisten = 110\n")
        error = self.assertRaises(ConfigurationError, self.embedding()["serve"], reactor)
        self.assertEqual([(problem.section, problem.option) for problem in error.problems], [("server pop3", WHO)])

    def test_distribution(self) -> None:
        """mailgate finds the distribution of docs/embedding.rst, which does what its configuration says."""
        text = document("docs", "embedding.rst")
        folder = os.path.abspath(self.mktemp())
        (project,) = codeBlocks(text, "toml")
        entry, value, module = re.findall(r'^(\w+) = "((\w+):DOMAINS)"$', project, re.MULTILINE)[0]
        self.assertIn(f'py-modules = ["{module}"]', project)
        self.assertIn(f'[project.entry-points."{GROUP}"]', project)
        source = "\n".join(codeBlocks(text, "python")[2:4])
        writeDistribution(folder, "mailgate_domains", {entry: value}, {module: source})
        self.patch(sys, "path", [*sys.path, folder])
        self.addCleanup(sys.modules.pop, module, None)
        _, ini = codeBlocks(text, "ini")
        (server,) = parse(ini).servers
        kind = authenticatorKind(server)
        assert kind is not None
        authenticator = kind.build(server, None, reactor, Journal())
        request = requestFor("imap", credentials=Credentials(Method.PLAIN, b"joe@example.org", b"secret"))
        answer = self.successResultOf(authenticator.authenticate(request))
        self.assertEqual(answer.backends, (Backend("10.0.0.2", 143),))
        problems = self.assertRaises(ConfigurationError, parse, ini.replace(":143", "")).problems
        self.assertEqual([problem.option for problem in problems], ["domain_backends"])

    def test_cred(self) -> None:
        """The checker of docs/embedding.rst accepts joe's password."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as opened:
            opened.write("joe:sesame\n")
        authenticator = self.embedding()["checked"](path)
        answer = self.successResultOf(authenticator.authenticate(requestFor("imap")))
        self.assertEqual(answer, Route((Backend("10.0.0.1", 143),), b"joe", b"sesame"))

    def test_tests(self) -> None:
        """The tests of docs/embedding.rst pass."""
        result = TestResult()
        TestLoader().loadClass(self.embedding()["ByDomainTests"]).run(result)
        self.assertEqual((result.errors, result.failures, result.testsRun), ([], [], 2))

    def freePath(self) -> str:
        """Return a short path for a unix socket. The file does not exist yet."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "socket")

    def embedding(self) -> dict[str, Any]:
        """Run the code of docs/embedding.rst without its application, and return its names."""
        namespace: dict[str, Any] = {"__name__": "example"}
        for snippet in codeBlocks(document("docs", "embedding.rst"), "python")[2:]:
            exec(snippet, namespace)
        return namespace

    def test_authenticator(self) -> None:
        """The authenticator of docs/embedding.rst provides the interface, and routes by domain and protocol."""
        backend = Backend("10.0.0.1", 143)
        authenticator = self.embedding()["ByDomain"]({(b"example.com", "imap"): backend})
        self.assertTrue(verifyObject(IAuthenticator, authenticator))
        credentials = Credentials(Method.PLAIN, b"joe@Example.com", b"secret")
        answer = authenticator.authenticate(LoginRequest("imap", credentials, Client("192.0.2.7")))
        expected = Route((backend,), credentials.user, credentials.secret, judged=False)
        self.assertEqual(self.successResultOf(answer), expected)
        for refused in (
            LoginRequest("pop3", credentials, Client("192.0.2.7")),
            LoginRequest("imap", evolve(credentials, method=Method.CRAM_MD5), Client("192.0.2.7")),
        ):
            answer = authenticator.authenticate(refused)
            self.assertEqual(self.successResultOf(answer), Denial(Trouble.DENIED))

    def authService(self) -> int:
        """Run the service of docs/auth_http.rst, and return its port."""
        (snippet,) = codeBlocks(document("docs", "auth_http.rst"), "python")
        namespace: dict[str, Any] = {"__name__": "example"}
        exec(snippet, namespace)
        quiet = type("Quiet", (namespace["Auth"],), {"log_message": lambda *arguments: None})
        server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        self.addCleanup(server.server_close)
        self.addCleanup(serving.join)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    async def test_authService(self) -> None:
        """The service of docs/auth_http.rst accepts alice with her password, and refuses her without it."""
        settings = parse(
            f"[server imap]\nlisten = 143\nauth_http = http://127.0.0.1:{self.authService()}/auth\n"
        ).servers[0]
        authenticator = http.KIND.build(settings, None, reactor, Journal())
        self.addCleanup(authenticator.close)

        async def ask(method: Method, user: bytes, password: bytes) -> Any:
            credentials = Credentials(method, user, password)
            return await authenticator.authenticate(LoginRequest("imap", credentials, Client("192.0.2.7")))

        accepted = await ask(Method.PLAIN, b"alice", b"wonderland")
        self.assertEqual(accepted, Route((Backend("10.0.0.1", 143),), b"alice", b"wonderland"))
        denied = Denial(Trouble.DENIED, text=b"Invalid login or password", wait=3)
        for method, user, password in (
            (Method.PLAIN, b"alice", b"builder"),
            (Method.PLAIN, b"alice", b""),
            (Method.PLAIN, b"\xff%+ \r\n\0", b"wonderland"),
            (Method.NONE, b"alice", b""),
            (Method.CRAM_MD5, b"alice", b"wonderland"),
        ):
            self.assertEqual(await ask(method, user, password), denied)
