"""
Tests for L{mailgate.backend.mechanisms}, and for C{proxy_auth} in each protocol.
"""

from __future__ import annotations

import base64

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.mechanisms import mechanismFor
from mailgate.backend.settings import ProxySettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import Backend, Denial, RouteOptions, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.testing import Attempt, routeTo

BACKEND = Backend("mail.test", 143)


def encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


class MessageTests(SynchronousTestCase):
    """What the client says."""

    def message(self, method: str, user: bytes = b"joe", authzid: bytes | None = None) -> bytes:
        mechanism = mechanismFor(method, PasswordLogin(user, b"secret", authzid), BACKEND)
        self.assertNotIn("secret", repr(mechanism))
        return base64.b64decode(mechanism.message)

    def test_messages(self) -> None:
        """Each to the byte (RFC 4616, 4422, 7628, and Google's XOAUTH2)."""
        self.assertEqual(self.message("plain"), b"\0joe\0secret")
        self.assertEqual(self.message("plain", authzid=b"ann"), b"ann\0joe\0secret")
        self.assertEqual(self.message("external"), b"joe")
        self.assertEqual(self.message("external", authzid=b"ann"), b"ann")
        self.assertEqual(self.message("xoauth2"), b"user=joe\1auth=Bearer secret\1\1")
        token = b"n,a=j=3Do=2Ce,\1host=mail.test\1port=143\1auth=Bearer secret\1\1"
        self.assertEqual(self.message("oauthbearer", b"j=o,e"), token)

    def test_fields(self) -> None:
        """A user name or a token with the byte that ends a field of the message is refused before any connection."""
        for method in ("xoauth2", "oauthbearer"):
            for changes in ({"user": b"ann\1auth=Bearer x\1\1"}, {"password": b"x\1y"}, {"authzid": b"a\1b"}):
                attempt = Attempt(IMAP4, ProxySettings(method=method), route=routeTo(**changes))
                self.assertEqual(self.successResultOf(attempt.result).trouble, Trouble.DENIED)
                self.assertEqual(attempt.tried, [])

    def test_empty(self) -> None:
        """An empty message is = as an initial response."""
        self.assertEqual(mechanismFor("external", PasswordLogin(b"", None), BACKEND).initial, b"=")


