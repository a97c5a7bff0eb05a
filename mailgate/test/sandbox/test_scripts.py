"""
Tests for L{mailgate.sandbox.scripts}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.scripts import LARGEST_SCRIPT, MOST_SCRIPTS, IScripts, ScriptRefused, Scripts, fault

VALID = b"""\
require ["fileinto", "vacation", "comparator-i;ascii-numeric"];
# a comment with } and "
if anyof (header :contains "subject" "a \\"}", size :over 100K) { /* } */ fileinto "a"; stop; }
vacation text:
Not here. ".
..
.
;
"""


class FaultTests(SynchronousTestCase):
    """Tests for L{fault}."""

    def test_valid(self):
        """Comments, strings of both kinds and brackets are understood, also with CRLF; an empty script is valid."""
        for script in (VALID, VALID.replace(b"\n", b"\r\n"), b"", b"# nothing", b"keep;", 'redirect "é";'.encode()):
            self.assertIsNone(fault(script), script)

    def test_wrong(self):
        """Each wrong form is refused, with its line."""
        for script, reason in (
            (b"\xff", "UTF-8"),
            (b"keep;\nif true { keep;", "line 2: error: { is not closed"),
            (b"keep; }", "line 1: error: unexpected }"),
            (b"if (true];", "unexpected ]"),
            (b'keep;\n\nredirect "a;', "line 3: error: unexpected characters"),
            (b"keep; /* open", "unexpected characters"),
            (b"keep", "does not end with a semicolon"),
            (b"\x00", "unexpected characters"),
            (b'keep;\nrequire ["fileinto", "nosuch"];', "line 2: error: unknown extension"),
        ):
            self.assertIn(reason, fault(script) or "", script)

    def test_linear(self):
        """The largest scripts of awkward forms are judged without a search that multiplies."""
        for piece in (b"text:\n", b"/*", b'"', b'"\\', b"text:\nx\n.", b"# ", b"a ", b"(", b" \n"):
            script = piece * (LARGEST_SCRIPT // len(piece))
            fault(script)


class ScriptsTests(SynchronousTestCase):
    """Tests for L{Scripts}."""

    def setUp(self):
        self.scripts = Scripts()
        self.scripts.put("a", b"keep;")
        self.scripts.put("b", b"stop;")

    def refused(self, code, perform, *arguments):
        error = self.assertRaises(ScriptRefused, perform, *arguments)
        self.assertEqual(error.code, code, error)

    def test_interface(self):
        """Scripts implement the interface that a portal returns."""
        verifyObject(IScripts, self.scripts)

    def test_put(self):
        """A script replaces another of its name; a wrong one changes nothing."""
        self.scripts.put("a", b"discard;")
        self.refused("", self.scripts.put, "a", b"keep")
        self.assertEqual(self.scripts.get("a"), b"discard;")

    def test_bounds(self):
        """The number of scripts, their sizes and their names are limited; an existing script can still change."""
        self.refused("QUOTA/MAXSIZE", self.scripts.put, "c", b"#" * (LARGEST_SCRIPT + 1))
        for name in ("", "x" * 129, "a\nb", "a\x7f", "a\u2028"):
            self.refused("", self.scripts.put, name, b"")
        for number in range(MOST_SCRIPTS - 2):
            self.scripts.put(f"s{number}", b"")
        self.refused("QUOTA/MAXSCRIPTS", self.scripts.put, "c", b"")
        self.scripts.put("a", b"")
        self.scripts.rename("a", "c")

    def test_active(self):
        """One script is active at most. It cannot be deleted until it is not."""
        self.scripts.activate("a")
        self.scripts.activate("b")
        self.assertEqual(self.scripts.active, "b")
        self.refused("ACTIVE", self.scripts.delete, "b")
        self.refused("NONEXISTENT", self.scripts.activate, "c")
        self.scripts.activate("")
        self.assertIsNone(self.scripts.active)
        self.scripts.delete("b")
        self.assertEqual(list(self.scripts.scripts), ["a"])

    def test_rename(self):
        """A renamed script stays active; no other script is replaced, and an invalid name changes nothing."""
        self.scripts.activate("a")
        self.refused("ALREADYEXISTS", self.scripts.rename, "a", "b")
        self.refused("NONEXISTENT", self.scripts.rename, "c", "d")
        self.refused("", self.scripts.rename, "a", "x\n")
        self.assertEqual((self.scripts.get("a"), self.scripts.active), (b"keep;", "a"))
        self.scripts.rename("a", "d")
        self.assertEqual((self.scripts.get("d"), self.scripts.active), (b"keep;", "d"))

    def test_nonexistent(self):
        """A script that does not exist can neither be read nor deleted."""
        self.refused("NONEXISTENT", self.scripts.get, "c")
        self.refused("NONEXISTENT", self.scripts.delete, "c")
