# -*- test-case-name: mailgate.test.integration.test_whoami -*-
"""
C{mailgate whoami} before a real Dovecot and a real Postfix: what it says that they were sent is what they log.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from mailgate.test.integration.daemon import freePort, shared, waitUntil
from mailgate.test.integration.dovecot import GUARDED, PASSWORD, Dovecot
from mailgate.test.integration.gateway import environment
from mailgate.test.integration.programs import require
from mailgate.test.integration.site import BackendTestCase

CLIENT = "192.0.2.7"
"""The client's address, as backends are told it."""

_COMMAND = [sys.executable, "-c", "import sys; from mailgate.cli.main import main; sys.exit(main())", "whoami"]


class WhoamiTests(BackendTestCase):
    """The command, in a process of its own."""

    def whoami(self, ini, *arguments, password=PASSWORD):
        """The status and the output of the command for the configuration C{ini}."""
        folder = self.mktemp()
        for ending, content in ((".ini", ini), (".password", f"{password}\nnot this\n")):
            with open(folder + ending, "w") as file:
                file.write(content)
        given = ["--config", f"{folder}.ini", "--user", self.user, "--password-file", f"{folder}.password"]
        run = subprocess.run(
            [*_COMMAND, *given, *arguments], env=environment(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual(run.stderr, "")
        self.assertNotIn(password, run.stdout)
        return run.returncode, run.stdout

    def server(self, protocol, directives, name=""):
        """The section of a server."""
        return f"[server {name or protocol}]\nlisten = 127.0.0.1:{freePort()}\nprotocol = {protocol}\n{directives}\n"

    @property
    def guarded(self):
        """The Dovecot that trusts the gateway."""
        return shared("guarded", lambda: Dovecot(self.backends.authority, GUARDED))

    def logins(self, dovecot):
        """The client's address and the session of this user's logins, as C{dovecot} has logged them."""
        pattern = re.compile(rf"Login: user=<{self.user}>.* rip=([^,]*),.* session=<([^>]*)>")
        waitUntil(lambda: pattern.search(dovecot.log()), "the login is logged")
        return pattern.findall(dovecot.log())

    def test_dovecot(self):
        """ID and XCLIENT have the address and the session that Dovecot logs."""
        for protocol, begins in (("imap", "C: mailgate ID ("), ("pop3", "C: XCLIENT ")):
            ini = self.server(protocol, f"proxy_pass = 127.0.0.1:{self.guarded.ports[protocol]}")
            status, output = self.whoami(ini, "--address", CLIENT)
            self.assertEqual(status, 0, output)
            self.assertIn("  logged in\n", output)
            (sent,) = (line for line in output.splitlines() if begins in line)
            session = re.search(r", session (\S+)$", output, re.MULTILINE)[1]
            self.assertIn(CLIENT, sent)
            self.assertIn(session, sent)
            self.assertRegex(sent, r'"x-proxy-ttl" "6"| TTL=6')
            self.assertIn((CLIENT, session), self.logins(self.guarded))

    def test_header(self):
        """A PROXY header stands alone: neither ID nor XCLIENT is sent beside it."""
        dovecot = self.backends.dovecot
        for version in ("on", "v2"):
            directives = f"proxy_pass = 127.0.0.1:{dovecot.ports['haproxy']}\nproxy_protocol = {version}"
            status, output = self.whoami(self.server("imap", directives), "--address", CLIENT)
            self.assertEqual(status, 0, output)
            self.assertRegex(output, rf"C: PROXY TCP4 {CLIENT} |-- sent the header of PROXY protocol version 2: 0d0a0d")
            self.assertNotIn(" ID (", output)
            self.assertEqual(self.logins(dovecot)[-1][0], CLIENT)

    def test_group(self):
        """Each server of a group is a block; one that does not answer fails, and so does the command."""
        closed = freePort()
        ini = self.server("imap", "proxy_pass = store") + (
            f"[upstream store]\nserver =\n    127.0.0.1:{self.guarded.ports['imap']}\n    127.0.0.1:{closed} backup\n"
            f"    localhost:{self.guarded.ports['imap']} down\n"
        )
        status, output = self.whoami(ini)
        self.assertEqual(status, 1)
        self.assertEqual(output.count("of upstream store"), 3)
        self.assertEqual(output.count("  logged in\n"), 2)
        self.assertEqual(len(set(re.findall(r", session (\S+)$", output, re.MULTILINE))), 3)
        self.assertRegex(output, rf"backend 127.0.0.1:{closed} of upstream store, session \S+\n  failed: ")

    def test_server(self):
        """With C{--server} the others are left alone."""
        ini = self.server("imap", f"proxy_pass = 127.0.0.1:{freePort()}")
        ini += self.server("pop3", f"proxy_pass = 127.0.0.1:{self.guarded.ports['pop3']}")
        status, output = self.whoami(ini, "--server", "pop3")
        self.assertEqual((status, output.count("server ")), (0, 1), output)

    def test_wrong(self):
        """A wrong password is a failure, with the backend's answer."""
        ini = self.server("imap", f"proxy_pass = 127.0.0.1:{self.backends.dovecot.ports['imap']}")
        status, output = self.whoami(ini, password="nonsense")
        self.assertEqual(status, 1)
        self.assertIn("S: a1 NO [AUTHENTICATIONFAILED] ", output)
        self.assertIn("  failed: refused the login with NO [AUTHENTICATIONFAILED]\n", output)

    def test_tls(self):
        """So is a certificate that will not do; a good one is fine."""
        port = self.backends.dovecot.ports["imaps"]
        ini = self.server("imap", f"proxy_pass = localhost:{port}\nproxy_ssl = on")
        status, output = self.whoami(ini)
        self.assertEqual(status, 1)
        self.assertIn("certificate", output)
        trusted = f"proxy_ssl_trusted_certificate = {self.backends.authority.path}\n"
        status, output = self.whoami(ini + trusted)
        self.assertEqual(status, 0, output)
        self.assertIn("  -- TLS is established\n", output)

    def test_postfix(self):
        """XCLIENT has what Postfix logs of the client: in the order that it needs, with all that it offers."""
        require("postfix")
        ports = self.backends.postfix.ports
        directives = f"proxy_pass = 127.0.0.1:{ports['trusting']}\nauth_file = {self.accounts()}"
        before = len(self.backends.postfix.log())
        status, output = self.whoami(self.server("smtp", directives), "--address", CLIENT)
        self.assertEqual(status, 0, output)
        (sent,) = (line for line in output.splitlines() if "C: XCLIENT" in line)
        for attribute in (f"ADDR={CLIENT}", "PORT=49152", f"LOGIN={self.user}", "PROTO=ESMTP", "DESTADDR=127.0.0.1"):
            self.assertIn(f" {attribute}", sent)
        self.assertRegex(sent, r" DESTPORT=\d+ ")
        self.assertNotIn(" SESSION=", sent)
        self.assertPostfixHeard(before, 1)

    def test_postfixLines(self):
        """What does not fit into one line goes ahead in another, and Postfix takes both."""
        require("postfix")
        name = ".".join(["x" * 60] * 4)
        self.user = "u" * 220
        directives = f"proxy_pass = 127.0.0.1:{self.backends.postfix.ports['narrow']}\nserver_name = {name}\n"
        before = len(self.backends.postfix.log())
        ini = self.server("smtp", f"{directives}auth_file = {self.accounts()}")
        status, output = self.whoami(ini, "--address", CLIENT)
        self.assertEqual(status, 0, output)
        sent = [line.removeprefix("  C: ") for line in output.splitlines() if "C: XCLIENT" in line]
        self.assertEqual(re.findall(r" ([A-Z]+)=", sent[0])[-1], "HELO")
        self.assertEqual(re.findall(r" ([A-Z]+)=", sent[1]), ["PROTO", "ADDR", "LOGIN", "NAME"])
        self.assertLessEqual(max(map(len, sent)), 510)
        self.assertPostfixHeard(before, 2)

    def assertPostfixHeard(self, before, count):
        """
        Postfix has logged, in a log that was C{before} bytes long, that it was told of the client in C{count} commands.
        """
        # It counts no XCLIENT among those that succeeded, whatever it answers.
        told = re.compile(rf"disconnect from unknown\[{CLIENT}\] ehlo=2 xclient=(?:0/)?{count} ")
        waitUntil(lambda: told.search(self.backends.postfix.log()[before:]), "Postfix logs the client")

    def test_postfixLogin(self):
        """LOGIN is not sent where AUTH follows."""
        require("postfix")
        directives = f"proxy_pass = 127.0.0.1:{self.backends.postfix.ports['sasl']}"
        status, output = self.whoami(self.server("smtp", directives))
        self.assertEqual(status, 0, output)
        self.assertIn("C: AUTH PLAIN ...\n", output)
        self.assertNotIn("LOGIN=", output)

    def accounts(self):
        """A file with this user's account."""
        path = os.path.abspath(f"{self.mktemp()}.passwd")
        with open(path, "w") as file:
            file.write(f"{self.user}:{{PLAIN}}{PASSWORD}::::::\n")
        return path
