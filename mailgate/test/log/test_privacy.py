"""
Tests of C{log_user} and C{log_address}: no line shows more of a user or an address than allowed.
"""

from __future__ import annotations

import io
import json
import os
import re
from functools import partial
from ipaddress import ip_network
from string import Formatter
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, LogPublisher, globalLogPublisher
from twisted.python import log as legacyLog
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.directives import ConfigurationError
from mailgate.log import connection
from mailgate.log.connection import FORMS, LOGGED_IN, LOGIN_FAILED, SERVICE_WARNING, defect, formOf
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal, printable, traced
from mailgate.log.journals import Journals
from mailgate.log.privacy import ADDRESSES, FULL, SAFE, USERS, Masking, Privacy, networkOf
from mailgate.log.settings import ErrorLog, LogSettings
from mailgate.login import Backend, Denial, Route, Trouble
from mailgate.protocols import imap4
from mailgate.test.log.test_connection import HOSTILE, LOGINS
from mailgate.test.support.journals import caught, recorder
from mailgate.test.support.wholelogin import WholeLogin
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector
from mailgate.testing.fakes import makeSession

KEY = bytes(range(32))

MASKED = [Privacy(user, address) for user in USERS for address in ADDRESSES if (user, address) != ("full", "full")]

TEXTS = {
    *("user", "client", "text", "command", "header", "concern"),
    *("name", "headers", "sender", "source", "destination"),
}
"""The fields that may contain a name or an address, which the log masks or leaves out."""

FORMATS = (
    {value: name for name, value in vars(connection).items() if isinstance(value, str) and "client {client}" in value}
    | {traced(LOGGED_IN): "with a trace"}
    | {format: "internal error" for format, form in FORMS.items() if form.event == "internal error"}
)

USER = "joe.bloggs@example.org"
HOST = "192.0.2.77"

TARGETS = [ErrorLog(None, LogLevel.debug), ErrorLog(None, LogLevel.debug, None, True)]


def masked(event: LogEvent, user: str = "full", address: str = "full") -> LogEvent:
    """The event as the log shows it."""
    return Masking(Privacy(user, address), KEY).masked(event)


def shownUser(user: str, kind: str) -> str:
    """How a line shows a user."""
    event = {"log_format": LOGGED_IN, "user": user}
    shown: str = masked(event, kind)["user"]
    return shown


class UserTests(SynchronousTestCase):
    """C{log_user}."""

    def test_full(self) -> None:
        """By default users are shown."""
        self.assertEqual(shownUser(USER, "full"), USER)
        self.assertTrue(FULL.isFull)
        self.assertTrue(all(not each.isFull for each in MASKED))

    def test_hash(self) -> None:
        """A hash is the same for the same user, another one for each other user, and another one with another key."""
        shown = shownUser(USER, "hash")
        self.assertRegex(shown, r"\A#[0-9a-f]{16}\Z")
        self.assertEqual(shown, shownUser(USER, "hash"))
        self.assertEqual(len({shownUser(user, "hash") for user in ("joe", "Joe", "jo", "joe@x", "\udcff", "-")}), 6)
        event = {"log_format": LOGGED_IN, "user": USER}
        self.assertNotEqual(shown, Masking(Privacy("hash"), bytes(32)).masked(event)["user"])

    def test_domain(self) -> None:
        """A domain is what stands behind the last @, if it looks like one."""
        for user, shown in (
            (USER, "@example.org"),
            ("joe@example.org@example.net", "@example.net"),
            ("joe@m\xfcller.example", "@m\xfcller.example"),
            ("joe@localhost", "@localhost"),
            ("joe", "-"),
            ("joe@", "-"),
            ("@", "-"),
            ("joe@example.org*master", "-"),
            ("joe@example.org joe", "-"),
            ("joe@\\xff", "-"),
            ('joe@x\\"', "-"),
            ("joe@_x", "-"),
            ("joe@x\n", "-"),
            ("joe@" + "x" * 300, "-"),
        ):
            self.assertEqual(shownUser(user, "domain"), shown, user)

    def test_off(self) -> None:
        """Nothing is shown of a user."""
        self.assertEqual(shownUser(USER, "off"), "-")

    def test_none(self) -> None:
        """Before the first login there is no user to mask."""
        for kind in USERS:
            self.assertEqual(shownUser("", kind), "")


