"""
Tests for L{mailgate.auth.http.exchange}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate.auth.http.dialect import ESCAPES, PROTOCOL_NAMES, Dialect, Untellable
from mailgate.auth.http.exchange import LONGEST_WAIT, Unusable, Wait, question, route, verdict
from mailgate.auth.http.headers import valuesOf
from mailgate.login import (
    Backend,
    Client,
    ClientCertificate,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Route,
    TLSDetails,
    TLSState,
    Trouble,
)

PLAIN = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), Client("192.0.2.7", 4711))
TLS = TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384")
CERTIFICATE = ClientCertificate(
    "CN=joe,O=Org\\, Inc,C=ZZ", "CN=authority", "0ABC", "01ef", "joe", b"-----BEGIN CERTIFICATE-----\nMI+/=%\n"
)
DEFAULT = Backend("mail.example.com", 143)


def block(request, *configured):
    """Return the header lines of the request for C{request}."""
    return question(request, Dialect(configured)).block


def plain(user=b"joe", secret=b"sesame", **changed):
    """Return L{PLAIN} with other credentials."""
    return evolve(PLAIN, credentials=Credentials(Method.PLAIN, user, secret), **changed)


def headers(*fields):
    """Return the values of response headers from texts like C{"Name: value"}."""
    made = Headers()
    for text in fields:
        name, _, value = text.partition(": ")
        made.addRawHeader(name.encode(), value.encode())
    return valuesOf(made)


class QuestionTests(SynchronousTestCase):
    """The request, to the byte."""

    def test_plain(self):
        """The request for a login with a password is nginx's."""
        self.assertEqual(
            block(PLAIN),
            b"Auth-Method: plain\r\nAuth-User: joe\r\nAuth-Pass: sesame\r\nAuth-Protocol: imap\r\n"
            b"Auth-Login-Attempt: 1\r\nClient-IP: 192.0.2.7\r\n",
        )

    def test_digests(self):
        """A digest has its challenge after the password."""
        for method, protocol in ((Method.APOP, "pop3"), (Method.CRAM_MD5, "imap")):
            credentials = Credentials(method, b"joe", b"0123456789abcdef" * 2, b"<1.2@mail.example.com>")
            self.assertEqual(
                block(evolve(PLAIN, protocol=protocol, credentials=credentials, attempt=12)),
                b"Auth-Method: %b\r\nAuth-User: joe\r\nAuth-Pass: 0123456789abcdef0123456789abcdef\r\n"
                b"Auth-Salt: <1.2@mail.example.com>\r\nAuth-Protocol: %b\r\nAuth-Login-Attempt: 12\r\n"
                b"Client-IP: 192.0.2.7\r\n" % (method.value.encode(), protocol.encode()),
            )

    def test_external(self):
        """EXTERNAL has an empty password, with the space that nginx writes after the colon, and no salt."""
        asked = block(evolve(PLAIN, protocol="pop3", credentials=Credentials(Method.EXTERNAL, b"joe")))
        self.assertTrue(asked.startswith(b"Auth-Method: external\r\nAuth-User: joe\r\nAuth-Pass: \r\nAuth-Protocol: "))
        self.assertNotIn(b"Auth-Salt", asked)

    def test_none(self):
        """SMTP without a login sends the client's name and then the lines of the mail."""
        envelope = Envelope(b"client.example", True, b"MAIL FROM:<a@b> SIZE=100%", b"RCPT TO:<c@d>")
        client = Client("2001:db8::7", 1, name="mx.example")
        request = evolve(PLAIN, protocol="smtp", credentials=Credentials(Method.NONE), client=client, envelope=envelope)
        self.assertEqual(
            block(request),
            b"Auth-Method: none\r\nAuth-User: \r\nAuth-Pass: \r\nAuth-Protocol: smtp\r\nAuth-Login-Attempt: 1\r\n"
            b"Client-IP: 2001:db8::7\r\nClient-Host: mx.example\r\nAuth-SMTP-Helo: client.example\r\n"
            b"Auth-SMTP-From: MAIL FROM:<a@b> SIZE=100%\r\nAuth-SMTP-To: RCPT TO:<c@d>\r\n",
        )

    def test_clientHost(self):
        """The client's name is sent for SMTP with every method, the envelope only for the method none."""
        asked = block(evolve(PLAIN, protocol="smtp", envelope=Envelope(b"helo", True, b"MAIL", b"RCPT")))
        self.assertTrue(asked.endswith(b"Client-IP: 192.0.2.7\r\nClient-Host: [UNAVAILABLE]\r\n"))
        self.assertNotIn(b"Client-Host", block(PLAIN))

    def test_proxied(self):
        """The addresses of a PROXY header are in four lines after the client's name, before the mail."""
        told = ProxiedAddresses("2001:db8::7", 0, "192.0.2.1", 65535)
        client = Client("192.0.2.7", 4711, proxied=told)
        request = evolve(PLAIN, protocol="smtp", credentials=Credentials(Method.NONE), client=client)
        self.assertIn(
            b"\r\nClient-IP: 192.0.2.7\r\nClient-Host: [UNAVAILABLE]\r\nProxy-Protocol-Addr: 2001:db8::7\r\n"
            b"Proxy-Protocol-Port: 0\r\nProxy-Protocol-Server-Addr: 192.0.2.1\r\nProxy-Protocol-Server-Port: 65535\r\n"
            b"Auth-SMTP-Helo: ",
            block(request),
        )
        self.assertNotIn(b"Proxy-Protocol", block(PLAIN))

    def test_order(self):
        """TLS comes after everything else, and the operator's headers at the end, in their order and spelling."""
        request = evolve(PLAIN, protocol="smtp", client=Client("unix:", tls=TLS), credentials=Credentials(Method.NONE))
        self.assertTrue(
            block(request, (b"x-KEY", b"a: b%"), (b"X-Empty", b""), (b"X-key", b"2")).endswith(
                b"Client-IP: unix:\r\nClient-Host: [UNAVAILABLE]\r\nAuth-SMTP-Helo: \r\nAuth-SMTP-From: \r\n"
                b"Auth-SMTP-To: \r\nAuth-SSL: on\r\nAuth-SSL-Protocol: TLSv1.3\r\n"
                b"Auth-SSL-Cipher: TLS_AES_256_GCM_SHA384\r\nx-KEY: a: b%\r\nX-Empty: \r\nX-key: 2\r\n"
            )
        )

    def verified(self, details, passesCertificate=False):
        """Return the headers for C{details} after the cipher."""
        client = Client("192.0.2.7", 4711, TLS, details=details)
        return question(evolve(PLAIN, client=client), passesCertificate=passesCertificate).block.partition(
            b"_SHA384\r\n"
        )[2]

    def test_certificate(self):
        """
        A certificate follows the cipher and precedes the configured headers. It is sent whole if that is configured.
        """
        told = (
            b"Auth-SSL-Verify: FAILED:self-signed certificate\r\nAuth-SSL-Subject: CN=joe,O=Org\\, Inc,C=ZZ\r\n"
            b"Auth-SSL-Issuer: CN=authority\r\nAuth-SSL-Serial: 0ABC\r\nAuth-SSL-Fingerprint: 01ef\r\n"
        )
        details = TLSDetails(verification="FAILED:self-signed certificate", verifyCode=18, certificate=CERTIFICATE)
        self.assertEqual(self.verified(details), told)
        escaped = b"-----BEGIN%20CERTIFICATE-----%0AMI+/=%25%0A"
        self.assertEqual(self.verified(details, True), told + b"Auth-SSL-Cert: " + escaped + b"\r\n")
        client = Client("192.0.2.7", 4711, TLS, details=details)
        self.assertTrue(block(evolve(PLAIN, client=client), (b"X-Key", b"x")).endswith(b": 01ef\r\nX-Key: x\r\n"))

    def test_noCertificate(self):
        """A missing certificate is reported, unless the server does not ask for certificates."""
        for passes in (False, True):
            self.assertEqual(self.verified(TLSDetails(verification="NONE"), passes), b"Auth-SSL-Verify: NONE\r\n")
            self.assertEqual(self.verified(TLSDetails("mail.example.com", "imap"), passes), b"")
            self.assertEqual(self.verified(None, passes), b"")

    def test_certificateBreaksNoLine(self):
        """No part of a certificate can end a header line, even if all of it is forged."""
        nasty = "x\r\nAuth-User: root\0"
        made = ClientCertificate(nasty, nasty, nasty, nasty, nasty, nasty.encode())
        said = self.verified(TLSDetails(verification="SUCCESS", certificate=made), True)
        self.assertEqual(said.count(b"\r\n"), 6)
        self.assertEqual(said.count(b"x%0D%0AAuth-User: root%00\r\n"), 4)
        self.assertTrue(said.endswith(b"\r\nAuth-SSL-Cert: x%0D%0AAuth-User:%20root%00\r\n"))

    def test_longSerial(self):
        """A serial number of any length is one line."""
        made = evolve(CERTIFICATE, serial="AB" * 5000)
        said = self.verified(TLSDetails(verification="SUCCESS", certificate=made))
        self.assertIn(b"\r\nAuth-SSL-Serial: " + b"AB" * 5000 + b"\r\n", said)

    def test_escaped(self):
        """In a user name and a password exactly the bytes 0x00 to 0x20 and the percent sign are escaped."""
        everything = bytes(range(256))
        escaped = b"".join(b"%%%02X" % byte if byte <= 0x20 or byte == 0x25 else bytes([byte]) for byte in everything)
        asked = block(plain(everything, b"a b%+=&/\xc3\xa4\x7f\r\n"))
        self.assertIn(b"\r\nAuth-User: " + escaped + b"\r\n", asked)
        self.assertIn(b"\r\nAuth-Pass: a%20b%25+=&/\xc3\xa4\x7f%0D%0A\r\n", asked)

    def test_noInjection(self):
        """No control character except TAB reaches the headers that nginx does not escape."""
        nasty = b"x\r\nAuth-User: root\0\n\x1b\x7f\ty"
        safe = b"x%0D%0AAuth-User: root%00%0A%1B%7F\ty"
        text = nasty.decode()
        request = LoginRequest(
            "smtp", Credentials(Method.NONE), Client(text, name=text), envelope=Envelope(nasty, True, nasty, nasty)
        )
        asked = block(request)
        for name in (b"Client-IP", b"Client-Host", b"Auth-SMTP-Helo", b"Auth-SMTP-From", b"Auth-SMTP-To"):
            self.assertIn(b"\r\n%b: %b\r\n" % (name, safe), asked)
        salted = block(evolve(PLAIN, credentials=Credentials(Method.APOP, b"", b"", nasty)))
        self.assertIn(b"Auth-Salt: " + safe + b"\r\n", salted)

    def test_dialect(self):
        """A dialect changes names, passwords and protocols, and nothing else."""
        dialect = Dialect(
            headers=((b"Client-Port", b"$remote_port"),),
            escapeUser=ESCAPES["none"],
            escapePassword=ESCAPES["base64"],
            protocolName=PROTOCOL_NAMES["zimbra"],
        )
        request = plain(b"j o%e", b"a b", client=Client("192.0.2.7", 4711, TLS))
        self.assertEqual(
            question(request, dialect).block,
            b"Auth-Method: plain\r\nAuth-User: j o%e\r\nAuth-Pass: YSBi\r\nAuth-Protocol: imapssl\r\n"
            b"Auth-Login-Attempt: 1\r\nClient-IP: 192.0.2.7\r\nAuth-SSL: on\r\nAuth-SSL-Protocol: TLSv1.3\r\n"
            b"Auth-SSL-Cipher: TLS_AES_256_GCM_SHA384\r\nClient-Port: 4711\r\n",
        )

    def test_unescaped(self):
        """Without an escape, a name or password that would be changed is not sent at all."""
        dialect = Dialect(escapeUser=ESCAPES["none"], escapePassword=ESCAPES["none"])
        for user, secret in ((b"joe\r\nAuth-Pass: x", b"y"), (b"joe", b"sesame "), (b"joe", b"\0")):
            self.assertRaises(Untellable, question, plain(user, secret), dialect)

    def test_noPasswordShown(self):
        """A service that only names backends gets no password and no token; digests and empty secrets are unchanged."""
        routing = Dialect(showsPassword=False)
        for method in Method:
            request = evolve(PLAIN, credentials=Credentials(method, b"joe", b"sesame", b"<salt>"))
            shown = b"Auth-Pass: _password_\r\n" in question(request, routing).block
            self.assertEqual(shown, method in (Method.PLAIN, Method.XOAUTH2, Method.OAUTHBEARER), method)
            self.assertNotEqual(shown, b"sesame" in question(request, routing).block, method)

    def test_noSecretShown(self):
        """The repr of the request shows neither the password nor the operator's key."""
        shown = repr(question(PLAIN, Dialect(((b"X-Key", b"hush"),))))
        self.assertNotIn("sesame", shown)
        self.assertNotIn("hush", shown)


