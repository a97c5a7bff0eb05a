# -*- test-case-name: mailgate.test.integration.test_accounts -*-
"""
Accounts in a file or at the backend only, without an auth_http service; and backends with TLS.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
from importlib.util import find_spec
from unittest import SkipTest

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.clients import arrived, curl, imap, mbsync, message, pop3, smtp
from mailgate.test.integration.daemon import freePort, waitUntil
from mailgate.test.integration.dovecot import MASTER, PASSWORD, USERS
from mailgate.test.integration.programs import PATH
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

OWN = "tea-party"
"""The password of users at the gateway, which the backends do not know."""

NEEDS = {"ARGON2ID": "argon2"}
"""The optional modules that a scheme needs."""

TEMPORARY = {"imap": b"NO [UNAVAILABLE]", "pop3": b"-ERR [SYS/TEMP]", "smtp": b"454 4.7.0"}


def account(user, **extra):
    """A line of a passwd-file in which the password of C{user} is OWN."""
    fields = "".join(f" {name}={value}" for name, value in {"pass": PASSWORD, **extra}.items())
    return f"{user}:{{PLAIN}}{OWN}::::::{fields.strip()}\n"


class PasswdFileTests(GatewayTestCase):
    """auth_file, with proxy_pass as the default backend."""

    needs = ("curl",)

    def configuration(self, site):
        """One file for all protocols, for each test."""
        site.write("users", "".join(map(account, USERS)))
        words = {"imap": "plain login cram-md5", "pop3": "plain apop cram-md5", "smtp": "plain login cram-md5"}
        servers = ""
        for protocol in self.backends.protocols:
            host, port = self.backends.services[protocol]
            servers += site.server(protocol, f"proxy_pass = {host}:{port}\n{protocol}_auth = {words[protocol]}")
        servers += site.server("imap", f"proxy_pass = 127.0.0.1:{freePort()}", name="nowhere")
        return site.mail("auth_file = users") + servers

    def add(self, line):
        """Append C{line} to the file."""
        with open(os.path.join(self.site.folder, "users"), "a") as file:
            file.write(line)

    def connect(self, protocol):
        """A raw client of the gateway."""
        client = RawClient(self.at(protocol))
        self.addCleanup(client.close)
        return client

    def test_plain(self):
        """The password of the file opens the mailbox; that of the backend is refused, and the connection stays."""
        denied = {"imap": b"NO [AUTHENTICATIONFAILED]", "pop3": b"-ERR [AUTH]", "smtp": b"535 5.7.8"}
        accepted = {"imap": b"OK ", "pop3": b"+OK", "smtp": b"235"}
        for protocol in self.backends.protocols:
            client = self.connect(protocol)
            answer = client.login(self.user, PASSWORD)
            self.assertTrue(answer.startswith(denied[protocol]), answer)
            answer = client.login(self.user, OWN)
            self.assertTrue(answer.startswith(accepted[protocol]), answer)

    def test_imapCRAM(self):
        """imaplib logs in by CRAM-MD5."""
        with imap(self.at("imap")) as client:
            client.login_cram_md5(self.user, OWN)
            self.assertEqual(client.select()[0], "OK")

    def test_smtpCRAM(self):
        """smtplib logs in by CRAM-MD5."""
        with smtp(self.at("smtp")) as client:
            client.ehlo()
            client.user, client.password = self.user, OWN
            self.assertEqual(client.auth("CRAM-MD5", client.auth_cram_md5)[0], 235)
            client.sendmail("a@example.com", [f"{self.user}@example.com"], message("cram"))
        arrived(self.backends.at("imap"), self.user, "cram")

    def test_apop(self):
        """poplib logs in by APOP."""
        self.deposit(message("apop"))
        with pop3(self.at("pop3")) as client:
            client.apop(self.user, OWN)
            self.assertEqual(client.stat()[0], 1)

    def test_curlDigests(self):
        """curl logs in by CRAM-MD5, over each protocol, and by APOP."""
        self.deposit(message("digest"))
        ways = (("imap", "CRAM-MD5", "INBOX;MAILINDEX=1"), ("pop3", "CRAM-MD5", "1"), ("pop3", "+APOP", "1"))
        for protocol, way, path in ways:
            ran = curl(self.at(protocol), path, "--login-options", f"AUTH={way}", login=f"{self.user}:{OWN}")
            self.assertEqual((ran.returncode, ran.stdout), (0, message("digest")), (protocol, way))

    def test_wrongDigest(self):
        """A digest of a wrong password is refused."""
        with imap(self.at("imap")) as client:
            self.assertRaises(client.error, client.login_cram_md5, self.user, PASSWORD)
            client.login_cram_md5(self.user, OWN)

    def test_ownBackend(self):
        """host, port and destuser of an account replace the default backend, which does not exist here."""
        port = self.backends.dovecot.ports["imap"]
        self.add(account("dormouse", host="127.0.0.1", port=port, destuser=self.user))
        self.deposit(message("elsewhere"))
        waitUntil(lambda: self.connect("nowhere").login("dormouse", OWN).startswith(b"OK "), "the account is known")
        with imap(self.at("nowhere"), "dormouse", OWN) as client:
            self.assertEqual(client.select()[1], [b"1"])
        self.assertTrue(self.connect("nowhere").login(self.user, OWN).startswith(TEMPORARY["imap"]))

    def test_reread(self):
        """A new account can be used without a restart."""
        self.assertTrue(self.connect("imap").login("cheshire", OWN).startswith(b"NO "))
        self.add(account("cheshire"))
        waitUntil(lambda: self.connect("imap").login("cheshire", OWN).startswith(b"OK "), "the new account is known")


class SchemeTests(GatewayTestCase):
    """Hashes made by Dovecot."""

    schemes = ("SSHA256", "SSHA512", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT", "ARGON2ID")

    def configuration(self, site):
        """One account for each scheme, with its name."""
        lines = ""
        for scheme in self.schemes:
            command = ["doveadm", "pw", "-s", scheme, "-p", OWN]
            ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
            if ran.returncode == 0 and find_spec(NEEDS.get(scheme, "hashlib")):
                lines += f"{scheme.lower()}:{ran.stdout.strip()}::::::pass={PASSWORD}\n"
        site.write("users", lines)
        host, port = self.backends.services["imap"]
        return site.mail("auth_file = users") + site.server("imap", f"proxy_pass = {host}:{port}")

    def check(self, scheme):
        """The right password is accepted, and a wrong one is refused."""
        with open(os.path.join(self.site.folder, "users")) as file:
            if scheme.lower() + ":" not in file.read():
                raise SkipTest(f"{scheme} needs the extra for hashes, and a Dovecot that has it")
        client = RawClient(self.at("imap"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(scheme.lower(), PASSWORD)[:3], b"NO ")
        self.assertEqual(client.login(scheme.lower(), OWN)[:3], b"OK ")

    def test_salted(self):
        """SSHA256 and SSHA512 are understood."""
        self.check("SSHA256")
        self.check("SSHA512")

    def test_sha256Crypt(self):
        """SHA256-CRYPT is understood."""
        self.check("SHA256-CRYPT")

    def test_sha512Crypt(self):
        """SHA512-CRYPT is understood."""
        self.check("SHA512-CRYPT")

    def test_bcrypt(self):
        """BLF-CRYPT is understood."""
        self.check("BLF-CRYPT")

    def test_argon2(self):
        """ARGON2ID is understood."""
        self.check("ARGON2ID")


class PassThroughTests(GatewayTestCase):
    """proxy_pass only: the backend judges."""

    needs = ("curl", "mbsync")

    def configuration(self, site):
        """The Postfix that requires a login."""
        servers = ""
        for protocol in self.backends.protocols:
            host, port = self.backends.services["sasl" if protocol == "smtp" else protocol]
            servers += site.server(protocol, f"proxy_pass = {host}:{port}")
        return site.mail() + servers

    def test_session(self):
        """The gateway words the backend's refusal, and the connection stays until the right password."""
        denied = {"imap": b"NO [AUTHENTICATIONFAILED]", "pop3": b"-ERR [AUTH]", "smtp": b"535 5.7.8"}
        accepted = {"imap": b"OK ", "pop3": b"+OK", "smtp": b"235"}
        for protocol in self.backends.protocols:
            client = RawClient(self.at(protocol))
            self.addCleanup(client.close)
            for _ in range(2):
                answer = client.login(self.user, "looking-glass")
                self.assertTrue(answer.startswith(denied[protocol]), answer)
            answer = client.login(self.user, PASSWORD)
            self.assertTrue(answer.startswith(accepted[protocol]), answer)
        self.assertNotIn("looking-glass", self.log())

    def test_clients(self):
        """curl, mbsync and smtplib work as with any other gateway."""
        with smtp(self.at("smtp", "starttls"), self.user) as client:
            client.sendmail("a@example.com", [f"{self.user}@example.com"], message("passed"))
        arrived(self.at("imap", "implicit"), self.user, "passed")
        ran = curl(self.at("pop3", "implicit"), "1", login=f"{self.user}:{PASSWORD}")
        self.assertEqual(ran.returncode, 0, ran.stdout)
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        ran = mbsync(self.at("imap", "starttls"), self.user, folder)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        # POP3 has read the message, and so it is in the maildir's folder for old mail.
        self.assertEqual(len(os.listdir(os.path.join(folder, "INBOX", "cur"))), 1)


