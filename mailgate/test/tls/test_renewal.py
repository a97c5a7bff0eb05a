"""
Tests for L{mailgate.tls.renewal} and its use by one process and by a master: which renewed certificates are used
automatically, and which only after a reload by the operator.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogPublisher, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, load
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings
from mailgate.process.generations import Generations
from mailgate.process.watching import LOOK
from mailgate.process.workers.master import Master
from mailgate.test.integration.daemon import freePort
from mailgate.test.process.workers.test_master import Reactor
from mailgate.test.support.memoryauthority import Authority
from mailgate.test.support.tlspair import write
from mailgate.tls.renewal import certificatesOf, namesLost, renewalFaults

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
NAMES = ("mx.test", "imap.test")
TEXT = """
[mailgate]
error_log = {folder}/log info
{more}
[mail]
server_name = mx.test
proxy_pass = 127.0.0.1:1
ssl_certificate = cert.pem
ssl_certificate_key = key.pem
[server imap]
protocol = imap
imap_capabilities = IMAP4rev1
listen = 127.0.0.1:{port} ssl
"""
KEPT = "the gateway keeps the previous one; run mailgate reload to use the new one anyway"
REFUSED = "reload refused: "
LACKS = 'the new certificate lacks names of the previous certificate: "more.test"'


class Case(SynchronousTestCase):
    """A configuration with a certificate."""

    more = ""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.certificate = os.path.join(self.folder, "cert.pem")
        self.authority = Authority("The authority")
        self.renew()
        text = TEXT.format(folder=self.folder, port=freePort(), more=self.more)
        self.file = write(os.path.join(self.folder, "gateway.ini"), text.encode())

    def renew(self, *names: str, subject: str = "mail", **changes: Any) -> None:
        """Write another certificate for C{names}, or the usual ones, and its key to the files."""
        key = ec.generate_private_key(ec.SECP256R1())
        called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        certificate = self.authority.issue(called, key, names or NAMES, **changes)
        self.put(certificate, key)

    def put(self, certificate: x509.Certificate, key: Any) -> None:
        """Replace both files."""
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for name, content in (("cert.pem", certificate.public_bytes(Encoding.PEM)), ("key.pem", private)):
            path = os.path.join(self.folder, name)
            os.replace(write(f"{path}.new", content), path)

    def told(self, option: str, what: str) -> str:
        """A log line about the certificate."""
        with open(self.file, encoding="utf-8") as opened:
            number = next(n for n, line in enumerate(opened, 1) if line.startswith(f"{option} ="))
        return f"{self.file}:{number}: [mail] {option} = {self.certificate}: {what}"


class RenewalTests(Case):
    """L{renewalFaults} and L{namesLost}."""

    def faults(self, before: Any, settings: GatewaySettings) -> list[str]:
        return [each.message for each in renewalFaults(before, settings.servers)]

    def test_good(self) -> None:
        """A valid certificate with all names is accepted. It may have more names, or a wildcard for them."""
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        self.assertEqual(self.faults(before, settings), [])
        for names in (NAMES, (*reversed(NAMES), "more.test"), ("mx.test", "imap.test", "*.test")):
            self.renew(*names)
            self.assertEqual(self.faults(before, settings), [])
            self.assertEqual(list(namesLost(before, settings.servers)), [])

    def test_wildcard(self) -> None:
        """A wildcard covers a previous name. A name does not cover a previous wildcard."""
        self.renew("mx.mail.test")
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        self.renew("*.mail.test")
        self.assertEqual(self.faults(before, settings), [])
        before = certificatesOf(settings.servers)
        self.renew("mx.mail.test")
        self.assertEqual(
            self.faults(before, settings),
            ['the new certificate lacks names of the previous certificate: "*.mail.test"'],
        )

    def test_dates(self) -> None:
        """A certificate that has expired, or is not yet valid, is refused."""
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        self.renew(since=until - DAY, until=until)
        told = "the new certificate has expired (valid until 2024-02-29 12:30 UTC)"
        self.assertEqual(self.faults(before, settings), [told])
        since = datetime(2049, 1, 2, 3, 4, tzinfo=timezone.utc)
        self.renew(since=since, until=since + DAY)
        told = "the new certificate is not yet valid (valid from 2049-01-02 03:04 UTC)"
        self.assertEqual(self.faults(before, settings), [told])

    def test_namesUnreadable(self) -> None:
        """
        A certificate whose names cannot be parsed does not prevent the start, but does not replace one with names.
        """
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
        party = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex("3006a50481024142"))
        self.put(builder.add_extension(party, False).sign(key, hashes.SHA256()), key)
        self.assertEqual([each.names for each in certificatesOf(settings.servers).values()], [("mail",)])
        told = 'the new certificate lacks names of the previous certificate: "mx.test", "imap.test"'
        self.assertEqual(self.faults(before, settings), [told])

    def test_same(self) -> None:
        """An expired current certificate does not prevent other changes."""
        self.renew(since=NOW - 2 * DAY, until=NOW - DAY)
        settings = load(self.file)
        self.assertEqual(self.faults(certificatesOf(settings.servers), settings), [])

    def test_foreign(self) -> None:
        """A certificate that lacks a name or an address is refused."""
        self.renew("mx.test", "192.0.2.1")
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        for names, lost in (
            (("mx.test",), '"192.0.2.1"'),
            (("other.test",), '"mx.test", "192.0.2.1"'),
            (("192.0.2.1",), '"mx.test"'),
        ):
            self.renew(*names)
            told = f"the new certificate lacks names of the previous certificate: {lost}"
            self.assertEqual(self.faults(before, settings), [f"{told}"])
            self.assertEqual([each.message for each in namesLost(before, settings.servers)], [told])

    def test_commonName(self) -> None:
        """Without other names the common names are compared."""
        key = ec.generate_private_key(ec.SECP256R1())
        for name, isLost in (("old.test", False), ("new.test", True)):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            certificate = self.authority.issue(subject, key)
            self.put(certificate, key)
            settings = load(self.file)
            if not isLost:
                before = certificatesOf(settings.servers)
            self.assertEqual(bool(self.faults(before, settings)), isLost)

    def test_unreadable(self) -> None:
        """An unreadable certificate is left to other checks."""
        settings = load(self.file)
        before = certificatesOf(settings.servers)
        for content in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            write(self.certificate, content)
            self.assertEqual(self.faults(before, settings), [])
            self.assertEqual(certificatesOf(settings.servers), {})
        os.unlink(self.certificate)
        self.assertEqual(self.faults(before, settings), [])

    def test_newServer(self) -> None:
        """A new server may have any certificate."""
        settings = load(self.file)
        self.renew("other.test")
        self.assertEqual(self.faults({}, settings), [])


class ProcessTests(Case):
    """One process."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        logs = ErrorLogs()
        settings = load(self.file)
        process = ProcessLog(logs.observerFor(settings[LogSettings].errorLog, self.file, "mailgate"))
        self.generations = Generations(settings, self.reactor, logs, process, load)
        self.generations.startService()
        self.addCleanup(self.end)

    def end(self) -> None:
        stopped: Deferred[Any] = self.generations.stopService()
        self.reactor.pump([0, 2.0, 0])
        self.successResultOf(stopped)

    def look(self) -> list[tuple[str, str]]:
        """Check the files, and return what is logged, by levels."""
        with capturedLogs() as events:
            self.reactor.pump([LOOK, LOOK, 0])
        return self.lines(events)

    def lines(self, events: Any) -> list[tuple[str, str]]:
        found = [each for each in events if each["log_namespace"] == "mailgate"]
        return [(each["log_level"].name, formatEvent(each)) for each in found]

    def test_renewed(self) -> None:
        """A good certificate is used, and the next one is compared with it."""
        before = self.generations.gateway
        self.renew(*NAMES, "more.test")
        self.assertNotIn("error", [level for level, _ in self.look()])
        self.assertIsNot(self.generations.gateway, before)
        self.renew()
        self.assertIn(
            (
                "error",
                REFUSED + self.told("ssl_certificate", f"{LACKS}; {KEPT}"),
            ),
            self.look(),
        )

    def test_refused(self) -> None:
        """An expired certificate is reported once as an error. The gateway continues until there is a good one."""
        before = self.generations.gateway
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        self.renew(since=until - DAY, until=until)
        told = self.told(
            "ssl_certificate", f"the new certificate has expired (valid until 2024-02-29 12:30 UTC); {KEPT}"
        )
        _, *errors = self.look()
        kept = f"{REFUSED}the current configuration stays active"
        self.assertEqual(errors, [("error", REFUSED + told), ("error", kept)])
        self.assertEqual(self.look(), [])
        self.assertIs(self.generations.gateway, before)
        self.renew()
        self.look()
        self.assertIsNot(self.generations.gateway, before)

    def test_asked(self) -> None:
        """A reload by the operator uses any certificate, with a warning."""
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        self.renew("mx.test", since=until - DAY, until=until)
        before = self.generations.gateway
        with capturedLogs() as events:
            self.assertEqual(self.successResultOf(self.generations.reload()), ())
            self.reactor.advance(0)
        self.assertIsNot(self.generations.gateway, before)
        warned = [line for level, line in self.lines(events) if level == "warn" and line.startswith(self.file)]
        lost = self.told("ssl_certificate", 'the new certificate lacks names of the previous certificate: "imap.test"')
        expired = self.told("ssl_certificate", "has expired (valid until 2024-02-29 12:30 UTC); clients refuse it")
        self.assertEqual(sorted(warned), sorted([lost, expired]))


