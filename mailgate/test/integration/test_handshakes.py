# -*- test-case-name: mailgate.test.integration.test_handshakes -*-
"""
Log lines about failed handshakes of OpenSSL's client, C{openssl s_client}.
"""

from __future__ import annotations

import os

from twisted.internet.utils import getProcessOutputAndValue

from mailgate.test.integration.programs import programPath, require
from mailgate.test.support.certificates import Authority
from mailgate.test.tls.test_handshakes import NO_TLS, SILENT, OutcomeCase


class ClientTests(OutcomeCase):
    """Each kind of failed handshake has its own words."""

    def setUp(self) -> None:
        require("openssl")
        super().setUp()

    async def told(self, *options: str, name: str = "imaps") -> str:
        """The outcome for the client with these C{options}."""
        place = f"127.0.0.1:{self.ports[name]}"
        program = programPath("openssl")
        assert program is not None
        await getProcessOutputAndValue(program, ["s_client", "-connect", place, *options], os.environ)
        return await self.outcome()

    async def test_client(self) -> None:
        """
        Its version is too old, it does not trust the certificate, it shares no cipher, or it wants another protocol.
        """
        self.start()
        other = Authority(self.folder, "other").certificate
        old = "unsupported protocol: the client supports TLS 1.1 at most"
        self.assertEqual(await self.told("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), f"TLS handshake failed ({old})")
        untrusting = (
            "tlsv1 alert unknown ca: the client does not trust the issuer of the server certificate, or the chain is"
            " incomplete"
        )
        for version in ("-tls1_2", "-tls1_3"):
            told = await self.told(version, "-CAfile", other, "-verify_return_error")
            self.assertEqual(told, f"TLS handshake failed ({untrusting})")
        told = await self.told("-starttls", "imap", "-CAfile", other, "-verify_return_error", name="imap")
        self.assertEqual(told, f"TLS handshake failed ({untrusting})")
        told = await self.told("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
        self.assertIn(
            "TLS handshake failed (no shared cipher: the client offers no cipher that ssl_ciphers allows", told
        )
        told = await self.told("-alpn", "h2")
        self.assertIn('(no application protocol: the client offers "h2" by ALPN; the server accepts "imap")', told)

    async def test_others(self) -> None:
        """An HTTP request, a mail client without TLS and a port scan have different words."""
        self.start()
        self.assertIn("(http request: ", await self.said("imaps", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        self.assertRegex(await self.said("imaps", b"a NOOP\r\n"), rf"\({NO_TLS}: the client does not speak TLS\)\Z")
        client = await self.connect("imaps")
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await self.outcome(), SILENT)


class ClientOverReactorTests(ClientTests):
    """The same with the reactor's own transports."""

    use = "reactor"
