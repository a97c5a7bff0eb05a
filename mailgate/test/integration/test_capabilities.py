# -*- test-case-name: mailgate.test.integration.test_capabilities -*-
"""
Clients of the gateway see the capabilities of Dovecot: before the login, and after it. The dialogues are those of known
mail programs, byte for byte.
"""

from __future__ import annotations

import base64
import re
import signal

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.groupsite import GroupSite
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address, GatewayTestCase, Site
from mailgate.test.integration.together import together

testSuite = together(__name__)

__all__: list[str] = []

_LIST = re.compile(rb"(?im)^(?:\* CAPABILITY|\S+ OK \[CAPABILITY) ([^]\r\n]*)")

TAKEN_OUT = {"LOGIN-REFERRALS"}
"""What Dovecot lists before the login and the gateway does not."""

THUNDERBIRD = (
    "1 capability\r\n",
    '2 ID ("name" "Thunderbird" "version" "128.5.0")\r\n',
    "3 authenticate PLAIN {plain}\r\n",
    "4 capability\r\n",
    "5 namespace\r\n",
    "6 enable CONDSTORE\r\n",
)
OUTLOOK = (
    "a1 CAPABILITY\r\n",
    'a2 ID ("name" "Microsoft Outlook" "version" "16.0")\r\n',
    "a3 LOGIN {{{length}}}\r\n",
    "{user} {{{secret}}}\r\n",
    "{password}\r\n",
    'a4 LIST "" INBOX\r\n',
)
IMAPFLOW = (
    '1 ID ("name" "imapflow" "version" "2.10.2" "vendor" "Postal Systems")\r\n',
    "2 AUTHENTICATE PLAIN\r\n",
    "{plain}\r\n",
    '3 ID ("name" "imapflow" "version" "2.10.2" "vendor" "Postal Systems")\r\n',
    "4 NAMESPACE\r\n",
    "5 ENABLE CONDSTORE\r\n",
)
"""It asks CAPABILITY only where neither the greeting nor the answer to the login lists capabilities."""

DIALOGUES = {"thunderbird": THUNDERBIRD, "outlook": OUTLOOK, "imapflow": IMAPFLOW}


class LearnedTests(GatewayTestCase):
    """A gateway whose backend is known."""

    def configuration(self, site: Site) -> str:
        """Dovecot judges the logins, in the clear and over STARTTLS; one server has a list of its own."""
        backend = f"proxy_pass = 127.0.0.1:{self.backends.dovecot.ports['imap']}\nimap_auth = plain login\n"
        secure = "proxy_ssl = starttls\nproxy_ssl_verify = off\n"
        return (
            site.mail()
            + site.server("imap", backend)
            + site.server("imap", backend + secure, name="secure")
            + site.server("imap", backend + "imap_capabilities = IMAP4rev1 UIDPLUS", name="static")
        )

    def learned(self, name: str, tls: str = "plain") -> Address:
        """The address of the server C{name}, which has learned what its backend offers."""
        address = self.at(name, tls)

        def lists() -> bool:
            client = RawClient(address)
            client.close()
            return b"[CAPABILITY " in client.greeting

        waitUntil(lists, "the greeting lists capabilities")
        return address

    def play(self, address: Address, steps: tuple[str, ...]) -> list[bytes]:
        """The greeting and the answer to each of C{steps}."""
        plain = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        client = RawClient(address)
        self.addCleanup(client.close)
        heard, tag = [client.greeting], b""
        for step in steps:
            text = step.format(
                user=self.user, password=PASSWORD, plain=plain, length=len(self.user), secret=len(PASSWORD)
            )
            if not step.startswith("{"):
                tag = text.split(" ")[0].encode() + b" "
            client.send(text.encode())
            answer = b""
            while True:
                line = client.line()
                answer += line
                if not line or line.startswith((tag, b"+")):
                    break
            heard.append(answer)
        return heard

    def views(self, heard: list[bytes], login: int) -> tuple[list[str], list[str]]:
        """The last list before the login, whose answer is C{heard[login]}, and the last one since."""
        before = _LIST.findall(b"".join(heard[:login]))
        after = _LIST.findall(b"".join(heard[login:]))
        return before[-1].decode().split(), after[-1].decode().split()

    def test_same(self) -> None:
        """Before and after the login each program sees Dovecot's capabilities, except those that are taken out."""
        for program, steps in DIALOGUES.items():
            login = 1 + next(i for i, step in enumerate(steps) if "{plain}" in step or "{password}" in step)
            for name in ("imap", "secure"):
                for tls in ("plain", "implicit"):
                    here = self.play(self.learned(name, tls), steps)
                    there = self.play(self.backends.at("imap", tls), steps)
                    case = f"{program}, {name}, {tls}: {here}"
                    (before, after), (theirs, since) = self.views(here, login), self.views(there, login)
                    self.assertEqual(set(before), set(theirs) - TAKEN_OUT, case)
                    self.assertEqual(len(before), len(set(before)), case)
                    self.assertEqual(after, since, case)
                    self.assertTrue(all(b" OK " in each for each in here[login:]), case)

    def test_order(self) -> None:
        """The order is that of Dovecot, and the greeting lists the same as CAPABILITY."""
        greeting, answer = self.play(self.learned("imap"), ("1 CAPABILITY\r\n",))
        (greeted,), (answered,) = _LIST.findall(greeting), _LIST.findall(answer)
        self.assertEqual(greeted, answered)
        theirs = _LIST.findall(self.play(self.backends.at("imap"), ())[0])[0].decode().split()
        own = [word for word in greeted.decode().split() if not word.startswith(("AUTH=", "STARTTLS"))]
        self.assertEqual(own, [word for word in theirs if word in own])

    def test_static(self) -> None:
        """A configured list stays as it is, and the greeting is nginx's."""
        self.learned("imap")
        greeting, answer = self.play(self.at("static"), ("1 CAPABILITY\r\n",))
        self.assertEqual(greeting, b"* OK IMAP4 ready\r\n")
        self.assertIn(b"* CAPABILITY IMAP4rev1 UIDPLUS AUTH=PLAIN AUTH=LOGIN STARTTLS\r\n", answer)

    def test_once(self) -> None:
        """What a backend offers is logged once, at the start: once for each kind of TLS."""
        self.learned("imap")
        self.learned("secure")
        lines = [line for line in self.site.gateway.log().split("\n") if " offers IMAP4rev1" in line]
        self.assertEqual(len(lines), 2, lines)


