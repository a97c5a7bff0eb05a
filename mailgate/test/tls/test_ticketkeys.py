"""
Tests for L{mailgate.tls.ticketkeys}. Whether cryptography's OpenSSL can be reached depends on who has built it; so it
is Python's own that keys are set in here.
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
from mailgate.tls.ticketkeys import reachCall, readTicketKey, ticketKeyCall, useTicketKey
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
        """C{function} says C{reason} of a key."""
        error = self.assertRaises(TLSError, function, *arguments)
        self.assertEqual(error.option, "ssl_session_ticket_key")
        self.assertIn(reason, str(error))


class FileTests(Case):
    """L{readTicketKey}."""

    def test_good(self) -> None:
        """A key has 80 bytes."""
        self.assertEqual(readTicketKey(self.keyFile()), KEY)

    def test_short(self) -> None:
        """One of 48, which nginx takes as well, is refused by name."""
        self.assertRefused("is a 48-byte key (AES-128)", readTicketKey, self.keyFile(KEY[:48]))

    def test_otherSize(self) -> None:
        """One of any other size is none."""
        for content in (b"", KEY[:79], KEY + b"\n"):
            self.assertRefused(
                'must be 80 bytes; create it with "openssl rand 80"', readTicketKey, self.keyFile(content)
            )

    def test_missing(self) -> None:
        """What cannot be read is refused."""
        missing = os.path.join(self.folder, "missing")
        self.assertRefused("cannot be read: No such file or directory", readTicketKey, missing)


class Borrowed:
    """Python's own context, as pyOpenSSL would have it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # CPython's PySSLContext begins with it, behind what every object has.
        pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
        self._context = ffi.cast("SSL_CTX *", pointer)


class ReachTests(Case):
    """L{reachCall}."""

    def test_nothing(self) -> None:
        """A library that does not lead to OpenSSL has no such call, nor has a file that is no library."""
        self.assertIsNone(reachCall(ctypes.__file__))
        self.assertIsNone(reachCall(os.path.join(self.folder, "missing")))

    def test_privateChanged(self) -> None:
        """A context that is not what pyOpenSSL's is today is not touched."""
        call = reachCall(_ssl.__file__)
        assert call is not None
        nothing: Any = object()
        self.assertFalse(call(nothing, KEY))

    def test_sharedLibrary(self) -> None:
        """Through bindings that are built on a shared OpenSSL it sets the key that tickets are issued by."""
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

    def greet(self, context: ssl.SSLContext, client: Client) -> None:
        """Shake hands with C{client}, and say something."""
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
    """L{useTicketKey}, and L{ServerTLS} with it."""

    def context(self) -> SSL.Context:
        return ServerTLS(settingsFor(self.pair), "imap")._contexts.issuing

    def test_here(self) -> None:
        """With the bindings of this process it works, which shows in a ticket; or else it is refused for the reason."""
        settings = settingsFor(self.pair, ticketKeys=(self.keyFile(),))
        if ticketKeyCall() is None:
            reason = "cryptography package bundles OpenSSL, and hides its call for ticket keys; remove the option"
            self.assertRefused(reason, ServerTLS, settings, "imap")
            self.assertRefused(reason, checkTLS, settings, "imap")
        else:
            checkTLS(settings, "imap")
            self.assertEqual(keyName(ServerTLS(settings, "imap")._contexts.issuing), KEY[:16])

    def test_unproven(self) -> None:
        """Where OpenSSL says that it has taken a key, and tickets say otherwise, it is refused."""
        reason = "OpenSSL does not issue tickets with this key"
        self.assertRefused(reason, useTicketKey, self.context(), self.keyFile(), True, lambda context, key: True)

    def test_refused(self) -> None:
        """Where OpenSSL does not take a key it is refused, tickets or not."""
        for proves in (True, False):
            refuse = [self.context(), self.keyFile(), proves, lambda context, key: False]
            self.assertRefused("OpenSSL does not issue tickets with this key", useTicketKey, *refuse)

    def pretend(self) -> list[tuple[SSL.Context, bytes]]:
        """Have keys seem to be taken; gives what is, as it comes."""
        taken: list[tuple[SSL.Context, bytes]] = []

        def call(context: SSL.Context, key: bytes) -> bool:
            taken.append((context, key))
            return True

        self.patch(ticketkeys, "ticketKeyCall", lambda: call)
        self.patch(ticketkeys, "keyName", lambda context: dict(taken)[context][:16])
        return taken

    def test_several(self) -> None:
        """The first key issues tickets, and all take them, for ever: each has a context."""
        taken = self.pretend()
        keys = [bytes([number]) * 80 for number in range(3)]
        files = tuple(self.keyFile(key, f"{key[0]}.key") for key in keys)
        server = ServerTLS(settingsFor(self.pair, ticketKeys=files), "imap")
        self.assertEqual([key for _, key in taken], keys)
        self.assertIs(type(server._contexts), FixedKeys)
        self.assertEqual([server._contexts.issuing, *server._contexts.older], [context for context, _ in taken])
        self.assertTrue(server.readsTickets)

    def test_one(self) -> None:
        """With one there is nothing to look at a ClientHello for."""
        self.pretend()
        server = ServerTLS(settingsFor(self.pair, ticketKeys=(self.keyFile(),)), "imap")
        self.assertFalse(server.readsTickets)

    def test_noTickets(self) -> None:
        """Where no tickets are issued keys are checked, but there is no ticket to prove them by."""
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
        """What is wrong."""
        text = self.TEXT.format(use=use, pair=self.pair, keys="\n    ".join(keys), more=more)
        try:
            parse(text)
        except ConfigurationError as error:
            return str(error).splitlines()
        return []

    def pretend(self) -> None:
        """Have OpenSSL within reach."""
        taken: dict[SSL.Context, bytes] = {}
        self.patch(ticketkeys, "ticketKeyCall", lambda: lambda context, key: taken.update({context: key}) is None)
        self.patch(ticketkeys, "keyName", lambda context: taken[context][:16])

    def test_good(self) -> None:
        """Where keys can be used there is nothing to say of good ones."""
        self.pretend()
        self.assertEqual(self.problems(self.keyFile(), self.keyFile(KEY[::-1], "old.key")), [])

    def test_bad(self) -> None:
        """A bad one stops the start, and is named."""
        self.pretend()
        bad = self.keyFile(KEY[:48], "bad.key")
        (line,) = self.problems(self.keyFile(), bad)
        self.assertIn(f"[server imap] ssl_session_ticket_key = {os.path.abspath(bad)}: is a 48-byte key", line)

    def test_outOfReach(self) -> None:
        """Where OpenSSL hides its call the directive stops the start, for that reason."""
        self.patch(ticketkeys, "ticketKeyCall", lambda: None)
        (line,) = self.problems(self.keyFile())
        self.assertIn("ssl_session_ticket_key", line)
        self.assertIn("cannot be used: this cryptography package bundles OpenSSL", line)

    def test_plain(self) -> None:
        """Where no TLS is spoken it is not looked at."""
        self.assertEqual(self.problems(f"{NOWHERE}", "/else", use="reactor", more="starttls = off"), [])

    def test_reactor(self) -> None:
        """Over the reactor's own transports, which look at no ticket, one can be used, and several stop the start."""
        self.pretend()
        self.assertEqual(self.problems(self.keyFile(), use="reactor"), [])
        (line,) = self.problems(self.keyFile(), self.keyFile(KEY, "old.key"), use="reactor")
        self.assertIn("only the first key works with the reactor's own transports", line)
