"""
Tests of L{mailgate.store.address}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.address import StoreAddress, storeAddress


class AddressTests(SynchronousTestCase):
    """The value of C{store}."""

    def test_forms(self) -> None:
        """TCP, TLS, unix sockets and Sentinel, with a user and a database."""
        for value, expected, shown in (
            ("redis://cache", StoreAddress(None, (("cache", 6379),)), "cache:6379"),
            ("redis://10.0.0.1:7000/3", StoreAddress(None, (("10.0.0.1", 7000),), database=3), "10.0.0.1:7000"),
            ("rediss://[2001:db8::1]/", StoreAddress(None, (("2001:db8::1", 6379),), True), "[2001:db8::1]:6379"),
            ("redis://mail-1@h:1/0", StoreAddress(None, (("h", 1),), user="mail-1"), "h:1"),
            ("redis+unix:/run/r.sock", StoreAddress("/run/r.sock"), "unix:/run/r.sock"),
            ("redis+unix:///run/r.sock?db=2", StoreAddress("/run/r.sock", database=2), "unix:/run/r.sock"),
            ("redis+unix://m@/run/r.sock", StoreAddress("/run/r.sock", user="m"), "unix:/run/r.sock"),
            (
                "sentinel+redis://a,b:1,[::1]/mail",
                StoreAddress(None, (("a", 26379), ("b", 1), ("::1", 26379)), name="mail"),
                "mail of Sentinel a:26379, b:1, [::1]:26379",
            ),
            (
                "sentinel+rediss://m@a/mail/4",
                StoreAddress(None, (("a", 26379),), True, "mail", "m", 4),
                "mail of Sentinel a:26379",
            ),
        ):
            found = storeAddress(value, "/")
            self.assertEqual((found, str(found)), (expected, shown))

    def test_refused(self) -> None:
        """Everything else is refused, with the reason."""
        for value, reason in (
            ("", "must be redis://"),
            ("http://h", "must be redis://"),
            ("redis:h", "must be redis://"),
            ("redis://", "must be redis://"),
            ("redis://h:0", "must be redis://"),
            ("redis://h:65536", "must be redis://"),
            ("redis://h h", "must be redis://"),
            ("redis://h,i", "must be redis://"),
            ("redis://[h]", "must be redis://"),
            ("redis://h/x", "the number of the database"),
            ("redis://h/1/2", "the number of the database"),
            ("redis://\u00fcser@h", "the user before the @"),
            ("redis+unix:run/r.sock", "must begin with a slash"),
            ("redis+unix:/run/r.sock?password=x", "only .db=NUMBER"),
            ("redis+unix:/" + "r" * 200, "is longer than"),
            ("sentinel+redis://a,b", "must end with the name"),
            ("sentinel+redis://a,,b/mail", "must be redis://"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                storeAddress(value, "/")

    def test_password(self) -> None:
        """A password is refused, whatever it contains, and never repeated."""
        for value in (
            "redis://u:sesame@h",
            "rediss://:ses@me/1@h/0",
            "redis+unix://u:sesame@/r",
            "redis://a/b:sesame@h",
        ):
            with self.assertRaises(ValueError) as caught:
                storeAddress(value, "/")
            self.assertIn("store_password_file", str(caught.exception))
            self.assertNotIn("ses", str(caught.exception))
