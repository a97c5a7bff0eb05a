"""
Tests for L{mailgate.log.syslog}: they read from sockets what a syslog server receives, byte by byte.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from typing import Any

from twisted.logger import ILogObserver, LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal
from mailgate.log.levels import LEVELS, levelName
from mailgate.log.settings import ErrorLog
from mailgate.log.syslog import FACILITIES, LONGEST_LINE, SyslogObserver, SyslogServer, syslogServer
from mailgate.test.support.journals import NASTY, caught

HOST = socket.gethostname().lower()


def textOf(event: Any) -> str:
    """Return the text of an event."""
    text: str = event["text"]
    return text


class ParametersTests(SynchronousTestCase):
    """Tests for L{syslogServer}."""

    def test_defaults(self):
        """The defaults are local7, the tag mailgate, this host's name in lower case, and port 514."""
        expected = SyslogServer(socket.AF_INET, ("10.0.0.1", 514), 23, "mailgate", HOST)
        self.assertEqual(syslogServer("server=10.0.0.1"), expected)

    def test_addresses(self):
        """It takes addresses of both families with and without a port, host names and unix sockets."""
        for text, family, address in (
            ("10.0.0.1:5514", socket.AF_INET, ("10.0.0.1", 5514)),
            ("[::1]", socket.AF_INET6, ("::1", 514, 0, 0)),
            ("[::1]:5514", socket.AF_INET6, ("::1", 5514, 0, 0)),
            ("unix:/dev/log", socket.AF_UNIX, "/dev/log"),
        ):
            server = syslogServer(f"server={text}")
            self.assertEqual((server.family, server.address), (family, address))
        self.assertEqual(syslogServer("server=localhost:99").address[:2][1], 99)

    def test_name(self):
        """The system resolves host names, with any characters."""

        def getaddrinfo(host, port, **hints):
            self.assertEqual(host, "log_server")
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("10.0.0.1", port))]

        self.patch(socket, "getaddrinfo", getaddrinfo)
        self.assertEqual(syslogServer("server=log_server").address, ("10.0.0.1", 514))

    def test_options(self):
        """Parameters come in any order. severity has no effect."""
        server = syslogServer("tag=mx_1,nohostname,facility=mail,severity=debug,server=10.0.0.1")
        self.assertEqual((server.tag, server.host, server.facility), ("mx_1", None, 2))
        self.assertEqual(server, syslogServer("server=10.0.0.1,facility=mail,tag=mx_1,nohostname"))

    def test_facilities(self):
        """nginx's facilities have nginx's numbers."""
        numbers = {
            "kern": 0,
            "mail": 2,
            "intern": 5,
            "clock": 9,
            "authpriv": 10,
            "cron": 15,
            "local0": 16,
            "local7": 23,
        }
        self.assertEqual({word: FACILITIES.index(word) for word in numbers}, numbers)
        for word in FACILITIES:
            self.assertEqual(syslogServer(f"server=10.0.0.1,facility={word}").facility, FACILITIES.index(word))

    def test_refused(self):
        """The message names what is wrong, and what would be right."""
        for text, message in (
            ("", 'unknown syslog parameter ""'),
            ("10.0.0.1", 'unknown syslog parameter "10.0.0.1"'),
            ("server=10.0.0.1,tga=x", 'unknown syslog parameter "tga=x"; did you mean tag?'),
            ("server=10.0.0.1,", 'unknown syslog parameter ""'),
            ("server=10.0.0.1,tag", 'unknown syslog parameter "tag"'),
            ("server=10.0.0.1,nohostname=on", 'unknown syslog parameter "nohostname=on"'),
            (
                "facility=mail",
                "no syslog server specified: give one, such as server=10.0.0.1:514 or server=unix:/dev/log",
            ),
            ("server=10.0.0.1,server=10.0.0.2", 'duplicate syslog "server"'),
            ("server=10.0.0.1,tag=a,tag=b", 'duplicate syslog "tag"'),
            ("server=10.0.0.1,facility=mial", 'unknown syslog facility "mial"; use one of kern, user'),
            ("server=10.0.0.1,facility=mial", "did you mean mail?"),
            ("server=10.0.0.1,facility=MAIL", 'unknown syslog facility "MAIL"'),
            ("server=10.0.0.1,severity=fatal", 'unknown syslog severity "fatal"; use one of emerg, alert'),
            ("server=10.0.0.1,tag=", "must be 1 to 32 letters, digits and underscores"),
            ("server=10.0.0.1,tag=mail-gate", 'syslog tag "mail-gate" must be'),
            (f"server=10.0.0.1,tag={'x' * 33}", "must be 1 to 32"),
            ("server=", 'syslog server "": must be host:port'),
            ("server=10.0.0.1:0", 'syslog server "10.0.0.1:0": invalid port 0'),
            ("server=10.0.0.1:", "must be host:port"),
            ("server=::1", "must be host:port"),
            ("server=unix:", "must be host:port"),
            ("server=missing.invalid", 'host not found in syslog server "missing.invalid"'),
        ):
            self.assertIn(message, str(self.assertRaises(ValueError, syslogServer, text)), text)


