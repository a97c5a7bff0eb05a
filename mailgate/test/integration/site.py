# -*- test-case-name: mailgate.test.integration -*-
"""
The environment of the tests: backends, one each for all tests of a process; a gateway in front of them for each class
of tests; and the addresses of both, so that a test can have the same conversation with either.
"""

from __future__ import annotations

import base64
import imaplib
import itertools
import os
import shutil
from textwrap import dedent, indent
from typing import Any

from attrs import frozen
from twisted.python.components import proxyForInterface
from twisted.trial.itrial import IReporter
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.authservice import AuthService
from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import freePort, newFolder, shared
from mailgate.test.integration.dovecot import PASSWORD, USERS, Dovecot
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.postfix import Postfix
from mailgate.test.integration.programs import missing, require

__all__ = ["PROTOCOLS", "TLS", "Address", "BackendTestCase", "Backends", "GatewayTestCase", "Site"]

PROTOCOLS = ("imap", "pop3", "smtp")

TLS = ("plain", "starttls", "implicit")
"""Ways of a client to use TLS."""


@frozen
class Address:
    """The address of a server, the use of TLS, and the file of the authority that the client trusts."""

    protocol: str
    port: int
    tls: str
    authority: str
    host: str = "localhost"


class Backends:
    """
    Dovecot, Postfix if it can run, and C{authority}, which has issued their certificates and those of the gateways.
    C{protocols} has the protocols of the backends, C{services} their hosts and ports by name.
    """

    dovecot: Dovecot
    postfix: Postfix
    protocols: tuple[str, ...] = ("imap", "pop3")

    def __init__(self) -> None:
        self.folder = newFolder("backends")
        self.authority = Authority(self.folder, "authority")
        self.dovecot = Dovecot(self.authority)
        ports = dict(self.dovecot.ports)
        if missing(("postfix",)) is None:
            self._startPostfix()
            ports |= {**self.postfix.ports, "smtp": self.postfix.ports["trusting"]}
        self.services = {name: ("127.0.0.1", port) for name, port in ports.items()}

    def _startPostfix(self) -> None:
        try:
            self.postfix = Postfix(self.authority, self.dovecot)
        except BaseException:
            self.dovecot.stop()
            raise
        self.protocols = PROTOCOLS

    def at(self, protocol: str, tls: str = "plain") -> Address:
        """The address of a backend, for a client without a gateway."""
        if protocol == "smtp":
            port = self.postfix.ports["smtps" if tls == "implicit" else "sasl"]
        else:
            port = self.dovecot.ports[protocol + "s" * (tls == "implicit")]
        return Address(protocol, port, tls, self.authority.path)

    def stop(self) -> None:
        """Stop them."""
        if "smtp" in self.protocols:
            self.postfix.stop()
        self.dovecot.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Site:
    """A gateway in front of the C{backends}, its authentication service C{auth}, and its addresses."""

    gateway: GatewayProcess

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self.folder = newFolder("site")
        self.auth = AuthService(backends.services)
        self.auth.start()
        self._ports: dict[str, dict[str, int]] = {}
        self._protocols: dict[str, str] = {}

    def server(self, protocol: str, directives: str = "", name: str = "") -> str:
        """
        The section C{[server NAME]} with two listeners, one with STARTTLS and one with implicit TLS. NAME is the
        protocol unless given.
        """
        name = name or protocol
        plain, implicit = freePort(), freePort()
        self._ports[name] = {"plain": plain, "starttls": plain, "implicit": implicit}
        self._protocols[name] = protocol
        return f"""
[server {name}]
listen =
    127.0.0.1:{plain}
    127.0.0.1:{implicit} ssl
protocol = {protocol}
{dedent(directives).strip()}
"""

    def mail(self, directives: str = "") -> str:
        """The sections C{[mailgate]} and C{[mail]} that all gateways of the tests have: refusals are not delayed."""
        # A certificate of its own: a gateway whose certificate is written again reloads.
        pair = self.backends.authority.sign(os.path.basename(self.folder))
        return f"""
[mailgate]
error_log = {self.folder}/gateway.log info

[mail]
server_name = gate.example.com
starttls = on
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
auth_delay = 0
{dedent(directives).strip()}
"""

    def write(self, name: str, content: str) -> str:
        """The path of a new file beside the configuration."""
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(content)
        return path

    def start(self, ini: str) -> None:
        """Start the gateway, and wait until it listens on all addresses that L{server} has allocated."""
        ports = {port for server in self._ports.values() for port in server.values()}
        try:
            self.gateway = GatewayProcess(self.folder, ini, sorted(ports))
        except BaseException:
            self.auth.stop()
            raise

    def at(self, name: str, tls: str = "plain") -> Address:
        """The address of C{[server NAME]}."""
        return Address(self._protocols[name], self._ports[name][tls], tls, self.backends.authority.path)

    def stop(self) -> None:
        """
        Stop the gateway.

        @raise AssertionError: it did not exit cleanly.
        """
        self.auth.stop()
        try:
            self.gateway.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


