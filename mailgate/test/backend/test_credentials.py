"""
Tests for L{mailgate.backend.credentials}.
"""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import BackendError


class PasswordLoginTests(SynchronousTestCase):
    """L{PasswordLogin}."""

    def test_noPassword(self) -> None:
        """A missing password raises an error."""
        for use in (lambda login: login.knownPassword, lambda login: login.plainMessage):
            error = self.assertRaises(BackendError, use, PasswordLogin(b"joe", None))
            self.assertIn("needs a password", str(error))

    def test_emptyPassword(self) -> None:
        """An empty password counts as a password."""
        self.assertEqual(PasswordLogin(b"joe", b"").knownPassword, b"")

    def test_plain(self) -> None:
        """The message of PLAIN has the authorization identity, if there is one, before the name."""
        for authzid, message in ((None, b"\0joe\0sesame"), (b"", b"\0joe\0sesame"), (b"ann", b"ann\0joe\0sesame")):
            login = PasswordLogin(b"joe", b"sesame", authzid)
            self.assertEqual(base64.b64decode(login.plainMessage), message)

    def test_secret(self) -> None:
        """The repr does not have the password."""
        self.assertNotIn("sesame", repr(PasswordLogin(b"joe", b"sesame")))
