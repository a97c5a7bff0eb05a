"""
Tests for L{mailgate.log.jsonlines}, and for C{error_log} with the word json.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import tempfile
from string import Formatter
from typing import Any
from unittest import skipIf

from twisted.logger import LogEvent, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.connection import (
    ACCOUNT_UNUSABLE,
    BACKEND_FAILED,
    BEGUN,
    COMMAND_REFUSED,
    FORMS,
    JUDGED,
    LOGIN_FAILED,
    LOOPS,
    SERVICE_FAILED,
    SERVICE_WARNING,
    STORY,
    UNTOLD_HEADER,
    about,
    defect,
)
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal, printable
from mailgate.log.jsonlines import LONGEST, jsonLines
from mailgate.log.levels import LEVELS, levelName
from mailgate.log.settings import ErrorLog
from mailgate.log.syslog import LONGEST_LINE, forJournal, syslogServer
from mailgate.login import Method, TLSState
from mailgate.session import Outcome, Phase
from mailgate.test.support.documents import MISSING, documents
from mailgate.test.support.journals import NASTY, caught, recorder
from mailgate.testing.fakes import makeSession

EVENTS = {
    *(
        "connection_begun",
        "tls_established",
        "login_accepted",
        "logged_in",
        "login_failed",
        "limited",
        "connection_ended",
    ),
    *(
        "backend_failed",
        "backend_warning",
        "place_changed",
        "login_loops",
        "auth_service_failed",
        "auth_service_warning",
    ),
    *("account_unusable", "command_refused", "bad_proxy_header", "internal_error", "message"),
    # At debug.
    *("proxy_header_read", "command_received", "literal_received", "sasl_exchange_begun", "sasl_mechanism_refused"),
    *("sasl_challenge_sent", "sasl_response_received", "login_begun", "auth_cache", "auth_service_asked"),
    *("auth_service_answered", "auth_service_not_used", "backend_chosen", "backend_connected", "client_introduced"),
    *("backend_tls_established", "backend_login_begun", "backend_login_accepted", "backend_attempt_failed"),
    *("relay_begun", "relay_half_closed", "relay_side_closed", "relay_ended"),
}

PLAIN = {
    "client": "192.0.2.7:40123",
    "protocol": "imap",
    "server": "0.0.0.0:993",
    "session": "5g0qa.7k",
    "user": "joe",
    "text": "",
}


def logged(act: Any) -> list[LogEvent]:
    """The events that C{act} logs through the journal that it gets."""
    events, observer = recorder()
    act(Journal(LEVELS["debug"], observer))
    return events


class LineTests(SynchronousTestCase):
    """Tests for L{jsonLines}."""

    def object(self, event: LogEvent, longest: int = LONGEST) -> dict[str, Any]:
        """The object of an event."""
        line = jsonLines(longest)(event)
        self.assertTrue(line.endswith("}\n"), line)
        self.assertTrue(line[:-1].isascii() and line[:-1].isprintable(), line)
        self.assertLessEqual(len(line), longest)
        found: dict[str, Any] = json.loads(line)
        self.assertIn(found["event"], EVENTS | {"event"})
        return found

    def fields(self, format: str, **fields: Any) -> dict[str, Any]:
        """The object of a line about a connection, without the fields that each object has."""
        (event,) = logged(lambda journal: journal.info(format, **{**PLAIN, **fields}))
        found = self.object(event)
        for name in ("time", "level", "pid", "id", "client", "protocol", "server"):
            del found[name]
        return found

    def test_story(self) -> None:
        """The line at the end of a connection has the names of the API, and numbers are numbers."""
        moved: dict[str, Any] = {"received": 12288, "sent": 3250585}
        session = makeSession("imap", "0.0.0.0:993", "[2001:db8::7]:40123", 0.0, id="5g0qa.7k", **moved)
        session.tls = TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        session.user, session.backend, session.attempts, session.method = b"joe", "10.0.0.1:143", 1, Method.PLAIN
        moments = iter((0.0, 0.0032, 0.0118))
        session.readings = [lambda: next(moments), Phase.ACCEPT, 0.0]
        session.phase = Phase.PROXY_HEADER
        for phase in (Phase.TLS, Phase.AUTH, Phase.RELAY):
            session.enter(phase)
        session.conclude(Outcome.RELAYED, "the client closed")
        (event,) = logged(lambda journal: journal.record(STORY, **session.story(12.25)))
        event["log_time"] = 1764000000.0075
        self.assertEqual(
            list(self.object(event).items()),
            [
                ("time", "2025-11-24T16:00:00.007Z"),
                ("level", "info"),
                ("pid", os.getpid()),
                ("event", "connection_ended"),
                ("id", "5g0qa.7k"),
                ("client", {"address": "2001:db8::7", "port": 40123}),
                ("protocol", "imap"),
                ("server", "0.0.0.0:993"),
                ("user", "joe"),
                ("tls", {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}),
                ("method", "plain"),
                ("attempts", 1),
                ("backend", "10.0.0.1:143"),
                ("phase", "relay"),
                ("outcome", "relayed"),
                ("reason", "the client closed"),
                ("seconds", 12.25),
                ("received", 12288),
                ("sent", 3250585),
                (
                    "times",
                    {
                        **{"proxy": 0, "tls": 3.2, "greeting": 0, "command": 0, "auth": 8.6},
                        **{"connect": 0, "backend-tls": 0, "backend-login": 0},
                    },
                ),
            ],
        )

    def test_nothing(self) -> None:
        """What text lines show as "-" or "no", or not at all, is null. A unix socket has no port."""
        session = makeSession("imap", "unix:/run/imap", "unix:", 0.0)
        (event,) = logged(lambda journal: journal.record(STORY, **session.story(0.5)))
        found = self.object(event)
        self.assertEqual(found["client"], {"address": "unix:", "port": None})
        nulls = {name for name, value in found.items() if value is None}
        self.assertEqual(nulls, {"id", "user", "tls", "method", "backend", "outcome", "reason", "times"})

    def test_failed(self) -> None:
        """The words of a line about a login are fields."""
        self.assertEqual(
            self.fields(
                LOGIN_FAILED, trouble="denied", method="plain", reason=", reason no such user", text=', text "no"'
            ),
            {
                **{"event": "login_failed", "user": "joe", "trouble": "denied", "method": "plain"},
                **{"reason": "no such user", "text": "no"},
            },
        )
        backend = {"backend": "10.0.0.1:143", "reason": "timed out after 30 s", "phase": "backend-login"}
        self.assertEqual(
            self.fields(BACKEND_FAILED, **backend), {"event": "backend_failed", "user": "joe", **backend, "text": None}
        )
        service = {"url": "http://a/", "reason": "failed", "rest": ", skipping it for 10 s"}
        self.assertEqual(
            self.fields(SERVICE_FAILED, **service),
            {"event": "auth_service_failed", "user": "joe", **service, "rest": "skipping it for 10 s", "text": None},
        )

    def test_others(self) -> None:
        """Other events about connections."""
        self.assertEqual(
            self.fields(JUDGED, method="plain", attempt=2, backends="10.0.0.1:143 10.0.0.2:143"),
            {
                **{"event": "login_accepted", "user": "joe", "method": "plain", "attempt": 2},
                "backends": ["10.0.0.1:143", "10.0.0.2:143"],
            },
        )
        self.assertEqual(
            self.fields(SERVICE_WARNING, url="http://a/", concern="sent no Auth-Status")["reason"],
            "sent no Auth-Status",
        )
        self.assertEqual(self.fields(COMMAND_REFUSED, reason="MAIL", command="MAIL FROM:<>")["command"], "MAIL FROM:<>")
        self.assertEqual(self.fields(ACCOUNT_UNUSABLE, path="/x", reason="bad")["path"], "/x")

    def test_constants(self) -> None:
        """What a line says in fixed words is its reason."""
        self.assertIn("as many gateways as proxy_hops allows", self.fields(LOOPS)["reason"])
        self.assertEqual(
            self.fields(UNTOLD_HEADER)["reason"], "refused because set_real_ip_from does not list the client"
        )
        self.assertNotIn("reason", self.fields(BEGUN))

    def test_defect(self) -> None:
        """A defect has its traceback."""
        session = makeSession("imap", "0.0.0.0:993", "192.0.2.7:1", 0.0, id="5g0qa.7k")
        (event,) = logged(lambda journal: defect(journal, session, "the relay failed", caught("boom")))
        found = self.object(event)
        self.assertEqual((found["event"], found["level"], found["id"]), ("internal_error", "critical", "5g0qa.7k"))
        self.assertEqual(found["reason"], "the relay failed")
        self.assertTrue(found["traceback"].startswith("Traceback (most recent call last):\n"))
        self.assertTrue(found["traceback"].endswith("RuntimeError: boom"))

    def test_messages(self) -> None:
        """All other events are messages. They have a traceback if they have a failure."""
        (event,) = logged(lambda journal: journal.notice("reload {number} done", number=3))
        found = self.object(event)
        self.assertEqual({**found, "time": 0}, {
            "time": 0, "level": "notice", "pid": os.getpid(), "event": "message", "message": "reload 3 done"
        })  # fmt: skip
        (event,) = logged(lambda journal: journal.failure("closing failed", caught(NASTY)))
        found = self.object(event)
        self.assertEqual(found["message"], "closing failed")
        self.assertIn(NASTY, found["traceback"])
        self.assertEqual(self.object({"log_format": "here"})["time"], None)

    def test_closed(self) -> None:
        """Each format has an event of the documented set, and every event has a format."""
        self.assertEqual({form.name for form in FORMS.values() if form.event != "event"}, EVENTS - {"message"})

    @skipIf(MISSING is not None, MISSING or "")
    def test_documented(self) -> None:
        """The documents name each event."""
        pages = [text for name, text in documents().items() if name.startswith("docs/observ")]
        quoted = {name for text in pages for name in re.findall(r"``([A-Za-z_ ]+)``", text)}
        named = {name.replace(" ", "_").lower() for name in quoted}
        self.assertEqual(EVENTS - named, set())

    def test_levels(self) -> None:
        """The level is that of a text line."""
        for level in set(LEVELS.values()) - {LEVELS["notice"]}:
            event = {"log_level": level, "log_format": "here", "log_namespace": "x"}
            self.assertEqual(self.object(event)["level"], levelName(event))

    def test_hostile(self) -> None:
        """Users and texts are what the client sent, with U+FFFD for what is not UTF-8. They cannot forge a field."""
        for raw, user in (
            (b'x", "event": "logged_in', 'x", "event": "logged_in'),
            (b"x\\", "x\\"),
            (b"\\x41\\n", "\\x41\\n"),
            (b"\r\n\t\0\x1b\x7f", "\r\n\t\0\x1b\x7f"),
            ("j\xf6e\u202e\u2028\x85\U0001f600".encode(), "j\xf6e\u202e\u2028\ufffd\U0001f600"),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b"%s{client}", "%s{client}"),
            (b"\xff" * 300, "\ufffd" * 256 + "..."),
        ):
            fields = {"trouble": "denied", "method": "plain", "reason": ""}
            found = self.fields(
                LOGIN_FAILED, **fields, user=printable(raw), text=f', text "{printable(raw)}"' if raw else ""
            )
            self.assertEqual((found["user"], found["text"]), (user, user))
            self.assertEqual(found["event"], "login_failed")

    def test_long(self) -> None:
        """A long line is cut at its long fields, in the least size of the targets too, and stays valid JSON."""
        for longest in (LONGEST, LONGEST_LINE):
            for character in ("x", "\0", "\U0001f600", '"', "\\"):
                text = character * 20000
                fields = {**PLAIN, "trouble": "denied", "method": text, "reason": text, "user": text, "client": text}
                (event,) = logged(lambda journal, fields=fields: journal.info(LOGIN_FAILED, **fields))
                found = self.object(event, longest)
                self.assertEqual((found["event"], found["id"]), ("login_failed", "5g0qa.7k"))
                (event,) = logged(lambda journal, text=text: journal.failure("{text}", caught(text), text=text))
                found = self.object(event, longest)
                self.assertEqual(found["event"], "message")
                self.assertIn("traceback", found)
                self.assertTrue(found["message"].startswith(character * 5))
        (event,) = logged(lambda journal: journal.failure("broken", caught("x" * 9000 + " at the end")))
        self.assertTrue(self.object(event)["traceback"].endswith("at the end"))

    def test_most(self) -> None:
        """A line that just fits is not cut."""
        event = {"log_format": "{text}", "text": ""}
        room = LONGEST - len(jsonLines()(event))
        self.assertEqual(len(self.object({**event, "text": "x" * room})["message"]), room)
        self.assertTrue(self.object({**event, "text": "x" * (room + 1)})["message"].endswith("..."))

    def test_trace(self) -> None:
        """A connection with a trace id has the same fields as others, and C{trace}."""
        fields = {**PLAIN, "trace": "0af7651916cd43dd8448eb211c80319c"}
        (event,) = logged(lambda journal: journal.info(BEGUN, **fields))
        found = self.object(event)
        self.assertEqual((found["event"], found["trace"]), ("connection_begun", fields["trace"]))
        self.assertEqual(list(found)[-1], "trace")

    def test_incomplete(self) -> None:
        """An event of which a field is missing is a message, as in a text line."""
        self.assertEqual(self.object({"log_format": LOGIN_FAILED, "log_time": 0.0})["event"], "message")

    def test_all(self) -> None:
        """Every format becomes valid JSON, whatever kinds of values its fields have."""
        for value in ("", "-", NASTY, "a=b c", 5, 2.5, float("inf"), float("nan"), None, True):
            for format in FORMS:
                names = {name for _, name, _, _ in Formatter().parse(format) if name}
                self.object({"log_format": format, **dict.fromkeys(names, value)})


class TargetTests(SynchronousTestCase):
    """Targets of C{error_log} with the word json."""

    def setUp(self) -> None:
        self.stderr = io.StringIO()
        self.path = os.path.abspath(self.mktemp())

    def observe(self, *logs: ErrorLog) -> Journal:
        """A journal that writes to C{logs}."""
        self.logs = ErrorLogs(self.stderr)
        return Journal(LogLevel.info, self.logs.observer(logs))

    def test_beside(self) -> None:
        """Text and JSON may stand beside each other. The text is as ever."""
        text = ErrorLog(None, LogLevel.info)
        journal = self.observe(text, ErrorLog(self.path, LogLevel.info, None, True))
        journal.info("{a} {b}", a="one", b="two")
        self.assertRegex(self.stderr.getvalue(), r"\A\S+ \[info\] \d+: one two\n\Z")
        with open(self.path, encoding="ascii") as opened:
            self.assertEqual(json.load(opened)["message"], "one two")

    def test_oneFile(self) -> None:
        """One file may even have both. It is reopened, given up and counted like others."""
        both = [ErrorLog(self.path, LogLevel.info, None, isJSON) for isJSON in (False, True)]
        journal = self.observe(*both)
        os.rename(self.path, f"{self.path}.1")
        self.assertEqual(list(self.logs.reopen()), [])
        journal.info("{a} {b}", a="one", b="two")
        with open(self.path, encoding="ascii") as opened:
            first, second = opened.read().splitlines()
        self.assertIn("[info]", first)
        self.assertEqual(json.loads(second)["message"], "one two")
        self.logs.retain(both[1:])
        journal.info("{a} {b}", a="three", b="")
        with open(self.path, encoding="ascii") as opened:
            self.assertEqual(len(opened.readlines()), 3)
        self.logs.retain(())

    def test_alarm(self) -> None:
        """Where standard error has JSON alone, the line about a lost log is JSON as well."""
        for others, isJSON in (((True,), True), ((True, False), False), ((False, True), False), ((), False)):
            self.stderr = io.StringIO()
            journal = self.observe(
                ErrorLog("/dev/full"), *(ErrorLog(None, LogLevel.critical, None, each) for each in others)
            )
            journal.error("{a} {b}", a="one", b="two")
            self.logs.retain(())
            (line,) = self.stderr.getvalue().splitlines()
            self.assertIn("cannot write to /dev/full; lines are lost", line)
            self.assertEqual(line.startswith("{"), isJSON)

    def test_syslog(self) -> None:
        """A datagram has one object, which is not cut as text is."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(f"{folder}/log")
            server = syslogServer(f"server=unix:{folder}/log,nohostname")
            journal = self.observe(ErrorLog(None, LogLevel.info, server, True))
            journal.info("{a} {b}", a="x" * 5000, b="two")
            header, _, line = receiver.recv(65536).decode("ascii").partition("]: ")
        self.assertTrue(re.fullmatch(r"<190>\w+ +\d+ [\d:]+ mailgate\[\d+", header), header)
        self.assertLessEqual(len(line), LONGEST_LINE)
        self.assertTrue(json.loads(line)["message"].startswith("xxx"))

    def test_journal(self) -> None:
        """For systemd's journal the severity stands before the object."""
        line = forJournal(jsonLines(), levelName)({"log_level": LogLevel.error, "log_format": "one\ntwo"})
        self.assertTrue(line.startswith('<3>{"time"'))
        self.assertEqual(json.loads(line[3:])["message"], "one\ntwo")

    def test_about(self) -> None:
        """What L{about} returns is enough for a line."""
        session = makeSession("imap", "0.0.0.0:993", "192.0.2.7:1", 0.0, id="5g0qa.7k")
        self.assertEqual(json.loads(jsonLines()({"log_format": BEGUN, **about(session)}))["id"], "5g0qa.7k")
