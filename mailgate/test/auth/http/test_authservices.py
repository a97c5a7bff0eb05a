"""
Real products for C{auth_http}, each imitated by what it reads and sends. The requests of
L{mailgate.auth.http.authenticator} reach them over a real socket, according to its configuration. A service that
indexes a header fails if it is missing, as the real one does.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from mailgate.login import Envelope, Method, Trouble
from mailgate.test.support.authservices import PASSWORD, USER, Question, Reply, Service, ServiceCase, refused, routed


def reinventedStuff(question: Question) -> Reply:
    """reinvented-stuff/nginx-mail-auth-http-server: a shared secret; the RCPT line selects the relay."""
    if question.get("X-Origin-Mail-Key") != "hush":
        return Reply({"Auth-Status": "Access denied", "Auth-Error-Code": "550 5.7.1"}, 401)
    assert question["Client-Host"] == "[UNAVAILABLE]" and question["Auth-SMTP-Helo"] == "client.example"
    if not re.match("MAIL FROM:<.*>", question["Auth-SMTP-From"]):
        raise ValueError
    if re.search("(?i)rcpt to: *<[^>]+@example\\.com>", question["Auth-SMTP-To"]):
        return Reply({"Auth-Status": "OK", "Auth-Server": "10.3.0.1", "Auth-Port": "25"})
    if int(question["Auth-Login-Attempt"]) > 2:
        return Reply({"Auth-Status": "Too many", "Auth-Error-Code": "421 4.7.0"})
    return Reply({"Auth-Status": "Relay denied", "Auth-Error-Code": "550 5.7.1", "Auth-Wait": 1})


class RecipientTests(ServiceCase):
    """Services that judge recipients, with smtp_auth none."""

    def judge(self, service: Service, recipient: bytes, *options: str, **about: Any) -> Any:
        envelope = Envelope(b"client.example", True, b"MAIL FROM:<a@b.example> SIZE=100", recipient)
        about = {"method": Method.NONE, "user": b"", "secret": b"", "envelope": envelope, **about}
        return self.ask(service, "smtp_auth = none", *options, protocol="smtp", **about)

    async def test_reinventedStuff(self) -> None:
        """It gets the whole lines of MAIL and RCPT, and its secret."""
        key = "auth_http_header = X-Origin-Mail-Key hush"
        answer = await self.judge(reinventedStuff, b"rcpt to: <ann@example.com>", key)
        self.assertEqual(answer, routed("10.3.0.1", 25, b"", None))
        for attempt, denial in (
            (1, refused(b"Relay denied", b"550 5.7.1", 1)),
            (3, refused(b"Too many", b"421 4.7.0")),
        ):
            answer = await self.judge(reinventedStuff, b"RCPT TO:<ann@other.example>", key, attempts=attempt)
            self.assertEqual(answer, denial)

    async def test_withoutSecret(self) -> None:
        """Without the secret it refuses; its HTTP status does not matter."""
        answer = await self.judge(reinventedStuff, b"RCPT TO:<ann@example.com>")
        self.assertEqual(answer, refused(b"Access denied", b"550 5.7.1"))

    async def test_gotth(self) -> None:
        """GOTTH's frontauth has a token, expects RCPT TO:<...>, and uses three codes."""

        def gotth(question: Question) -> Reply:
            if question.get("X-GOTTH-Mail-Front-Token") != "hush":
                return Reply({"Auth-Status": "Authentication failed", "Auth-Error-Code": "535 5.7.8"})
            match = re.fullmatch("RCPT TO:<(.+)@example.com>", question["Auth-SMTP-To"])
            if match is None:
                return Reply({"Auth-Status": "No such user", "Auth-Error-Code": "550 5.1.1"})
            if match[1] == "busy":
                return Reply({"Auth-Status": "Try again later", "Auth-Error-Code": "451 4.3.0"})
            return Reply({"Auth-Status": "OK", "Auth-Server": "10.4.0.1", "Auth-Port": "2525"})

        token = "auth_http_header = X-GOTTH-Mail-Front-Token hush"
        for recipient, options, expected in (
            (b"RCPT TO:<ann@example.com>", (token,), routed("10.4.0.1", 2525, b"", None)),
            (b"RCPT TO:<ann@other.example>", (token,), refused(b"No such user", b"550 5.1.1")),
            (b"RCPT TO:<busy@example.com>", (token,), refused(b"Try again later", b"451 4.3.0")),
            (b"RCPT TO:<ann@example.com>", (), refused(b"Authentication failed", b"535 5.7.8")),
        ):
            self.assertEqual(await self.judge(gotth, recipient, *options), expected)


def goService(question: Question) -> Reply:
    """
    seiferma/nginxmailauthdelegator, urlund's, MooCloud's and MelonSmasher's: C{net/http} has its own spelling of
    headers. They read the number of the attempt and the address of the client.
    """
    if question.get("Auth-Method") != "plain" or not question.get("Client-Ip"):
        return Reply({"Content-Type": "text/plain; charset=utf-8"}, 400, b"Bad Request\n")
    attempt = int(question["Auth-Login-Attempt"])
    if unquote(question["Auth-User"]) != "joe@example.com" or unquote(question["Auth-Pass"]) != "sesame":
        pause = {"Auth-Wait": 3} if attempt < 3 else {}
        return Reply({"Auth-Status": "Invalid login or password", **pause, "Date": "Wed, 25 Nov 2026 02:00:00 GMT"})
    return Reply({"Auth-Port": "143", "Auth-Server": "10.5.0.1", "Auth-Status": "OK"})