class VerdictTests(SynchronousTestCase):
    """The meaning of Auth-Status."""

    def test_accepted(self):
        """Exactly OK is an acceptance; Auth-Wait and Auth-Error-Code do not matter then."""
        self.assertIsNone(verdict(PLAIN, headers("auth-STATUS: OK", "Auth-Wait: 5", "Auth-Error-Code: 550")))

    def test_notQuiteOK(self):
        """Anything other than OK or WAIT is the text of a refusal."""
        for text in ("ok", "OK.", "wait", "OK WAIT"):
            self.assertEqual(verdict(PLAIN, headers("Auth-Status: " + text)).text, text.encode())

    def test_refused(self):
        """A refusal without Auth-Wait, or with 0, is sent at once and ends the connection."""
        for wait in ((), ("Auth-Wait: 0",), ("Auth-Wait: -1",), ("Auth-Wait: soon",), ("Auth-Wait: ",)):
            self.assertEqual(
                verdict(PLAIN, headers("Auth-Status: Go away", *wait)),
                Denial(Trouble.DENIED, text=b"Go away", wait=0, close=True),
            )

    def test_refusedForNow(self):
        """With Auth-Wait the refusal is sent later, and the client may try again."""
        self.assertEqual(
            verdict(PLAIN, headers("Auth-Status: No", "Auth-Wait: 3", "Auth-Error-Code: 454 4.7.0")),
            Denial(Trouble.DENIED, text=b"No", code=b"454 4.7.0", wait=3, close=False),
        )

    def test_limits(self):
        """A refusal may say that there is no such user, or that the login does not count for limits."""
        for value, isUnknown in (
            ("no", True),
            ("False", True),
            ("NO", True),
            ("True", False),
            ("yes", False),
            ("", False),
        ):
            refusal = verdict(PLAIN, headers("Auth-Status: No", f"Auth-User-Exists: {value}"))
            self.assertEqual((refusal.isUnknownUser, refusal.isUnlimited, refusal.text), (isUnknown, False, b"No"))
        self.assertIs(verdict(PLAIN, headers("Auth-Status: No", "Auth-Limit: none")).isUnlimited, True)
        self.assertIs(verdict(PLAIN, headers("Auth-Status: No", "Auth-Limit: all")).isUnlimited, False)

    def test_longestWait(self):
        """The wait is limited."""
        self.assertEqual(verdict(PLAIN, headers("Auth-Status: No", "Auth-Wait: 99999999999999")).wait, LONGEST_WAIT)

    def test_severalTexts(self):
        """A refusal takes precedence over OK and WAIT in any order; of two the last counts."""
        for statuses in (("OK", "First", "Last"), ("First", "Last", "OK"), ("First", "WAIT", "Last", "WAIT")):
            self.assertEqual(verdict(PLAIN, headers(*["Auth-Status: " + status for status in statuses])).text, b"Last")

    def test_wait(self):
        """WAIT repeats the request after Auth-Wait seconds, or after one; OK with it changes nothing."""
        self.assertEqual(verdict(PLAIN, headers("Auth-Status: WAIT", "Auth-Wait: 7")), Wait(7))
        for wait in ("Auth-Wait: 0", "Auth-Wait: x", "X: y"):
            self.assertEqual(verdict(PLAIN, headers("Auth-Status: WAIT", "Auth-Status: OK", wait)), Wait(1))

    def test_unfitText(self):
        """A text or code with a control character is dropped, and the refusal stays; TAB is allowed."""
        for unfit in ("a\0b", "a\x1bb", "a\x7fb", "\x08"):
            denial = verdict(PLAIN, headers("Auth-Status: " + unfit, "Auth-Error-Code: " + unfit))
            self.assertEqual(denial, Denial(Trouble.DENIED, close=True))
        self.assertEqual(verdict(PLAIN, headers("Auth-Status: a\tb")).text, b"a\tb")

    def test_emptyText(self):
        """An empty status with OK is a refusal without a text."""
        given = headers("Auth-Status: OK", "Auth-Status: ")
        self.assertEqual(verdict(PLAIN, given), Denial(Trouble.DENIED, close=True))

    def test_lastWait(self):
        """Of several Auth-Wait the last number counts, as with nginx."""
        for waits, expected in ((("5", "x"), 5), (("5", "7"), 7), (("x", "5", ""), 5), (("5", "0"), 0)):
            denial = verdict(PLAIN, headers("Auth-Status: No", *[f"Auth-Wait: {wait}" for wait in waits]))
            self.assertEqual((denial.wait, denial.close), (expected, not expected))

    def test_blanks(self):
        """Spaces around a status do not matter; tabs are part of a text."""
        self.assertIsNone(verdict(PLAIN, headers("Auth-Status:  OK ")))
        self.assertEqual(verdict(PLAIN, headers("Auth-Status: \tOK")).text, b"\tOK")

    def test_challenge(self):
        """Auth-Error-SASL is the challenge after an OAuth login if it is base64; other methods ignore it."""
        given = headers("Auth-Status: No", "Auth-Error-SASL: eyJzdGF0dXMiOiI0MDEifQ==")
        for method in Method:
            request = evolve(PLAIN, credentials=Credentials(method, b"joe", b"token", b"<salt>"))
            challenge = verdict(request, given).challenge
            if method in (Method.XOAUTH2, Method.OAUTHBEARER):
                self.assertEqual(challenge, b"eyJzdGF0dXMiOiI0MDEifQ==")
            else:
                self.assertIsNone(challenge)

    def test_badChallenge(self):
        """A value that is no base64 is ignored."""
        request = evolve(PLAIN, credentials=Credentials(Method.XOAUTH2, b"joe", b"token"))
        for bad in ("", "eyJ", "a b=", "eyJ\rx", "{}", "=", "äöü="):
            given = headers("Auth-Status: No", f"Auth-Error-SASL: {bad}")
            self.assertEqual(verdict(request, given), Denial(Trouble.DENIED, text=b"No", close=True))


