"""
Tests for L{mailgate.tls.ticketkeys}. The installed cryptography may hide OpenSSL's call, so these tests set keys in
Python's own OpenSSL.
"""

from __future__ import annotations

import _ssl
import ctypes
import os
import ssl
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor, write
from mailgate.test.tls.test_tickets import VERSIONS, Client
from mailgate.tls import ticketkeys
from mailgate.tls.context import checkTLS
from mailgate.tls.files import TLSError
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import SessionCache
from mailgate.tls.ticketkeys import derivedKey, reachCall, readTicketKey, ticketKeyCall, useTicketKey
from mailgate.tls.tickets import FixedKeys, keyName

KEY = bytes(range(80))


class Case(SynchronousTestCase):
    """Files in C{self.folder}."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "server")

    def keyFile(self, content: bytes = KEY, name: str = "ticket.key") -> str:
        return write(os.path.join(self.folder, name), content)

    def assertRefused(self, reason: str, function: Any, *arguments: Any) -> None:
        """C{function} refuses a key with C{reason}."""
        error = self.assertRaises(TLSError, function, *arguments)
        self.assertEqual(error.option, "ssl_session_ticket_key")
        self.assertIn(reason, str(error))


class FileTests(Case):
    """L{readTicketKey}."""

    def test_good(self) -> None:
        """A key has 80 bytes."""
        self.assertEqual(readTicketKey(self.keyFile()), KEY)

    def test_short(self) -> None:
        """A key of 48 bytes, which nginx accepts, is refused as such."""
        self.assertRefused("is a 48-byte key (AES-128)", readTicketKey, self.keyFile(KEY[:48]))

    def test_otherSize(self) -> None:
        """A file of another size is refused."""
        for content in (b"", KEY[:79], KEY + b"\n"):
            self.assertRefused(
                'must be 80 bytes; create it with "openssl rand 80"', readTicketKey, self.keyFile(content)
            )

    def test_missing(self) -> None:
        """An unreadable file is refused."""
        missing = os.path.join(self.folder, "missing")
        self.assertRefused("cannot be read: No such file or directory", readTicketKey, missing)


class Borrowed:
    """Python's own context in the form of pyOpenSSL's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # CPython's PySSLContext has it first, after the header of every object.
        pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
        self._context = ffi.cast("SSL_CTX *", pointer)