def greeting(words: str) -> dict[str, str]:
    """The replies of a backend that lists C{words}, and more after the login."""
    return {
        "GREETING": f"* OK [CAPABILITY {words}] ready",
        "LOGIN": f"TAG OK [CAPABILITY {words} UNAUTHENTICATE UIDPLUS] in",
    }


class GroupTests(SynchronousTestCase):
    """A gateway in front of a group of servers that differ, and change."""

    def setUp(self) -> None:
        self.site = GroupSite(capabilities="backend")
        self.addCleanup(self.site.stop)
        self.site.group("store", ("first", "second"))
        self.first, self.second = (self.site.backends["store", name] for name in ("first", "second"))
        self.first.script(greeting("IMAP4rev1 MOVE ID QUOTA X-ONE"))
        self.second.script(greeting("IMAP4rev1 QUOTA ID IDLE AUTH=PLAIN"))

    def greeted(self) -> str:
        """The greeting of the gateway."""
        client = RawClient(self.site.at("store"))
        client.close()
        return client.greeting.decode().strip()

    def shows(self, words: str) -> None:
        """Wait until the greeting lists C{words}."""
        expected = f"* OK [CAPABILITY {words} SASL-IR AUTH=PLAIN] IMAP4 ready"
        waitUntil(lambda: self.greeted() == expected, f"{expected} instead of {self.greeted()}")

    def test_common(self) -> None:
        """Clients see what both offer, before the login, and what their own server offers after it."""
        self.site.start()
        self.shows("IMAP4rev1 ID QUOTA")
        answers = set()
        for _ in range(2):
            client = RawClient(self.site.at("store"))
            client.send(b"a LOGIN alice wonderland\r\n")
            answers.add(client.reply(b"a "))
            client.close()
        self.assertEqual(
            answers,
            {
                b"a OK [CAPABILITY IMAP4rev1 MOVE ID QUOTA X-ONE UIDPLUS] in\r\n",
                b"a OK [CAPABILITY IMAP4rev1 QUOTA ID IDLE AUTH=PLAIN UIDPLUS] in\r\n",
            },
        )

    def test_changes(self) -> None:
        """A login finds a change, which is logged once; a reload keeps what is known."""
        self.site.start()
        self.shows("IMAP4rev1 ID QUOTA")
        self.second.script(greeting("IMAP4rev1 ID IDLE"))
        for _ in range(4):
            _, client = self.site.login("store")
            client.close()
        self.shows("IMAP4rev1 ID")
        log = self.site.gateway.log()
        self.assertEqual(log.count("changed what it offers: new: nothing; gone: QUOTA, AUTH=PLAIN"), 1)
        self.assertEqual(log.count(" changed what it offers"), 1)
        self.site.gateway.signal(signal.SIGHUP)
        waitUntil(lambda: "reload 1 done" in self.site.gateway.log(), "the reload is done")
        self.assertEqual(self.greeted(), "* OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] IMAP4 ready")

    def test_down(self) -> None:
        """The start does not wait for servers that are down. The first login at one that is back teaches its list."""
        port = self.second.port
        self.first.stop()
        self.second.stop()
        self.site.start()
        self.assertEqual(self.greeted(), "* OK IMAP4 ready")
        back = ScriptedBackend("imap", port=port)
        self.addCleanup(back.stop)
        back.script(greeting("IMAP4rev1 ID MOVE"))

        def isBack() -> bool:
            answer, client = self.site.login("store")
            client.close()
            return "[CAPABILITY" in answer

        waitUntil(isBack, "a login succeeds", within=40)
        self.shows("IMAP4rev1 ID MOVE")

    def test_silent(self) -> None:
        """A server that lists nothing after the login, as Exchange, is asked, and the client gets the list first."""
        for backend in (self.first, self.second):
            backend.script({"CAPABILITY": "* CAPABILITY IMAP4rev1 ID UNAUTHENTICATE\nTAG OK done"})
        self.site.start()
        self.shows("IMAP4rev1 ID")
        client = RawClient(self.site.at("store"))
        self.addCleanup(client.close)
        client.send(b"a LOGIN alice wonderland\r\n")
        self.assertEqual(client.line(), b"* CAPABILITY IMAP4rev1 ID\r\n")
        self.assertEqual(client.line(), b"a OK logged in\r\n")
        self.assertEqual(client.noop(), b"OK backend\r\n")
