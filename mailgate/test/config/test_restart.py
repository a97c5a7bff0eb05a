"""
Tests for L{mailgate.config.restart}.
"""

from __future__ import annotations

import grp
import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.config.restart import demoSection, fixed, kept, untouchable, withFixed
from mailgate.registry import SECTIONS
from mailgate.sandbox.settings import SandboxSettings
from mailgate.watch.settings import AdminSettings

GOOD = "[mail]\nproxy_pass = 10.0.0.1:143\n[server imap]\nlisten = 127.0.0.1:143\n"
USER = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
CHANGED = {
    "user": USER,
    "worker_rlimit_nofile": "5000",
    "pid": "/x.pid",
    "worker_processes": "2",
    "admin": "unix:/x.admin",
    "metrics": "127.0.0.1:9144",
}
"""The options of C{[mailgate]} that need a restart, with values that are not their defaults."""
TOUCHABLE = {
    "error_log": "stderr debug",
    "log_address": "network",
    "log_rate": "off",
    "log_user": "hash",
    "debug_connection": "192.0.2.7",
    "debug_user": "joe",
    "use": "reactor",
    "worker_shutdown_timeout": "1s",
    "worker_connections": "7",
    "gateway_name": "g1",
    "admin_host": "gate.example.com",
    "explain_memory": "7",
}
"""Options that need no restart."""
FILES = {
    "admin_token_file",
    "admin_ssl_certificate",
    "admin_ssl_certificate_key",
    "admin_ssl_client_certificate",
}
"""Further options that need no restart. Each needs others, and a file."""
STORE = {
    "store",
    "store_password_file",
    "store_secret_file",
    "store_ssl_trusted_certificate",
    "store_timeout",
}
"""Further options that need a restart. Each needs others, or a file: L{mailgate.test.store.test_settings}."""
DEMO = (
    "users = joe sesame",
    "domain = x.org",
    *(f"{name} = 127.0.0.1:7" for name in ("imap", "pop3", "smtp", "sieve")),
)


def settings(*lines: str, rest: str = GOOD) -> GatewaySettings:
    """The settings of a C{[mailgate]} with C{lines}."""
    return parse("\n".join(["[mailgate]", *lines, rest]))


class UntouchableTests(SynchronousTestCase):
    """Tests for L{untouchable} and L{kept}."""

    def test_directives(self) -> None:
        """The directives that need a restart; the list does not change unnoticed."""
        found = {kind.word: {name for name, known in kind.known.items() if not known.reloadable} for kind in SECTIONS}
        lasting = {word: names for word, names in found.items() if names}
        demo = {"users", "domain", "imap", "pop3", "smtp", "sieve", "auth_http"}
        self.assertEqual(lasting, {"mailgate": {*CHANGED, *STORE}, "sandbox": demo})

    def test_process(self) -> None:
        """Each changed option that needs a restart is reported, in either direction; other options are not."""
        mailgate = next(kind for kind in SECTIONS if kind.word == "mailgate")
        decided = {*CHANGED, *TOUCHABLE, *FILES, *STORE}
        self.assertEqual(set(mailgate.known), decided, "does a new one take a restart? Add it to CHANGED or TOUCHABLE")
        for name, value in {**CHANGED, **TOUCHABLE}.items():
            changed, expected = settings(f"{name} = {value}"), [name] if name in CHANGED else []
            self.assertEqual(list(untouchable(settings(), changed)), expected)
            self.assertEqual(list(untouchable(changed, settings())), expected)
            self.assertEqual(list(untouchable(changed, changed)), [])

    def test_several(self) -> None:
        """They are reported in a fixed order."""
        changed = settings(*(f"{name} = {value}" for name, value in reversed(CHANGED.items())))
        self.assertEqual(list(untouchable(settings(), changed)), list(CHANGED))

    def test_oneClass(self) -> None:
        """With one settings class, the options that need a restart keep their values and are named; others change."""
        now = settings("admin = unix:/x.admin")[AdminSettings]
        wanted = settings("admin = off", "metrics = 127.0.0.1:9144", "explain_memory = 7")[AdminSettings]
        self.assertEqual(fixed(now, wanted), ["admin", "metrics"])
        self.assertEqual(fixed(now, now), [])
        found = withFixed(now, wanted)
        self.assertEqual((found.admin, found.metrics, found.explainMemory), (now.admin, now.metrics, 7))

    def test_demo(self) -> None:
        """The demo is reported once, as a whole, when it is added, removed or changed."""
        plain, demo = settings(), settings(rest=f"{GOOD}[sandbox]\n")
        other = settings(rest="\n".join([GOOD, "[sandbox]", *DEMO]))
        for now, wanted in ((plain, demo), (demo, plain), (demo, other), (other, demo)):
            self.assertEqual(list(untouchable(now, wanted)), ["[sandbox]"])
        self.assertEqual(list(untouchable(other, other)), [])

    def test_servers(self) -> None:
        """A reload changes everything of servers."""
        other = "[mail]\nproxy_pass = 10.0.0.2:143\ntimeout = 5\n[server pop3]\nlisten = 127.0.0.1:110\n"
        self.assertEqual(list(untouchable(settings(), settings(rest=other))), [])

    def test_kept(self) -> None:
        """An option that needs a restart keeps its value, and the next reload reports it again; the others change."""
        # Several workers do not work with the reactor's transports.
        given = {**CHANGED, **TOUCHABLE, "use": "epoll"}
        lines = [f"{name} = {value}" for name, value in given.items()]
        wanted = settings(*lines)
        found = kept(settings(), wanted)
        self.assertEqual(list(untouchable(found, wanted)), list(CHANGED))
        self.assertEqual(found.groups, settings(*lines[len(CHANGED) :]).groups)

    def test_keptDemo(self) -> None:
        """The demo is kept as it is, also its absence."""
        plain, demo = settings(), settings(rest="\n".join([GOOD, "[sandbox]", *DEMO]))
        self.assertIsNone(kept(plain, demo).find(SandboxSettings))
        self.assertEqual(kept(demo, plain).find(SandboxSettings), demo[SandboxSettings])


class DemoSectionTests(SynchronousTestCase):
    """Tests for L{demoSection}."""

    def test_word(self) -> None:
        """It is found by the word of its section."""
        self.assertIsNone(demoSection(settings()))
        self.assertEqual(demoSection(settings(rest=f"{GOOD}[sandbox]\n")), "sandbox")