_users = itertools.cycle(USERS)


class BackendTestCase(SynchronousTestCase):
    """
    Tests that need real backends, and the programs in C{needs}; also Postfix if they use SMTP.

    The clients block, and so do these tests: all servers run in other processes and threads, and the reactor is not
    used. Each client has its own deadline.
    """

    needs: tuple[str, ...] = ()

    def setUp(self) -> None:
        require("dovecot", "dovecot-imap", "dovecot-pop3", *self.needs)
        self.backends = self.startBackends()
        self.user = next(_users)

    def startBackends(self) -> Backends:
        """The backends, which all tests of a process share."""
        return shared("backends", Backends)

    def at(self, name: str, tls: str = "plain") -> Address:
        """The address that the client uses in these tests."""
        if name == "smtp":
            require("postfix")
        return self.backends.at(name, tls)

    def deposit(self, message: bytes) -> None:
        """Put C{message} into the user's INBOX without the gateway."""
        host, port = self.backends.services["imap"]
        with imaplib.IMAP4(host, port, timeout=20) as client:
            client.login(self.user, PASSWORD)
            client.append("INBOX", "", "", message)


class GatewayTestCase(BackendTestCase):
    """
    Tests with a gateway, whose log is shown with a failure. There is one gateway for each L{configuration}: classes
    that inherit the configuration share it.
    """

    def configuration(self, site: Site) -> str:
        """The ini file of the gateway."""
        servers = site.server("imap", "imap_auth = plain login") + site.server("pop3") + site.server("smtp")
        return site.mail(f"auth_http = {site.auth.url}") + servers

    def startSite(self) -> Site:
        """A new gateway with this configuration."""
        site = Site(self.backends)
        site.start(self.configuration(site))
        return site

    def setUp(self) -> None:
        super().setUp()
        owner = next(base for base in type(self).__mro__ if "configuration" in vars(base))
        self.site = shared(owner, self.startSite)
        self.logged = len(self.site.gateway.log())

    def at(self, name: str, tls: str = "plain") -> Address:
        """The address of C{[server NAME]}, whose name is usually its protocol."""
        if name == "smtp":
            require("postfix")
        return self.site.at(name, tls)

    def tearDown(self) -> None:
        """The log never contains a password or a traceback."""
        plain = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        for forbidden in (PASSWORD, plain, "Traceback"):
            self.assertNotIn(forbidden, self.log())

    def log(self) -> str:
        """The log of the gateway since the test began."""
        return self.site.gateway.log()[self.logged :]

    def run(self, result: Any = None) -> Any:
        """Run the test; a failure is followed by the gateway's log of that time."""
        return super().run(_WithLog(IReporter(result), self))


class _WithLog(proxyForInterface(IReporter, "reporter")):  # type: ignore[misc]
    """A reporter that adds the gateway's log to each failure."""

    def __init__(self, reporter: Any, case: GatewayTestCase) -> None:
        super().__init__(reporter)
        self.case = case

    def _show(self) -> None:
        if hasattr(self.case, "site"):
            print(f"\n{self.case.id()}: the gateway logged\n{indent(self.case.log(), '    ')}")

    def addError(self, test: Any, failure: Any) -> Any:
        self._show()
        return self.reporter.addError(test, failure)

    def addFailure(self, test: Any, failure: Any) -> Any:
        self._show()
        return self.reporter.addFailure(test, failure)
