"""
Tests of L{bench.dialogues}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from bench.dialogues import DIALOGUES, Dialogue, serving, visit
from bench.load import Connection
from bench.processes import BenchmarkError


class ServingTests(SynchronousTestCase):
    """L{serving}."""

    def test_conversation(self) -> None:
        """The backend greets, answers each command, and closes after the goodbye; nothing listens afterwards."""
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.relpath(os.path.join(folder, "s"))
        for dialogue in DIALOGUES.values():
            with serving(dialogue, path), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(path)
                with client.makefile("rb") as stream:
                    self.assertEqual(stream.readline(), dialogue.backend)
                    client.sendall(b"XCLIENT ADDR=192.0.2.1\r\nQUIT\r\n")
                    answers = dialogue.answers[b"XCLIENT"] + dialogue.answers[b"QUIT"]
                    self.assertEqual(stream.read(), answers)
            self.assertFalse(os.path.exists(path))


class VisitTests(SynchronousTestCase):
    """L{visit}."""

    def visit(self, dialogue: Dialogue, *lines: bytes) -> list[bytes]:
        """Return what the client of C{dialogue} says when it hears C{lines}."""
        heard = iter(lines)

        def nothing() -> Iterator[int]:
            yield from ()

        def line() -> Iterator[int]:
            yield from ()
            return next(heard)  # type: ignore[return-value]

        connection = Mock(spec=Connection, address=("127.0.0.1", 1), open=nothing, line=line, toEnd=nothing)
        list(visit(connection, dialogue))
        return [call.args[0] for call in connection.send.call_args_list]

    def test_right(self) -> None:
        """Commands follow the right answers, which may have several lines."""
        said = self.visit(DIALOGUES["smtp"], b"220 mx", b"250-mx", b"250 AUTH PLAIN", b"235 ok", b"221 bye")
        self.assertEqual([line.split()[0] for line in said], [b"EHLO", b"AUTH", b"QUIT"])

    def test_wrong(self) -> None:
        """A login that fails is not counted."""
        for lines in ((b"-ERR no",), (b"+OK", b"+OK", b"-ERR no")):
            error = self.assertRaises(BenchmarkError, self.visit, DIALOGUES["pop3"], *lines)
            self.assertIn("-ERR no", str(error))
