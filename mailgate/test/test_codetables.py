# -*- test-case-name: mailgate.test.test_codetables -*-
"""
The tables of docs/observing.rst and docs/admin_api.rst are those of the code, and their examples are true.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.main import _parser
from mailgate.keeper.admin.endpoints import ENDPOINTS
from mailgate.test.support.codetables import PARTS, rendered
from mailgate.test.support.documents import MISSING, ROOT, codeBlocks, document
from mailgate.watch.metrics import METRICS


class TablesTests(SynchronousTestCase):
    """What is made from the code."""

    skip = MISSING

    def test_made(self) -> None:
        """Each part is the one that the code makes: run python -m mailgate.test.support.codetables."""
        for part, (name, _) in PARTS.items():
            self.assertEqual(document("docs", name), rendered(part), part)

    def test_metrics(self) -> None:
        """The document has every metric, and no others."""
        named = set(re.findall(r"``(mailgate_\w+)``", document("docs", "observing.rst")))
        known = {f"{metric.name}{'_total' if metric.kind.value == 'counter' else ''}" for metric in METRICS}
        self.assertEqual(known - named, set())
        self.assertEqual(named - known, set())

    def test_statuses(self) -> None:
        """Every status of a refusal is explained, and no others."""
        folder = os.path.join(ROOT, "mailgate", "keeper", "admin")
        used: set[str] = set()
        for name in os.listdir(folder):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as opened:
                    used |= set(re.findall(r"Refused\(\s*(\d{3}),", opened.read()))
        table = document("docs", "admin_api.rst").partition("Errors\n------")[2].partition("\n---")[0]
        self.assertEqual(used - set(re.findall(r"^   \* - (\d{3})$", table, re.MULTILINE)), set())

    def test_levels(self) -> None:
        """Nothing that shows a user name is for the level read."""
        for endpoint in ENDPOINTS:
            if endpoint.level.word in ("none", "read"):
                self.assertNotIn("@", repr(endpoint.example), endpoint.path)


class CommandLinesTests(SynchronousTestCase):
    """The command lines of the documents."""

    skip = MISSING

    def lines(self, name: str) -> list[str]:
        """All command lines of mailgate in the literal blocks of a document."""
        text = document("docs", name).replace("\\\n", " ")
        return re.findall(r"^    (?:\$ )?(mailgate (?:sessions|kick|explain|status|stats).*)$", text, re.MULTILINE)

    def test_valid(self) -> None:
        """argparse accepts each."""
        count = 0
        for name in ("observing.rst", "admin_api.rst", "troubleshoot.rst", "run.rst"):
            for line in self.lines(name):
                words = shlex.split(line.partition(" >")[0].partition(" |")[0])[1:]
                try:
                    parsed = _parser().parse_args(words)
                except SystemExit:
                    raise AssertionError(f"{name}: {line}") from None
                self.assertIsInstance(parsed, argparse.Namespace)
                count += 1
        self.assertGreater(count, 8)

    def test_commands(self) -> None:
        """The document about observing has each option of the commands that ask the admin server."""
        text = document("docs", "observing.rst")
        for word in ("sessions", "kick", "explain", "status", "stats"):
            self.assertIn(f"mailgate {word}", text)
        parser = _parser()
        actions = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        for word in ("sessions", "kick", "explain", "stats"):
            for action in actions[0].choices[word]._actions:
                for option in action.option_strings:
                    if option.startswith("--") and option != "--help":
                        self.assertIn(option, text, word)


class ScriptTests(SynchronousTestCase):
    """The sample scripts of docs/admin_api.rst."""

    skip = MISSING

    def blocks(self, language: str) -> list[str]:
        return codeBlocks(document("docs", "admin_api.rst"), language)

    def test_python(self) -> None:
        """They are valid Python."""
        blocks = self.blocks("python")
        self.assertGreater(len(blocks), 0)
        for block in blocks:
            ast.parse(block)

    def test_shell(self) -> None:
        """They are valid for sh."""
        blocks = self.blocks("sh")
        self.assertGreater(len(blocks), 1)
        for block in blocks:
            checked = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
            self.assertEqual((checked.returncode, checked.stderr), (0, ""), block)
