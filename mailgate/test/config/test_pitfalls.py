"""
Tests for L{mailgate.config.pitfalls}: settings that are valid, but probably not intended.
"""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passwdfile import authenticator as passwdfile
from mailgate.config import load, parse, pitfalls
from mailgate.config import reading as config
from mailgate.directives import ConfigurationError

HTTP = "auth_http = http://127.0.0.1:9/auth"
OWN = "is left out: the gateway announces it whenever it applies"
UNKEPT = "is left out: it promises a command that the gateway does not support before the login"
MISSING = (
    "announces nothing: mail programs then convert 8-bit mail, which breaks its signatures, and bounce mail that"
    " needs SMTPUTF8; copy your backend's list"
)


def serving(protocol: str, *lines: str, listen: str = "127.0.0.1:21000", judge: str = HTTP) -> str:
    """A server for C{protocol} with C{lines}, the first of which is line 5."""
    return "\n".join((f"[server {protocol}]", f"protocol = {protocol}", f"listen = {listen}", judge, *lines, ""))


class WarningTests(SynchronousTestCase):
    """The warnings."""

    def assertWarned(self, text: str, *expected: str) -> None:
        self.assertEqual([str(each).removeprefix("gateway.ini:") for each in parse(text).warnings], list(expected))

    def test_capabilities(self):
        """Capabilities that the gateway announces itself, or does not support, cause warnings with their line."""
        for protocol, kept, words in (
            ("imap", "IMAP4rev1", ("STARTTLS", "AUTH=PLAIN", "LOGINDISABLED")),
            ("pop3", "TOP", ("SASL PLAIN", "STLS")),
            ("smtp", "8BITMIME", ("STARTTLS", "AUTH PLAIN LOGIN")),
        ):
            text = serving(protocol, f"{protocol}_capabilities =", *(f"    {word}" for word in (kept, *words)))
            self.assertWarned(
                text,
                *(
                    f"{line}: [server {protocol}] {protocol}_capabilities = {word}: {OWN}"
                    for line, word in enumerate(words, 7)
                ),
            )
        self.assertWarned(
            serving("pop3", "pop3_capabilities =", "    UTF8 USER", "    TOP"),
            f"6: [server pop3] pop3_capabilities = UTF8 USER: {UNKEPT}",
        )

    def test_healthCheck(self):
        """A health check of servers whose protocol is not known does nothing."""
        warning = "does nothing: it is not known which protocol the servers speak; add protocol=NAME"
        imap, pop = serving("imap"), serving("pop3", listen="127.0.0.1:21001")
        group = "[upstream store]\nserver = 192.0.2.1:{}\nhealth_check = {}\n"
        self.assertWarned(imap + pop + group.format(10143, "on"), f"11: [upstream store] health_check: {warning}")
        for fine in (
            imap + pop + group.format(10143, "protocol=imap"),
            imap + pop + group.format(10143, "off"),
            imap + pop + group.format(143, "on"),
            imap + group.format(10143, "on"),
            imap + serving("pop3", listen="127.0.0.1:21001", judge="proxy_pass = store") + group.format(10143, "on"),
        ):
            self.assertWarned(fine)

    def test_healthCheckOfTwo(self):
        """A group is for one protocol. A health check takes servers that speak another one for failed."""
        servers = "".join(
            serving(protocol, listen=f"127.0.0.1:{port}", judge="proxy_pass = store")
            for protocol, port in (("imap", 21000), ("pop3", 21001))
        )
        group = "[upstream store]\nserver = 192.0.2.1:143\n"
        self.assertWarned(
            f"{servers}{group}health_check = on\n",
            "11: [upstream store] health_check: checks imap, but [server pop3] sends pop3 clients there; make a group"
            " for each protocol",
        )
        self.assertWarned(servers + group)

    def test_revision(self):
        """IMAP needs IMAP4rev1; it may be on a line with others."""
        told = "has no IMAP4rev1: clients then do not use the server"
        self.assertWarned(serving("imap", "imap_capabilities = UIDPLUS"), f"5: [server imap] imap_capabilities: {told}")
        self.assertWarned(serving("imap", "imap_capabilities = UIDPLUS IMAP4rev1"))

    def test_parameter(self):
        """A number on a line of its own is a parameter without its capability."""
        told = "is not a capability; put a parameter on the line of its capability"
        text = serving("smtp", "smtp_capabilities =", "    SIZE", "    50000000")
        self.assertWarned(text, f"7: [server smtp] smtp_capabilities = 50000000: {told}")

    def test_copied(self):
        """Commas, and other parts of a server's reply, would be sent to clients."""
        comma = "contains a comma; separate capabilities by lines, without commas"
        reply = "looks like a line of a server's reply; write only the capability"
        text = serving("smtp", "smtp_capabilities =", "    PIPELINING,", "    SIZE 10000, DSN", "    8BITMIME")
        option = "[server smtp] smtp_capabilities"
        self.assertWarned(text, f"6: {option} = PIPELINING,: {comma}", f"7: {option} = SIZE 10000, DSN: {comma}")
        text = serving("smtp", "smtp_capabilities =", "    250-PIPELINING", "    250 DSN", "    250X")
        self.assertWarned(text, f"6: {option} = 250-PIPELINING: {reply}", f"7: {option} = 250 DSN: {reply}")
        option = "[server imap] imap_capabilities"
        text = serving("imap", "imap_capabilities = * CAPABILITY IMAP4rev1 IDLE")
        self.assertWarned(text, f"5: {option} = *: {reply}", f"5: {option} = CAPABILITY: {reply}")
        text = serving("imap", "imap_capabilities =", "    IMAP4rev1", "    IDLE,", "    LITERAL+")
        self.assertWarned(text, f"7: {option} = IDLE,: {comma}")
        text = serving("pop3", "pop3_capabilities =", "    +OK", "    TOP", "    .")
        option = "[server pop3] pop3_capabilities"
        self.assertWarned(text, f"6: {option} = +OK: {reply}", f"8: {option} = .: {reply}")

    def test_nothingAnnounced(self):
        """
        Without 8BITMIME mail is changed or returned, if clients log in; with C{smtp_auth none} only, clients ask the
        backend.
        """
        self.assertWarned(serving("smtp"), f"1: [server smtp] smtp_capabilities: {MISSING}")
        self.assertWarned(serving("smtp", "smtp_capabilities = none"), f"5: [server smtp] smtp_capabilities: {MISSING}")
        self.assertWarned(serving("smtp", "smtp_capabilities = 8BITMIME"))
        (warning,) = parse(serving("smtp", "smtp_auth = none")).warnings
        self.assertEqual(warning.option, "smtp_auth")

    def test_learnable(self):
        """The warning is not for servers that can ask a backend: proxy_pass, or the only group of auth_http."""
        group = "[upstream {}]\nserver = 10.0.0.1:25\n"
        one, two = group.format("a"), group.format("a") + group.format("b")
        self.assertWarned(serving("smtp", judge="proxy_pass = 10.0.0.1:25"))
        self.assertWarned(serving("smtp", "proxy_pass = 10.0.0.1:25"))
        self.assertWarned(serving("smtp", "smtp_capabilities = backend") + one)
        self.assertWarned(serving("smtp") + two, f"1: [server smtp] smtp_capabilities: {MISSING}")
        self.assertWarned(
            serving("smtp", "smtp_capabilities = none", judge="proxy_pass = 10.0.0.1:25"),
            f"5: [server smtp] smtp_capabilities: {MISSING}",
        )

    def test_serverName(self):
        """The name is that of a host, or an address as in SMTP."""
        for name in ("https://mail.test", "mail.test:993", "mail.test/", "_", "10.0.0.1", "-x.test"):
            told = "is not a host name such as mail.example.com; backends may refuse EHLO with it"
            self.assertWarned(
                serving("imap", f"server_name = {name}"), f"5: [server imap] server_name = {name}: {told}"
            )
        for name in ("mail.test", "localhost", "[10.0.0.1]", "[IPv6:::1]", "mx_1.test"):
            self.assertWarned(serving("imap", f"server_name = {name}"))

    def test_shortTimes(self):
        """A few milliseconds are too short for a reply."""
        told = "is too short for a reply; a number without a unit means seconds"
        for option in ("timeout", "auth_http_timeout", "proxy_timeout"):
            self.assertWarned(serving("imap", f"{option} = 5ms"), f"5: [server imap] {option} = 5ms: {told}")
            self.assertWarned(serving("imap", f"{option} = 1s"))

    def test_defaultBackend(self):
        """Beside a service, which may name others, a backend that is the server itself is refused, too."""
        told = "is an address of this server itself, so each login would loop; set it to the backend"
        text = serving("imap", "proxy_pass = 127.0.0.1:21000")
        error = self.assertRaises(ConfigurationError, parse, text)
        self.assertEqual(str(error), f"gateway.ini:5: [server imap] proxy_pass = 127.0.0.1:21000: {told}")

    def test_openFiles(self):
        """Other users must not write the ini file and the account file, nor read secrets in them."""
        folder = self.mktemp()
        os.mkdir(folder)
        ini, accounts = os.path.join(folder, "x.ini"), os.path.abspath(os.path.join(folder, "accounts"))
        with open(accounts, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        with open(ini, "w", encoding="ascii") as opened:
            opened.write(serving("imap", judge=f"auth_file = {accounts}"))
        self.patch(passwdfile, "isOpenToAll", lambda path: False)
        os.chmod(accounts, 0o600)
        self.patch(config, "writers", lambda path: f"strangers write to {path}")
        self.assertEqual([str(each) for each in load(ini).warnings], [f"{ini}: strangers write to {ini}"])
        self.patch(config, "writers", lambda path: None)
        self.assertEqual(load(ini).warnings, ())
        self.patch(passwdfile, "isOpenToAll", lambda path: True)
        place = f"{ini}:4: [server imap] auth_file = {accounts}"
        told = f"{place}: every user on this host can read it; run: chmod o-r {accounts}"
        self.assertEqual([str(each) for each in load(ini).warnings], [told])


class LoopTests(SynchronousTestCase):
    """A server that is its own backend."""

    def isLoop(self, listen: str, backend: str) -> bool:
        """Whether a server with that C{listen} is refused because of that C{proxy_pass}."""
        text = serving("imap", listen=listen, judge=f"proxy_pass = {backend}")
        try:
            self.assertEqual(parse(text).warnings, ())
        except ConfigurationError as error:
            told = "is an address of this server itself, so each login would loop; set it to the backend"
            self.assertEqual(str(error), f"gateway.ini:4: [server imap] proxy_pass = {backend}: {told}")
            return True
        return False

    def test_loops(self):
        """The same address, or one that the wildcard includes, in any notation."""
        self.patch(pitfalls.socket, "gethostname", lambda: "Mx.test")
        for listen, backend in (
            ("127.0.0.1:21143", "127.0.0.1:21143"),
            ("127.0.0.1:21143", "localhost:21143"),
            ("21143", "127.0.0.1:21143"),
            ("21143", "localhost:21143"),
            ("21143", "mx.test:21143"),
            ("[::]:21143 ipv6only=off", "127.0.0.1:21143"),
            ("unix:/tmp/x.sock", "unix:/tmp/x.sock"),
        ):
            self.assertTrue(self.isLoop(listen, backend), (listen, backend))

    def test_others(self):
        """Another port, host or address family is another server."""
        for listen, backend in (
            ("21143", "127.0.0.1:21144"),
            ("21143", "192.0.2.1:21143"),
            ("21143", "backend.test:21143"),
            ("127.0.0.1:21143", "127.0.0.2:21143"),
            ("[::]:21143", "127.0.0.1:21143"),
            ("unix:/tmp/x.sock", "unix:/tmp/y.sock"),
            ("systemd:imap", "127.0.0.1:21143"),
        ):
            self.assertFalse(self.isLoop(listen, backend), (listen, backend))


class OverwrittenTests(SynchronousTestCase):
    """Logs and pid files that are the configuration itself."""

    def test_own(self) -> None:
        """A path that leads to the file itself, under any name, would destroy it."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        ini, link = os.path.join(folder, "x.ini"), os.path.join(folder, "link")
        os.symlink(ini, link)
        reason = "is the configuration file itself and would be overwritten"
        own = f"error_log = {os.path.realpath(ini)}: {reason}"
        for place, line, told in (
            ("[mailgate]", f"pid = {link}", f"pid = {link}: {reason}"),
            ("[mailgate]", "error_log = x.ini info", own),
            ("[mail]", "error_log = stderr\n    link info", own),
        ):
            text = f"{place}\n{line}\n" + serving("imap")
            with open(ini, "w", encoding="ascii") as opened:
                opened.write(text)
            error = self.assertRaises(ConfigurationError, load, ini)
            self.assertRegex(str(error), rf"\A{re.escape(ini)}:[23]: {re.escape(place)} {re.escape(told)}\Z")
            with open(ini, encoding="ascii") as opened:
                self.assertEqual(opened.read(), text)
