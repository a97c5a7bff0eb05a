# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx and mailgate side by side: with the same configuration, clients, backends and replies of the authentication
service, each side receives the same bytes, apart from L{DIFFERENCES}.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration import (
    conversations_around,
    conversations_auth,
    conversations_imap,
    conversations_pop3,
    conversations_sasl,
    conversations_smtp,
)
from mailgate.test.integration.comparison import Comparison
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.differences import DIFFERENCES
from mailgate.test.integration.programs import require
from mailgate.test.integration.sides import Pair

ALL = (
    *conversations_imap.CONVERSATIONS,
    *conversations_pop3.CONVERSATIONS,
    *conversations_smtp.CONVERSATIONS,
    *conversations_sasl.CONVERSATIONS,
    *conversations_auth.CONVERSATIONS,
    *conversations_around.CONVERSATIONS,
)

PASSWORDS = ("secret", "c2VjcmV0")
"""The name and password of nearly all clients, and in base64."""


class SideBySideTests(SynchronousTestCase):
    """The conversations of each protocol."""

    def setUp(self):
        require("nginx", "nginx-mail")
        self.pair = shared("nginx and mailgate", Pair)

    def compare(self, protocol):
        """Run all conversations in C{protocol}."""
        held = [one for one in ALL if one.name.startswith(f"{protocol} ")]
        comparison = Comparison(DIFFERENCES)
        reports = []
        for one, nginx, mailgate in self.pair.play(held):
            reports.append(comparison.report(one.name, nginx, mailgate))
            for stuck in ("[silence]", "[left open]"):
                # Otherwise a conversation waits for a reply that never comes, even if it is the same on both sides.
                self.assertNotIn(stuck, nginx.client + mailgate.client, one.name)
        reports += comparison.unmet([one.name for one in held])
        if any(reports):
            self.fail("\n".join(filter(None, ["not as wanted:", *reports])))
        for line in self.pair.mailgate.proxy.log().splitlines():
            for forbidden in ("Traceback", *PASSWORDS):
                self.assertNotIn(forbidden, line)

    def test_imap(self):
        """IMAP4 is like nginx, except the intended differences."""
        self.compare("imap")

    def test_pop3(self):
        """POP3 is like nginx, except the intended differences."""
        self.compare("pop3")

    def test_smtp(self):
        """SMTP is like nginx, except the intended differences."""
        self.compare("smtp")


class TableTests(SynchronousTestCase):
    """The tables are consistent; these tests run everywhere."""

    def test_names(self):
        """No two conversations have the same name."""
        names = [one.name for one in ALL]
        self.assertEqual([name for name, number in Counter(names).items() if number > 1], [])

    def test_differences(self):
        """The conversations of each difference exist."""
        names = [one.name for one in ALL]
        for difference in DIFFERENCES:
            for pattern in difference.where:
                self.assertTrue(any(fnmatchcase(name, pattern) for name in names), pattern)
