# -*- test-case-name: mailgate.test.integration.test_reply -*-
"""
The answer of the authentication service decides about the backend and the session of each login. The backends are real
Dovecots.
"""

from __future__ import annotations

import os
import re
import socket
import time
from unittest import SkipTest

from mailgate.test.integration.authservice import deciding
from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import freePort, newFolder, shared, waitUntil
from mailgate.test.integration.dovecot import GUARDED, MASTER, PASSWORD, Dovecot
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.test_backendtls import TEMPORARY, WELCOME, fingerprints
from mailgate.test.integration.together import together

testSuite = together(__name__)

CLIENT = "127.0.0.3"
"""The address that clients connect from."""

PROTOCOLS = ("imap", "pop3")


class Nothing:
    """A port of 127.0.0.1 where nothing listens."""

    def __init__(self) -> None:
        self.port = freePort()

    def stop(self) -> None:
        """Do nothing."""


class ReplyTests(GatewayTestCase):
    """Logins with any password, which the service accepts."""

    def configuration(self, site):
        groups = "".join(
            f"[upstream {protocol}store]\nserver = 127.0.0.1:{self.backends.services[protocol][1]}\n"
            for protocol in PROTOCOLS
        )
        trust = f"proxy_ssl_trusted_certificate = {self.backends.authority.path}\n"
        servers = ""
        for protocol in PROTOCOLS:
            servers += site.server(protocol, trust)
            servers += site.server(protocol, f"{trust}auth_http_may = ssl_verify_off", f"{protocol}-lax")
            servers += site.server(protocol, f"{trust}auth_http_pass = off", f"{protocol}-locating")
            guarded = f"{trust}proxy_ssl = starttls\n"
            servers += site.server(protocol, guarded, f"{protocol}-guarded")
            servers += site.server(protocol, f"{guarded}auth_http_may = ssl_off", f"{protocol}-clear")
        # proxy_smtp_auth is off.
        servers += site.server("smtp", trust)
        return site.mail(f"auth_http = {site.auth.url}") + groups + servers

    def setUp(self):
        super().setUp()
        self.dead = shared("a port where nothing listens", Nothing).port
        self.addCleanup(self.site.auth.manners.clear)

    def logIn(self, name, password=PASSWORD, **headers):
        """The answer to a login for which the service sends these headers; the client stays connected."""
        self.site.auth.manners[self.user] = deciding(**headers)
        address = self.at(name)
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (CLIENT, 0))
        self.client = RawClient(address, connected)
        self.addCleanup(self.client.close)
        return self.client.login(self.user, password).decode()

    def accepted(self, name, **headers):
        """Check that the login succeeds, and that the backend answers commands."""
        answer = self.logIn(name, **headers)
        self.assertEqual(answer.split()[0], WELCOME[name.partition("-")[0]], (name, answer))
        self.assertTrue(self.client.noop().startswith((b"OK", b"+OK")))

    def refused(self, name, words, **headers):
        """Check that the login is a temporary failure, and return the line of the log that has these C{words}."""
        before = len(self.log())
        answer = self.logIn(name, **headers)
        self.assertTrue(answer.startswith(TEMPORARY[name.partition("-")[0]]), (name, answer))
        waitUntil(lambda: words in self.log()[before:], f"the log says {words}")
        (line,) = (line for line in self.log()[before:].splitlines() if words in line)
        return line

    def test_upstream(self):
        """Auth-Upstream names the group, and goes before Auth-Server."""
        for protocol in PROTOCOLS:
            self.accepted(protocol, Auth_Upstream=f"{protocol}store", Auth_Port=str(self.dead), Auth_Upstream_Key="k")
            self.accepted(protocol, Auth_Upstream=f"{protocol}STORE", Auth_Server=(), Auth_Port=())

    def test_unknownUpstream(self):
        """A group that does not exist is a temporary failure, whose log line names it; so is a text with variables."""
        for protocol in PROTOCOLS:
            line = self.refused(protocol, "upstream nowhere does not exist", Auth_Upstream="nowhere")
            self.assertIn(self.user, line)
            self.refused(protocol, "Auth-Upstream that is no name of an upstream", Auth_Upstream="${user}store")
            self.refused(protocol, "Auth-Upstream that is no name", Auth_Upstream=f"127.0.0.1:{self.dead}")

    def test_next(self):
        """If the first server is down, the next one serves."""
        for protocol in PROTOCOLS:
            port = self.backends.services[protocol][1]
            for following in (f"127.0.0.1:{port}", f"127.0.0.1:{self.dead}, 127.0.0.1:{port}"):
                self.accepted(protocol, Auth_Port=str(self.dead), Auth_Server_Next=following)
        self.assertIn(f"backend 127.0.0.1:{self.dead} ", self.log())

    def test_startTLS(self):
        """TLS with a pin for one login. With another pin, or for another name, the password goes nowhere."""
        key, whole = fingerprints(os.path.join(self.backends.folder, "dovecot.crt"))
        before = len(self.backends.dovecot.log())
        for protocol in PROTOCOLS:
            tls = {"Auth_Proxy_SSL": "starttls"}
            self.accepted(protocol, **tls)
            for pins in (key, f"{'0' * 64}, {whole}"):
                self.accepted(protocol, **tls, Auth_Proxy_SSL_Pin=pins)
            self.refused(protocol, "match no proxy_ssl_pin", **tls, Auth_Proxy_SSL_Pin="0" * 64)
            self.refused(protocol, "is not valid for", **tls, Auth_Proxy_SSL_Name="elsewhere.example")
            implicit = str(self.backends.services[f"{protocol}s"][1])
            self.accepted(protocol, Auth_Port=implicit, Auth_Proxy_SSL="on", Auth_Proxy_SSL_Name="localhost")
        pattern = re.compile(rf"Login: user=<{self.user}>.*, (TLS|secured)")
        logged = self.backends.dovecot.log
        waitUntil(lambda: len(pattern.findall(logged()[before:])) == 4 * len(PROTOCOLS), "the logins are logged")
        self.assertEqual(set(pattern.findall(logged()[before:])), {"TLS"})

    def test_withoutTLS(self):
        """A pin without TLS, or a misspelt word, is no reason to connect in the clear."""
        for protocol in PROTOCOLS:
            self.refused(protocol, "certificate must be checked", Auth_Proxy_SSL_Pin="0" * 64)
            self.refused(protocol, "sent an invalid Auth-Proxy-SSL: must be", Auth_Proxy_SSL="STARTTLS")
            self.refused(protocol, "sent a header about TLS that does not exist", Auth_Proxy_SSL_Mode="on")

    def test_clear(self):
        """Only auth_http_may lets the service switch TLS off where proxy_ssl demands it, for that login alone."""
        for protocol in PROTOCOLS:
            self.refused(f"{protocol}-guarded", "proxy_ssl demands TLS", Auth_Proxy_SSL="off")
            before = len(self.backends.dovecot.log())
            logged = lambda: re.findall(rf"Login: user=<{self.user}>.*", self.backends.dovecot.log()[before:])  # noqa: B023, E731
            self.accepted(f"{protocol}-guarded", Auth_Proxy_SSL="on", Auth_Port=self.implicit(protocol))
            self.accepted(f"{protocol}-clear", Auth_Proxy_SSL="off")
            self.accepted(f"{protocol}-clear")
            waitUntil(lambda: len(logged()) == 3, "the logins are logged")  # noqa: B023
            self.assertEqual([", TLS" in line for line in logged()], [True, False, True])

    def implicit(self, protocol):
        """The port where this protocol begins with TLS."""
        return str(self.backends.services[f"{protocol}s"][1])

    def test_unverified(self):
        """Only auth_http_may lets the service switch the verification off, also for the next login with it on."""
        foreign = {"Auth_Proxy_SSL": "starttls", "Auth_Proxy_SSL_Name": "self-signed.example"}
        for protocol in PROTOCOLS:
            self.refused(protocol, "needs auth_http_may = ssl_verify_off", **foreign, Auth_Proxy_SSL_Verify="off")
            self.accepted(f"{protocol}-lax", **foreign, Auth_Proxy_SSL_Verify="off")
            self.refused(f"{protocol}-lax", "is self-signed and not trusted", **foreign)
            self.accepted(f"{protocol}-lax", **foreign, Auth_Proxy_SSL_Verify="off")

    def test_master(self):
        """A master user, whose name and password the service sends, opens the user's mailbox."""
        for protocol in PROTOCOLS:
            before = len(self.backends.dovecot.log())
            master = {"Auth_Proxy_Authid": MASTER, "Auth_Pass": MASTER}
            self.accepted(protocol, password="anything", **master)
            self.accepted(protocol, password="anything", **master, Auth_Proxy_Authzid=self.user, Auth_User="somebody")
            pattern = re.compile(rf"{protocol}-login: Info: Login: user=<{self.user}>, method=PLAIN")
            logged = self.backends.dovecot.log
            waitUntil(lambda: len(pattern.findall(logged()[before:])) == 2, "both logins are logged")  # noqa: B023

    def test_smtp(self):
        """In SMTP the service has the gateway log in over TLS, as the user and as a master user."""
        if "smtp" not in self.backends.protocols:
            raise SkipTest("Postfix is missing")
        _, whole = fingerprints(os.path.join(self.backends.folder, "postfix.crt"))
        submission = {"Auth_Port": str(self.backends.services["sasl"][1]), "Auth_Proxy_SSL": "starttls"}
        for password, headers in (
            (PASSWORD, {}),
            ("anything", {"Auth_Proxy_Authid": MASTER, "Auth_Pass": MASTER}),
        ):
            headers = {**submission, **headers, "Auth_Proxy_Method": "plain", "Auth_Proxy_SSL_Pin": whole}
            answer = self.logIn("smtp", password, **headers)
            self.assertEqual(answer[:3], "235", answer)
            self.client.send(b"MAIL FROM:<a@example.com>\r\n")
            self.assertEqual(self.client.reply()[:3], b"250")
        self.refused("smtp", "match no proxy_ssl_pin", **submission, Auth_Proxy_SSL_Pin="0" * 64)
        refusal = self.logIn("smtp", "wrong", **submission, Auth_Proxy_Method="plain")
        self.assertEqual(refusal[:3], "454", refusal)

    def test_unproven(self):
        """A service that does not see passwords cannot let clients in without one."""
        for protocol in PROTOCOLS:
            for method in ("external", "none") if protocol == "imap" else ("external",):
                name = f"{protocol}-locating"
                line = self.refused(name, "although it did not receive the client's password", Auth_Proxy_Method=method)
                self.assertIn(f"Auth-Proxy-Method: {method}", line)
            self.accepted(f"{protocol}-locating", Auth_Proxy_Method="plain")

    @property
    def trusting(self):
        """A Dovecot that trusts the gateway, and logs what it receives."""
        make = lambda: Dovecot(Authority(newFolder("trusting"), "authority"), f"{GUARDED}auth_debug = yes\n")  # noqa: E731
        return shared("trusting and debugging", make)

    def received(self, protocol, **headers):
        """What Dovecot logs of a login for which the service sends these headers, as of L{logins}."""
        before = len(self.logins(protocol))
        self.accepted(protocol, Auth_Port=str(self.trusting.ports[protocol]), **headers)
        waitUntil(lambda: len(self.logins(protocol)) > before, "the login is logged")
        (login,) = self.logins(protocol)[before:]
        return login

    def logins(self, protocol):
        """The client's address and the additional fields of the logins so far, as Dovecot has logged them."""
        pattern = re.compile(rf"AUTH\t\d+\tPLAIN\tservice={protocol}\t.*\trip=(\S+)\t.*", re.MULTILINE)
        found = []
        for line in pattern.finditer(self.trusting.log()):
            fields = re.search("\tforward_fields=([^\t]*)", line[0])
            found.append((line[1], fields[1].split("\1t") if fields else []))
        return found

    def test_forward(self):
        """Dovecot receives additional fields beside the client's address, by ID and by XCLIENT."""
        forward = ("tenant=42", 'plan="gold" \\ = x')
        for protocol in PROTOCOLS:
            self.assertEqual(self.received(protocol, Auth_Proxy_Forward=forward), (CLIENT, list(forward)))

    def test_identity(self):
        """If the service forbids it, Dovecot sees the gateway's address, and no additional fields."""
        for protocol in PROTOCOLS:
            login = self.received(protocol, Auth_Proxy_Identity="off", Auth_Proxy_Forward="tenant=42")
            self.assertEqual(login, ("127.0.0.1", []))

    def test_hold(self):
        """A login waits as long as the service says, and then succeeds."""
        began = time.monotonic()
        self.accepted("imap", Auth_Proxy_Hold="1")
        self.assertGreaterEqual(time.monotonic() - began, 1.0)

    def test_ignored(self):
        """A header that has nothing to do with security is ignored, with one warning for many logins."""
        for _ in range(3):
            self.accepted("imap", Auth_Proxy_Hold="soon")
        self.assertEqual(self.log().count("sent an invalid Auth-Proxy-Hold, which has no effect"), 1)
