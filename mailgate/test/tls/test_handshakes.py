"""
Tests for the log lines of failed handshakes and of port checks: a gateway over the loopback, with both kinds of
transports.
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
"""OpenSSL 4's and OpenSSL 3's reasons for plain text."""

HELLO = b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03"
"""The beginning of a ClientHello."""


def oldContext(version: str) -> ssl.SSLContext:
    """The context of a client that supports only C{version}."""
    context = clientContext()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    return context


def strictContext(version: str = "TLSv1_3") -> ssl.SSLContext:
    """The context of a client that trusts the system's CAs, which have not issued our certificate."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    return context


class OutcomeCase(Case):
    """A gateway whose connections end."""

    async def outcome(self) -> str:
        """The outcome of the connection that ended since the previous call."""
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
        """A client at the port C{name}, before its handshake."""
        client = await self.connect(name)
        if name in STARTTLS:
            await client.hears(GREETINGS[name])
            await client.asks(STARTTLS[name], STARTED[name])
        return client

    async def said(self, name: str, *pieces: bytes) -> str:
        """The outcome for a client that sends C{pieces} instead of a handshake, one after the other."""
        client = await self.started(name)
        for piece in pieces:
            client.transport.write(piece)  # type: ignore[union-attr]
        client.transport.loseConnection()  # type: ignore[union-attr]
        return await self.outcome()

    async def shaken(self, name: str, context: ssl.SSLContext) -> str:
        """The outcome for a client with C{context} whose handshake fails."""
        client = await self.started(name)
        client.startTLS(context)
        await client.secured
        self.assertIsNotNone(client.failed)
        client.transport.loseConnection()  # type: ignore[union-attr]
        return await self.outcome()


class OutcomeTests(OutcomeCase):
    """The outcomes of connections whose handshake fails."""

    async def test_noTLS(self) -> None:
        """Plain text and HTTP have different reasons, with STARTTLS and without."""
        self.start()
        for name in ("imaps", "pop3s", "smtps", "imap", "pop3", "smtp"):
            for plain, reason in (
                (b"a LOGIN joe sesame\r\n", f"{NO_TLS}: the client does not speak TLS"),
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", f"{NO_TLS}: the client does not speak TLS"),
                (b"GET / HTTP/1.0\r\n\r\n", "http request: the client sent a plain HTTP request"),
            ):
                self.assertRegex(await self.said(name, plain), rf"\ATLS handshake failed \({reason}\)\Z")

    async def test_oldVersion(self) -> None:
        """The reason names the client's highest version."""
        self.start()
        for name in ("imaps", "smtp"):
            for version, shown in (("TLSv1", "TLS 1.0"), ("TLSv1_1", "TLS 1.1")):
                reason = f"unsupported protocol: the client supports {shown} at most"
                self.assertEqual(await self.shaken(name, oldContext(version)), f"TLS handshake failed ({reason})")

    async def test_versions(self) -> None:
        """The same with few versions. Versions that need weaker keys than ssl_ciphers allows are reported as such."""
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
        """A client that does not trust our certificate has a reason of its own, with TLS 1.2 and TLS 1.3."""
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
        """A client without a common cipher has a reason of its own."""
        self.start(more="ssl_ciphers = ECDHE-ECDSA-AES256-GCM-SHA384")
        context = clientContext(version="TLSv1_2")
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        reason = (
            "no shared cipher: the client offers no cipher that ssl_ciphers allows and that fits the certificate's key"
        )
        self.assertEqual(await self.shaken("imaps", context), f"TLS handshake failed ({reason})")

    async def test_alpn(self) -> None:
        """A client with another ALPN protocol is refused. The reason quotes its protocols, unless they are unsafe."""
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
        """Bytes that begin like TLS, and are invalid later, are not reported as plain text."""
        self.start()
        garbled = "the client sends invalid TLS messages, or a device on the network path changes them"
        told = await self.said("imaps", b"\x16\x03\x01\x00\x05abcde")
        self.assertEqual(told, f"TLS handshake failed (unexpected message: {garbled})")

    async def test_middle(self) -> None:
        """A client that closes during the handshake is not reported as silent."""
        self.start()
        for name in ("imaps", "imap"):
            self.assertEqual(await self.said(name, HELLO), f"TLS handshake failed ({MIDDLE})")
        client = await self.started("imaps")
        client.startTLS(clientContext())
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await self.outcome(), f"TLS handshake failed ({MIDDLE})")

    async def test_silent(self) -> None:
        """A port check is not a failed handshake, whether it ends by a close or a reset."""
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
        """
        A client that has sent anything is not reported as silent: after STARTTLS, in a command, after a handshake.
        """
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
        """An alert about our certificate after the handshake is logged, too."""
        self.start()
        client = await self.implicit("imap", clientContext())
        await client.hears(GREETINGS["imap"])
        # A record that cannot be decrypted.
        client.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[union-attr]
        told = await self.outcome()
        self.assertRegex(
            told, r"\Aclient left \(decryption failed or bad record mac: the client sends invalid TLS messages"
        )


class OutcomeOverReactorTests(OutcomeTests):
    """The same over the reactor's own transports."""

    use = "reactor"