class MissingStatusTests(SynchronousTestCase):
    """A response without Auth-Status, with nginx's meaning."""

    nginxs = Dialect(acceptsMissing=True)
    routing = ("Auth-Server: 10.0.0.1", "Auth-Port: 143")

    def verdict(self, *fields, protocol="imap"):
        return verdict(evolve(PLAIN, protocol=protocol), headers(*fields), self.nginxs)

    def test_absent(self):
        """Without a status every login is accepted."""
        for protocol in ("imap", "pop3", "smtp"):
            self.assertIsNone(self.verdict(*self.routing, protocol=protocol))

    def test_empty(self):
        """An empty status is a refusal without a text in IMAP and POP3, with Auth-Wait, and an acceptance in SMTP."""
        given = ("Auth-Status: ", "Auth-Wait: 3", *self.routing)
        for protocol in ("imap", "pop3"):
            self.assertEqual(self.verdict(*given, protocol=protocol), Denial(Trouble.DENIED, wait=3))
        self.assertIsNone(self.verdict(*given, protocol="smtp"))

    def test_said(self):
        """A status with a text counts as always, whatever is empty beside it."""
        for protocol in ("imap", "smtp"):
            self.assertEqual(self.verdict("Auth-Status: no", protocol=protocol).text, b"no")
            self.assertEqual(self.verdict("Auth-Status: WAIT", protocol=protocol), Wait(1))
            self.assertIsNotNone(self.verdict("Auth-Status: ", "Auth-Status: no", protocol=protocol))

    def test_noDefault(self):
        """The default backend is used only with an explicit acceptance, because an error page has none."""
        self.assertRaises(Unusable, route, PLAIN, headers("X: y"), DEFAULT, self.nginxs)
        self.assertEqual(route(PLAIN, headers(*self.routing), DEFAULT, self.nginxs).backends[0].host, "10.0.0.1")
        self.assertEqual(route(PLAIN, headers("Auth-Status: OK"), DEFAULT, self.nginxs).backends, (DEFAULT,))


