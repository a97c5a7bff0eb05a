"""
Tests of L{mailgate.auth.http.presets}. L{mailgate.test.auth.http.test_authservices} tests what each service makes of
its requests.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.dialect import ESCAPES, NGINX, PROTOCOL_NAMES, Dialect
from mailgate.auth.http.presets import PRESETS, Preset, dialectOf
from mailgate.login import Client, Credentials, LoginRequest, Method
from mailgate.registry import PROTOCOLS
from mailgate.test.support.findings import askedOf


def dialect(name: str, protocol: str = "imap", *headers: tuple[bytes, bytes], **written: Any) -> Dialect:
    """Return the dialect of the preset C{name} with an operator's directives."""
    return dialectOf(PRESETS[name], protocol, headers, **written)


class PresetTests(SynchronousTestCase):
    """The presets, and directives with them."""

    def test_nginx(self) -> None:
        """Without special requirements, requests are those of nginx."""
        self.assertEqual(dialectOf(Preset(), "imap", ()), NGINX)

    def test_good(self) -> None:
        """Every preset uses known protocols, escapes and names, and its headers are valid."""
        for preset in PRESETS.values():
            self.assertLessEqual(set(preset.protocols), PROTOCOLS.keys())
            self.assertLessEqual(preset.byProtocol.keys(), set(preset.protocols))
            self.assertLessEqual(set(preset.escape), ESCAPES.keys())
            self.assertIn(preset.names, PROTOCOL_NAMES)
            for name, text in (*preset.encoding, *preset.headers, *sum(preset.byProtocol.values(), ())):
                self.assertRegex(name, rb"\A[A-Za-z-]+\Z")
                self.assertRegex(text, rb"\A[!-~]+\Z")

    def test_foundOut(self) -> None:
        """For each preset only the details in its headers are looked up."""
        request = LoginRequest("imap", Credentials(Method.PLAIN), Client("192.0.2.7", 1))
        found = {
            name: askedOf(request.client, lambda client, of=name: dialect(of).values(evolve(request, client=client)))
            for name in PRESETS
        }
        local = ["local"]
        self.assertEqual(found, {"mailu": local, "zimbra": local, "kolab": [], "bluemind": [], "nauthilus": local})

    def test_headersWin(self) -> None:
        """A configured header replaces the preset's of the same name, in any case; the others stay."""
        spoken = dialect("mailu", "imap", (b"X-Key", b"1"), (b"auth-PORT", b"587"))
        self.assertEqual(spoken.headers, ((b"Client-Port", b"$remote_port"), (b"X-Key", b"1"), (b"auth-PORT", b"587")))

    def test_wordsWin(self) -> None:
        """Every other directive takes precedence too."""
        spoken = dialect("zimbra", escape="url", names="nginx", showsPassword=True)
        self.assertIs(spoken.escapeUser, ESCAPES["url"])
        self.assertIs(spoken.escapePassword, ESCAPES["url"])
        self.assertIs(spoken.protocolName, PROTOCOL_NAMES["nginx"])
        self.assertTrue(spoken.showsPassword)
        self.assertFalse(dialect("zimbra").showsPassword)
        self.assertFalse(dialect("kolab", showsPassword=False).showsPassword)

    def test_encodingGoes(self) -> None:
        """The header that announces the preset's escape is not sent with another one."""
        said = (b"X-Auth-Password-Encoded", b"1")
        self.assertIn(said, dialect("nauthilus").headers)
        self.assertNotIn(said, dialect("nauthilus", escape="nginx").headers)

    def test_byProtocol(self) -> None:
        """A header can differ for each protocol."""
        self.assertEqual(dialect("bluemind", "imap").headers, ((b"X-Auth-Port", b"1143"),))
        self.assertEqual(dialect("bluemind", "pop3").headers, ((b"X-Auth-Port", b"1110"),))
        self.assertEqual(dialect("bluemind", "smtp").headers, ())

    def test_missing(self) -> None:
        """No preset accepts responses without a status; that needs its own directive."""
        for name in PRESETS:
            self.assertFalse(dialect(name).acceptsMissing)
            self.assertTrue(dialect(name, acceptsMissing=True).acceptsMissing)