class SyslogCase(SynchronousTestCase):
    """Syslog servers and what they received."""

    def setUp(self):
        # Not mktemp(), whose paths may be too long for a unix socket.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "log")

    def receiver(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        receiver = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.settimeout(10)
        receiver.bind(self.path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        return receiver

    def parameters(self, receiver: socket.socket) -> str:
        if receiver.family == socket.AF_UNIX:
            return f"server=unix:{receiver.getsockname()}"
        return f"server=127.0.0.1:{receiver.getsockname()[1]}"

    def observer(self, parameters: str) -> SyslogObserver:
        return SyslogObserver(syslogServer(parameters), textOf, levelName)

    def event(self, text: str, moment: float = 1763842383.0, level: Any = LogLevel.error) -> Any:
        return {"text": text, "log_time": moment, "log_level": level}

    def heard(self, receiver: socket.socket) -> list[bytes]:
        """Return the datagrams that have arrived. Over the loopback they arrive when they are sent."""
        receiver.setblocking(False)
        found = []
        while True:
            try:
                found.append(receiver.recv(65536))
            except BlockingIOError:
                return found


class ObserverTests(SyslogCase):
    """Tests for L{SyslogObserver}."""

    def at(self, moment: float) -> bytes:
        """Return the time as the C library formats it."""
        return time.strftime("%b %e %H:%M:%S", time.localtime(moment)).encode()

    def test_interface(self):
        """It provides ILogObserver."""
        self.assertTrue(verifyObject(ILogObserver, self.observer("server=10.0.0.1")))

    def test_udp(self):
        """A datagram to a UDP port looks as nginx would send it."""
        receiver = self.receiver()
        self.observer(self.parameters(receiver))(self.event("backend lost"))
        told = (self.at(1763842383.0), HOST.encode(), os.getpid())
        self.assertEqual(receiver.recv(65536), b"<187>%s %s mailgate[%d]: backend lost" % told)

    def test_unix(self):
        """A datagram to a unix socket looks the same."""
        receiver = self.receiver(socket.AF_UNIX)
        self.observer(self.parameters(receiver) + ",tag=mx,facility=mail,nohostname")(self.event("backend lost\n"))
        self.assertEqual(receiver.recv(65536), b"<19>%s mx[%d]: backend lost" % (self.at(1763842383.0), os.getpid()))

    def test_moment(self):
        """The time is that of the event, local, with a space before a day of one digit."""
        receiver = self.receiver()
        observer = self.observer(self.parameters(receiver) + ",nohostname")
        first, tenth = 1767312000.0, 1768500000.0
        for moment in (first, tenth):
            observer(self.event("x", moment))
        one, ten = self.heard(receiver)
        self.assertRegex(one, rb"\A<187>Jan  [12] \d\d:\d\d:\d\d mailgate\[\d+\]: x\Z")
        self.assertRegex(ten, rb"\A<187>Jan 1[56] \d\d:\d\d:\d\d mailgate\[\d+\]: x\Z")
        self.assertEqual([one[5:20], ten[5:20]], [self.at(first), self.at(tenth)])

    def test_severity(self):
        """The severity is that of the event, whatever severity= says."""
        receiver = self.receiver()
        observer = self.observer(self.parameters(receiver) + ",facility=kern,severity=emerg")
        for level in LogLevel.iterconstants():
            observer(self.event("x", level=level))
        self.assertEqual([line[:3] for line in self.heard(receiver)], [b"<7>", b"<6>", b"<4>", b"<3>", b"<2>"])
        observer({**self.event("x", level=LogLevel.info), "log_namespace": "mailgate"})
        self.assertEqual([line[:3] for line in self.heard(receiver)], [b"<5>"], "the life of the process is a notice")

    def test_lines(self):
        """Each line of a text is a datagram."""
        receiver = self.receiver()
        self.observer(self.parameters(receiver) + ",nohostname")(self.event("one\n  two\n"))
        one, two = (line.partition(b"]: ")[2] for line in self.heard(receiver))
        self.assertEqual((one, two), (b"one", b"  two"))

    def test_long(self):
        """A long line is cut, but not within a character."""
        receiver = self.receiver()
        observer = self.observer(self.parameters(receiver) + ",nohostname")
        for text in ("x" * LONGEST_LINE, "x" * 100000, "x" + "ö" * 100000):
            observer(self.event(text))
        whole, long, wide = (line.partition(b"]: ")[2] for line in self.heard(receiver))
        self.assertEqual(whole, b"x" * LONGEST_LINE)
        self.assertEqual(long, b"x" * LONGEST_LINE)
        self.assertEqual(wide.decode(), "x" + "ö" * (LONGEST_LINE // 2 - 1))

    def test_anyText(self):
        """Surrogates, which UTF-8 cannot encode, are escaped."""
        receiver = self.receiver()
        self.observer(self.parameters(receiver))(self.event("Jörg \udcff"))
        self.assertTrue(receiver.recv(65536).endswith(r"Jörg \udcff".encode()))

    def test_nobody(self):
        """Without a syslog server nothing is raised, and the lines are lost."""
        gone = self.receiver()
        parameters = self.parameters(gone)
        gone.close()
        udp, unix = self.observer(parameters), self.observer(f"server=unix:{self.path}")
        for text in ("one", "two"):
            udp(self.event(text))
            unix(self.event(text))
        self.assertFalse(os.path.exists(self.path))

    def test_back(self):
        """
        A unix socket that is created again, in the old place or by another server, receives the next line, and before
        it the number of lost lines.
        """
        receiver = self.receiver(socket.AF_UNIX)
        observer = self.observer(self.parameters(receiver))
        observer(self.event("one"))
        self.assertTrue(receiver.recv(65536).endswith(b"one"))
        receiver.close()
        observer(self.event("two"))
        os.unlink(self.path)
        observer(self.event("three"))
        again = self.receiver(socket.AF_UNIX)
        observer(self.event("four"))
        observer(self.event("five"))
        lost, heard, last = self.heard(again)
        told = (
            f" mailgate[{os.getpid()}]: 2 lines were lost because syslog:server=unix:{self.path} could not be written"
        )
        self.assertIn(told.encode(), lost)
        self.assertTrue(heard.endswith(b"four"), heard)
        self.assertTrue(last.endswith(b"five"), last)

    def test_alarm(self):
        """Only the first lost line causes an alarm."""
        alarms: list[Any] = []
        observer = SyslogObserver(syslogServer(f"server=unix:{self.path}"), textOf, levelName, alarms.append)
        for _ in range(3):
            observer(self.event("one\ntwo"))
        (alarm,) = alarms
        place = f"syslog:server=unix:{self.path}"
        self.assertEqual(textOf(alarm), f"cannot write to {place}; lines are lost: No such file or directory")
        receiver = self.receiver(socket.AF_UNIX)
        observer(self.event("three"))
        self.assertIn(b" 6 lines were lost because ", self.heard(receiver)[0])

    def test_backOverUDP(self):
        """A UDP port that is opened again receives the next line, without a report of lost lines."""
        receiver = self.receiver()
        observer = self.observer(self.parameters(receiver))
        place = receiver.getsockname()
        receiver.close()
        observer(self.event("one"))
        again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(again.close)
        again.bind(place)
        observer(self.event("two"))
        (heard,) = self.heard(again)
        self.assertTrue(heard.endswith(b"two"), heard)

    def test_slow(self):
        """
        A syslog server that does not read does not block. Datagrams without room are dropped; the others are complete.
        """
        receiver = self.receiver(socket.AF_UNIX)
        observer = self.observer(self.parameters(receiver))
        for number in range(5000):
            observer(self.event(f"line {number}"))
        heard = self.heard(receiver)
        self.assertLess(len(heard), 5000)
        for number, line in enumerate(heard):
            self.assertTrue(line.endswith(f" line {number}".encode()), line)
        observer(self.event("afterwards"))
        lost, after = self.heard(receiver)
        self.assertIn(f" {5000 - len(heard)} lines were lost because ".encode(), lost)
        self.assertTrue(after.endswith(b"afterwards"))


class ErrorLogTests(SyslogCase):
    """syslog as a target of error_log."""

    def journal(self, receiver: socket.socket, level: str) -> Journal:
        log = ErrorLog(None, LEVELS[level], syslogServer(self.parameters(receiver) + ",nohostname"))
        return Journal(LEVELS[level], ErrorLogs().observer([log]))

    def test_line(self):
        """The message is the line of a log file, with time and level, as in nginx."""
        receiver = self.receiver()
        self.journal(receiver, "info").info("client {client} left", client="192.0.2.7")
        self.assertRegex(
            receiver.recv(65536),
            rb"\A<190>[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d mailgate\[\d+\]:"
            rb" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[info\] client 192\.0\.2\.7 left\Z",
        )

    def test_level(self):
        """Events below the level are not sent."""
        receiver = self.receiver()
        journal = self.journal(receiver, "warn")
        journal.info("small talk")
        journal.warn("trouble")
        (heard,) = self.heard(receiver)
        self.assertTrue(heard.endswith(b"[warn] trouble"), heard)

    def test_injection(self):
        """Texts from the network cannot end a line or control a terminal."""
        receiver = self.receiver()
        self.journal(receiver, "error").error("user {user}", user=NASTY)
        (heard,) = self.heard(receiver)
        self.assertTrue(heard.decode().isprintable())
        self.assertIn(rb"joe\r\n2026-01-01", heard)

    def test_failure(self):
        """A failure has its traceback, with each line as a message."""
        receiver = self.receiver()
        self.journal(receiver, "error").failure("login failed", caught(NASTY))
        first, *rest = self.heard(receiver)
        self.assertTrue(first.endswith(b"[critical] login failed"), first)
        self.assertIn(b" mailgate[%d]:     Traceback" % os.getpid(), rest[0])
        self.assertEqual([line for line in [first, *rest] if not line.decode().isprintable()], [])
        self.assertEqual({line[:5] for line in [first, *rest]}, {b"<186>"})

    def test_once(self):
        """A syslog server that is named several times has one socket."""
        receiver = self.receiver()
        logs = ErrorLogs()
        log = ErrorLog(None, LogLevel.error, syslogServer(self.parameters(receiver)))
        senders = set()
        for _ in range(2):
            Journal(observer=logs.observer([log])).error("x")
            senders.add(receiver.recvfrom(65536)[1])
        self.assertEqual(len(senders), 1)
