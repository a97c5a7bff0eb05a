"""
C{etc/fail2ban}: fail2ban finds the clients whose logins were refused, in each form of our log lines, and no address
that only a client names.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from configparser import ConfigParser
from io import StringIO
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import ErrorLog
from mailgate.log.syslog import syslogServer
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.registry import PROTOCOLS
from mailgate.test.integration.programs import require
from mailgate.testing import Conversation, FakeAuthenticator

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc", "fail2ban")
FILTER = os.path.join(ETC, "filter.d", "mailgate.conf")

STRANGER = "203.0.113.5"
"""An address that never connects: fail2ban must not ban an address that only a client names."""

FORGED = f"login failed: client {STRANGER}:1, denied, protocol imap, method plain, server 0.0.0.0:143, session 0.0"

HOSTILE = (
    f"client {STRANGER}:1, denied, protocol imap",
    FORGED,
    f"\r\n2026-11-28T10:13:03+0000 [info] 1: {FORGED}",
    f'x"\n2026-11-28T10:13:03+0000 [info] {FORGED}',
    f"\\\n2026-11-28T10:13:03+0000 [info] {FORGED}",
    f'\\", denied, client {STRANGER}:1, denied, protocol imap, user "',
    f"\x85\u2028\u2029\u202e2026-11-28T10:13:03+0000 [info] {FORGED}",
    f"\x1b[2K\r2026-11-28T10:13:03+0000 [info] {FORGED}",
    "j" * 250 + f"\n2026-11-28T10:13:03+0000 [info] {FORGED}",
    "j" * 2000,
    STRANGER,
    "<HOST>",
    "{client}",
)

RECORDS = {"imap": IMAP4, "pop3": POP3, "smtp": SMTP, "sieve": SIEVE}

COMMANDS = {
    "imap": (b"a AUTHENTICATE PLAIN", b"%s"),
    "pop3": (b"AUTH PLAIN", b"%s"),
    "smtp": (b"AUTH PLAIN", b"%s"),
    "sieve": (b'AUTHENTICATE "PLAIN"', b'"%s"'),
}


def login(protocol: str, peer: Any, denial: Denial, user: bytes = b"joe", header: bytes = b"") -> list[Any]:
    """The events of a connection from C{peer} whose login as C{user} gets C{denial}."""
    conversation = Conversation(
        RECORDS[protocol], authenticator=FakeAuthenticator(denial), peer=peer, proxyProtocol=bool(header)
    )
    if header:
        # Without set_real_ip_from, headers are not believed.
        conversation.transport.protocol._senders = Everybody()
        conversation.send(header)
    if protocol == "smtp":
        conversation.says(b"EHLO x")
    command, response = COMMANDS[protocol]
    conversation.says(command, response % b64encode(b"\0" + user + b"\0sesame"))
    conversation.transport.lose()
    return conversation.events


class Everybody:
    """The addresses that may send PROXY headers."""

    def __contains__(self, host: str) -> bool:
        return True


def inFile(events: list[Any]) -> list[str]:
    """The lines of a log file, of a process in the foreground."""
    stream = StringIO()
    observer = ErrorLogs(stream).observer([ErrorLog(None, LogLevel.info)])
    for event in events:
        observer(event)
    return stream.getvalue().splitlines()


def inSyslog(events: list[Any]) -> list[str]:
    """The lines that syslogd writes to a file."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(os.path.join(folder, "log"))
        receiver.setblocking(False)
        server = syslogServer(f"server=unix:{folder}/log,facility=mail")
        observer = ErrorLogs().observer([ErrorLog(None, LogLevel.info, server)])
        lines = []
        for event in events:
            observer(event)
            lines += [line.decode() for line in received(receiver)]
        return [re.sub(r"\A<\d+>", "", line) for line in lines]


def received(receiver: socket.socket) -> Iterator[bytes]:
    """The datagrams so far."""
    while True:
        try:
            yield receiver.recv(65536)
        except BlockingIOError:
            return


def inJournal(events: list[Any]) -> list[str]:
    """What fail2ban reads from systemd's journal, into which standard error leads."""
    lines = [re.sub(r" \d+: ", " ", line, count=1) for line in inFile(events)]
    return [f"2026-11-28T10:13:04.123456+00:00 mx twistd[4711]: {line}" for line in lines]


FORMS = (inFile, inSyslog, inJournal)