class AuthorizationTests(GatewayTestCase):
    """Logins for another user's mailbox, which the backend allows or refuses."""

    needs = ("curl",)

    def configuration(self, site):
        """For each protocol a server for each value of sasl_authzid."""
        servers = ""
        for protocol in self.backends.protocols:
            host, port = self.backends.services["sasl" if protocol == "smtp" else protocol]
            for word in ("pass", "ignore", "refuse"):
                directives = f"proxy_pass = {host}:{port}\nsasl_authzid = {word}"
                servers += site.server(protocol, directives, name=f"{protocol}-{word}")
        return site.mail() + servers

    def login(self, name, user, password):
        """The reply to a login of C{user} for the mailbox of this test."""
        client = RawClient(self.at(name))
        self.addCleanup(client.close)
        word = {"imap": "L0 AUTHENTICATE PLAIN", "pop3": "AUTH PLAIN", "smtp": "AUTH PLAIN"}[client.address.protocol]
        response = base64.b64encode(f"{self.user}\0{user}\0{password}".encode()).decode()
        client.send(f"{word} {response}\r\n".encode())
        return client.reply(b"L0 ")[3:] if client.address.protocol == "imap" else client.reply()

    def test_master(self):
        """Only the user who may log in as another can do so."""
        accepted = {"imap": b"OK ", "pop3": b"+OK", "smtp": b"235"}
        denied = {"imap": b"NO ", "pop3": b"-ERR", "smtp": b"535"}
        for protocol in self.backends.protocols:
            answer = self.login(f"{protocol}-pass", MASTER, MASTER)
            self.assertTrue(answer.startswith(accepted[protocol]), answer)
            for user, password in ((MASTER, PASSWORD), ("mallory", PASSWORD)):
                answer = self.login(f"{protocol}-pass", user, password)
                self.assertTrue(answer.startswith(denied[protocol]), (user, answer))

    def test_whose(self):
        """The mailbox of the other user opens, with curl too."""
        self.deposit(message("theirs"))
        for protocol, path in (("imap", "INBOX;MAILINDEX=1"), ("pop3", "1")):
            options = ("--sasl-authzid", self.user, "--login-options", "AUTH=PLAIN")
            ran = curl(self.at(f"{protocol}-pass"), path, *options, login=f"{MASTER}:{MASTER}")
            self.assertEqual((ran.returncode, ran.stdout), (0, message("theirs")))

    def test_refused(self):
        """With refuse the login fails, and no other mailbox opens instead."""
        refusals = {"imap": b"NO [AUTHORIZATIONFAILED]", "pop3": b"-ERR [AUTH]", "smtp": b"535 5.7.8"}
        for protocol in self.backends.protocols:
            for user, password in ((MASTER, MASTER), ("mallory", PASSWORD)):
                answer = self.login(f"{protocol}-refuse", user, password)
                self.assertTrue(answer.startswith(refusals[protocol]), answer)

    def test_ignored(self):
        """With ignore, as in nginx, the user's own mailbox opens, which is empty here."""
        self.deposit(message("theirs"))
        at = self.at("imap-ignore")
        ran = curl(at, "INBOX;MAILINDEX=1", "--sasl-authzid", self.user, login=f"mallory:{PASSWORD}")
        self.assertNotEqual(ran.stdout, message("theirs"))
        waitUntil(lambda: "user=<mallory>" in self.backends.dovecot.log(), "Dovecot logs the login")


