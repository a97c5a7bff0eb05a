# -*- test-case-name: mailgate.test.test_messages -*-
"""
docs/messages.rst explains each message of the code, and no other.
"""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.documents import MISSING, document
from mailgate.test.support.messages import TO_DO, Message, found, levelsOf, messagesOf, rendered, rows

RUN = "run: python -m mailgate.test.support.messages"

CODE = """
LOST = "the connection was lost"

class Outcome(Enum):
    "What happened to it."
    TIMED_OUT = "timed out"
    LEFT = "left"

def f(self, error, wanted):
    "Says something or other."
    if error:
        self._log.warn("lost {reason}", reason=str(error))
    journal.info(LOST)
    parser.add_argument("--pid", help="the process, by its pid file")
    raise ValueError(f"{wanted!r} is not a whole number: {error.strerror or error}")
"""


class DocumentTests(SynchronousTestCase):
    """The document."""

    skip = MISSING

    def test_complete(self) -> None:
        """It has a row for each message of the code, and no others."""
        text = document("docs", "messages.rst")
        self.assertEqual({row[0] for row in rows(text)} ^ found().keys(), set(), RUN)
        self.assertEqual(text, rendered(found(), text), RUN)

    def test_explained(self) -> None:
        """Each message is explained."""
        text = document("docs", "messages.rst")
        self.assertEqual([message for message, _, explanation in rows(text) if explanation == TO_DO], [])


class MessagesOfTests(SynchronousTestCase):
    """The messages in the source of a module."""

    def test_found(self) -> None:
        """It finds texts of logs, errors and enumerations, with the names of what is put in; no docstrings, no help."""
        tree = ast.parse(CODE)
        messages = {each.text: each.level for each in messagesOf("process.example", tree, levelsOf(tree))}
        expected = {
            "the connection was lost": "info",
            "timed out": "",
            "lost {reason}": "warn",
            "{wanted} is not a whole number: {error}": "",
        }
        self.assertEqual(messages, expected)

    def test_levels(self) -> None:
        """The levels of a constant are found if the method of the log is a variable or an argument, too."""
        code = """
def f(self, served):
    log = self._journal.warn if served else self._journal.error
    log(FAILED, reason="x")
    self._noted(self._journal.warn, NOTED, "x")
    tell(IGNORED)
"""
        self.assertEqual(levelsOf(ast.parse(code)), {"FAILED": "warn, error", "NOTED": "warn"})

    def test_terse(self) -> None:
        """Reasons of two words are messages in some modules; elsewhere they are parts of messages."""
        tree = ast.parse('refuse("wrong password", "locked")')
        self.assertEqual([each.text for each in messagesOf("auth.cred", tree, {})], ["wrong password"])
        self.assertEqual(list(messagesOf("process.example", tree, {})), [])

    def test_group(self) -> None:
        """A message belongs to the section of the nearest package that has one."""
        self.assertEqual(Message("x", "process.twistd").group, "Start, reload, stop and upgrade")
        self.assertEqual(Message("x", "process.workers.master").group, "Workers and keeper")