class IMAP4Tests(SynchronousTestCase):
    """AUTHENTICATE, or LOGIN."""

    def begin(self, method: str, capabilities: bytes = b"", **route: object) -> bytes:
        self.attempt = Attempt(IMAP4, ProxySettings(method=method), route=routeTo(**route))
        self.attempt.accept()
        code = b"[CAPABILITY IMAP4rev1 " + capabilities + b"] " if capabilities else b""
        return self.attempt.says(b"* OK " + code + b"ready\r\n")

    def test_auto(self) -> None:
        """LOGIN, unless it is disabled, or the password needs a literal and PLAIN is offered."""
        plain = b"a1 AUTHENTICATE PLAIN"
        self.assertEqual(self.begin("auto", b"AUTH=PLAIN SASL-IR"), b'a1 LOGIN "joe" "sesame"\r\n')
        self.assertEqual(self.begin("auto"), b'a1 LOGIN "joe" "sesame"\r\n')
        self.assertEqual(self.begin("auto", b"LOGINDISABLED AUTH=PLAIN"), plain + b"\r\n")
        message = encoded("\0joe\0s\u00e9same".encode())
        password = "s\u00e9same".encode()
        heard = self.begin("auto", b"AUTH=PLAIN SASL-IR", password=password)
        self.assertEqual(heard, plain + b" " + message + b"\r\n")
        self.assertEqual(self.begin("auto", b"SASL-IR", password=password), b'a1 LOGIN "joe" {7}\r\n')

    def test_initialResponse(self) -> None:
        """Without SASL-IR, or IMAP4rev2, the message waits for the backend to ask."""
        self.assertIn(encoded(b"\0joe\0sesame"), self.begin("plain", b"IMAP4rev2 AUTH=PLAIN"))
        self.assertEqual(self.begin("plain", b"AUTH=PLAIN"), b"a1 AUTHENTICATE PLAIN\r\n")
        self.assertEqual(self.attempt.says(b"+ \r\n"), encoded(b"\0joe\0sesame") + b"\r\n")
        self.attempt.says(b"a1 OK in\r\n")
        self.assertIsInstance(self.successResultOf(self.attempt.result), ProxyClient)

    def test_notOffered(self) -> None:
        """A backend that lists mechanisms, and not this one, hears no password."""
        self.assertEqual(self.begin("plain", b"AUTH=CRAM-MD5"), b"")
        self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))
        self.assertIn("does not offer AUTH=PLAIN", self.attempt.log[0])

    def test_token(self) -> None:
        """The challenge that explains why a token is refused is answered, and the refusal counts."""
        for method, name, rejoinder in (("xoauth2", b"XOAUTH2", b"\r\n"), ("oauthbearer", b"OAUTHBEARER", b"AQ==\r\n")):
            heard = self.begin(method, b"SASL-IR AUTH=" + name)
            self.assertTrue(heard.startswith(b"a1 AUTHENTICATE " + name + b" "), heard)
            self.assertEqual(self.attempt.says(b"+ e30=\r\n"), rejoinder)
            self.attempt.says(b"a1 NO token expired\r\n")
            self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))

    def test_login(self) -> None:
        """LOGIN alone, which has no place for another identity."""
        self.assertEqual(self.begin("login", b"LOGINDISABLED AUTH=PLAIN"), b'a1 LOGIN "joe" "sesame"\r\n')
        self.assertEqual(self.begin("login", authzid=b"ann"), b"")
        self.assertEqual(self.successResultOf(self.attempt.result).trouble, Trouble.UNAUTHORIZED)

    def test_none(self) -> None:
        """A backend that has logged the connection in already."""
        attempt = Attempt(IMAP4, ProxySettings(method="none"))
        attempt.accept()
        self.assertEqual(attempt.says(b"* PREAUTH welcome\r\n"), b"")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"a1 OK Logged in\r\n")
        self.assertEqual(self.begin("none"), b"")
        self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))

    def test_noneDecided(self) -> None:
        """
        If the authenticator names the method, the backend must greet as that method needs it. Otherwise the client
        could log in at the backend as any user, past the gateway.
        """
        for directive, decided, greeting, isRefused in (
            ("auto", "none", b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n", True),
            ("auto", "none", b"* PREAUTH welcome\r\n", False),
            ("none", "login", b"* PREAUTH welcome\r\n", True),
            ("none", "login", b"* OK ready\r\n", False),
        ):
            route = routeTo(options=RouteOptions(method=decided))
            attempt = Attempt(IMAP4, ProxySettings(method=directive), route=route)
            attempt.accept()
            heard = attempt.says(greeting)
            if isRefused:
                self.assertEqual((heard, self.successResultOf(attempt.result)), (b"", Denial(Trouble.TEMPORARY)))
            elif decided == "none":
                self.assertEqual(self.successResultOf(attempt.result).reply, b"a1 OK Logged in\r\n")
            else:
                self.assertEqual(heard, b'a1 LOGIN "joe" "sesame"\r\n')

    def test_preauthRefused(self) -> None:
        """Where a login is expected PREAUTH is none: it would be somebody else's mailbox."""
        attempt = Attempt(IMAP4)
        attempt.accept()
        self.assertEqual(attempt.says(b"* PREAUTH welcome\r\n"), b"")
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))


class POP3Tests(SynchronousTestCase):
    """AUTH, or USER and PASS."""

    def begin(self, method: str, **route: object) -> bytes:
        self.attempt = Attempt(POP3, ProxySettings(method=method), route=routeTo(**route))
        self.attempt.accept()
        return self.attempt.says(b"+OK ready\r\n")

    def test_exchange(self) -> None:
        """The message follows the backend's request."""
        self.assertEqual(self.begin("plain"), b"AUTH PLAIN\r\n")
        self.assertEqual(self.attempt.says(b"+ \r\n"), encoded(b"\0joe\0sesame") + b"\r\n")
        self.attempt.says(b"+OK in\r\n")
        self.assertEqual(self.successResultOf(self.attempt.result).reply, b"+OK in\r\n")

    def test_token(self) -> None:
        """A token, refused with an explanation."""
        self.assertEqual(self.begin("xoauth2"), b"AUTH XOAUTH2\r\n")
        self.attempt.says(b"+ \r\n")
        self.assertEqual(self.attempt.says(b"+ e30=\r\n"), b"\r\n")
        self.attempt.says(b"-ERR expired\r\n")
        self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))

    def test_notTaken(self) -> None:
        """A backend without AUTH is a failure of the backend."""
        self.begin("external")
        self.attempt.says(b"-ERR what?\r\n")
        self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))
        self.assertIn("answers AUTH EXTERNAL with -ERR", self.attempt.log[0])

    def test_login(self) -> None:
        """USER and PASS have no place for another identity."""
        self.assertEqual(self.begin("login"), b"USER joe\r\n")
        self.begin("login", authzid=b"ann")
        self.assertEqual(self.successResultOf(self.attempt.result).trouble, Trouble.UNAUTHORIZED)


