"""
Tests with the answers of Zimbra, Kolab, BlueMind and others.
"""

from __future__ import annotations

import base64
import re

from attrs import evolve

from mailgate.login import Backend, Denial, Trouble
from mailgate.test.support.authservices import (
    CLIENT,
    PASSWORD,
    TLS,
    USER,
    Question,
    Reply,
    ServiceCase,
    refused,
    routed,
)


def zimbraDecoded(text: str) -> str:
    """Decode as NginxLookupExtension does: of the hexadecimal digits it handles only 0 to 9 correctly."""

    def decode(match: re.Match[str]) -> str:
        if not re.fullmatch("[0-9A-Fa-f]{2}", match[1]):
            raise ValueError("Incomplete trailing escape (%) pattern")
        high, low = (ord(digit) - ord("0") for digit in match[1])
        return chr((high * 16 + low) % 256)

    return re.sub("%(.{0,2})", decode, text)


def zimbra(question: Question, server: str = "10.0.0.5") -> Reply:
    """NginxLookupExtension.java: it looks up the account's mailbox server, and does not check the password."""
    for name in ("Auth-User", "Auth-Method", "Auth-Protocol"):
        if question.get(name) is None:
            return Reply({"Auth-Status": f"missing header field {name}", "Auth-Wait": 10})
    ports = {"imap": 7143, "imapssl": 7993, "pop3": 7110, "pop3ssl": 7995}
    user = zimbraDecoded(question["Auth-User"])
    zimbraDecoded(question.get("Auth-Pass", ""))
    if user not in ("joe", "joe@example.com", "jo e%@example.com") or question["Auth-Protocol"] not in ports:
        return Reply({"Auth-Status": "login failed", "Auth-Wait": 10})
    if "@" not in user:
        user += "@example.com" if question.get("X-Proxy-IP") == "198.51.100.1" else "@default.example"
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": server,
            "Auth-Port": ports[question["Auth-Protocol"]],
            "Auth-Cache-Alias": "FALSE",
            "Auth-User": user.replace("%", "%25").replace(" ", "%20"),
        }
    )


class ZimbraTests(ServiceCase):
    """The lookup servlet of Zimbra, and of Carbonio."""

    preset = "auth_http_preset = zimbra"

    async def test_accepted(self) -> None:
        """It names a backend by protocol and TLS without the password, which the backend checks."""
        for protocol, tls, port in (
            ("imap", None, 7143),
            ("imap", TLS, 7993),
            ("pop3", None, 7110),
            ("pop3", TLS, 7995),
        ):
            answer = await self.ask(zimbra, self.preset, protocol=protocol, client=evolve(CLIENT, tls=tls))
            self.assertEqual(answer, routed("10.0.0.5", port, judged=False))
            self.assertEqual(self.asked["Auth-Pass"], "_password_")

    async def test_wrongPassword(self) -> None:
        """A wrong password also reaches the backend, because the service does not check it."""
        answer = await self.ask(zimbra, self.preset, secret=b"wrong")
        self.assertEqual(answer, routed("10.0.0.5", 7143, password=b"wrong", judged=False))

    async def test_domain(self) -> None:
        """X-Proxy-IP determines the domain of a name without one."""
        answer = await self.ask(zimbra, self.preset, user=b"joe")
        self.assertEqual(answer.user, USER)

    async def test_escapedUser(self) -> None:
        """
        Spaces and percent signs are escaped in both directions; nginx's escapes of these need only digits that work.
        """
        answer = await self.ask(zimbra, self.preset, user=b"jo e%@example.com")
        self.assertEqual(answer.user, b"jo e%@example.com")

    async def test_refused(self) -> None:
        """An unknown account is refused after ten seconds."""
        answer = await self.ask(zimbra, self.preset, user=b"nobody")
        self.assertEqual(answer, refused(b"login failed", wait=10))

    async def test_hostName(self) -> None:
        """Carbonio sends a host name, which nginx rejects."""
        answer = await self.ask(lambda asked: zimbra(asked, "mbox1.example.com"), self.preset)
        self.assertEqual(answer, routed("mbox1.example.com", 7143, judged=False))


def kolab(question: Question) -> Reply:
    """NGINXController.php: it does not decode escapes."""

    def byebye() -> Reply:
        return Reply({"Auth-Status": "authentication failure", "Auth-Wait": 3}, version="1.0")

    login, password = question.get("Auth-User"), question.get("Auth-Pass")
    if not login or not password or not question.get("Client-Ip"):
        return byebye()
    if login != "joe@example.com" or password not in ("sesame", "100% se same+"):
        return byebye()
    ports = {"imap": 9143, "smtp": 10465}
    if question.get("Auth-Protocol") not in ports:
        return byebye()
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": "172.18.0.5",
            "Auth-Port": ports[question["Auth-Protocol"]],
            "Auth-Pass": password,
        },
        version="1.0",
    )


