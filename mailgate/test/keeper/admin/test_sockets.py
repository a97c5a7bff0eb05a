"""
The admin server over real sockets: unix sockets with the system's word about the peer, TCP, and TLS.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import stat
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailgate.keeper import overview
from mailgate.keeper.admin import events
from mailgate.keeper.admin.channel import MOST
from mailgate.keeper.admin.site import adminSite, metricsSite
from mailgate.keeper.keeper import Collected
from mailgate.test.support.admincase import writeTokens
from mailgate.test.support.adminsite import (
    TOKENS,
    Answered,
    Operator,
    StandInKeeper,
    StandIns,
    adminSettings,
    answers,
    request,
)
from mailgate.test.support.certificates import Authority
from mailgate.watch.settings import AdminAddress

reactor: Any = _reactor


class SocketCase(TestCase):
    """An admin server at a socket. The clients are blocking ones, in threads: they share no code with the server."""

    timeout = 60

    def setUp(self) -> None:
        self.keeper = StandInKeeper(reactor)
        self.keeper.operator = Operator()
        self.stands = StandIns()
        self.sites: list[Any] = []
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.tokens = writeTokens(os.path.join(self.folder, "tokens"))

    def site(self, **given: Any) -> Any:
        settings = adminSettings(tokenFile=self.tokens, **given)
        self.sites.append(adminSite(self.keeper, settings, reactor, functions=self.stands.functions))
        return self.sites[-1]

    def listenUNIX(self) -> str:
        # The path of a unix socket has about a hundred bytes.
        path = os.path.join(os.path.relpath(self.folder), "s")
        port = reactor.listenUNIX(path, self.site(admin=AdminAddress(path)), mode=0o600)
        self.addCleanup(port.stopListening)
        return path

    def listenTCP(self, factory: Any) -> tuple[str, int]:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return "127.0.0.1", port.getHost().port

    def connect(self, place: Any, context: ssl.SSLContext | None = None) -> socket.socket:
        """Connect, in a thread."""
        made = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
        made.settimeout(20)
        made.connect(place)
        self.addCleanup(made.close)
        return made if context is None else context.wrap_socket(made, server_hostname="localhost")

    def exchange(self, place: Any, data: bytes, context: ssl.SSLContext | None = None) -> Deferred[list[Answered]]:
        """Send C{data}, and return the answers until the server closes; C{data} asks it to."""

        def run() -> list[Answered]:
            with self.connect(place, context) as made:
                made.sendall(data)
                return answers(readAll(made))

        return deferToThread(run)


def readAll(made: socket.socket) -> bytes:
    found = b""
    while piece := made.recv(65536):
        found += piece
    return found


def trusting(authority: Authority, chain: str | None = None) -> ssl.SSLContext:
    """A TLS client that trusts C{authority} alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.certificate)
    if chain is not None:
        context.load_cert_chain(chain)
    return context


CLOSE = "Connection: close"