class SMTPTests(SynchronousTestCase):
    """AUTH, by what EHLO offers."""

    def begin(self, method: str, offer: bytes, password: bytes = b"sesame") -> bytes:
        settings = ProxySettings(method=method), SMTPSettings(proxyAuth=True)
        self.attempt = Attempt(SMTP, *settings, route=routeTo(password=password))
        self.attempt.accept()
        self.attempt.says(b"220 ready\r\n")
        return self.attempt.says(b"250-mx\r\n250 AUTH " + offer + b"\r\n")

    def test_methods(self) -> None:
        """auto takes PLAIN, or LOGIN where that alone is offered; the others what they say."""
        plain = b"AUTH PLAIN " + encoded(b"\0joe\0sesame") + b"\r\n"
        for method, offer, expected in (
            ("auto", b"PLAIN LOGIN", plain),
            ("auto", b"LOGIN XOAUTH2", b"AUTH LOGIN\r\n"),
            ("login", b"PLAIN LOGIN", b"AUTH LOGIN\r\n"),
            ("plain", b"PLAIN LOGIN", plain),
            ("external", b"PLAIN EXTERNAL", b"AUTH EXTERNAL am9l\r\n"),
            ("plain", b"LOGIN", b""),
        ):
            self.assertEqual(self.begin(method, offer), expected, (method, offer))

    def test_long(self) -> None:
        """A token that a command has no room for goes into a line of its own."""
        self.assertEqual(self.begin("xoauth2", b"XOAUTH2", b"t" * 1000), b"AUTH XOAUTH2\r\n")
        heard = self.attempt.says(b"334 \r\n")
        self.assertIn(b"Bearer " + b"t" * 1000, base64.b64decode(heard))

    def test_tokenRefused(self) -> None:
        """The challenge that explains a refusal is answered."""
        self.begin("xoauth2", b"XOAUTH2")
        self.assertEqual(self.attempt.says(b"334 e30=\r\n"), b"\r\n")
        self.attempt.says(b"535 5.7.8 expired\r\n")
        self.assertEqual(self.successResultOf(self.attempt.result), Denial(Trouble.TEMPORARY))

    def test_none(self) -> None:
        """Without AUTH the login ends with EHLO."""
        self.assertEqual(self.begin("none", b"PLAIN"), b"")