class AddressTests(SynchronousTestCase):
    """C{log_address}."""

    def test_networks(self) -> None:
        """An address becomes its network, without the port."""
        for client, shown in (
            ("192.0.2.7:40123", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.0/24"),
            ("[2001:db8:1:2::7]:40123", "2001:db8:1::/48"),
            ("2001:db8:1:2::7", "2001:db8:1::/48"),
            ("[::ffff:192.0.2.7]:1", "192.0.2.0/24"),
            ("[fe80::1%eth0]:1", "fe80::/48"),
            ("[::1]:143", "::/48"),
            ("unix:", "unix:"),
            ("mail.example.org", "-"),
            ("", "-"),
        ):
            self.assertEqual(networkOf(client), shown)
            if "/" in shown:
                ip_network(shown)

    def test_json(self) -> None:
        """In JSON the network stands in place of the address, and the port is null."""
        stream = io.StringIO()
        observer = ErrorLogs(stream).observer(TARGETS[1:], Privacy("off", "network"))
        session = makeSession("imap", "0.0.0.0:143", "[2001:db8:1:2::7]:40123", 0.0)
        Journal(LogLevel.debug, observer).debug(connection.BEGUN, **connection.about(session))
        self.assertEqual(json.loads(stream.getvalue())["client"], {"address": "2001:db8:1::/48", "port": None})


class FormatTests(SynchronousTestCase):
    """All formats of L{mailgate.log.connection}."""

    def test_known(self) -> None:
        """Every field is known to be safe, or to be masked. No field is both."""
        self.assertGreater(len(FORMATS), 15)
        self.assertEqual([name for format, name in FORMATS.items() if formOf(format) is None], [])
        for format, name in FORMATS.items():
            fields = {field for _, field, _, _ in Formatter().parse(format) if field}
            self.assertEqual(fields - SAFE - TEXTS, set(), f"{name}: name it in SAFE if it is safe, else in TEXTS")
        self.assertEqual(SAFE & TEXTS, set())

    def test_masked(self) -> None:
        """In every format, all fields that are not safe are masked, in text and JSON, and the line stays whole."""
        for privacy in MASKED:
            for format in FORMATS:
                for text in (f'{USER} from {HOST}:4711"', ""):
                    self._oneFormat(privacy, format, text)

    def _oneFormat(self, privacy: Privacy, format: str, text: str) -> None:
        quoted = f', text "{printable(text.encode())}"' if text else ""
        fields: dict[str, Any] = dict.fromkeys(SAFE, "word") | {"seconds": 1.5, "attempt": 1, "attempts": 1}
        fields |= {"client": f"{HOST}:4711", "user": USER, "text": quoted, "concern": f"is odd{quoted}"}
        fields |= dict.fromkeys(TEXTS - fields.keys(), printable(text.encode())) | {"server": "0.0.0.0:143"}
        for level in ("info", "error"):
            stream = io.StringIO()
            journal = Journal(LogLevel.debug, ErrorLogs(stream).observer(TARGETS, privacy))
            getattr(journal, level)(format, **fields)
            line, inJSON = stream.getvalue().splitlines()
            json.loads(inJSON)
            for each in (line, inJSON):
                self.assertNotIn("Unable to format", each)
                if privacy.user != "full":
                    self.assertNotIn("joe", each)
                    self.assertEqual("example.org" in each, privacy.user == "domain" and "{user}" in format, each)
                if privacy.address != "full":
                    self.assertNotIn(HOST, each)
                    # A digest may contain these digits by chance.
                    self.assertNotIn(":4711", re.sub(r'"pid": \d+|\] \d+:', "", each))
                    self.assertIn("192.0.2.0/24", each)

    def test_unknown(self) -> None:
        """A field that is not known to be safe is left out of a line about a connection. Numbers stay."""
        event = {"log_source": "connections", "log_format": "{client} said {words} {count}", "words": USER, "count": 5}
        changed = masked({**event, "client": HOST, "size": 7}, "off")
        self.assertEqual((changed["words"], changed["count"], changed["size"]), ("-", 5, 7))
        self.assertEqual(changed["client"], HOST)

    def test_others(self) -> None:
        """In other lines the fields user, client, and values of orders are masked, and nothing else."""
        event = {"log_namespace": "mailgate", "log_format": "{word} {user} {client}{values}", "word": "x", "user": USER}
        changed = masked({**event, "client": HOST, "values": f', user "{USER}"'}, "off", "network")
        self.assertEqual((changed["word"], changed["user"], changed["client"]), ("x", "-", "192.0.2.0/24"))
        self.assertEqual(changed["values"], "")

    def test_twice(self) -> None:
        """Masking an event again changes nothing: a hash is not hashed. The first event does not change."""
        event = {"log_format": LOGGED_IN, "user": USER}
        once = masked(event, "hash")
        self.assertIs(masked(once, "hash"), once)
        self.assertEqual(event["user"], USER)

    def test_reason(self) -> None:
        """In a reason, what is in quotes is left out."""
        for reason, shown in (
            (' ("left, joe\\" said", by uid 0)', ' ("-", by uid 0)'),
            (
                'the client offers "joe" by ALPN; the server accepts "imap"',
                'the client offers "-" by ALPN; the server accepts "-"',
            ),
            (', reason "joe', ', reason "-"'),
            (" (timed out)", " (timed out)"),
        ):
            self.assertEqual(masked({"log_format": LOGIN_FAILED, "reason": reason}, "off")["reason"], shown)

    def test_concern(self) -> None:
        """Of a concern, our words stay."""
        event = {"log_format": SERVICE_WARNING, "concern": 'ignored Auth-X, text "joe"'}
        self.assertEqual(masked(event, "off")["concern"], "ignored Auth-X")


class FailureTests(SynchronousTestCase):
    """Exceptions, whose messages may quote anything."""

    def written(self, privacy: Privacy, event: LogEvent) -> str:
        """What the log has of an event, as text and as JSON."""
        stream = io.StringIO()
        ErrorLogs(stream).observer(TARGETS, privacy)(event)
        return stream.getvalue()

    def test_message(self) -> None:
        """A traceback has its frames and the kind of the exception, but not the message."""
        session = makeSession("imap", "0.0.0.0:143", f"{HOST}:1", 0.0)
        for text in (USER, f"x\n{USER}", f'\n  File "{USER}"', f"\n    {USER}"):
            events, observer = recorder()
            defect(Journal(LogLevel.info, observer), session, "the relay failed", caught(text))
            for privacy in MASKED:
                written = self.written(privacy, events[0])
                self.assertNotIn("joe", written)
                self.assertIn("in caught", written)
                self.assertIn("builtins.RuntimeError\n", written)
            self.assertIn("joe", self.written(FULL, events[0]))

    def test_chain(self) -> None:
        """Neither is that of an exception before it."""
        try:
            try:
                raise ValueError(USER)
            except ValueError as error:
                raise RuntimeError(USER) from error
        except RuntimeError:
            from twisted.python.failure import Failure

            event = {"log_format": "broken", "log_level": LogLevel.critical, "log_failure": Failure()}
        self.assertNotIn("joe", self.written(Privacy("off"), event))

    def test_legacy(self) -> None:
        """Errors of twisted.python.log have the traceback in their text."""
        events, observer = recorder()
        publisher = legacyLog.LogPublisher(publishPublisher=LogPublisher(observer))
        failure = caught(USER)
        publisher.msg(failure=failure, why="the reason", isError=1)
        publisher.msg(failure=failure, why=None, isError=1)
        for event in events:
            self.assertIn("joe", self.written(FULL, event))
            self.assertNotIn("joe", self.written(Privacy("off"), event))
        self.assertIn("the reason\n", self.written(Privacy("off"), events[0]))

    def test_deferred(self) -> None:
        """So does an error that a Deferred has kept."""
        events, observer = recorder()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        lost: Deferred[None] = Deferred()
        lost.errback(caught(USER))
        del lost
        self.flushLoggedErrors(RuntimeError)
        self.assertTrue(any("log_failure" in event for event in events))
        for event in events:
            self.assertNotIn("joe", self.written(Privacy("off"), event))


class ConversationTests(SynchronousTestCase):
    """Whole connections, with users that clients choose and texts that services and backends choose."""

    def test_connections(self) -> None:
        """No line of any outcome in any protocol shows a user, or the client's address, at level debug."""
        route = Route((Backend("10.0.0.1", 143),), b"joe.bloggs", b"sesame")
        quoting = Denial(Trouble.DENIED, f"no {USER} from {HOST}".encode())
        later = Denial(Trouble.TEMPORARY, f"no {USER} from {HOST}".encode())
        answers = (quoting, later, route, RuntimeError(f"{USER} {HOST}"))
        peers = (
            IPv4Address("TCP", HOST, 40123),
            IPv6Address("TCP", f"::ffff:{HOST}", 40123),
            IPv6Address("TCP", "2001:db8:77::192:0:2:77", 40123),
        )
        users = (USER.encode(), b"joe.bloggs", *(b"joe.bloggs" + text for text in HOSTILE))
        seen = 0
        for name, (record, lines) in LOGINS.items():
            for answer in answers:
                for user in users:
                    for peer in peers:
                        authenticator = FakeAuthenticator(answer)
                        connector = FakeConnector(FakeClient(b"+OK\r\n"))
                        conversation = Conversation(
                            record,
                            authenticator=authenticator,
                            connector=connector,
                            peer=peer,
                            level=LogLevel.debug,
                        )
                        conversation.hear()
                        if name == "smtp":
                            conversation.says(b"MAIL FROM:<joe.bloggs@example.org>", b"EHLO x")
                        conversation.says(*lines(user))
                        conversation.transport.lose()
                        seen += len(conversation.events)
                        self._check(conversation.events)
                        self.flushLoggedErrors(RuntimeError)
        self.assertGreater(seen, 1000)

    def _check(self, events: list[LogEvent]) -> None:
        for privacy in (Privacy("off", "network"), Privacy("hash", "network"), Privacy("domain", "network")):
            stream = io.StringIO()
            observer = ErrorLogs(stream).observer(TARGETS, privacy)
            for event in events:
                observer(event)
            written = stream.getvalue()
            self.assertIn("client", written)
            for text in ("joe", "bloggs", HOST, "192:0:2:77", "c000:24d", "40123"):
                self.assertNotIn(text, written)


class WholeLoginTests(SynchronousTestCase):
    """The steps at debug, with a service and a backend that repeat the user and the client's address."""

    def test_steps(self) -> None:
        """No step of a login shows a user or an address."""
        quoting = f"no {USER} from {HOST}"
        accepted = (
            "Auth-Status: OK",
            "Auth-Server: 10.0.0.1",
            "Auth-Port: 143",
            f"Auth-User: {USER}",
            f"X-Y: {quoting}",
        )
        refused = (f"Auth-Status: {quoting}", "Auth-Wait: 0")
        unusable = ("Auth-Status: OK", f"Auth-Server: {quoting}", "Auth-Port: 143")
        for answer in (accepted, refused, unusable):
            for reply in (
                b"%b OK in\r\n",
                b"%b NO " + quoting.encode() + b"\r\n",
                b"* BYE " + quoting.encode() + b"\r\n",
            ):
                for header in (False, True):
                    run = WholeLogin(
                        imap4.IMAP4, peer=IPv4Address("TCP", HOST, 40123), cached=True, proxyProtocol=header
                    )
                    if header:
                        run.conversation.transport.protocol._senders = {HOST}
                        run.conversation.send(f"PROXY TCP4 {HOST} 10.0.0.9 40123 143\r\n".encode())
                    run.says(b"a LOGIN joe.bloggs@example.org sesame")
                    run.answer(*answer)
                    if run.reactor.tcpClients:
                        run.serve(b"* OK ready\r\n", partial(self._reply, reply))
                    run.conversation.transport.lose()
                    self.assertTrue(any("joe" in line for line in run.lines))
                    self._check(run)

    def _reply(self, reply: bytes, line: bytes) -> bytes:
        tag, word = line.split()[:2]
        if word.upper() == b"CAPABILITY":
            return b"* CAPABILITY IMAP4rev1\r\n" + tag + b" OK\r\n"
        return reply.replace(b"%b", tag)

    def _check(self, run: WholeLogin) -> None:
        stream = io.StringIO()
        observer = ErrorLogs(stream).observer(TARGETS, Privacy("off", "network"))
        for event in run.events:
            observer(event)
        for line in stream.getvalue().splitlines():
            for text in ("joe", "bloggs", "example.org", HOST, "40123"):
                self.assertNotIn(text, line)


class SettingsTests(SynchronousTestCase):
    """The directives, and where they hold."""

    def parsed(self, options: str, more: str = "") -> GatewaySettings:
        """The settings with C{options} in [mailgate] and C{more} in [mail]."""
        return parse(
            f"[mailgate]\n{options}\n[mail]\nproxy_pass = 10.0.0.1:143\n{more}\n[server imap]\nprotocol = imap\n"
            "listen = 127.0.0.1:1143\n",
            "gateway.ini",
        )

    def test_values(self) -> None:
        """Everything is shown by default. Other words are refused."""
        self.assertEqual(self.parsed("")[LogSettings].privacy, FULL)
        for user in USERS:
            self.assertEqual(self.parsed(f"log_user = {user}")[LogSettings].privacy, Privacy(user))
        self.assertEqual(self.parsed("log_address = network")[LogSettings].privacy, Privacy("full", "network"))
        for options in ("log_user = none", "log_address = off"):
            self.assertRaises(ConfigurationError, self.parsed, options)
        self.assertRaises(ConfigurationError, self.parsed, "", "log_user = off")

    def test_warning(self) -> None:
        """Without full addresses fail2ban has nothing to ban: the check says so."""

        def warnings(options: str) -> list[str]:
            return [str(each) for each in self.parsed(options).warnings if "fail2ban" in str(each)]

        (warning,) = warnings("log_address = network")
        self.assertIn("log_address = network: leaves out the addresses of clients: fail2ban and CrowdSec", warning)
        self.assertEqual(warnings("log_user = off"), [])
        self.assertEqual(warnings("log_address = full"), [])

    def test_servers(self) -> None:
        """It holds for the log of a server too."""
        path = os.path.abspath(self.mktemp())
        settings = self.parsed("log_user = domain\nlog_address = network", f"error_log = {path} info")
        journals = Journals(settings, ErrorLogs(io.StringIO()), None)  # type: ignore[arg-type]
        journal = journals.of(settings.servers[0])
        session = makeSession("imap", "0.0.0.0:143", f"{HOST}:1", 0.0, user=USER.encode())
        journal._limit = None
        journal.info(LOGIN_FAILED, **connection.about(session), trouble="denied", method="plain", reason="", user=USER,
                     text="")  # fmt: skip
        with open(path, encoding="utf-8") as opened:
            line = opened.read()
        self.assertIn("login failed: client 192.0.2.0/24, denied, protocol imap", line)
        self.assertTrue(line.endswith('user "@example.org"\n'), line)

    def test_embedded(self) -> None:
        """It holds for the log of an application that embeds the gateway, which has observers of its own."""
        settings = self.parsed("log_user = off\nlog_address = network\nerror_log = stderr info")
        events, observer = recorder()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        journals = Journals(settings, ErrorLogs(io.StringIO()), None)  # type: ignore[arg-type]
        journals.own.record(LOGGED_IN, user=USER, client=f"{HOST}:1")
        self.assertEqual([(event["user"], event["client"]) for event in events], [("-", "192.0.2.0/24")])

    def test_key(self) -> None:
        """Each start has another key, which no representation shows."""
        logs, others = ErrorLogs(), ErrorLogs()
        self.assertNotEqual(logs.key, others.key)
        self.assertEqual(len(logs.key), 32)
        self.assertEqual(ErrorLogs(randomness=lambda count: b"k" * count).key, b"k" * 32)
        self.assertNotIn(logs.key.hex(), repr(logs) + repr(Masking(FULL, logs.key)))
