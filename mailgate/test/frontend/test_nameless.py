"""
Logins without a user name: OAUTHBEARER without C{a=} (RFC 7628), EXTERNAL with an empty response (RFC 4422). The
authenticator may name the user. Otherwise the login is refused.
"""

from __future__ import annotations

import base64

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passthrough import PassThroughAuthenticator
from mailgate.login import Backend, Credentials, Method
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.wordings import WORDINGS
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector

REFUSALS = (
    b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n",
    b"-ERR [AUTH] Authentication failed\r\n",
    b"535 5.7.8 Authentication failed\r\n",
)
LOGINS = (
    (b"OAUTHBEARER", b"n,,\x01auth=Bearer token\x01\x01", Credentials(Method.OAUTHBEARER, b"", b"token")),
    (b"XOAUTH2", b"user=\x01auth=Bearer token\x01\x01", Credentials(Method.XOAUTH2, b"", b"token")),
    (b"EXTERNAL", b"", Credentials(Method.EXTERNAL)),
    (b"PLAIN", b"\0\0secret", Credentials(Method.PLAIN, b"", b"secret")),
)
METHODS = ("plain", "external", "oauthbearer", "xoauth2")
NAMELESS = evolve(ROUTE, user=b"")


class NamelessTests(SynchronousTestCase):
    """Each protocol with each mechanism that allows an empty name."""

    def test_named(self) -> None:
        """The service judges the login, and the user that it names is logged in."""
        for wording in WORDINGS:
            for name, response, credentials in LOGINS:
                connector = FakeConnector(FakeClient(wording.accepted))
                answers = FakeAuthenticator(evolve(ROUTE, user=b"joe"))
                conversation = wording.converse(*METHODS, authenticator=answers, connector=connector)
                initial = base64.b64encode(response) or b"="
                self.assertEqual(conversation.says(wording.auth + name + b" " + initial), wording.accepted)
                self.assertEqual(conversation.requests[0].credentials, credentials)
                self.assertEqual(conversation.server.session.user, b"joe")

    def test_nobody(self) -> None:
        """An acceptance without a user is a refusal, and the log has the reason."""
        for wording, refusal in zip(WORDINGS, REFUSALS, strict=True):
            for name, response, _ in LOGINS:
                connector = FakeConnector(FakeClient(wording.accepted))
                conversation = wording.converse(
                    *METHODS, authenticator=FakeAuthenticator(NAMELESS), connector=connector
                )
                initial = base64.b64encode(response) or b"="
                heard = conversation.says(wording.auth + name + b" " + initial)
                if "OAUTH" in name.decode():
                    # The error of the token comes first.
                    heard = conversation.says(b"")
                self.assertEqual(heard, refusal)
                self.assertEqual(connector.routes, [])
                log = "".join(conversation.logged())
                self.assertIn("reason neither the client nor the authenticator named a user", log)
                self.assertNotIn("token,", log)

    def test_passThrough(self) -> None:
        """With C{proxy_pass} alone no backend is contacted."""
        for wording, refusal in zip(WORDINGS, REFUSALS, strict=True):
            connector = FakeConnector(FakeClient(wording.accepted))
            passing = PassThroughAuthenticator(Backend("192.0.2.99", 143))
            conversation = wording.converse("plain", authenticator=passing, connector=connector)
            self.assertEqual(conversation.says(wording.auth + b"PLAIN AABzZWNyZXQ="), refusal)
            self.assertEqual(connector.routes, [])

    def test_recipient(self) -> None:
        """A recipient under C{smtp_auth none} has no user and needs none."""
        connector = FakeConnector(FakeClient(b"250 2.1.5 Ok\r\n"))
        conversation = Conversation(
            SMTP, SMTPSettings(auth=("none",)), authenticator=FakeAuthenticator(NAMELESS), connector=connector
        )
        conversation.says(b"EHLO c.test", b"MAIL FROM:<a@b>")
        self.assertEqual(conversation.says(b"RCPT TO:<c@d>"), b"250 2.1.5 Ok\r\n")
