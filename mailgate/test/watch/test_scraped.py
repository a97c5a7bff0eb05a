"""
Tests of what a scrape says of whole logins: how many there were, and what they have taken. The clients, the
authentication service and the backends are played; everything between them is the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passthrough import PassThroughAuthenticator
from mailgate.keeper.exposition import TEXT, expose
from mailgate.login import Backend
from mailgate.protocols.imap4 import IMAP4
from mailgate.test.support.loginguards import FakeAdmission
from mailgate.test.support.wholelogin import WholeLogin
from mailgate.testing import FakeTransport
from mailgate.testing.fakes import CLIENT
from mailgate.watch.watcher import Watcher

_GROUP = """
[upstream store]
server =
    192.0.2.1:143
    192.0.2.2:143
[server x]
protocol = imap
listen = 127.0.0.1:143
proxy_pass = store
"""
_STORE = ("Auth-Status: OK", "Auth-Upstream: store")


def _scraped(watcher: Watcher) -> Iterator[str]:
    """
    Yield what a scrape says, without what is 0: the name of a metric, the values of its labels and its value. Of a
    histogram that are the bounds of the buckets that have observations with their number, and the sum.
    """
    written, _ = expose(watcher.totals(), TEXT)
    for family in text_string_to_metric_families(written.decode()):
        found: dict[tuple[str, ...], list[str]] = {}
        below = 0.0
        for sample in family.samples:
            bound = sample.labels.get("le")
            labels = tuple(value for label, value in sample.labels.items() if label != "le")
            value = round(sample.value, 6)
            if sample.name.endswith("_bucket"):
                if value != below:
                    found.setdefault(labels, []).append(f"{bound}:{value - below:g}")
                below = 0.0 if bound == "+Inf" else value
            elif value and not sample.name.endswith("_count"):
                found.setdefault(labels, []).append(f"{value:g}")
        if family.name.startswith("mailgate_") and family.name != "mailgate_build_info":
            for labels, values in sorted(found.items()):
                yield " ".join([family.name.removeprefix("mailgate_"), *labels, *values])


class ScrapedTests(SynchronousTestCase):
    """One client at a time. Each step takes a time of its own, so that what a metric adds up shows in its sum."""

    maxDiff = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.watcher = Watcher(self.clock)
        self.backend: Any = None

    def passes(self, seconds: float) -> None:
        """Let time pass for all."""
        for clock in (self.clock, self.login.conversation.clock, self.login.reactor):
            clock.advance(seconds)

    def begin(self, **more: Any) -> None:
        """A client connects, and sends its login after 8 seconds."""
        self.login = WholeLogin(IMAP4, level=LogLevel.critical, watch=self.watcher, **more)
        self.passes(8)
        self.says(b"a LOGIN joe sesame")

    def says(self, line: bytes) -> None:
        """Send a line as the client."""
        self.login.says(line)

    def answer(self, *fields: str) -> None:
        """The service answers after 0.75 seconds."""
        self.passes(0.75)
        self.login.answer(*fields)

    def accept(self) -> None:
        """The backend accepts the connection after 0.02 seconds, and greets after 0.1."""
        self.passes(0.02)
        self.backend = self.login.accept()
        self.passes(0.1)
        self.backend.protocol.dataReceived(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")

    def reply(self, word: bytes) -> None:
        """The backend answers the login after 0.3 seconds."""
        self.passes(0.3)
        tag = self.backend.value().split()[-4]
        self.backend.protocol.dataReceived(b"%b %b\r\n" % (tag, word))

    def logOut(self) -> None:
        """The client leaves after 40 seconds."""
        self.passes(40)
        self.login.conversation.transport.lose()
        self.backend.lose()

    def assertScraped(self, *lines: str) -> None:
        """What a scrape says; the same a second time."""
        self.assertEqual([*_scraped(self.watcher)], [*lines])
        self.assertEqual([*_scraped(self.watcher)], [*lines])

    def test_one(self) -> None:
        """One attempt."""
        self.begin()
        self.answer()
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 0.5:1 0.4",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 0.025:1 0.02",
            "login_seconds imap 2.5:1 1.17",
        )
        self.logOut()
        self.assertScraped(
            "connections other other 1",
            "connections_ended relayed imap 1",
            "logins plain accepted imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 0.5:1 0.4",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 0.025:1 0.02",
            "login_seconds imap 2.5:1 1.17",
            "session_seconds imap 60.0:1 40",
            "relayed_bytes to_client imap 11",
        )

    def test_several(self) -> None:
        """A backend refuses the connection, and the next one takes the login."""
        self.begin(group=_GROUP)
        self.answer(*_STORE)
        self.passes(0.004)
        self.login.refuse()
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 192.0.2.1:143 refused 0.005:1 0.004",
            "backend_connect_seconds 192.0.2.2:143 ok 0.025:1 0.02",
            "backend_login_seconds 192.0.2.2:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 0.5:1 0.4",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 0.025:1 0.024",
            "login_seconds imap 2.5:1 1.174",
        )

    def test_brokenOff(self) -> None:
        """A backend breaks off during the login, and the next one takes it."""
        self.begin(group=_GROUP)
        self.answer(*_STORE)
        self.accept()
        self.passes(0.6)
        self.backend.lose()
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 192.0.2.1:143 ok 0.025:1 0.02",
            "backend_connect_seconds 192.0.2.2:143 ok 0.025:1 0.02",
            "backend_login_seconds 192.0.2.1:143 lost 1.0:1 0.7",
            "backend_login_seconds 192.0.2.2:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 2.5:1 1.1",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 0.05:1 0.04",
            "login_seconds imap 2.5:1 1.89",
        )

    def test_again(self) -> None:
        """The only backend breaks off during the login, and takes it after a pause."""
        self.begin()
        self.answer()
        self.accept()
        self.passes(0.6)
        self.backend.lose()
        self.passes(1.0)
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:2 0.04",
            "backend_login_seconds 10.0.0.1:143 lost 1.0:1 0.7",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 2.5:1 1.1",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 2.5:1 1.04",
            "login_seconds imap 5.0:1 2.89",
        )

    def test_cached(self) -> None:
        """The second client's answer comes from the cache, so no service was asked."""
        self.begin(cached=True)
        self.answer()
        self.accept()
        self.reply(b"OK done")
        talk = self.login.conversation
        talk.transport = FakeTransport(CLIENT)
        talk.transport.connect(talk.factory.buildProtocol(CLIENT))
        self.passes(8)
        self.says(b"a LOGIN joe sesame")
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 2",
            "logins plain accepted imap 2",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "auth_cache hit 1",
            "auth_cache miss 1",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:2 0.04",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:2 0.8",
            "phase_seconds auth imap 1.0:1 0.75",
            "phase_seconds backend_login imap 0.5:2 0.8",
            "phase_seconds command imap 10.0:2 16",
            "phase_seconds connect imap 0.025:2 0.04",
            "login_seconds imap 0.5:1 2.5:1 1.59",
        )

    def test_second(self) -> None:
        """A refused login, and then an accepted one on the same connection."""
        self.begin()
        self.answer("Auth-Status: wrong password", "Auth-Wait: 3")
        self.passes(5)
        self.assertScraped(
            "connections other other 1",
            "logins plain denied imap 1",
            "auth_seconds one:9000 denied 1.0:1 0.75",
        )
        self.says(b"b LOGIN joe other")
        self.answer()
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "logins plain denied imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "auth_seconds one:9000 denied 1.0:1 0.75",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:1 0.4",
            "phase_seconds auth imap 10.0:1 6.5",
            "phase_seconds backend_login imap 0.5:1 0.4",
            "phase_seconds command imap 10.0:1 8",
            "phase_seconds connect imap 0.025:1 0.02",
            "login_seconds imap 2.5:1 1.17",
        )

    def test_secondAtBackend(self) -> None:
        """A login that the backend refuses, and then one that it accepts."""
        self.begin()
        self.answer()
        self.accept()
        self.reply(b"NO wrong")
        self.passes(5)
        self.assertScraped(
            "connections other other 1",
            "logins plain temporary imap 1",
            "auth_seconds one:9000 accepted 1.0:1 0.75",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 10.0.0.1:143 refused 0.5:1 0.4",
        )
        self.says(b"b LOGIN joe sesame")
        self.answer()
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain accepted imap 1",
            "logins plain temporary imap 1",
            "auth_seconds one:9000 accepted 1.0:2 1.5",
            "backend_connect_seconds 10.0.0.1:143 ok 0.025:2 0.04",
            "backend_login_seconds 10.0.0.1:143 ok 0.5:1 0.4",
            "backend_login_seconds 10.0.0.1:143 refused 0.5:1 0.4",
            "phase_seconds auth imap 2.5:1 1.5",
            "phase_seconds backend_login imap 1.0:1 0.8",
            "phase_seconds command imap 30.0:1 13",
            "phase_seconds connect imap 0.05:1 0.04",
            "login_seconds imap 2.5:1 1.17",
        )

    def test_refused(self) -> None:
        """The backend refuses the login, and the client leaves: the backend has accepted none."""
        self.begin(judge=PassThroughAuthenticator(Backend("192.0.2.1", 143)))
        self.accept()
        self.reply(b"NO wrong")
        self.passes(4)
        self.login.conversation.transport.lose()
        self.assertScraped(
            "connections other other 1",
            "connections_ended client_left imap 1",
            "logins plain backend_refused imap 1",
            "backend_connect_seconds 192.0.2.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 192.0.2.1:143 refused 0.5:1 0.4",
            "phase_seconds backend_login imap 0.5:1 0.4",
            "phase_seconds command imap 30.0:1 12",
            "phase_seconds connect imap 0.025:1 0.02",
        )

    def test_tooMany(self) -> None:
        """The backend has accepted a login that it judges, and then a limit refuses it."""
        self.begin(judge=PassThroughAuthenticator(Backend("192.0.2.1", 143)), admission=FakeAdmission())
        self.accept()
        self.reply(b"OK done")
        self.assertScraped(
            "connections other other 1",
            "logins plain limited imap 1",
            "backend_connect_seconds 192.0.2.1:143 ok 0.025:1 0.02",
            "backend_login_seconds 192.0.2.1:143 ok 0.5:1 0.4",
        )