class MasterTests(Case):
    """A master and its workers."""

    more = "worker_processes = 2"

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = Reactor()
        with open(self.file, encoding="utf-8") as opened:
            text = opened.read()
        self.master = Master(load(self.file), text, self.reactor, ErrorLogs(), ProcessLog(LogPublisher()))
        self.addCleanup(lambda: self.master.sockets.close())
        self.master.privilegedStartService()
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        self.reactor.comesUp(2)

    def look(self) -> list[str]:
        with capturedLogs() as events:
            self.reactor.pump([LOOK, LOOK])
        return [formatEvent(each) or "" for each in events]

    def test_refused(self) -> None:
        """A refused certificate starts no workers. A good one does, and so does a reload by the operator."""
        self.renew("other.test")
        lost = 'the new certificate lacks names of the previous certificate: "mx.test", "imap.test"'
        self.assertIn(REFUSED + self.told("ssl_certificate", f"{lost}; {KEPT}"), self.look())
        self.assertEqual(len(self.reactor.processes), 1)
        with capturedLogs() as events:
            self.master.reload()
        self.assertIn(self.told("ssl_certificate", lost), [formatEvent(each) for each in events])
        self.assertEqual(len(self.reactor.processes), 2)
        self.reactor.comesUp(2)
        self.renew("other.test", "more.test")
        self.look()
        self.assertEqual(len(self.reactor.processes), 3)

    def test_lost(self) -> None:
        """If the zygote dies, only the refused certificate is left, and the log says that it is used."""
        self.renew("other.test")
        self.look()
        (zygote,) = self.reactor.processes
        with capturedLogs() as events:
            zygote.exits()
            self.reactor.pump([1] * 5)
        self.assertEqual(len(self.reactor.processes), 2)
        lost = 'the new certificate lacks names of the previous certificate: "mx.test", "imap.test"'
        told = self.told("ssl_certificate", f"{lost}; using the new certificate, because the previous one is lost")
        self.assertIn(("error", told), [(each["log_level"].name, formatEvent(each)) for each in events])
