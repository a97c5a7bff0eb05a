"""
Tests of L{mailgate.limits.settings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.settings import LimitSettings
from mailgate.login import Client, Credentials, Envelope, LoginRequest, Method
from mailgate.net.networks import parseNetworks


def request(host: str, user: bytes = b"joe") -> LoginRequest:
    """Return a login of C{user} from C{host}."""
    return LoginRequest("imap", Credentials(Method.PLAIN, user, b"sesame"), Client(host, 40123))


class ClientTests(SynchronousTestCase):
    """The client that a login counts for."""

    def test_address(self) -> None:
        settings = LimitSettings()
        self.assertEqual(settings.clientOf(request("192.0.2.7")), "192.0.2.7")
        self.assertEqual(settings.clientOf(request("192.0.2.7", b"ann")), "192.0.2.7")
        self.assertEqual(settings.clientOf(request("2001:db8::7")), "2001:db8::/64")

    def test_exempt(self) -> None:
        """From an exempt network each user counts as a client, in any case of letters. The key is never an address."""
        settings = LimitSettings(parseNetworks("192.0.2.0/24", "/"))
        self.assertEqual(settings.clientOf(request("192.0.2.7", b"Joe")), settings.clientOf(request("192.0.2.8")))
        self.assertNotEqual(settings.clientOf(request("192.0.2.7")), settings.clientOf(request("192.0.2.7", b"ann")))
        self.assertEqual(settings.clientOf(request("198.51.100.7")), "198.51.100.7")
        self.assertNotEqual(settings.clientOf(request("192.0.2.7", b"198.51.100.7")), "198.51.100.7")

    def test_exemptRecipients(self) -> None:
        """With smtp_auth = none there is no user, so each recipient from an exempt network counts as a client."""
        settings = LimitSettings(parseNetworks("192.0.2.0/24", "/"))

        def of(host: str, recipient: bytes) -> str:
            envelope = Envelope(b"mx.test", True, b"MAIL FROM:<a@example.org>", b"RCPT TO:<%b@example.com>" % recipient)
            return settings.clientOf(
                LoginRequest("smtp", Credentials(Method.NONE), Client(host, 40123), envelope=envelope)
            )

        self.assertNotEqual(of("192.0.2.7", b"joe"), of("192.0.2.7", b"ann"))
        self.assertEqual(of("192.0.2.7", b"joe"), of("192.0.2.8", b"Joe"))
        self.assertEqual(of("198.51.100.7", b"joe"), of("198.51.100.7", b"ann"))