class StandardTests(ServiceCase):
    """Services that follow nginx's documentation."""

    async def test_go(self) -> None:
        """Services in Go read Client-Ip for Client-IP, allow two more attempts, and answer 400 to unknown methods."""
        self.assertEqual(await self.ask(goService), routed("10.5.0.1", 143))
        told = b"Invalid login or password"
        for attempt, denial in ((2, refused(told, wait=3)), (3, refused(told))):
            self.assertEqual(await self.ask(goService, secret=b"no", attempts=attempt), denial)
        unknown = await self.ask(goService, method=Method.EXTERNAL)
        self.assertIs(unknown.trouble, Trouble.TEMPORARY)
        self.assertIn("400 without Auth-Status", unknown.reason)

    async def test_php(self) -> None:
        """
        The example of nginx's wiki, which exists in many copies: status 200 for everything, also for pages, and
        HTTP/1.0.
        """

        def wiki(question: Question) -> Reply:
            known = {"joe@example.com": "sesame"}
            user, password = question.get("Auth-User"), question.get("Auth-Pass")
            powered = {"X-Powered-By": "PHP/5.3.3", "Content-type": "text/html"}
            if not user or not password or known.get(user) != password:
                return Reply({**powered, "Auth-Status": "Invalid login or password"}, 200, b"\n\n", "1.0")
            port = {"imap": 143, "smtp": 25}.get(question.get("Auth-Protocol"), 110)
            accepted = {"Auth-Status": "OK", "Auth-Server": "192.168.1.22", "Auth-Port": port}
            return Reply({**powered, **accepted}, 200, b"\n\n", "1.0")

        for protocol, port in (("imap", 143), ("pop3", 110), ("smtp", 25)):
            self.assertEqual(await self.ask(wiki, protocol=protocol), routed("192.168.1.22", port))
        for user, secret in ((USER, b"no"), (USER, b""), (b"", PASSWORD)):
            answer = await self.ask(wiki, user=user, secret=secret)
            self.assertEqual(answer, refused(b"Invalid login or password"))

    async def test_perl(self) -> None:
        """nginx's embedded perl knows passwords, and can judge digests if it sends the password in its answer."""

        def perl(question: Question) -> Reply:
            if question["Auth-Method"] == "cram-md5" and question["Auth-Salt"] == "<salt>":
                given = {"Auth-Status": "OK", "Auth-Server": "192.168.1.1", "Auth-Port": "143"}
                return Reply({"Server": "nginx/1.22.1", **given, "Auth-Pass": "plain-text-pass"})
            return Reply({"Auth-Status": "Invalid login or password", "Auth-Wait": "3"})

        options = ("imap_auth = plain cram-md5",)
        answer = await self.ask(perl, *options, method=Method.CRAM_MD5, secret=b"0123456789abcdef" * 2)
        self.assertEqual(answer, routed("192.168.1.1", 143, password=b"plain-text-pass"))
        self.assertEqual(await self.ask(perl, *options), refused(b"Invalid login or password", wait=3))

    async def test_domino(self) -> None:
        """Domino is behind an http block of nginx, and checks a key."""

        def domino(question: Question) -> Reply:
            if question.get("X-Auth-Key") != "hush":
                return Reply({"Content-Type": "text/html"}, 403, b"<html></html>")
            if (question["Auth-User"], question["Auth-Pass"]) != ("joe@example.com", "sesame"):
                return Reply({"Auth-Status": "Invalid login or password"})
            return Reply({"Auth-Status": "OK", "Auth-Server": "10.6.0.1", "Auth-Port": 143, "Connection": "keep-alive"})

        key = "auth_http_header = X-Auth-Key hush"
        self.assertEqual(await self.ask(domino, key), routed("10.6.0.1", 143))
        self.assertEqual(await self.ask(domino, key, secret=b"no"), refused(b"Invalid login or password"))
        self.assertFailed(await self.ask(domino), "403 without Auth-Status")

    async def test_staticLocation(self) -> None:
        """A location of nginx that only adds headers to 204 accepts every login."""
        given = {"Auth-Status": "OK", "Auth-Server": "10.7.0.1", "Auth-Port": "25"}
        answer = await self.ask(lambda question: Reply(given, 204), protocol="smtp")
        self.assertEqual(answer, routed("10.7.0.1", 25))
        answer = await self.ask(lambda question: Reply({"Auth-Status": "Closed"}, 204), protocol="smtp")
        self.assertEqual(answer, refused(b"Closed"))

    async def test_lowerCase(self) -> None:
        """Node, and proxies that use HTTP/2 behind them, send lower-case headers."""
        given = {"auth-status": "OK", "auth-server": "10.8.0.1", "auth-port": "143", "auth-user": "ann"}
        self.assertEqual(await self.ask(lambda question: Reply(given)), routed("10.8.0.1", 143, b"ann"))
        refusal = {"auth-status": "No", "auth-wait": "5", "auth-error-code": "454 4.7.0"}
        self.assertEqual(await self.ask(lambda question: Reply(refusal)), refused(b"No", b"454 4.7.0", 5))

    async def test_withoutStatus(self) -> None:
        """A service without Auth-Status works only with auth_http_missing_status accept."""
        given = {"Auth-Server": "10.9.0.1", "Auth-Port": "143"}
        answer = await self.ask(lambda question: Reply(given), "auth_http_missing_status = accept")
        self.assertEqual(answer, routed("10.9.0.1", 143))
        self.events.clear()
        self.assertFailed(await self.ask(lambda question: Reply(given)), "200 without Auth-Status")
