"""
What the log says of handshakes that fail, and of clients that only look whether a port is open: a gateway over the
loopback, with either kind of transports.
"""

from __future__ import annotations

import re
import ssl
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from twisted.internet.defer import Deferred

from mailgate.test.support.certificates import clientContext
from mailgate.test.tls.test_server import GREETINGS, STARTED, STARTTLS, Case, TLSTalk

SILENT = "client left without a word"
MIDDLE = "the client closed the connection during the handshake; some clients do so if they reject the certificate"
NO_TLS = "(?:wrong version number|packet length too long)"
"""What OpenSSL 4 and OpenSSL 3 say of a text."""

HELLO = b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03"
"""The beginning of a ClientHello."""


def oldContext(version: str) -> ssl.SSLContext:
    """A client of C{version} alone, which may be any."""
    context = clientContext()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    return context


def strictContext(version: str = "TLSv1_3") -> ssl.SSLContext:
    """A client that trusts the system's authorities, none of which has issued our certificate."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    return context


class OutcomeCase(Case):
    """A gateway whose connections end."""

    async def outcome(self) -> str:
        """The outcome of the one connection that has ended since this was asked last."""
        while not any("connection ended" in line for line in self.logged()):
            turn: Deferred[None] = Deferred()
            self.reactor.callLater(0, turn.callback, None)
            await turn
        (story,) = [line for line in self.logged() if "connection ended" in line]
        self.assertEqual([event for event in self.events if event["log_level"].name in ("error", "critical")], [])
        self.events.clear()
        found = re.search(r"outcome (.*), seconds \d+\.\d{3}, received", story)
        assert found is not None, story
        return found[1]

    async def started(self, name: str) -> TLSTalk:
        """A client at the port C{name} that has come as far as TLS."""
        client = await self.connect(name)
        if name in STARTTLS:
            await client.hears(GREETINGS[name])
            await client.asks(STARTTLS[name], STARTED[name])
        return client

    async def said(self, name: str, *pieces: bytes) -> str:
        """The outcome for a client that sends C{pieces} in the place of a handshake, each once the last has gone."""
        client = await self.started(name)
        for piece in pieces:
            client.transport.write(piece)  # type: ignore[union-attr]
        client.transport.loseConnection()  # type: ignore[union-attr]
        return await self.outcome()

    async def shaken(self, name: str, context: ssl.SSLContext) -> str:
        """The outcome for a client that shakes hands by C{context}, in vain."""
        client = await self.started(name)
        client.startTLS(context)
        await client.secured
        self.assertIsNotNone(client.failed)
        client.transport.loseConnection()  # type: ignore[union-attr]
        return await self.outcome()


class OutcomeTests(OutcomeCase):
    """The outcome of a connection whose handshake comes to nothing."""

    async def test_noTLS(self) -> None:
        """A client that speaks no TLS is told from one that speaks HTTP, with STARTTLS and without."""
        self.start()
        for name in ("imaps", "pop3s", "smtps", "imap", "pop3", "smtp"):
            for plain, reason in (
                (b"a LOGIN joe sesame\r\n", f"{NO_TLS}: the client does not speak TLS"),
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", f"{NO_TLS}: the client does not speak TLS"),
                (b"GET / HTTP/1.0\r\n\r\n", "http request: the client sent a plain HTTP request"),
            ):
                self.assertRegex(await self.said(name, plain), rf"\ATLS handshake failed \({reason}\)\Z")

    async def test_oldVersion(self) -> None:
        """The highest version of a client that speaks none of ours is named."""
        self.start()
        for name in ("imaps", "smtp"):
            for version, shown in (("TLSv1", "TLS 1.0"), ("TLSv1_1", "TLS 1.1")):
                reason = f"unsupported protocol: the client supports {shown} at most"
                self.assertEqual(await self.shaken(name, oldContext(version)), f"TLS handshake failed ({reason})")

    async def test_versions(self) -> None:
        """So it is where ours are few, and those that take weaker keys than ssl_ciphers allows are told so."""
        for ours, theirs, hint in (
            ("TLSv1.3", "TLSv1_2", "the client supports TLS 1.2 at most"),
            ("TLSv1.2", "TLSv1_3", "the client does not support versions as old as TLS 1.2"),
            (
                "TLSv1.1 TLSv1.2",
                "TLSv1_1",
                "the client supports TLS 1.1 at most, which needs @SECLEVEL=0 in ssl_ciphers",
            ),
        ):
            self.start(more=f"ssl_protocols = {ours}")
            told = await self.shaken("imaps", oldContext(theirs))
            self.assertEqual(told, f"TLS handshake failed (unsupported protocol: {hint})")

    async def test_untrusting(self) -> None:
        """A client that does not trust our certificate is told from others, in both versions of TLS."""
        self.start()
        for version in ("TLSv1_2", "TLSv1_3"):
            for name in ("imaps", "imap", "pop3", "smtp"):
                told = await self.shaken(name, strictContext(version))
                reason = (
                    "tlsv1 alert unknown ca: the client does not trust the issuer of the server certificate,"
                    " or the chain is incomplete"
                )
                self.assertEqual(told, f"TLS handshake failed ({reason})")

    async def test_ciphers(self) -> None:
        """So is one that shares no cipher with us."""
        self.start(more="ssl_ciphers = ECDHE-ECDSA-AES256-GCM-SHA384")
        context = clientContext(version="TLSv1_2")
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        reason = (
            "no shared cipher: the client offers no cipher that ssl_ciphers allows and that fits the certificate's key"
        )
        self.assertEqual(await self.shaken("imaps", context), f"TLS handshake failed ({reason})")

    async def test_alpn(self) -> None:
        """One that wants another protocol by ALPN is refused, its protocols are named; not what is none."""
        self.start()
        for offered, shown in (
            (("h2",), '"h2"'),
            (("h2", "http/1.1"), '"h2", "http/1.1"'),
            (('x"), outcome relayed',), "other protocols"),
            (("h2", "\x7f", "a" * 200), '"h2", other protocols'),
            (("a", "b", "c", "d", "e"), '"a", "b", "c", "d", other protocols'),
        ):
            reason = f'no application protocol: the client offers {shown} by ALPN; the server accepts "imap"'
            told = await self.shaken("imaps", clientContext(alpn=offered))
            self.assertEqual(told, f"TLS handshake failed ({reason})")

    async def test_garbled(self) -> None:
        """What begins like TLS, and goes on otherwise, is not taken for what is none."""
        self.start()
        garbled = "the client sends invalid TLS messages, or a device on the network path changes them"
        told = await self.said("imaps", b"\x16\x03\x01\x00\x05abcde")
        self.assertEqual(told, f"TLS handshake failed (unexpected message: {garbled})")

    async def test_middle(self) -> None:
        """One that leaves in the middle of it has not failed to say a word."""
        self.start()
        for name in ("imaps", "imap"):
            self.assertEqual(await self.said(name, HELLO), f"TLS handshake failed ({MIDDLE})")
        client = await self.started("imaps")
        client.startTLS(clientContext())
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await self.outcome(), f"TLS handshake failed ({MIDDLE})")

    async def test_silent(self) -> None:
        """A look at a port is no failed handshake, at any port, whether it ends in good order or is cut off."""
        self.start()
        for name in (*STARTTLS, *(f"{protocol}s" for protocol in STARTTLS)):
            for cut in (False, True):
                client = await self.connect(name)
                if cut:
                    transport: Any = client.transport
                    transport.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                client.transport.loseConnection()  # type: ignore[union-attr]
                self.assertEqual(await self.outcome(), SILENT)

    async def test_notSilent(self) -> None:
        """Who has said anything has left in another way: behind STARTTLS, in a command, after a handshake."""
        self.start()
        self.assertEqual(await self.said("imap"), f"TLS handshake failed ({MIDDLE})")
        for spoken in (b"a", b"a NOOP\r\n"):
            client = await self.connect("imap")
            await client.hears(GREETINGS["imap"])
            client.transport.write(spoken)  # type: ignore[union-attr]
            client.transport.loseConnection()  # type: ignore[union-attr]
            self.assertEqual(await self.outcome(), "client left")
        client = await self.implicit("imap", clientContext())
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await self.outcome(), "client left")

    async def test_afterwards(self) -> None:
        """What a client says of our certificate when hands have been shaken is in the log, too."""
        self.start()
        client = await self.implicit("imap", clientContext())
        await client.hears(GREETINGS["imap"])
        # A record that nobody can decrypt.
        client.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[union-attr]
        told = await self.outcome()
        self.assertRegex(
            told, r"\Aclient left \(decryption failed or bad record mac: the client sends invalid TLS messages"
        )


class OutcomeOverReactorTests(OutcomeTests):
    """The same over the reactor's own transports."""

    use = "reactor"