class CodeTests(SynchronousTestCase):
    """An Auth-Error-Code that applies to every protocol, as Mailu sends it."""

    mailus = Dialect(codesForAll=True)

    def text(self, protocol, code, status="Wrong", dialect=mailus):
        given = headers(f"Auth-Status: {status}", f"Auth-Error-Code: {code}")
        return verdict(evolve(PLAIN, protocol=protocol), given, dialect).text

    def test_imap(self):
        """For IMAP it is the name of a response code."""
        for code in ("AUTHENTICATIONFAILED", "PRIVACYREQUIRED", "LIMIT"):
            self.assertEqual(self.text("imap", code), b"[%b] Wrong" % code.encode())
        self.assertEqual(self.text("imap", "LIMIT", "a\0b"), b"[LIMIT] Authentication failed")

    def test_imapOthers(self):
        """A code that is no response code, and a text that has one already, are unchanged."""
        for code in ("535 5.7.8", "limit", "LIMIT] BYE", "-ERR x", "A" * 65):
            self.assertEqual(self.text("imap", code), b"Wrong")
        self.assertEqual(self.text("imap", "LIMIT", "[UNAVAILABLE] Later"), b"[UNAVAILABLE] Later")

    def test_pop3(self):
        """For POP3 it is the whole line."""
        self.assertEqual(self.text("pop3", "-ERR [LOGIN-DELAY] Retry later"), b"[LOGIN-DELAY] Retry later")
        for code in ("-ERR", "-ERR\x08x", "AUTH", "-ERRx"):
            self.assertEqual(self.text("pop3", code), b"Wrong")

    def test_smtp(self):
        """For SMTP it has the meaning of nginx."""
        self.assertEqual(self.text("smtp", "-ERR x"), b"Wrong")
        self.assertEqual(self.text("smtp", "LIMIT"), b"Wrong")

    def test_nginxs(self):
        """In other dialects the code applies to SMTP only."""
        self.assertEqual(self.text("imap", "LIMIT", dialect=Dialect()), b"Wrong")
        self.assertEqual(self.text("pop3", "-ERR x", dialect=Dialect()), b"Wrong")


