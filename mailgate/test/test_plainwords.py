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

WORDS = {
    "whoever": "a client that, each user that",
    "whom": "which, or two sentences",
    "nobody's": "what the code does instead",
    "is told of": "learns, is reported, is logged",
    "what becomes of": "the result of",
    "has but": "has only",
    "lest ": "so that it does not",
}
"""The refused words, and what to write instead."""

ALLOWED: frozenset[tuple[str, str]] = frozenset()
"""Exceptions: the file, and the line."""

_TEXTS = (".py", ".rst", ".ini", ".conf", ".service", ".socket", ".local")


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
    """The lines of C{text} that contain one of L{WORDS}."""
    pattern = re.compile("|".join(map(re.escape, WORDS)), re.IGNORECASE)
    return [line.strip() for line in text.splitlines() if pattern.search(line)]


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