class BackendTLSTests(GatewayTestCase):
    """Backends with TLS."""

    def configuration(self, site):
        """For each protocol a server that trusts the backends' authority, and one that trusts another."""
        stranger = Authority(site.folder, "stranger")
        servers = ""
        for protocol in self.backends.protocols:
            later = "sasl" if protocol == "smtp" else protocol
            for way, service in (("ssl", f"{protocol}s"), ("starttls", later)):
                host, port = self.backends.services[service]
                extra = {"host": host, "port": port, way: "yes"}
                file = site.write(f"{protocol}-{way}", "".join(account(user, **extra) for user in USERS))
                directives = f"auth_file = {file}\nproxy_smtp_auth = on"
                untrusting = f"{directives}\nproxy_ssl_trusted_certificate = {stranger.path}"
                servers += site.server(protocol, directives, name=f"{protocol}-{way}")
                servers += site.server(protocol, untrusting, name=f"{protocol}-{way}-untrusted")
        return site.mail(f"proxy_ssl_trusted_certificate = {self.backends.authority.path}") + servers

    def login(self, name):
        """The reply to a login."""
        client = RawClient(self.at(name))
        self.addCleanup(client.close)
        answer = client.login(self.user, OWN)
        self.assertIn(client.noop()[:3], (b"OK ", b"+OK", b"250"))
        return answer

    def test_trusted(self):
        """A backend with a valid certificate is used, with ssl and with starttls."""
        accepted = {"imap": b"OK ", "pop3": b"+OK", "smtp": b"235"}
        for protocol in self.backends.protocols:
            for way in ("ssl", "starttls"):
                self.assertEqual(self.login(f"{protocol}-{way}")[:3], accepted[protocol], (protocol, way))
        logins = re.compile(rf"Login: user=<{self.user}>.*\n")
        logged = self.backends.dovecot.log
        # SMTP's logins are logged by Postfix.
        waitUntil(lambda: len(logins.findall(logged())) == 4, "Dovecot logs the logins")
        for line in logins.findall(logged()):
            self.assertIn("TLS", line)

    def test_untrusted(self):
        """
        A backend whose certificate is of an unknown authority gets no password. The login fails temporarily, and the
        log has the phase.
        """
        for protocol in self.backends.protocols:
            for way in ("ssl", "starttls"):
                self.logged = len(self.site.gateway.log())
                answer = self.login(f"{protocol}-{way}-untrusted")
                self.assertTrue(answer.startswith(TEMPORARY[protocol]), (protocol, way, answer))
                waitUntil(lambda: "[error]" in self.log(), "an error is logged")
                self.assertIn("backend-tls", self.log(), (protocol, way))
                self.assertIn("failed the TLS handshake: its certificate is issued by", self.log(), (protocol, way))
        self.assertNotIn(f"user=<{self.user}>", self.backends.dovecot.log())
