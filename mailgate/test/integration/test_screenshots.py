# -*- test-case-name: mailgate.test.integration.test_screenshots -*-
"""
Tests for L{mailgate.test.integration.terminalpage}: these run everywhere.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.terminalpage import asPage


def body(screen):
    """The contents of the element for a screen."""
    return asPage(screen).partition("<pre>")[2].removesuffix("</pre>")


class PageTests(SynchronousTestCase):
    """L{asPage}."""

    def test_plain(self):
        """Text is escaped, and has no style. Empty lines at the end are left out."""
        self.assertEqual(body("<a> & b\n  c\n\n"), "&lt;a&gt; &amp; b\n  c")

    def test_styles(self):
        """Colours of all three kinds, attributes and their ends."""
        for codes, part in (
            ("31", "color: #e5534b"),
            ("92", "color: #8ddb8c"),
            ("44", "background: #539bf5"),
            ("38;5;9", "color: #ff938a"),
            ("38;5;16", "color: rgb(0 0 0)"),
            ("48;5;231", "background: rgb(255 255 255)"),
            ("38;5;232", "color: rgb(8 8 8)"),
            ("1", "font-weight: bold"),
            ("2", "opacity: 0.65"),
            ("4", "text-decoration: underline"),
            ("7", "color: #1b1f23; background: #d0d7de"),
        ):
            shown = body(f"a\x1b[{codes}mb\x1b[0mc")
            self.assertRegex(shown, r'^a<span style="[^"]+">b</span>c$')
            self.assertIn(part, shown, codes)

    def test_ends(self):
        """An end ends its own attribute; other sequences are left out."""
        self.assertEqual(body("\x1b[31m\x1b[39ma\x1b[1;2m\x1b[22mb\x1b[7m\x1b[27mc\x0f\x1b(d"), "abcd")
