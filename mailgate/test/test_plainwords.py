# -*- test-case-name: mailgate.test.test_plainwords -*-
"""
Code and documents do not contain words that make readers stop.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.documents import MISSING, ROOT

WORDS = ("whoever", "whom", "nobody's", "is told of", "what becomes of", "has but", "lest")
"""The refused words: name the client, user or process, and write what happens in two sentences."""

ALLOWED: frozenset[tuple[str, str]] = frozenset()
"""Exceptions: the file, and the line."""

_TEXTS = (".py", ".rst", ".ini", ".conf", ".service", ".socket", ".local", "Dockerfile", ".dockerignore")

_BETWEEN = r"\s+(?:# )?"
"""What may separate two words: also the end of a line, and the beginning of the next line of a comment."""


def texts() -> Iterator[str]:
    """The files for readers: code, documents, examples."""
    yield from ("README.rst", "NEWS.rst", "setup.cfg")
    for top in ("mailgate", "docs", "etc", "bench", "twisted"):
        for folder, folders, files in os.walk(os.path.join(ROOT, top)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                if name.endswith(_TEXTS) and name != "test_plainwords.py":
                    yield path


def unplain(text: str) -> list[str]:
    """The lines of C{text} in which one of L{WORDS} begins."""
    words = "|".join(_BETWEEN.join(map(re.escape, each.split())) for each in WORDS)
    starts = (found.start() for found in re.finditer(rf"\b(?:{words})\b", text, re.IGNORECASE))
    return [text[text.rfind("\n", 0, start) + 1 :].partition("\n")[0].strip() for start in starts]


class PlainWordsTests(SynchronousTestCase):
    """All files."""

    skip = MISSING

    def test_plain(self) -> None:
        """No file contains the words, except the allowed places."""
        found: set[tuple[str, str]] = set()
        for path in texts():
            with open(os.path.join(ROOT, path), encoding="utf-8") as file:
                found.update((path, line) for line in unplain(file.read()))
        self.assertEqual(found - ALLOWED, set())
        self.assertEqual(ALLOWED - found, set(), "no longer needed")

    def test_unplain(self) -> None:
        """Each of the words is found, in any case."""
        for word in WORDS:
            self.assertEqual(unplain(f"one\ntwo {word.upper()} three\nfour"), [f"two {word.upper()} three"])
        self.assertEqual(unplain("the smallest one"), [])

    def test_lines(self) -> None:
        """Words that continue on the next line are found too, also in comments."""
        self.assertEqual(unplain("a\nthe client is\n    told of it\n"), ["the client is"])
        self.assertEqual(unplain("# the client has\n# but one\n"), ["# the client has"])
