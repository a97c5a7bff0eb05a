"""
The demo from end to end: a separate twistd with etc/demo.ini on free ports, and Python's mail clients. This module
tests what only a process has: the exit status, signals, and standard output.
"""

from __future__ import annotations

import contextlib
import imaplib
import io
import os
import poplib
import re
import shutil
import smtplib
import socket
import ssl
import sys
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

import mailgate
from mailgate.cli.main import main
from mailgate.system.exitstatus import CUT
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
DEMO = os.path.join(ROOT, "etc", "demo.ini")
TWISTD = "from twisted.scripts.twistd import run; run()"

USER, PASSWORD = "alice", "wonderland"
MESSAGE = b"From: alice@example.com\r\nTo: alice@example.com\r\nSubject: A looking-glass\r\n\r\nHello.\r\n"

PATIENCE = 10.0
"""Seconds that a client waits for an answer."""
DEADLINE = 30.0
"""Seconds until a process must have started or exited."""


class Gateway(ProcessProtocol):
    """A twistd process: its output so far, and its exit status."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""
        self.status: int | None = None
        self.isUp: Deferred[None] = Deferred()
        self.hasEnded: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.stdout += data
        if self.stdout.endswith(b"\n") and b"Commands to try" in self.stdout and not self.isUp.called:
            self.isUp.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.stderr += data

    def processEnded(self, reason: Failure) -> None:
        # Negative for a signal, as in the standard library.
        ended: Any = reason.value
        self.status = -ended.signal if ended.signal else ended.exitCode
        if not self.isUp.called:
            told = (self.stdout + self.stderr).decode("utf-8", "backslashreplace")
            self.isUp.errback(AssertionError(f"it has ended with status {self.status}:\n{told}"))
        self.hasEnded.callback(self.status)

    def terminate(self, name: str = "TERM") -> None:
        """Send a signal to the process, if it still runs."""
        try:
            assert self.transport is not None
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            return


class ProcessCase(TestCase):
    """A folder with a configuration, and a home in which the sandbox keeps its certificate."""

    timeout = 120

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.state = os.path.join(self.folder, "state")
        self.ini = os.path.join(self.folder, "gateway.ini")

    def demo(self):
        """etc/demo.ini with free ports. C{self.ports} maps the ports in the file to them."""
        if not os.path.exists(DEMO):
            raise SkipTest("etc/demo.ini is not installed")
        with open(DEMO, encoding="utf-8") as opened:
            text = opened.read()
        places = re.findall(r"127\.0\.0\.1:(\d+)", text)
        self.ports = {int(port): freePort() for port in dict.fromkeys(places)}
        # A folder with a path that is short enough for a unix socket.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.assertIn("\npid = demo.pid\n", text)
        text = text.replace("\npid = ", f"\npid = {folder}/")
        return re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda match: str(self.ports[int(match[0])]), text)

    def lineOf(self, text):
        """Return the number of the line C{text} of the configuration."""
        with open(self.ini, encoding="utf-8") as opened:
            return opened.read().split("\n").index(text) + 1

    def spawn(self, text, *options, foreground=True):
        """Start twistd with the configuration C{text}, and the transports of these tests."""
        with open(self.ini, "w", encoding="utf-8") as opened:
            opened.write(withTransports(text))
        process = Gateway()
        python = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        environ = {
            **os.environ,
            "HOME": self.folder,
            "XDG_STATE_HOME": self.state,
            "PYTHONPATH": os.pathsep.join([ROOT, *python]),
        }
        place = ["-n"] if foreground else []
        command = [sys.executable, "-c", TWISTD, *place, "--pidfile=", *options, "mailgate", "--config", self.ini]
        self.reactor.spawnProcess(process, sys.executable, command, environ, self.folder)
        self.addCleanup(self.clear, process)
        return process

    async def clear(self, process):
        """Kill the process if it still runs."""
        process.isUp.addErrback(lambda failure: None)
        if process.status is None:
            await self.end(process)

    async def gone(self, process):
        """Wait for the exit, and kill the process after the deadline; return the exit status."""
        overdue = self.reactor.callLater(DEADLINE, process.terminate, "KILL")
        try:
            return await process.hasEnded
        finally:
            if overdue.active():
                overdue.cancel()

    async def end(self, process, name="TERM"):
        """Send a signal, and wait for the exit."""
        process.terminate(name)
        return await self.gone(process)

    async def start(self, text=None):
        """Start the demo, and wait until it serves."""
        process = self.spawn(self.demo() if text is None else text)
        overdue = self.reactor.callLater(DEADLINE, process.terminate, "KILL")
        try:
            await process.isUp
        finally:
            if overdue.active():
                overdue.cancel()
        return process

    def trust(self):
        """A context that trusts the sandbox's certificate and no other."""
        return ssl.create_default_context(cafile=os.path.join(self.state, "mailgate", "certificate.pem"))

    # The clients. They block, so the tests call them in threads.

    def imap(self, port, tls=None):
        """An IMAP client; C{tls} is None, "starttls" or "ssl"."""
        if tls == "ssl":
            return imaplib.IMAP4_SSL("localhost", self.ports[port], ssl_context=self.trust(), timeout=PATIENCE)
        client = imaplib.IMAP4("localhost", self.ports[port], timeout=PATIENCE)
        if tls:
            client.starttls(self.trust())
        return client

    def pop3(self, port, tls=None):
        """A POP3 client."""
        if tls == "ssl":
            return poplib.POP3_SSL("localhost", self.ports[port], context=self.trust(), timeout=PATIENCE)
        client = poplib.POP3("localhost", self.ports[port], timeout=PATIENCE)
        if tls:
            client.stls(self.trust())
        return client

    def smtp(self, port, tls=None):
        """An SMTP client."""
        if tls == "ssl":
            return smtplib.SMTP_SSL("localhost", self.ports[port], context=self.trust(), timeout=PATIENCE)
        client = smtplib.SMTP("localhost", self.ports[port], timeout=PATIENCE)
        if tls:
            client.starttls(context=self.trust())
        return client

    def send(self, port=1587, tls=None):
        """Send a message by SMTP, from alice to alice."""
        with self.smtp(port, tls) as client:
            client.login(USER, PASSWORD)
            client.sendmail("alice@example.com", ["alice@example.com"], MESSAGE)

    def fetch(self, port=1143, tls=None):
        """Return all messages of alice, read by IMAP."""
        with self.imap(port, tls) as client:
            client.login(USER, PASSWORD)
            client.select("INBOX", readonly=True)
            _, (numbers,) = client.search(None, "ALL")
            return [client.fetch(number.decode(), "(RFC822)")[1][0][1] for number in numbers.split()]

    def retrieve(self, port=1110, tls=None):
        """Return all messages of alice, read by POP3."""
        client = self.pop3(port, tls)
        try:
            client.user(USER)
            client.pass_(PASSWORD)
            count, _ = client.stat()
            return [b"\r\n".join(client.retr(number)[1]) for number in range(1, count + 1)]
        finally:
            client.quit()


