"""
Tests of L{mailgate.store.settings}.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from mailgate.config import parse
from mailgate.config.restart import untouchable
from mailgate.directives import ConfigurationError
from mailgate.store import settings as storeSettings
from mailgate.store.address import StoreAddress
from mailgate.store.settings import StoreAccess, StoreSettings
from mailgate.test.support.configcase import IMAP, MAIL, ConfigCase
from mailgate.test.support.tlspair import makePair

SECRET = "0123456789abcdef"


class StoreSettingsTests(ConfigCase):
    """The directives of the store."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.secret = self.write("secret", f"{SECRET}\n")
        self.needed = ["gateway_name = g1", f"store_secret_file = {self.secret}"]

    def write(self, name: str, content: str, mode: int = 0o600) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w") as opened:
            opened.write(content)
        os.chmod(path, mode)
        return path

    def text(self, *lines: str) -> str:
        return "\n".join(["[mailgate]", *lines, MAIL, IMAP])

    def settings(self, *lines: str) -> StoreSettings:
        return parse(self.text(*lines))[StoreSettings]

    def problems(self, *lines: str) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            parse(self.text(*lines))
        return str(caught.exception)

    def warnings(self, *lines: str) -> str:
        return "\n".join(str(each) for each in parse(self.text(*lines)).warnings if each.section == "mailgate")

    def test_without(self) -> None:
        """Without a store there is nothing to read."""
        settings = self.settings()
        self.assertEqual((settings, settings.files), (StoreSettings(), ()))

    def test_all(self) -> None:
        """All of them. The end of a line is no part of a secret, and neither secret is shown."""
        password = self.write("password", "sesame\r\n")
        trusted = makePair(self.folder, "store").certificate
        settings = self.settings(
            *self.needed,
            "store = rediss://m@h/1",
            f"store_password_file = {password}",
            f"store_ssl_trusted_certificate = {trusted}",
            "store_timeout = 20ms",
        )
        self.assertEqual(settings.address, StoreAddress(None, (("h", 6379),), True, "", "m", 1))
        self.assertEqual((settings.timeout, settings.files), (0.02, (self.secret, password, trusted)))
        access = settings.access()
        self.assertEqual((access.secret, access.password), (SECRET.encode(), b"sesame"))
        self.assertIsNot(access.trust, None)
        for shown in (repr(access), repr(settings)):
            self.assertNotIn(SECRET, shown)
            self.assertNotIn("sesame", shown)

    def test_defaults(self) -> None:
        """50 ms, no password, and the system's authorities."""
        settings = self.settings(*self.needed, "store = rediss://h")
        self.assertEqual((settings.timeout, settings.access()), (0.05, StoreAccess(SECRET.encode())))

    def test_missing(self) -> None:
        """The store needs a secret and a name for the gateway."""
        found = self.problems("store = redis://h")
        self.assertIn("[mailgate] gateway_name: is missing; store requires it", found)
        self.assertIn("[mailgate] store_secret_file: is missing; store requires it", found)

    def test_noLibrary(self) -> None:
        """Without txredisapi the gateway does not start."""
        lines = [*self.needed, "store = redis://h"]

        self.patch(storeSettings, "find_spec", lambda name: None if name == "txredisapi" else find_spec(name))
        found = self.problems(*lines)
        self.assertIn('[mailgate] store: needs the Python package txredisapi, which is missing; install "mailg', found)

    def test_password(self) -> None:
        """A password in the value is an error, and not shown."""
        found = self.problems(*self.needed, "store = redis://m:sesame@h")
        self.assertIn("[mailgate] store = ***: must not contain a password", found)
        self.assertNotIn("sesame", found)

    def test_files(self) -> None:
        """Files that are missing, too short, or have several lines."""
        store = "store = redis://h"
        short = self.write("short", "0123456789abcde\n")
        self.assertIn(
            "must contain 16 to 4096 bytes", self.problems("gateway_name = g", store, f"store_secret_file = {short}")
        )
        gone = os.path.join(self.folder, "gone")
        self.assertIn("cannot be read", self.problems("gateway_name = g", store, f"store_secret_file = {gone}"))
        for content in ("", "\n", "a\nb\n"):
            bad = self.write("bad", content)
            found = self.problems(*self.needed, store, f"store_password_file = {bad}")
            self.assertIn("must contain one line: the password of the store", found)
        with self.assertRaisesRegex(ValueError, "store_secret_file .*/gone: cannot be read: No such file"):
            StoreSettings(StoreAddress("/r"), keyFile=gone).access()
        with self.assertRaisesRegex(ValueError, "store_password_file .*/bad: must contain one line"):
            StoreSettings(StoreAddress("/r"), keyFile=self.secret, passwordFile=bad).access()

    def test_trust(self) -> None:
        """The file of authorities is read where TLS is used; elsewhere it has no effect."""
        trusted = f"store_ssl_trusted_certificate = {self.secret}"
        found = self.problems(*self.needed, "store = rediss://h", trusted)
        self.assertIn("[mailgate] store_ssl_trusted_certificate", found)
        found = self.warnings(*self.needed, "store = redis://h", trusted)
        self.assertIn("has no effect without a store of the form rediss://", found)

    def test_timeout(self) -> None:
        """From 5 ms to 1 s."""
        for value in ("4ms", "1001ms", "0", "x"):
            self.problems(*self.needed, "store = redis://h", f"store_timeout = {value}")
        for value, expected in (("5ms", 0.005), ("1s", 1.0)):
            lines = [*self.needed, "store = redis://h", f"store_timeout = {value}"]
            self.assertEqual(self.settings(*lines).timeout, expected)

    def test_noEffect(self) -> None:
        """Without store, the others have no effect."""
        found = self.warnings(f"store_secret_file = {self.secret}", "store_timeout = 20ms")
        self.assertIn("store_secret_file: has no effect without store", found)
        self.assertIn("store_timeout: has no effect without store", found)

    def test_open(self) -> None:
        """Files that others can read or write."""
        lines = [*self.needed, "store = redis://h"]
        self.assertEqual(self.warnings(*lines), "")
        os.chmod(self.secret, 0o604)
        self.patch(storeSettings, "isOpenToAll", lambda path: bool(os.stat(path).st_mode & 4))
        self.assertIn(f"every user on this host can read it; run: chmod o-r {self.secret}", self.warnings(*lines))

    def test_reload(self) -> None:
        """A reload changes none of them, except by new workers."""
        before = parse(self.text(*self.needed, "store = redis://h"))
        after = parse(self.text(*self.needed, "store = redis://i", "store_timeout = 20ms"))
        self.assertEqual(sorted(untouchable(before, after)), ["store", "store_timeout"])