class ReachTests(Case):
    """L{reachCall}."""

    def test_nothing(self) -> None:
        """A library without OpenSSL has no such call, nor has a file that is not a library."""
        self.assertIsNone(reachCall(ctypes.__file__))
        self.assertIsNone(reachCall(os.path.join(self.folder, "missing")))

    def test_privateChanged(self) -> None:
        """A context of unknown form is not touched."""
        call = reachCall(_ssl.__file__)
        assert call is not None
        nothing: Any = object()
        self.assertFalse(call(nothing, KEY))

    def test_sharedLibrary(self) -> None:
        """With bindings to a shared OpenSSL, the call sets the key of the tickets."""
        call = reachCall(_ssl.__file__)
        assert call is not None
        for version in VERSIONS:
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(self.pair.certificate, self.pair.key)
            borrowed: Any = Borrowed(server)
            self.assertTrue(call(borrowed, KEY))
            self.assertFalse(call(borrowed, KEY[:48]))
            context = clientContext(version)
            client = Client(context)
            self.greet(server, client)
            (ticket,) = Client(context, client.tls.session).offered
            self.assertEqual(ticket[:16], KEY[:16])

    def test_elsewhere(self) -> None:
        """
        A session of one gateway is resumed at another one that has derived the same key, and not where the server has
        another name.
        """
        call = reachCall(_ssl.__file__)
        assert call is not None
        for version in VERSIONS:
            gateways = []
            for name in ("imap", "imap", "pop3"):
                server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                server.load_cert_chain(self.pair.certificate, self.pair.key)
                borrowed: Any = Borrowed(server)
                self.assertTrue(call(borrowed, derivedKey(KEY[:32], name)))
                gateways.append(server)
            context = clientContext(version)
            first = Client(context)
            self.greet(gateways[0], first)
            self.assertFalse(first.tls.session_reused)
            for at, isResumed in ((0, True), (1, True), (2, False)):
                again = Client(context, first.tls.session)
                self.greet(gateways[at], again)
                self.assertEqual(again.tls.session_reused, isResumed, f"{version}, {at}")

    def greet(self, context: ssl.SSLContext, client: Client) -> None:
        """Complete a handshake with C{client}, and send something."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, True)
        while not client.handshaken or incoming.pending:
            client.handshake()
            incoming.write(client.output())
            try:
                server.do_handshake()
                server.write(b"* OK\r\n")
            except ssl.SSLWantReadError:
                pass
            client.feed(outgoing.read())
        self.assertEqual(client.read(), b"* OK\r\n")


class UseTests(Case):
    """L{useTicketKey} and L{ServerTLS}."""

    def context(self) -> SSL.Context:
        return ServerTLS(settingsFor(self.pair), "imap")._contexts.issuing

    def test_here(self) -> None:
        """In this process the key is used, as a ticket shows, or it is refused with the reason."""
        settings = settingsFor(self.pair, ticketKeys=(self.keyFile(),))
        if ticketKeyCall() is None:
            reason = "cryptography package bundles OpenSSL, and hides its call for ticket keys; remove the option"
            self.assertRefused(reason, ServerTLS, settings, "imap")
            self.assertRefused(reason, checkTLS, settings, "imap")
        else:
            checkTLS(settings, "imap")
            self.assertEqual(keyName(ServerTLS(settings, "imap")._contexts.issuing), KEY[:16])

    def test_unproven(self) -> None:
        """A key is refused if OpenSSL reports success, but issues other tickets."""
        reason = "OpenSSL does not issue tickets with this key"
        self.assertRefused(reason, useTicketKey, self.context(), self.keyFile(), True, lambda context, key: True)

    def test_refused(self) -> None:
        """A key is refused if OpenSSL reports failure, with tickets or without."""
        for proves in (True, False):
            refuse = [self.context(), self.keyFile(), proves, lambda context, key: False]
            self.assertRefused("OpenSSL does not issue tickets with this key", useTicketKey, *refuse)

    def pretend(self) -> list[tuple[SSL.Context, bytes]]:
        """Pretend that keys are set, and return them as they come."""
        taken: list[tuple[SSL.Context, bytes]] = []

        def call(context: SSL.Context, key: bytes) -> bool:
            taken.append((context, key))
            return True

        self.patch(ticketkeys, "ticketKeyCall", lambda: call)
        self.patch(ticketkeys, "keyName", lambda context: dict(taken)[context][:16])
        return taken

    def test_several(self) -> None:
        """The first key issues tickets, and all keys accept their own for ever. Each key has a context."""
        taken = self.pretend()
        keys = [bytes([number]) * 80 for number in range(3)]
        files = tuple(self.keyFile(key, f"{key[0]}.key") for key in keys)
        server = ServerTLS(settingsFor(self.pair, ticketKeys=files), "imap")
        self.assertEqual([key for _, key in taken], keys)
        self.assertIs(type(server._contexts), FixedKeys)
        self.assertEqual([server._contexts.issuing, *server._contexts.older], [context for context, _ in taken])
        self.assertTrue(server.readsTickets)

    def test_one(self) -> None:
        """With one key the ClientHello is not read."""
        self.pretend()
        server = ServerTLS(settingsFor(self.pair, ticketKeys=(self.keyFile(),)), "imap")
        self.assertFalse(server.readsTickets)

    def test_noTickets(self) -> None:
        """If tickets are off, keys are read, but not proved by a ticket."""
        taken = self.pretend()
        self.patch(ticketkeys, "keyName", lambda context: self.fail("no ticket"))
        settings = settingsFor(
            self.pair,
            ticketKeys=(self.keyFile(), self.keyFile()),
            sessionTickets=False,
            sessionCache=SessionCache(True),
        )
        server = ServerTLS(settings, "imap")
        checkTLS(settings, "imap")
        self.assertEqual(len(taken), 4)
        self.assertFalse(server.readsTickets)


class SharedTests(Case):
    """Keys that several gateways share."""

    def test_derived(self) -> None:
        """Each server has a key of its own, the same wherever the server has the same name."""
        first, again, other = (derivedKey(bytes(32), name) for name in ("imap", "imap", "pop3"))
        self.assertEqual(len(first), 80)
        self.assertEqual(first, again)
        self.assertNotEqual(first[:16], other[:16])
        self.assertNotEqual(first, derivedKey(bytes(31) + b"x", "imap"))

    def test_ring(self) -> None:
        """Servers share keys unless they have some of their own, or issue no tickets."""
        self.assertIsNotNone(ServerTLS(settingsFor(self.pair), "imap").ring)
        self.assertIsNone(ServerTLS(settingsFor(self.pair, sessionTickets=False), "imap").ring)
        self.patch(ticketkeys, "ticketKeyCall", lambda: lambda context, key: True)
        self.patch(ticketkeys, "keyName", lambda context: KEY[:16])
        self.assertIsNone(ServerTLS(settingsFor(self.pair, ticketKeys=(self.keyFile(),)), "imap").ring)


class ConfigurationTests(Case):
    """The directive in a configuration."""

    TEXT = """
