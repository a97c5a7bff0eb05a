# -*- test-case-name: mailgate.test.test_snippets -*-
"""
The pieces of Python in the documents do what the documents say, on real sockets.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailgate.auth.http import authenticator as http
from mailgate.config import parse
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.documents import MISSING, codeBlocks, document


class _Dialogue(Protocol):
    """A client that speaks once it has been greeted, and gathers all it is told."""

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

    def embed(self, port: int, servers: str = "") -> Any:
        """
        What README's snippet makes of a configuration that listens on C{port}, or of C{servers}, started in a folder of
        its own.
        """
        (snippet,) = codeBlocks(document("README.rst"), "python")
        folder = self.mktemp()
        os.mkdir(folder)
        with open(os.path.join(folder, "gateway.ini"), "w") as opened:
            text = f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{port}\nproxy_pass = 127.0.0.1:1\n"
            opened.write(servers or text)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        namespace: dict[str, Any] = {}
        exec(snippet, namespace)
        service = IService(namespace["application"])
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        return namespace["gateway"]

    async def talk(self, port: int, says: bytes, host: str = "127.0.0.1") -> bytes:
        """All that the server on C{port} of C{host}, or at the path C{host}, tells a client that C{says} that."""
        client = _Dialogue(says)
        endpoint: Any = TCP4ClientEndpoint(reactor, host, port) if port else UNIXClientEndpoint(reactor, host)
        await connectProtocol(endpoint, client)
        return await client.ended

    async def test_readme(self) -> None:
        """README's application is a gateway that answers on its port."""
        port = freePort()
        gateway = self.embed(port)
        heard = await self.talk(port, b"a NOOP\r\nb LOGOUT\r\n")
        self.assertEqual(heard, b"* OK IMAP4 ready\r\na OK completed\r\n* BYE Logging out\r\nb OK completed\r\n")
        self.assertEqual([listener.port.getHost().port for listener in gateway.listeners], [port])

    async def test_embeddedAuthenticator(self) -> None:
        """docs/embedding.rst's authenticator, put in as it says, judges the gateway's logins."""
        port = freePort()
        namespace = self.authenticator()
        namespace["domains"](self.embed(port))
        heard = await self.talk(port, b"a LOGIN joe@elsewhere.example secret\r\nb LOGOUT\r\n")
        self.assertIn(b"\r\na NO [AUTHENTICATIONFAILED] ", heard)
        self.assertTrue(heard.endswith(b"\r\nb OK completed\r\n"), heard)

    async def test_everywhere(self) -> None:
        """
        It is put in at every address of every server, one beside its own wildcard included: there is no factory without
        it, and it answers there. A configuration as the document has it needs no backend, and takes every method.
        """
        port, other, path = freePort(), freePort(), self.freePath()
        (placeholder,) = codeBlocks(document("docs", "embedding.rst"), "ini")
        gateway = self.embed(
            port,
            f"""{placeholder}
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
""",
        )
        self.assertEqual(len(gateway.factories), 5)
        self.assertEqual(len(gateway.listeners), 3)
        namespace = self.authenticator()
        namespace["domains"](gateway)
        self.assertEqual({type(factory.authenticator) for factory in gateway.factories}, {namespace["ByDomain"]})
        says = b"a LOGIN joe@elsewhere.example secret\r\nb LOGOUT\r\n"
        places = [("127.0.0.1", port), ("127.0.0.2", port), ("127.0.0.3", port), ("127.0.0.1", other), (path, 0)]
        for host, number in places:
            self.assertIn(b"\r\na NO [AUTHENTICATIONFAILED] ", await self.talk(number, says, host), host)

    async def test_placeholder(self) -> None:
        """Where nothing is put in its place, the configuration that the document has lets nobody in, nor out."""
        port = freePort()
        (placeholder,) = codeBlocks(document("docs", "embedding.rst"), "ini")
        placeholder = placeholder.replace("/nonexistent", self.freePath())
        self.embed(port, f"{placeholder}\n[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{port}\n")
        heard = await self.talk(port, b"a LOGIN joe secret\r\nb LOGOUT\r\n")
        self.assertIn(b"\r\na NO [UNAVAILABLE] ", heard)

    def freePath(self) -> str:
        """That of a unix socket, which must be short; there is nothing yet."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "socket")

    def authenticator(self) -> dict[str, Any]:
        """What docs/embedding.rst defines."""
        (snippet,) = codeBlocks(document("docs", "embedding.rst"), "python")
        namespace: dict[str, Any] = {}
        exec(snippet, namespace)
        return namespace

    def test_authenticator(self) -> None:
        """docs/embedding.rst's authenticator keeps to the interface, and routes by domain and protocol."""
        backend = Backend("10.0.0.1", 143)
        authenticator = self.authenticator()["ByDomain"]({(b"example.com", "imap"): backend})
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
        """Serve docs/auth_http.rst's service; gives the port."""
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
        """docs/auth_http.rst's service lets alice in with her password, and nobody without."""
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