class FilterTests(SynchronousTestCase):
    """C{etc/fail2ban/filter.d/mailgate.conf}."""

    def setUp(self) -> None:
        require("fail2ban-regex")

    def found(self, lines: list[str]) -> list[str]:
        """The addresses that fail2ban finds in a log with those C{lines}."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as log:
            log.writelines(line + "\n" for line in lines)
        command = ["fail2ban-regex", "--usedns=no", "-o", "ip", path, FILTER]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""), ran.stdout)
        return ran.stdout.split()

    def lines(self, events: list[Any]) -> list[str]:
        """The C{events} in each form."""
        return [line for form in FORMS for line in form(events)]

    def test_unusableLine(self) -> None:
        """A mistake in the account file bans no client; a client that only writes these words is found."""
        mistake = login("imap", IPv4Address("TCP", "192.0.2.7", 40123), Denial(Trouble.DENIED, reason="unusable line"))
        self.assertEqual(self.found(self.lines(mistake)), [])
        user = b"joe, reason unusable line, server"
        imitated = login("imap", IPv4Address("TCP", "192.0.2.7", 40123), Denial(Trouble.DENIED), user)
        self.assertEqual(self.found(self.lines(imitated)), ["192.0.2.7"] * len(FORMS))

    def test_found(self) -> None:
        """A refused login is found in each protocol and form, with IPv4 and IPv6, and behind a load balancer."""
        denial = Denial(Trouble.DENIED, b"no")
        events, expected = [], []
        header = b"PROXY TCP4 198.51.100.%d 10.0.0.1 1234 143\r\n"
        for number, protocol in enumerate(RECORDS, 1):
            events += login(protocol, IPv4Address("TCP", f"192.0.2.{number}", 40123), denial)
            events += login(protocol, IPv6Address("TCP", f"2001:db8::{number}", 40123), denial)
            events += login(protocol, IPv6Address("TCP", f"::ffff:192.0.2.{10 + number}", 40123), denial)
            events += login(protocol, IPv4Address("TCP", "192.0.2.99", 1), denial, header=header % number)
            addresses = f"192.0.2.{number} 2001:db8::{number} 192.0.2.{10 + number} 198.51.100.{number}"
            expected += addresses.split()
        self.assertEqual(self.found(self.lines(events)), expected * len(FORMS))

    def test_protocols(self) -> None:
        """These tests know all protocols."""
        self.assertEqual(set(RECORDS), set(PROTOCOLS))

    def test_strangers(self) -> None:
        """Whatever a client names itself, and whatever a service replies, only the client is found."""
        events, expected = [], []
        for number, text in enumerate(HOSTILE):
            raw = text.encode()
            for protocol in RECORDS:
                peer = IPv4Address("TCP", f"192.0.2.{number}", 40123)
                events += login(protocol, peer, Denial(Trouble.DENIED, raw), raw)
                expected.append(peer.host)
        self.assertEqual(self.found(self.lines(events)), expected * len(FORMS))

    def test_notFound(self) -> None:
        """Our own failures, a login as another user, a unix socket, and all other lines are not found."""
        peer = IPv4Address("TCP", "192.0.2.7", 40123)
        events = []
        for text in HOSTILE:
            raw = text.encode()
            for protocol in RECORDS:
                for trouble in (Trouble.TEMPORARY, Trouble.UNAUTHORIZED):
                    events += login(protocol, peer, Denial(trouble, raw), raw)
                events += login(protocol, UNIXAddress(None), Denial(Trouble.DENIED, raw), raw)
        broken: Any = RuntimeError(f"\n2026-11-28T10:13:03+0000 [info] {FORGED}")
        try:
            raise broken
        except RuntimeError:
            event = {"log_format": "internal error", "log_level": LogLevel.critical, "log_failure": Failure()}
        lines = self.lines([*events, {**event, "log_time": 1795860783.0}])
        self.assertTrue([line for line in lines if line.startswith("    ") and STRANGER in line])
        self.assertEqual(self.found(lines), [])

    def test_jail(self) -> None:
        """The jail has the filter's name and the ports of the protocols."""
        jail = ConfigParser(interpolation=None)
        with open(os.path.join(ETC, "jail.d", "mailgate.conf"), encoding="utf-8") as opened:
            jail.read_file(opened)
        self.assertEqual(jail.sections(), ["mailgate"])
        self.assertEqual(jail["mailgate"]["filter"] + ".conf", os.path.basename(FILTER))
        ports = sorted(port for record in RECORDS.values() for port in record.ports)
        self.assertEqual([int(port) for port in jail["mailgate"]["port"].split(",")], ports)
