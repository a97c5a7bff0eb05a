"""
Tests for L{mailgate.process.watching}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ListenAddress, ServerSettings, directives, path, paths
from mailgate.process.watching import LOOK, FileWatch, watchedFiles
from mailgate.test.support.tlspair import makePair
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.files import sources
from mailgate.tls.settings import TLSSettings


def serverWith(tls: TLSSettings, ssl: bool = True, backend: BackendTLSSettings | None = None) -> ServerSettings:
    """A server with those settings."""
    groups = {TLSSettings: tls, BackendTLSSettings: backend or BackendTLSSettings()}
    return ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 143, ssl),), groups)


class WatchedFilesTests(SynchronousTestCase):
    """Tests for L{watchedFiles}."""

    tls = TLSSettings(certificates=("/a.crt", "/b.crt"), keys=("/a.key", "/b.key"), passwordFile="/pass")

    def test_files(self) -> None:
        """The files are all paths in the settings, and no other values."""
        server = serverWith(self.tls, backend=BackendTLSSettings(trusted="/roots.pem"))
        expected = ["/a.crt", "/a.key", "/b.crt", "/b.key", "/pass", "/roots.pem"]
        self.assertEqual(sorted(watchedFiles([server])), expected)

    def test_commands(self) -> None:
        """The files of ssl_conf_command are included; its other values are no paths."""
        commands = (("Certificate", "/c.crt"), ("PrivateKey", "/c.key"), ("CipherString", "HIGH"))
        tls = TLSSettings(commands=commands, dhParameters="/dh", ticketKeys=("/t",), revoked="/crl")
        expected = ["/c.crt", "/c.key", "/crl", "/dh", "/t"]
        self.assertEqual(sorted(watchedFiles([serverWith(tls)])), expected)

    def test_services(self) -> None:
        """The trusted certificates of auth_http are included if it is used; account files are not."""
        text = (
            "[server one]\nprotocol = imap\nlisten = 127.0.0.1:143\nauth_http = https://127.0.0.1/\n"
            "auth_http_ssl_trusted_certificate = {}\n"
        )
        folder = self.mktemp()
        os.mkdir(folder)
        roots = os.path.abspath(makePair(folder, "roots").certificate)
        self.assertEqual(list(watchedFiles(parse(text.format(roots)).servers)), [roots])
        accounts = os.path.join(os.path.abspath(folder), "accounts")
        with open(accounts, "w", encoding="ascii"):
            pass
        os.chmod(accounts, 0o600)
        judged = text.format(roots).replace("auth_http = https://127.0.0.1/", f"auth_file = {accounts}")
        self.assertEqual(list(watchedFiles(parse(judged).servers)), [])

    def test_everyPath(self) -> None:
        """Every TLS directive that takes paths is included."""
        groups: dict[type, Any] = {}
        expected = []
        for group in (TLSSettings, BackendTLSSettings):
            values: dict[str, Any] = {}
            for declared in directives(group):
                if declared.parse in (path, paths, sources):
                    expected.append(f"/{declared.name}")
                    values[declared.field] = expected[-1] if declared.parse is path else (expected[-1],)
            groups[group] = group(**values)
        self.assertGreater(len(expected), 8)
        server = serverWith(groups[TLSSettings], backend=groups[BackendTLSSettings])
        self.assertEqual(sorted(watchedFiles([server])), sorted(expected))

    def test_groups(self) -> None:
        """What a group of backends has read for its own TLS is watched, too."""
        folder = self.mktemp()
        os.mkdir(folder)
        roots = os.path.abspath(makePair(folder, "roots").certificate)
        settings = parse(
            f"[upstream store]\nserver = 127.0.0.1:993\nproxy_ssl = on\nproxy_ssl_trusted_certificate = {roots}\n"
            "[server one]\nprotocol = imap\nlisten = 127.0.0.1:143\nproxy_pass = store\n"
        )
        self.assertEqual(list(watchedFiles(settings.servers, settings.named)), [roots])

    def test_plain(self) -> None:
        """A server without TLS has no files of its own."""
        self.assertEqual(list(watchedFiles([serverWith(self.tls, ssl=False)])), [])


class FileWatchTests(SynchronousTestCase):
    """Tests for L{FileWatch}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[list[str]] = []
        self.files = [os.path.abspath(self.mktemp()) for _ in range(2)]
        for name in self.files:
            self.write(name, "old")
        self.watch = FileWatch(self.clock, self.changes.append)
        self.watch.watch(self.files)
        self.watch.startService()

    def tearDown(self) -> None:
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def write(self, name: str, text: str) -> None:
        """Replace the file C{name}, as programs that renew certificates do."""
        with open(f"{name}.new", "w", encoding="ascii") as opened:
            opened.write(text)
        os.rename(f"{name}.new", name)

    def test_quiet(self) -> None:
        """Without a change there is no report."""
        self.clock.pump([LOOK] * 5)
        self.assertEqual(self.changes, [])

    def test_changed(self) -> None:
        """A change is reported once, when the file was the same at two checks."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [])
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [[self.files[0]]])
        self.clock.pump([LOOK] * 3)
        self.assertEqual(len(self.changes), 1)

    def test_oneAfterTheOther(self) -> None:
        """There is no report while any file still changes."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.write(self.files[1], "new")
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [])
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [self.files])

    def test_inPlace(self) -> None:
        """A change in place is noticed, too."""
        with open(self.files[1], "a", encoding="ascii") as opened:
            opened.write("more")
        self.clock.pump([LOOK, LOOK])
        self.assertEqual(self.changes, [[self.files[1]]])

    def test_gone(self) -> None:
        """A file that disappears or comes back is noticed."""
        os.unlink(self.files[0])
        self.clock.pump([LOOK, LOOK])
        self.write(self.files[0], "back")
        self.clock.pump([LOOK, LOOK])
        self.assertEqual(self.changes, [[self.files[0]]] * 2)

    def test_others(self) -> None:
        """C{watch} replaces the files, and compares with their present state."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.watch.watch(self.files[:1])
        self.write(self.files[1], "new")
        self.clock.pump([LOOK] * 3)
        self.assertEqual(self.changes, [])

    def test_unstarted(self) -> None:
        """A watch that was never started can be stopped."""
        FileWatch(self.clock, self.changes.append).stopService()