class KolabTests(ServiceCase):
    """Kolab's user front end."""

    preset = "auth_http_preset = kolab"
    special = b"100% se same+"

    async def test_accepted(self) -> None:
        """IMAP and SMTP logins are accepted, with any password."""
        for protocol, port in (("imap", 9143), ("smtp", 10465)):
            for secret in (PASSWORD, self.special):
                answer = await self.ask(kolab, self.preset, protocol=protocol, secret=secret)
                self.assertEqual(answer, routed("172.18.0.5", port, password=secret))

    async def test_refused(self) -> None:
        """A refusal comes after three seconds, and the client may try again."""
        answer = await self.ask(kolab, self.preset, secret=b"no")
        self.assertEqual(answer, refused(b"authentication failure", wait=3))

    async def test_withoutPreset(self) -> None:
        """With nginx's requests, an escaped password is a wrong one."""
        answer = await self.ask(kolab, secret=self.special)
        self.assertEqual(answer, refused(b"authentication failure", wait=3))

    async def test_notAsked(self) -> None:
        """A password that no header can contain is refused without a request."""
        for secret in (b"sesame ", b"sesame\r\nAuth-User: root", b"sesame\0"):
            denial = Denial(Trouble.DENIED, reason="a header cannot carry this user name or password unescaped")
            self.assertEqual(await self.ask(kolab, self.preset, secret=secret), denial)
            self.assertEqual(self.factory.asked, [])


def bluemind(question: Question) -> Reply:
    """Nginx.java: base64, and it returns the port of the backend that it got."""
    if not question.get("Auth-User"):
        raise ValueError("null or empty login")
    user, password = (base64.b64decode(question[name], validate=True) for name in ("Auth-User", "Auth-Pass"))
    attempt = int(question.get("Auth-Login-Attempt", "0"))
    if user.lower() != USER or password not in (PASSWORD, b"\xff\xfe? %"):
        pause = {"Auth-Wait": "2"} if attempt < 10 else {}
        return Reply({"Auth-Status": "Invalid login or password", **pause})
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": "10.1.0.3",
            "Auth-Port": question.get("X-Auth-Port"),
            "Auth-User": "joe@internal.example",
        }
    )


class BlueMindTests(ServiceCase):
    """BlueMind's core."""

    preset = "auth_http_preset = bluemind"

    async def test_accepted(self) -> None:
        """All bytes are passed correctly, and the backend has the port of the protocol."""
        for protocol, port in (("imap", 1143), ("pop3", 1110)):
            for secret in (PASSWORD, b"\xff\xfe? %"):
                answer = await self.ask(bluemind, self.preset, protocol=protocol, secret=secret)
                self.assertEqual(answer, routed("10.1.0.3", port, b"joe@internal.example", secret))

    async def test_port(self) -> None:
        """Another port is configured as a header."""
        answer = await self.ask(bluemind, self.preset, "auth_http_header = X-Auth-Port 143")
        self.assertEqual(answer.backends, (Backend("10.1.0.3", 143),))

    async def test_refused(self) -> None:
        """It allows nine more attempts."""
        told = b"Invalid login or password"
        for attempt, denial in ((1, refused(told, wait=2)), (9, refused(told, wait=2)), (10, refused(told))):
            answer = await self.ask(bluemind, self.preset, secret=b"no", attempts=attempt)
            self.assertEqual(answer, denial)

    async def test_withoutPreset(self) -> None:
        """With nginx's requests it cannot decode the name, and fails."""
        self.assertFailed(await self.ask(bluemind), "500 without Auth-Status")


def nauthilus(question: Question) -> Reply:
    """setupHeaderBasedAuth: the name unchanged; the password in base64url if a header announces it."""
    user, password = question.get("Auth-User", ""), question.get("Auth-Pass", "").encode("latin-1")
    if question.get("X-Auth-Password-Encoded") == "1":
        if re.search(b"[+/]", password):
            raise ValueError("illegal base64 data")
        password = base64.b64decode(password, altchars=b"-_", validate=True)
    session = {"X-Nauthilus-Session": "2Nf"}
    if user not in ("joe@example.com", "j%e@example.com") or password not in (PASSWORD, b"\xff\xfe? %\r\n"):
        status = {"Auth-Status": "Invalid login or password", "Auth-Wait": question["Auth-Login-Attempt"]}
        return Reply({**status, **session, "Content-Type": "application/json"}, 403, b"null")
    ports = {"imap": 993, "pop3": 995, "smtp": 465}
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-User": user,
            "Auth-Server": "10.2.0.1",
            "Auth-Port": ports[question["Auth-Protocol"]],
            "X-Nauthilus-Memory-Cache": "Miss",
            **session,
        }
    )


class NauthilusTests(ServiceCase):
    """Nauthilus with headers."""

    preset = "auth_http_preset = nauthilus"

    async def test_accepted(self) -> None:
        """All passwords are passed correctly, and a percent sign in a name stays unchanged."""
        for protocol, port in (("imap", 993), ("pop3", 995), ("smtp", 465)):
            for user, secret in ((USER, PASSWORD), (b"j%e@example.com", b"\xff\xfe? %\r\n")):
                answer = await self.ask(nauthilus, self.preset, protocol=protocol, user=user, secret=secret)
                self.assertEqual(answer, routed("10.2.0.1", port, user, secret))

    async def test_told(self) -> None:
        """It gets both ends of the connection, and the name of the session."""
        await self.ask(nauthilus, self.preset)
        names = ("X-Local-IP", "X-Auth-Port", "X-Client-Port", "X-External-Session-ID")
        self.assertEqual([self.asked[name] for name in names], ["198.51.100.1", "993", "4711", "7-abc"])

    async def test_refused(self) -> None:
        """A refusal counts with any HTTP status; its body is ignored."""
        answer = await self.ask(nauthilus, self.preset, secret=b"no", attempts=2)
        self.assertEqual(answer, refused(b"Invalid login or password", wait=2))

    async def test_undecodable(self) -> None:
        """An escape other than the preset's removes the header that announces it."""
        answer = await self.ask(nauthilus, self.preset, "auth_http_escape = nginx")
        self.assertEqual(answer, routed("10.2.0.1", 993))
        self.assertNotIn("X-Auth-Password-Encoded", self.asked.spelling)
