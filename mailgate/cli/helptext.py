"""
The layout of C{--help}: a description, and the exit statuses one a line.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["helpTexts"]

_WIDTH = 78


def helpTexts(description: str, statuses: Mapping[int, str], epilog: str = "") -> dict[str, Any]:
    """
    The keyword arguments of C{add_parser} that describe a command.

    @param description: what the command does, in sentences.
    @param statuses: what each exit status means.
    @param epilog: a sentence below the exit statuses.
    """
    lines = ["exit status:"]
    for status, meaning in statuses.items():
        mark = f"  {status:<4}"
        lines.append(textwrap.fill(meaning, _WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark)))
    if epilog:
        lines += ["", textwrap.fill(epilog, _WIDTH)]
    return {
        "description": textwrap.fill(description, _WIDTH),
        "epilog": "\n".join(lines),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
