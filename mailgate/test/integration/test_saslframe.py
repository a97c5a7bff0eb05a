# -*- test-case-name: mailgate.test.integration.test_saslframe -*-
"""
The frame of SASL in each protocol: the gateway replies to what clients may send as Dovecot does, or Postfix, which asks
Dovecot.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode

from mailgate.test.integration.authservice import deciding
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.saslbackends import SaslBackends
from mailgate.test.integration.site import Address, GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

COMMAND = {"imap": b"a AUTHENTICATE ", "pop3": b"AUTH ", "smtp": b"AUTH ", "sieve": b"AUTHENTICATE "}
CHALLENGE = re.compile(rb'(?:\+ |334 |")([A-Za-z0-9+/=]*)"?\r\n')
KIND = re.compile(rb"(?:a )?([-+]?[A-Z]+|[0-9]{3})")

LONG = 1000
"""Bytes of a token whose line is longer than the limits of the RFCs for POP3 and SMTP, which clients exceed."""


INVALID = (
    *("empty initial response", "empty response", "no base64", "no base64 as a response", "two parts", "four parts"),
    "unknown mechanism",
)
"""Rows with messages that are none. Dovecot refuses some of them like a wrong password; the RFCs have other replies."""

REFUSED = {"BAD": "NO", "501": "535", "504": "535"}
ALIVE = {"imap": b"a NOOP\r\n", "pop3": b"CAPA\r\n", "smtp": b"NOOP\r\n", "sieve": b"NOOP\r\n"}


def begin(mechanism, message=None):
    """AUTH with C{mechanism}, and the initial response C{message}."""
    return mechanism, message


def rows(user):
    """Names, and what a client sends: L{begin}, bytes of responses, and text for what is no base64."""
    right, wrong = (f"\0{user}\0{password}".encode() for password in (PASSWORD, "wrong"))
    name, password = user.encode(), PASSWORD.encode()
    yield "initial response", [begin("PLAIN", right)]
    yield "lower case", [begin("plain", right)]
    yield "challenge", [begin("PLAIN"), right]
    yield "empty initial response", [begin("PLAIN", b"")]
    yield "empty response", [begin("PLAIN"), b""]
    yield "cancelled", [begin("PLAIN"), "*", begin("PLAIN", right)]
    yield "LOGIN", [begin("LOGIN"), name, password]
    yield "LOGIN with an initial response", [begin("LOGIN", name), password]
    yield "LOGIN cancelled", [begin("LOGIN"), name, "*", begin("LOGIN"), "*"]
    yield "unknown mechanism", [begin("NOSUCH"), begin("NOSUCH", b"x")]
    yield "no base64", [begin("PLAIN", "?")]
    yield "no base64 as a response", [begin("PLAIN"), "?"]
    yield "refused", [begin("PLAIN", wrong), begin("LOGIN"), name, b"wrong", begin("PLAIN", right)]
    yield "two parts", [begin("PLAIN", b"\0" + name)]
    yield "four parts", [begin("PLAIN", right + b"\0x")]
    yield "other identity", [begin("PLAIN", b"other" + right)]
    yield "same identity", [begin("PLAIN", name + right)]
    for mechanism, start in (("XOAUTH2", f"user={user}"), ("OAUTHBEARER", f"n,a={user},")):
        expired, valid, long = (
            f"{start}\1auth=Bearer {token}\1\1".encode() for token in ("expired", f"{user}.t", f"{user}.{'t' * LONG}")
        )
        yield mechanism, [begin(mechanism, valid)]
        yield f"{mechanism} by a challenge", [begin(mechanism), valid]
        yield f"{mechanism} long", [begin(mechanism, long)]
        yield f"{mechanism} long by a challenge", [begin(mechanism), long]
        for answer in (b"", b"\1"):
            yield f"{mechanism} refused {answer!r}", [begin(mechanism, expired), answer, begin(mechanism, valid)]
        yield f"{mechanism} cancelled", [begin(mechanism), "*", begin(mechanism, valid)]


def line(protocol, step):
    """The line of a step."""
    isSieve = protocol == "sieve"
    if isinstance(step, tuple):
        mechanism, message = step
        name = f'"{mechanism}"' if isSieve else mechanism
        start = COMMAND[protocol] + name.encode()
        return start if message is None else start + b" " + (encoded(message, isSieve) or b"=")
    return encoded(step, isSieve)


def encoded(message, isSieve):
    """A message on the wire."""
    octets = message.encode() if isinstance(message, str) else b64encode(message)
    if not isSieve:
        return octets
    return b'"%b"' % octets if len(octets) <= 1024 else b"{%d+}\r\n%b" % (len(octets), octets)


class FrameTests(GatewayTestCase):
    """The gateway leaves all to the backend, by the same mechanism."""

    needs = ("dovecot-sieve", "pigeonhole")

    def startBackends(self):
        return shared("sasl", SaslBackends)

    def configuration(self, site):
        servers = ""
        for protocol in self.backends.protocols:
            more = "\nproxy_smtp_auth = on" * (protocol == "smtp")
            # POP3 has no word for LOGIN, which goes with PLAIN.
            words = "plain xoauth2 oauthbearer" if protocol == "pop3" else "plain login xoauth2 oauthbearer"
            servers += site.server(protocol, f"{protocol}_auth = {words}{more}")
        return site.mail(f"auth_http = {site.auth.url}\nauth_http_pass = off") + servers

    def setUp(self):
        super().setUp()
        self.site.auth.manners[self.user] = self.follow
        self.addCleanup(self.site.auth.manners.pop, self.user)

    def follow(self, service, question):
        """Let the backend judge the login, by the client's mechanism."""
        port = str(self.backends.judging(question["Auth-Protocol"]))
        return deciding(Auth_Proxy_Method=question["Auth-Method"], Auth_Port=port)(service, question)

    def kinds(self, address, steps):
        """What the server at C{address} replies: the kinds of replies, and challenges."""
        client = RawClient(address)
        found = []
        try:
            for step in steps:
                client.send(line(address.protocol, step) + b"\r\n")
                found.append(self.kind(client))
                if found[-1] in ("OK", "+OK", "235"):
                    break
            else:
                # The connection lives.
                client.send(ALIVE[address.protocol])
                found.append(self.kind(client))
        finally:
            client.close()
        return found

    def kind(self, client):
        """The kind of the next reply."""
        reply = client.line()
        while reply.startswith((b"* ", b"250-")):
            reply = client.line()
        challenge = CHALLENGE.fullmatch(reply)
        if challenge is None:
            match = KIND.match(reply)
            return match[1].decode() if match else reply
        text = b64decode(challenge[1])
        if not text.startswith(b"{"):
            return text
        error = json.loads(text)
        error.pop("openid-configuration", None)
        return {**error, "status": "400"} if error["status"] == "401" else error

    def compare(self, protocol):
        """Each row."""
        direct = Address(protocol, self.backends.judging(protocol), "plain", "")
        differences = {}
        for name, steps in rows(self.user):
            ours, theirs = self.kinds(self.at(protocol), steps), self.kinds(direct, steps)
            if name in INVALID:
                ours, theirs = ([REFUSED.get(kind, kind) for kind in kinds] for kinds in (ours, theirs))
            if ours != theirs:
                differences[name] = (ours, theirs)
        self.assertEqual(differences, {})

    def test_imap(self):
        """IMAP."""
        self.compare("imap")

    def test_pop3(self):
        """POP3."""
        self.compare("pop3")

    def test_smtp(self):
        """SMTP, where Postfix asks Dovecot."""
        self.compare("smtp")

    def test_sieve(self):
        """ManageSieve."""
        self.compare("sieve")
