"""
Tests for L{mailgate.watch.failures}.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import TimeoutError
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import BackendError, LoginRefused, causeOf
from mailgate.login import Denial, Trouble
from mailgate.tls.context import NoApplicationProtocol
from mailgate.tls.errors import HandshakeBroken
from mailgate.watch.failures import HANDSHAKE_FAILURES, backendLoginOutcome, connectOutcome, handshakeFailure


class HandshakeFailureTests(SynchronousTestCase):
    """L{handshakeFailure}."""

    def test_openSSL(self) -> None:
        """OpenSSL's errors, and the alerts of the client in the words of OpenSSL 3 and 4."""
        for reason, expected in (
            ("unsupported protocol", "no_common_version"),
            ("sslv3 alert protocol version", "no_common_version"),
            ("no shared cipher", "no_common_cipher"),
            ("tls alert handshake failure", "no_common_cipher"),
            ("sslv3 alert bad certificate", "bad_certificate"),
            ("tls alert unknown ca", "bad_certificate"),
            ("peer did not return a certificate", "no_certificate"),
            ("http request", "other"),
            ("unexpected eof while reading", "closed"),
        ):
            error = SSL.Error([("SSL routines", "", reason)])
            self.assertEqual(handshakeFailure(error), expected, reason)

    def test_others(self) -> None:
        """Lost connections, and what the gateway ends."""
        for error, expected in (
            (ConnectionLost(), "closed"),
            (ConnectionDone(), "closed"),
            (SSL.Error([]), "closed"),
            (ValueError(), "other"),
            (NoApplicationProtocol([b"h2"], b"imap"), "alpn"),
            (HandshakeBroken(Trouble.TIMEOUT, ""), "timeout"),
            (HandshakeBroken(Trouble.STOPPING, ""), "other"),
            (HandshakeBroken(Trouble.NO_CERTIFICATE, ""), "no_certificate"),
            (HandshakeBroken(Trouble.CERTIFICATE, ""), "bad_certificate"),
        ):
            self.assertEqual(handshakeFailure(error), expected, repr(error))
            self.assertIn(expected, HANDSHAKE_FAILURES)


class BackendFailureTests(SynchronousTestCase):
    """Failures at backends."""

    def test_connect(self) -> None:
        """No connection."""
        for error, expected in (
            (ConnectionRefusedError(), "refused"),
            (TimeoutError(), "timeout"),
            (TCPTimedOutError(), "timeout"),
            (NoRouteError(), "unreachable"),
            (BackendError("is not a valid host name", cause="error"), "unreachable"),
        ):
            self.assertEqual(connectOutcome(error), expected)

    def test_login(self) -> None:
        """No login."""
        for error, expected in (
            (LoginRefused(b"NO", Denial(Trouble.DENIED)), "refused"),
            (LoginRefused(b"NO", Denial(Trouble.TEMPORARY)), "temporary"),
            (BackendError("is full", cause="temporary"), "temporary"),
            (BackendError("has no certificate", cause="tls"), "tls"),
            (BackendError("closed the connection", cause="error"), "lost"),
            (BackendError("sent nonsense"), "lost"),
            (TimeoutError(), "timeout"),
        ):
            self.assertEqual(backendLoginOutcome(error, causeOf(error)), expected)
