"""
The documents of the project, and the code blocks in them.
"""

from __future__ import annotations

import os
import re
import textwrap

import mailgate

__all__ = ["MISSING", "ROOT", "codeBlocks", "document", "documents"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
"""The root of the checkout, if this is one."""

MISSING = None if os.path.exists(os.path.join(ROOT, "README.rst")) else "documents stand in the checkout alone"


def document(*names: str) -> str:
    """Return the text of a file of the checkout."""
    with open(os.path.join(ROOT, *names), encoding="utf-8") as opened:
        return opened.read()


def documents() -> dict[str, str]:
    """Return the texts of all documents by name."""
    docs = sorted(name for name in os.listdir(os.path.join(ROOT, "docs")) if name.endswith(".rst"))
    return {name: document(name) for name in ("README.rst", "NEWS.rst", *(f"docs/{name}" for name in docs))}


def codeBlocks(text: str, language: str) -> list[str]:
    """Return the contents of all C{code-block}s of C{language} in an rst C{text}."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]