def run(coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
    return ensureDeferred(coroutine)


class StreamTests(SocketCase):
    """A viewer of the live page that does not read, at a real socket, while another one reads."""

    def test_slow(self) -> Deferred[None]:
        """What it does not read stays in the sender: nothing more is written for it, and soon its connection ends."""
        self.patch(events, "PERIOD", 0.02)
        self.patch(events, "PATIENCE", 0.3)
        self.patch(overview, "FRESH", 0.0)
        # An overview of a megabyte, which no socket takes at once.
        story = {"kind": "login", "at": "2026-11-28T10:02:11Z", **{f"x{n}": 200 * "x" for n in range(15)}}
        self.keeper.stories.add([story] * 50)
        self.keeper.found["page"] = Collected((), [100 * "y"] * 10_000)

        async def check() -> None:
            path = self.listenUNIX()
            site = self.sites[-1]

            def view() -> socket.socket:
                made = self.connect(path)
                made.sendall(request("GET", "/api/1/events"))
                return made

            slow = await deferToThread(view)
            while not site._streams:
                await self.later(0.01)
            (channel,) = site._streams
            sizes = []
            while site._streams:
                sizes.append(len(channel.transport.dataBuffer) + channel.transport._tempDataLen)
                await self.later(0.02)
            # One event, and never another one behind it.
            self.assertGreater(max(sizes), 100_000)
            self.assertLess(max(sizes), 2_500_000)
            self.assertEqual(sorted(sizes[3:], reverse=True), sizes[3:])
            slow.close()

            self.keeper.found.clear()
            self.patch(events, "PATIENCE", 10.0)
            fast = await deferToThread(view)

            def read() -> int:
                count = 0
                with fast.makefile("rb") as lines:
                    for line in lines:
                        count += line.startswith(b"event: stats")
                        if count == 20:
                            break
                return count

            self.assertEqual(await deferToThread(read), 20)
            fast.close()
            while site._streams:
                await self.later(0.01)

        return run(check())

    def later(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds, lambda: None)


class UNIXTests(SocketCase):
    """A unix socket."""

    def test_peer(self) -> Deferred[None]:
        """The system says which process asks. It is admin, and its uid and pid are known to what it orders."""

        async def check() -> None:
            path = self.listenUNIX()
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            body = b'{"user": "joe"}'
            fields = ("Content-Type: application/json", CLOSE)
            (answered,) = await self.exchange(path, request("POST", "/api/1/kick", *fields, body=body))
            self.assertEqual(answered.value["ended"], 1)
            expected = f"uid {os.geteuid()}, pid {os.getpid()}"
            self.assertEqual(self.stands.calls, [("kick", {"user": "joe"}, "", expected, 0, False, False, 0, 0)])

        return run(check())

    def test_browser(self) -> Deferred[None]:
        """What C{ssh -L} lets through from a browser is refused."""

        async def check() -> None:
            path = self.listenUNIX()
            for data, status in (
                (request("GET", "/api/1/", CLOSE, host="evil.example"), 421),
                (request("GET", "/api/1/", CLOSE, "Origin: http://evil.example"), 403),
                (request("GET", "/api/1/", CLOSE, "Sec-Fetch-Site: cross-site"), 403),
                (request("POST", "/api/1/reload", CLOSE, "Content-Type: text/plain"), 415),
                (request("OPTIONS", "/api/1/reload", CLOSE), 405),
            ):
                (answered,) = await self.exchange(path, data)
                self.assertEqual(answered.status, status)

        return run(check())

    def test_large(self) -> Deferred[None]:
        """A body that is too large gets its answer, although most of it is not read."""

        async def check() -> None:
            path = self.listenUNIX()
            body = 49 * 1024 * b" "
            (answered,) = await self.exchange(
                path, request("POST", "/api/1/kick", "Content-Type: application/json", body=body)
            )
            self.assertEqual(answered.status, 413)

        return run(check())

    def test_answerIsLarge(self) -> Deferred[None]:
        """An answer of a megabyte arrives, and the connection goes on."""

        async def check() -> None:
            path = self.listenUNIX()
            self.stands.results["listSessions"] = {"sessions": 4000 * [250 * "x"]}
            data = request("GET", "/api/1/sessions") + request("GET", "/healthz", CLOSE)
            large, small = await self.exchange(path, data)
            self.assertEqual((len(large.value["sessions"]), small.value), (4000, {"status": "ok"}))

        return run(check())

    def test_shared(self) -> Deferred[None]:
        """
        One server at a unix socket and over TCP: clients over TCP that fill it do not keep processes of this host out.
        """

        async def check() -> None:
            path = os.path.join(os.path.relpath(self.folder), "s")
            site = self.site(admin=AdminAddress(path))
            self.addCleanup(reactor.listenUNIX(path, site, mode=0o600).stopListening)
            place = self.listenTCP(site)

            def fill() -> int:
                made: dict[int, socket.socket] = {}
                reset = 0
                for _ in range(MOST + 2):
                    try:
                        each = self.connect(place)
                    except ConnectionResetError:
                        # The server has accepted it and closed it before connect(2) was done here.
                        reset += 1
                    else:
                        made[each.fileno()] = each
                poll = select.poll()
                for number, each in made.items():
                    with contextlib.suppress(OSError):
                        each.sendall(b"GET / HTTP/1.1\r\n")
                    poll.register(number, select.POLLIN)
                closed: set[int] = set()
                while len(closed) + reset < 3 and (events := poll.poll(20000)):
                    for number, _ in events:
                        closed.add(number)
                        poll.unregister(number)
                return len(closed) + reset

            self.assertEqual(await deferToThread(fill), 3)
            self.assertEqual(len(site._open), MOST - 1)
            (answered,) = await self.exchange(path, request("GET", "/api/1/", CLOSE))
            self.assertEqual(answered.status, 200)

        return run(check())


class TLSTests(SocketCase):
    """TCP with TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder, "ca")
        self.certificate = self.authority.issue("admin")[1]

    def listen(self, **given: Any) -> tuple[str, int]:
        address = AdminAddress(None, "127.0.0.1", 9143, True)
        site = self.site(admin=address, certificate=self.certificate, certificateKey=self.certificate, **given)
        return self.listenTCP(site)

    def test_token(self) -> Deferred[None]:
        """A client with a token, by TLS 1.2 and by 1.3."""

        async def check() -> None:
            place = self.listen()
            bearer = f"Authorization: Bearer {TOKENS['operate']}"
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = trusting(self.authority)
                context.minimum_version = context.maximum_version = version
                (answered,) = await self.exchange(place, request("GET", "/api/1/sessions", bearer, CLOSE), context)
                self.assertEqual(answered.status, 200)
                (answered,) = await self.exchange(place, request("GET", "/api/1/", CLOSE), context)
                self.assertEqual(answered.status, 401)

        return run(check())

    def test_old(self) -> Deferred[None]:
        """Earlier versions, other protocols by ALPN, and what is not TLS get no answer."""

        async def check() -> None:
            place = self.listen()
            old = trusting(self.authority)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.set_ciphers("ALL:@SECLEVEL=0")
            other = trusting(self.authority)
            other.set_alpn_protocols(["imap"])
            for context in (old, other):
                await self.assertFailure(self.exchange(place, request("GET", "/healthz", CLOSE), context), ssl.SSLError)
            found = await self.raw(place, request("GET", "/healthz", CLOSE))
            self.assertNotIn(b"HTTP", found)
            both = trusting(self.authority)
            both.set_alpn_protocols(["h2", "http/1.1"])
            (answered,) = await self.exchange(place, request("GET", "/healthz", CLOSE), both)
            self.assertEqual(answered.status, 200)

        return run(check())

    def raw(self, place: Any, data: bytes) -> Deferred[bytes]:
        def talk() -> bytes:
            with self.connect(place) as made:
                made.sendall(data)
                try:
                    return readAll(made)
                except OSError:
                    return b""

        return deferToThread(talk)

    def test_noResumption(self) -> Deferred[None]:
        """No session is resumed, with client certificates or without."""

        async def check() -> None:
            for given in ({}, {"clientCertificate": self.authority.certificate}):
                place = self.listen(**given)
                context = trusting(self.authority)
                context.maximum_version = ssl.TLSVersion.TLSv1_2

                def twice(place: Any = place, context: ssl.SSLContext = context) -> bool | None:
                    with self.connect(place, context) as first:
                        assert isinstance(first, ssl.SSLSocket)
                        session = first.session
                    made = socket.create_connection(place, 20)
                    with context.wrap_socket(made, server_hostname="localhost", session=session) as second:
                        return second.session_reused

                self.assertFalse(await deferToThread(twice))

        return run(check())

    def test_clientCertificate(self) -> Deferred[None]:
        """A verified certificate has the level of its line in the file of tokens; without a line it has none."""
        writeTokens(self.tokens, ["ops operate certificate", f"r read {TOKENS['read']}"])

        async def check() -> None:
            place = self.listen(clientCertificate=self.authority.certificate)
            known = trusting(self.authority, self.authority.issue("ops")[1])
            unknown = trusting(self.authority, self.authority.issue("other")[1])
            order = request("POST", "/api/1/reload", CLOSE, "Content-Type: application/json")
            for context, data, status in (
                (known, request("GET", "/api/1/sessions", CLOSE), 200),
                (known, order, 403),
                (unknown, request("GET", "/api/1/", CLOSE), 403),
                (unknown, request("GET", "/healthz", CLOSE), 200),
                # A token goes before a certificate.
                (known, request("GET", "/api/1/sessions", CLOSE, f"Authorization: Bearer {TOKENS['read']}"), 403),
                (
                    trusting(self.authority),
                    request("GET", "/api/1/", CLOSE, f"Authorization: Bearer {TOKENS['read']}"),
                    200,
                ),
                (trusting(self.authority), request("GET", "/api/1/", CLOSE), 401),
            ):
                (answered,) = await self.exchange(place, data, context)
                self.assertEqual(answered.status, status)

        return run(check())

    def test_strangeCertificate(self) -> Deferred[None]:
        """A certificate of another authority, or one that has expired, ends the handshake."""

        async def check() -> None:
            place = self.listen(clientCertificate=self.authority.certificate)
            os.mkdir(other := os.path.join(self.folder, "other"))
            strangers = (
                Authority(other, "ca").issue("ops")[1],
                self.authority.issue("late", age=timedelta(days=3))[1],
            )
            for chain in strangers:
                context = trusting(self.authority, chain)
                failing = self.exchange(place, request("GET", "/healthz", CLOSE), context)
                await self.assertFailure(failing, ssl.SSLError, ConnectionError, AssertionError)

        return run(check())


class MetricsTests(SocketCase):
    """The port for metrics."""

    def test_scrape(self) -> Deferred[None]:
        """A scraper needs no token, and sees metrics alone."""

        async def check() -> None:
            settings = adminSettings(metrics=AdminAddress(None, "127.0.0.1", 9144))
            place = self.listenTCP(metricsSite(self.keeper, settings, reactor, self.stands.functions))
            (answered,) = await self.exchange(place, request("GET", "/metrics", CLOSE))
            self.assertEqual((answered.status, answered.body), (200, b"mailgate_users 3\n# EOF\n"))
            (answered,) = await self.exchange(place, request("GET", "/api/1/sessions", CLOSE))
            self.assertEqual(answered.status, 404)

        return run(check())