class DemoTests(ProcessCase):
    """The demo and each of its clients."""

    async def test_welcome(self):
        """
        The demo prints its addresses, its users, and commands that name its certificate. The commands of operators find
        it.
        """
        process = await self.start()
        told = process.stdout.decode()
        for port in (1143, 1993, 1110, 1995, 1587, 1465):
            self.assertIn(f"127.0.0.1:{self.ports[port]}", told)
        self.assertRegex(told, r"alice +password wonderland\n +bob +password builder\n")
        self.assertEqual(len(re.findall(r"\bcurl .*/state/mailgate/certificate\.pem", told)), 6)
        stated = io.StringIO()
        with contextlib.redirect_stdout(stated):
            status = await deferToThread(main, ("status", "--config", self.ini))
        self.assertEqual(status, 0, stated.getvalue())
        self.assertIn("imap", stated.getvalue())

    async def test_smtp(self):
        """Mail that is submitted in the clear, with STARTTLS and with TLS appears in IMAP."""
        await self.start()
        for port, tls in ((1587, None), (1587, "starttls"), (1465, "ssl")):
            before = await deferToThread(self.fetch)
            await deferToThread(self.send, port, tls)
            after = await deferToThread(self.fetch)
            self.assertEqual(len(after), len(before) + 1, (port, tls))
            self.assertIn(b"Subject: A looking-glass", after[-1])

    async def test_imap(self):
        """IMAP works in the clear, with STARTTLS and with TLS."""
        await self.start()
        await deferToThread(self.send)
        messages = await deferToThread(self.fetch)
        self.assertIn(b"Subject: A looking-glass", messages[-1])
        for port, tls in ((1143, "starttls"), (1993, "ssl")):
            self.assertEqual(await deferToThread(self.fetch, port, tls), messages)

    async def test_pop3(self):
        """POP3 works in the clear, with STLS and with TLS."""
        await self.start()
        await deferToThread(self.send)
        messages = await deferToThread(self.retrieve)
        self.assertIn(b"Subject: A looking-glass", messages[-1])
        for port, tls in ((1110, "starttls"), (1995, "ssl")):
            self.assertEqual(await deferToThread(self.retrieve, port, tls), messages)

    async def test_digests(self):
        """Mechanisms that do not send the password work, too."""
        await self.start()

        def cram():
            with self.imap(1143) as client:
                return client.login_cram_md5(USER, PASSWORD)[0]

        def apop():
            client = self.pop3(1110)
            try:
                return client.apop(USER, PASSWORD)
            finally:
                client.quit()

        self.assertEqual(await deferToThread(cram), "OK")
        self.assertTrue((await deferToThread(apop)).startswith(b"+OK"))

    async def test_certificate(self):
        """
        The certificate is kept in the user's state folder, its key is readable by that user only, and clients need it.
        """
        await self.start()
        key = os.path.join(self.state, "mailgate", "key.pem")
        self.assertEqual(os.stat(key).st_mode & 0o077, 0)

        def distrusting():
            context = ssl.create_default_context()
            with socket.create_connection(("localhost", self.ports[1993]), PATIENCE) as connection:
                context.wrap_socket(connection, server_hostname="localhost").close()

        await self.assertFailure(deferToThread(distrusting), ssl.SSLCertVerificationError)

    async def test_wrongPassword(self):
        """
        A wrong password is refused in the words of each protocol; then the right one is accepted on the same
        connection.
        """
        await self.start()

        def imap():
            with self.imap(1143) as client:
                refusal = self.assertRaises(imaplib.IMAP4.error, client.login, USER, "queen")
                return refusal, client.login(USER, PASSWORD)[0] == "OK"

        def pop3():
            client = self.pop3(1110)
            try:
                client.user(USER)
                refusal = self.assertRaises(poplib.error_proto, client.pass_, "queen")
                client.user(USER)
                return refusal, client.pass_(PASSWORD).startswith(b"+OK")
            finally:
                client.quit()

        def smtp():
            with self.smtp(1587) as client:
                refusal = self.assertRaises(smtplib.SMTPAuthenticationError, client.login, USER, "queen")
                return refusal, client.login(USER, PASSWORD)[0] == 235

        # The sandbox delays each refusal for three seconds; here they run at the same time.
        for answer in [deferToThread(client) for client in (imap, pop3, smtp)]:
            refusal, accepted = await answer
            self.assertIn("Invalid login or password", repr(refusal))
            self.assertTrue(accepted)