class RouteTests(SynchronousTestCase):
    """The route of an accepted login."""

    def backendOf(self, *fields, default=None):
        """Return the only backend of the route for L{PLAIN}."""
        (backend,) = route(PLAIN, headers(*fields), default).backends
        return backend

    def reasonFor(self, *fields, request=PLAIN, default=None):
        """Return why an acceptance is unusable."""
        return str(self.assertRaises(Unusable, route, request, headers(*fields), default))

    def test_addresses(self):
        """
        Auth-Server is an address, with or without brackets, or a host name; leading zeros are allowed as in nginx.
        """
        for given, host in (
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.001", "127.0.0.1"),
            ("::1", "::1"),
            ("[2001:db8::25]", "2001:db8::25"),
            ("mail.example.com", "mail.example.com"),
            ("backend-1", "backend-1"),
            ("mail_backend", "mail_backend"),
            ("1.mail.example.com.", "1.mail.example.com."),
        ):
            self.assertEqual(self.backendOf("Auth-Server: " + given, "Auth-Port: 00143"), Backend(host, 143))

    def test_unixSocket(self):
        """A unix socket needs no port."""
        self.assertEqual(self.backendOf("Auth-Server: unix:/run/imap"), Backend("unix:/run/imap", 0))
        self.assertEqual(self.backendOf("Auth-Server: unix:/run/imap", "Auth-Port: 1"), Backend("unix:/run/imap", 0))

    def test_badAddress(self):
        """Anything else is an invalid address, which the log quotes."""
        numbers = ("1.2.3", "1.2.3.256", "1.2.3.4.5", "1.2.3.", "1.2..4", "[::1", "[1.2.3.4]", "fe80::1%eth0", ":::")
        others = ("a b", "-a", "a..b", "host.123", "x" * 254, "a:1", "ä", "unix:", "unix:run", "unix:/a b")
        for given in numbers + others:
            reason = self.reasonFor("Auth-Server: " + given, "Auth-Port: 143", default=DEFAULT)
            self.assertTrue(reason.startswith("sent an invalid server address"), given)
        unusable = self.assertRaises(Unusable, route, PLAIN, headers("Auth-Server: a\x1b", "Auth-Port: 1"), None)
        self.assertEqual((str(unusable), unusable.quoted), ("sent an invalid server address", b"a\x1b"))

    def test_badPort(self):
        """A port is 1 to 65535."""
        for given in ("0", "65536", "x", "-1", "1 2", "0x10", "9" * 5000, "0" * 5000):
            reason = self.reasonFor("Auth-Server: 127.0.0.1", "Auth-Port: " + given)
            self.assertTrue(reason.startswith("sent an invalid server port"), given)

    def test_missing(self):
        """Half an address is unusable, even with a default backend; empty values count as missing."""
        missing = "did not send server or port"
        self.assertEqual(self.reasonFor("Auth-Port: 143", default=DEFAULT), missing)
        self.assertEqual(self.reasonFor("Auth-Server: 127.0.0.1", default=DEFAULT), missing)
        self.assertEqual(self.reasonFor("Auth-Status: OK"), missing)
        self.assertEqual(self.reasonFor("Auth-Server: ", "Auth-Port: "), missing)

    def test_default(self):
        """Without an address, the default backend is used, with its TLS."""
        self.assertIs(self.backendOf("Auth-Status: OK", default=DEFAULT), DEFAULT)

    def test_clientsOwn(self):
        """Without Auth-User and Auth-Pass the client's own go to the backend unchanged."""
        self.assertEqual(route(plain(b"j%20e", b"a b%"), headers(), DEFAULT), Route((DEFAULT,), b"j%20e", b"a b%"))

    def test_token(self):
        """A token is used like a password, unless the service sends a password."""
        for method in (Method.XOAUTH2, Method.OAUTHBEARER):
            request = evolve(PLAIN, credentials=Credentials(method, b"joe", b"token"))
            accepted = headers("Auth-Status: OK")
            self.assertEqual(route(request, accepted, DEFAULT), Route((DEFAULT,), b"joe", b"token"))
            master = headers("Auth-Status: OK", "Auth-User: joe*proxy", "Auth-Pass: s")
            self.assertEqual(route(request, master, DEFAULT), Route((DEFAULT,), b"joe*proxy", b"s"))
            self.assertIn(b"\r\nAuth-Pass: token\r\nAuth-Protocol: ", b"\r\n" + block(request))
            self.assertIn(b"Auth-Method: " + method.value.encode() + b"\r\n", block(request))

    def test_replaced(self):
        """Auth-User and Auth-Pass are used literally; of several the last counts."""
        sent = headers("Auth-User: x", "Auth-User: ann%20b", "Auth-Pass: s%25 t")
        self.assertEqual(route(PLAIN, sent, DEFAULT), Route((DEFAULT,), b"ann%20b", b"s%25 t"))
        self.assertEqual(route(PLAIN, headers("Auth-User: ", "Auth-Pass: "), DEFAULT), Route((DEFAULT,), b"", b""))

    def test_noPassword(self):
        """A digest is no password: IMAP and POP3 need Auth-Pass for it, and for EXTERNAL; SMTP does not."""
        for method in (Method.APOP, Method.CRAM_MD5, Method.EXTERNAL, Method.NONE):
            request = evolve(PLAIN, credentials=Credentials(method, b"joe", b"digest", b"<salt>"))
            for protocol in ("imap", "pop3"):
                asked = evolve(request, protocol=protocol)
                self.assertEqual(self.reasonFor(request=asked, default=DEFAULT), "did not send password")
                self.assertEqual(route(asked, headers("Auth-Pass: sesame"), DEFAULT).password, b"sesame")
            self.assertIsNone(route(evolve(request, protocol="smtp"), headers(), DEFAULT).password)

    def test_order(self):
        """Of several errors, the one that nginx reports first is reported."""
        external = evolve(PLAIN, credentials=Credentials(Method.EXTERNAL, b"joe"))
        self.assertEqual(self.reasonFor(request=external), "did not send server or port")
        bad = ("Auth-Server: a b", "Auth-Port: x")
        self.assertEqual(self.reasonFor(*bad, request=external), "did not send password")
        self.assertEqual(self.reasonFor(*bad), "sent an invalid server address")

    def test_routesOnly(self):
        """If the service does not receive the password, it has not checked it, and its Auth-Pass is unusable."""
        routing = Dialect(showsPassword=False)
        self.assertEqual(route(PLAIN, headers(), DEFAULT, routing), Route((DEFAULT,), b"joe", b"sesame", judged=False))
        self.assertRaises(Unusable, route, PLAIN, headers("Auth-Pass: master"), DEFAULT, routing)
        external = evolve(PLAIN, credentials=Credentials(Method.EXTERNAL, b"joe"))
        self.assertEqual(
            route(external, headers("Auth-Pass: master"), DEFAULT, routing), Route((DEFAULT,), b"joe", b"master")
        )

    def test_escapedAnswer(self):
        """A user name that the service escapes is decoded; a name that could break a line is unusable."""
        zimbras = Dialect(escapesAnswer=True)
        given = headers("Auth-User: ann%20b%25+c")
        self.assertEqual(route(PLAIN, given, DEFAULT, zimbras).user, b"ann b%+c")
        self.assertRaises(Unusable, route, PLAIN, headers("Auth-User: a%0d%0ab"), DEFAULT, zimbras)

    def test_unfitForWire(self):
        """A NUL from the service is its failure; one from the client is left to the connector."""
        for header in ("Auth-User: a\0b", "Auth-Pass: \0"):
            reason = self.reasonFor(header, default=DEFAULT)
            self.assertEqual(reason, "sent a login or password that contains CR, LF or NUL")
        for bad in (b"a\r", b"a\nb", b"\0"):
            self.assertEqual(route(plain(secret=bad), headers(), DEFAULT).password, bad)
            self.assertEqual(route(plain(secret=bad), headers("Auth-Pass: x"), DEFAULT).password, b"x")

    def test_socketPath(self):
        """The path of a unix socket may be as long as the system allows."""
        fits = "unix:/" + "x" * 106
        self.assertEqual(route(PLAIN, headers(f"Auth-Server: {fits}"), None).backends[0].host, fits)
        self.assertIn("invalid", self.reasonFor(f"Auth-Server: {fits}x", "Auth-Port: 1"))