[mailgate]
use = {use}
[server imap]
protocol = imap
listen = 127.0.0.1:143
proxy_pass = 127.0.0.1:1143
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
ssl_session_ticket_key =
    {keys}
{more}
"""

    def problems(self, *keys: str, use: str = "epoll", more: str = "starttls = on") -> list[str]:
        """The problems of a configuration."""
        text = self.TEXT.format(use=use, pair=self.pair, keys="\n    ".join(keys), more=more)
        try:
            parse(text)
        except ConfigurationError as error:
            return str(error).splitlines()
        return []

    def pretend(self) -> None:
        """Pretend that OpenSSL's call can be reached."""
        taken: dict[SSL.Context, bytes] = {}
        self.patch(ticketkeys, "ticketKeyCall", lambda: lambda context, key: taken.update({context: key}) is None)
        self.patch(ticketkeys, "keyName", lambda context: taken[context][:16])

    def test_good(self) -> None:
        """Good keys cause no problem if they can be used."""
        self.pretend()
        self.assertEqual(self.problems(self.keyFile(), self.keyFile(KEY[::-1], "old.key")), [])

    def test_bad(self) -> None:
        """A bad key prevents the start, and the message names it."""
        self.pretend()
        bad = self.keyFile(KEY[:48], "bad.key")
        (line,) = self.problems(self.keyFile(), bad)
        self.assertIn(f"[server imap] ssl_session_ticket_key = {os.path.abspath(bad)}: is a 48-byte key", line)

    def test_outOfReach(self) -> None:
        """If OpenSSL's call is hidden, the directive prevents the start with that reason."""
        self.patch(ticketkeys, "ticketKeyCall", lambda: None)
        (line,) = self.problems(self.keyFile())
        self.assertIn("ssl_session_ticket_key", line)
        self.assertIn("cannot be used: this cryptography package bundles OpenSSL", line)

    def test_plain(self) -> None:
        """A server without TLS does not read its keys."""
        self.assertEqual(self.problems(f"{NOWHERE}", "/else", use="reactor", more="starttls = off"), [])

    def test_reactor(self) -> None:
        """
        With the reactor's own transports, which do not read tickets, one key can be used. Several prevent the start.
        """
        self.pretend()
        self.assertEqual(self.problems(self.keyFile(), use="reactor"), [])
        (line,) = self.problems(self.keyFile(), self.keyFile(KEY, "old.key"), use="reactor")
        self.assertIn("only the first key works with the reactor's own transports", line)