class LifeTests(ProcessCase):
    """The start and the end of the process."""

    async def test_terminated(self):
        """SIGTERM ends the process in order, also with open connections."""
        process = await self.start()
        client = await deferToThread(self.imap, 1143)
        self.addCleanup(client.shutdown)
        await deferToThread(client.login, USER, PASSWORD)
        # A session was cut.
        self.assertEqual(await self.end(process), CUT)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(client.sock.recv(1000), b"")
        log = process.stderr.decode()
        self.assertIn("reached relay, outcome gateway stopped", log)
        self.assertIn("Server Shut Down.", log)
        self.assertNotIn("Traceback", log)

    async def test_interrupted(self):
        """SIGINT, which Control-C sends, does the same; the status is 0 if no session was cut."""
        process = await self.start()
        self.assertEqual(await self.end(process, "INT"), 0)

    async def test_log(self):
        """The log has protocol, TLS, user, backend and outcome of each session, and no password."""
        process = await self.start()
        await deferToThread(self.send, 1465, "ssl")
        await deferToThread(self.fetch, 1143, "starttls")
        await deferToThread(self.retrieve)
        await self.end(process)
        log = process.stderr.decode()
        stories = [line for line in log.splitlines() if "connection ended" in line]
        self.assertEqual(len(stories), 3, log)
        for story, protocol, tls, backend in zip(
            stories, ("smtp", "imap", "pop3"), ("TLSv1.3", "TLSv1.3", "no"), (10025, 10143, 10110), strict=True
        ):
            self.assertRegex(story, rf"\[info\] .*protocol {protocol}, tls {tls}\b.*, user \"alice\"$")
            self.assertIn(f"backend 127.0.0.1:{self.ports[backend]}, reached relay, outcome relayed", story)
        logins = [line for line in log.splitlines() if re.search(r" \[info\] \d+: logged in: ", line)]
        self.assertEqual(len(logins), 3, log)
        self.assertNotIn(PASSWORD, log)
        self.assertNotIn("Traceback", log)

    async def test_notice(self):
        """At notice the log has the events of the process and no sessions."""
        process = await self.start(self.demo().replace("error_log = stderr info", "error_log = stderr notice"))
        await deferToThread(self.retrieve)
        await self.end(process)
        lines = process.stderr.decode().splitlines()
        self.assertEqual([line for line in lines if not re.search(r" \[notice\] \d+: ", line) or "client" in line], [])
        for expected in ("starting up", "received SIGTERM", "Main loop terminated", "Server Shut Down"):
            self.assertEqual(len([line for line in lines if expected in line]), 1, (expected, lines))

    async def test_logFile(self):
        """The log goes to the file of error_log, and twistd creates no log file."""
        process = await self.start(self.demo().replace("error_log = stderr info", "error_log = gateway.log info"))
        await deferToThread(self.fetch)
        await self.end(process)
        with open(os.path.join(self.folder, "gateway.log"), encoding="utf-8") as opened:
            self.assertIn("connection ended: ", opened.read())
        self.assertEqual(process.stderr, b"")
        self.assertFalse(os.path.exists(os.path.join(self.folder, "twistd.log")))

    async def test_badConfiguration(self):
        """
        A bad configuration ends the process with status 78 and a line for each error: no traceback, no usage text.
        """
        process = self.spawn("[server a]\nlisten = 127.0.0.1:1\nprotocol = impa\ntimeout = x\n")
        self.assertEqual(await self.gone(process), 78)
        first, second = process.stderr.decode().splitlines()
        self.assertTrue(first.startswith(f"{self.ini}:{self.lineOf('timeout = x')}: [server a] timeout = x: "), first)
        place = f"{self.ini}:{self.lineOf('protocol = impa')}: [server a]"
        self.assertTrue(second.startswith(f"{place} protocol = impa: "), second)
        self.assertEqual(process.stdout, b"")

    async def test_portInUseInBackground(self):
        """
        In the background an address in use ends the process with status 71, too; standard error and log have the reason
        in one line.
        """
        text = self.demo().replace("error_log = stderr info", "error_log = gateway.log info")
        with socket.create_server(("127.0.0.1", self.ports[1110])):
            process = self.spawn(text, foreground=False)
            self.assertEqual(await self.gone(process), 71)
        listen = f"127.0.0.1:{self.ports[1110]}"
        place = f"{self.ini}:{self.lineOf(f'    {listen}')}: [server pop3]"
        reason = f"{place} listen = {listen}: cannot be bound: Address already"
        (line,) = process.stderr.decode().splitlines()
        self.assertTrue(line.startswith(reason), line)
        self.assertEqual(process.stdout, b"")
        with open(os.path.join(self.folder, "gateway.log"), encoding="utf-8") as log:
            written = log.read()
        self.assertEqual(written.count(reason), 1)
        self.assertNotIn("Traceback", written)

    async def test_background(self):
        """
        The start in the background exits with 0 once the workers serve. Commands find the gateway. Standard error warns
        that a log on standard error is lost, and that a log file is full.
        """
        # A folder with a path that is short enough for a unix socket.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        port, pid = freePort(), os.path.join(folder, "gateway.pid")
        text = (
            f"[mailgate]\nworker_processes = 2\npid = {pid}\nerror_log = /dev/full notice\n"
            f"[server pop3]\nprotocol = pop3\nerror_log = stderr\nlisten = 127.0.0.1:{port}\nauth_http = http://127.0.0.1:9/\n"
        )
        process = self.spawn(text, foreground=False)
        status = await self.gone(process)
        told = process.stderr.decode()
        self.assertEqual(status, 0, told)
        warning, lost = told.splitlines()
        self.assertEqual(lost, "cannot write to /dev/full; lines are lost: No space left on device")
        self.assertIn("[server pop3] error_log = stderr: is /dev/null in the background", warning)

        def greet():
            with contextlib.closing(poplib.POP3("localhost", port, timeout=PATIENCE)) as client:
                return client.getwelcome()

        try:
            self.assertTrue((await deferToThread(greet)).startswith(b"+OK"))
        finally:
            command = ["-c", "import sys; from mailgate.cli.main import main; sys.exit(main())", "stop", "--pid", pid]
            environ = {**os.environ, "PYTHONPATH": ROOT}
            out, _, status = await getProcessOutputAndValue(sys.executable, command, environ, self.folder)
        self.assertEqual(status, 0, out)
        self.assertFalse(os.path.exists(pid))

    async def test_portInUse(self):
        """A port in use ends the process with status 71 and one line that names the port."""
        text = self.demo()
        with socket.create_server(("127.0.0.1", self.ports[1110])):
            process = self.spawn(text)
            self.assertEqual(await self.gone(process), 71)
        told = [line for line in process.stderr.decode().splitlines() if not re.search(r" \[(info|notice)\] ", line)]
        (line,) = told
        self.assertIn(f"[server pop3] listen = 127.0.0.1:{self.ports[1110]}: cannot be bound: Address already", line)
        self.assertEqual(process.stdout, b"")