class LengthTests(SynchronousTestCase):
    """What standards allow on one line, and messages that a backend does not accept."""

    def imap(self, password: bytes, *more: object) -> tuple[Attempt, bytes]:
        route = routeTo(password=password)
        attempt = Attempt(IMAP4, ProxySettings(method="xoauth2"), *more, route=route)
        attempt.accept()
        return attempt, attempt.says(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")

    def test_imap(self) -> None:
        """A line of IMAP has up to 8,192 bytes (RFC 7162, section 4). Longer messages wait for the empty challenge."""
        for length, isInitial in ((6100, True), (6101, False), (10000, False)):
            attempt, heard = self.imap(b"t" * length)
            self.assertEqual(heard != b"a1 AUTHENTICATE XOAUTH2\r\n", isInitial, length)
            if isInitial:
                self.assertLessEqual(len(heard), 8192)
            else:
                self.assertIn(b"t" * length, base64.b64decode(attempt.says(b"+ \r\n")))

    def test_smtp(self) -> None:
        """A line of SMTP has up to 512 bytes (RFC 5321, section 4.5.3.1.4)."""
        for length, isInitial in ((349, True), (350, False)):
            settings = ProxySettings(method="xoauth2"), SMTPSettings(proxyAuth=True)
            attempt = Attempt(SMTP, *settings, route=routeTo(password=b"t" * length))
            attempt.accept()
            attempt.says(b"220 ready\r\n")
            heard = attempt.says(b"250-mx\r\n250 AUTH XOAUTH2\r\n")
            self.assertLessEqual(len(heard), 512)
            self.assertEqual(heard != b"AUTH XOAUTH2\r\n", isInitial, length)

    def test_pop3(self) -> None:
        """The command of POP3, which has up to 255 bytes (RFC 2449, section 4), never has the message."""
        attempt = Attempt(POP3, ProxySettings(method="plain"))
        attempt.accept()
        self.assertEqual(attempt.says(b"+OK ready\r\n"), b"AUTH PLAIN\r\n")

    def lost(self, attempt: Attempt) -> bool:
        """The backend closes the connection. Return whether it counts as a failure of the backend."""
        attempt.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        return "which may be too long for it" not in attempt.log[0]

    def test_dropped(self) -> None:
        """A backend that drops the connection because of a long token has not failed: the client chose its length."""
        for length, counts in ((4096, True), (4097, False), (10000, False)):
            attempt, _ = self.imap(b"t" * length)
            self.assertEqual(self.lost(attempt), counts, length)

    def test_notTriedElsewhere(self) -> None:
        """Nor is the token sent to other backends, which would drop it, too."""
        for length, most in ((10000, 1), (100, 2)):
            route = routeTo(Backend("192.0.2.1", 143), Backend("192.0.2.2", 143), password=b"t" * length)
            attempt = Attempt(IMAP4, ProxySettings(method="xoauth2"), route=route)
            for _ in range(most):
                attempt.accept()
                attempt.says(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
                attempt.transport.lose(ConnectionLost())
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertEqual(len(attempt.tried), most)

    def test_otherErrors(self) -> None:
        """Other failures count, however long the token is."""
        attempt, _ = self.imap(b"t" * 10000)
        attempt.says(b"what?\r\n")
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertNotIn("too long for it", attempt.log[0])


class MasterTests(SynchronousTestCase):
    """proxy_auth_user and proxy_auth_pass."""

    def heard(self, user: str, **route: object) -> bytes:
        settings = ProxySettings(masterUser=user, masterPassword="key")
        self.attempt = Attempt(IMAP4, settings, route=routeTo(**route))
        self.attempt.accept()
        return self.attempt.says(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")

    def test_authzid(self) -> None:
        """The master user logs in, and the user's mailbox is opened."""
        expected = b"a1 AUTHENTICATE PLAIN " + encoded(b"joe\0gateway\0key") + b"\r\n"
        self.assertEqual(self.heard("gateway"), expected)

    def test_form(self) -> None:
        """Dovecot's form with a separator needs no SASL."""
        self.assertEqual(self.heard("$user*gateway"), b'a1 LOGIN "joe*gateway" "key"\r\n')

    def test_mailbox(self) -> None:
        """XCLIENT names the user whose mailbox is opened, without the master user."""
        for user in ("$user*gateway", "gateway"):
            settings = ProxySettings(masterUser=user, masterPassword="key"), SMTPSettings(xclient="on")
            attempt = Attempt(SMTP, *settings)
            attempt.accept()
            heard = attempt.says(b"220 ready\r\n", b"250-mx\r\n250 XCLIENT\r\n")
            self.assertIn(b" LOGIN=joe ", heard)

    def test_withoutLogin(self) -> None:
        """A client without a login never becomes the master user at the backend by XCLIENT's LOGIN."""
        for user in ("$user*gateway", "gateway"):
            settings = ProxySettings(masterUser=user, masterPassword="key"), SMTPSettings(xclient="on")
            attempt = Attempt(SMTP, *settings, **ANYBODY)
            attempt.accept()
            heard = attempt.says(b"220 ready\r\n", b"250 mx\r\n")
            self.assertIn(b"XCLIENT ADDR=192.0.2.7 NAME=", heard)

    def test_unjudged(self) -> None:
        """Where nothing has checked the user's password the master user is not used."""
        attempt = Attempt(IMAP4, ProxySettings(masterUser="gateway", masterPassword="key"), route=routeTo(judged=False))
        self.assertEqual(self.successResultOf(attempt.result).trouble, Trouble.TEMPORARY)
        self.assertEqual(attempt.tried, [])


class SettingsTests(SynchronousTestCase):
    """What stops the start."""

    def problems(self, options: str, judge: str = "auth_http = http://127.0.0.1:9/", protocol: str = "imap") -> str:
        text = f"[server x]\nprotocol = {protocol}\nlisten = 127.0.0.1:1\n{judge}\n{options}\n"
        try:
            parse(text)
        except ConfigurationError as error:
            return str(error)
        return ""

    def test_everyoneIn(self) -> None:
        """A way to log in that checks no password needs a service or a file that does."""
        for options in ("proxy_auth = none", "proxy_auth = external", "proxy_auth_user = m\nproxy_auth_pass = k"):
            self.assertIn("lets every client in", self.problems(options, "proxy_pass = 127.0.0.1:2"))
            self.assertEqual(self.problems(options), "")

    def test_pairs(self) -> None:
        """Name and password of a master user belong together."""
        self.assertIn("proxy_auth_pass: is missing", self.problems("proxy_auth_user = m"))
        self.assertIn("proxy_auth_user: is missing", self.problems("proxy_auth_pass = k"))

    def test_impossible(self) -> None:
        """What a protocol cannot do."""
        self.assertIn("cannot be none with POP3", self.problems("proxy_auth = none", protocol="pop3"))
        master = "proxy_auth = login\nproxy_auth_user = m\nproxy_auth_pass = k"
        self.assertIn("has no place for the user", self.problems(master))
        self.assertEqual(self.problems(master.replace("= m", "= $user*m")), "")

    def test_secret(self) -> None:
        """The password is in no message."""
        self.assertNotIn("s3cret", repr(ProxySettings(masterPassword="s3cret")))
