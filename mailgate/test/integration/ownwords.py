# -*- test-case-name: mailgate.test.integration.test_ownwords -*-
"""
What a command prints that runs in the process of the tests, beside the threads of their servers.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

__all__ = ["ownWords"]


class _OwnWords(io.StringIO):
    """Keeps what the thread that makes it writes; what other threads write goes to C{others}."""

    def __init__(self, others: TextIO) -> None:
        super().__init__()
        self._thread = threading.current_thread()
        self._others = others

    def write(self, text: str) -> int:
        if threading.current_thread() is self._thread:
            return super().write(text)
        return self._others.write(text)


@contextmanager
def ownWords() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Have what this thread prints in the C{with} block: on standard output, and on standard error."""
    said, errors = _OwnWords(sys.stdout), _OwnWords(sys.stderr)
    with redirect_stdout(said), redirect_stderr(errors):
        yield said, errors
