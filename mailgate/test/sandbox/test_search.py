"""
Tests for L{mailgate.sandbox.search}.
"""

from __future__ import annotations

from datetime import datetime, timezone

from twisted.mail.imap4 import IllegalQueryError, parseNestedParens
from twisted.trial.unittest import SynchronousTestCase

from mailgate.sandbox.message import Message
from mailgate.sandbox.search import search


def message(uid: int, raw: bytes, *flags: str, day: int = 1) -> Message:
    return Message(raw, uid, frozenset(flags), datetime(2024, 1, day, 12, tzinfo=timezone.utc))


MESSAGES = [
    message(3, b"From: Ann <ann@x>\r\nSubject: Lunch\r\n\r\nsoup and RICE\r\n", "\\Seen", day=1),
    message(
        5,
        b"From: bob@x\r\nTo: ann@x\r\nCc: c@x\r\n"
        b"Date: Fri, 05 Jan 2024 23:00:00 -0800\r\nX-A: one\r\nX-A: two\r\n\r\nno\r\n",
        "\\Deleted",
        "work",
        day=2,
    ),
    message(9, b"Date: nonsense\r\nBcc: d@x\r\n\r\n" + b"x" * 500, "\\Flagged", "\\Draft", "\\Answered", day=3),
]


class SearchTests(SynchronousTestCase):
    """Tests for L{search}."""

    def found(self, query: bytes) -> list[int]:
        return search(parseNestedParens(query), MESSAGES)

    def assertFound(self, **expected: list[int]) -> None:
        for query, numbers in expected.items():
            self.assertEqual(self.found(query.encode()), numbers, query)

    def test_all(self):
        """ALL and OLD match all messages, NEW and RECENT none."""
        self.assertFound(ALL=[1, 2, 3], OLD=[1, 2, 3], NEW=[], RECENT=[])

    def test_flags(self):
        """Each flag matches, and the absence of each flag."""
        self.assertFound(SEEN=[1], UNSEEN=[2, 3], DELETED=[2], UNDELETED=[1, 3], FLAGGED=[3], UNFLAGGED=[1, 2])
        self.assertFound(DRAFT=[3], UNDRAFT=[1, 2], ANSWERED=[3], UNANSWERED=[1, 2], seen=[1])
        self.assertFound(**{"KEYWORD work": [2], "UNKEYWORD work": [1, 3]})

    def test_headers(self):
        """Header text matches in any case, in any occurrence of the field, and only in that field."""
        self.assertFound(**{"FROM ANN": [1], "TO ann": [2], 'SUBJECT "lun"': [1], "CC c@": [2], "BCC d@": [3]})
        self.assertFound(**{"HEADER X-A two": [2], 'HEADER x-a ""': [2], "HEADER X-B one": [], 'FROM "ann@y"': []})

    def test_text(self):
        """BODY searches after the header, TEXT everywhere."""
        self.assertFound(**{"BODY rice": [1], "BODY lunch": [], "TEXT lunch": [1], 'TEXT "soup and"': [1]})

    def test_sizes(self):
        """LARGER and SMALLER do not match the size itself."""
        size = len(MESSAGES[2].raw)
        self.assertFound(**{f"LARGER {size}": [], f"LARGER {size - 1}": [3], f"SMALLER {size}": [1, 2]})

    def test_arrival(self):
        """BEFORE, ON and SINCE compare the day of arrival; SINCE includes that day."""
        self.assertFound(**{"BEFORE 2-Jan-2024": [1], "ON 02-jan-2024": [2], 'SINCE "2-Jan-2024"': [2, 3]})

    def test_sent(self):
        """
        SENTBEFORE, SENTON and SENTSINCE compare the Date field without its time zone; messages without a date do not
        match.
        """
        self.assertFound(**{"SENTON 5-Jan-2024": [2], "SENTSINCE 6-Jan-2024": [], "SENTBEFORE 6-Jan-2024": [2]})

    def test_sets(self):
        """Sets of numbers and UIDs match; C{*} is the last one, and a range may be reversed."""
        self.assertFound(**{"1,3": [1, 3], "2:*": [2, 3], "*": [3], "UID 5:*": [2, 3], "UID 100:*": [3], "UID 4": []})

    def test_combined(self):
        """Several keys must all match; NOT, OR and parentheses work."""
        self.assertFound(**{"UNSEEN NOT DELETED": [3], "OR SEEN DELETED": [1, 2], "NOT (UNSEEN DELETED)": [1, 3]})
        self.assertFound(**{"OR (SEEN FROM ann) NOT UNFLAGGED": [1, 3], "NOT NOT SEEN": [1]})

    def test_refused(self):
        """An unknown key, and a missing or malformed argument, are refused, also in an empty mailbox."""
        for query in (
            b"FOO",
            b"FOO bar",
            b"FROM",
            b"FROM (a)",
            b"HEADER x",
            b"NOT",
            b"OR SEEN",
            b"ON yesterday",
            b"ON 31-Feb-2024",
            b"LARGER x",
            b"UID x",
            b"0",
            b"1:0",
            b"REASON 1-Jan-2024",
            b"\xff",
            b"ON \xff-Jan-2024",
            b"UNALL",
        ):
            self.assertRaises(IllegalQueryError, search, parseNestedParens(query), [])

    def test_deep(self):
        """A deeply nested query is refused."""
        self.assertRaises(IllegalQueryError, self.found, b"NOT " * 5000 + b"ALL")
        self.assertRaises(IllegalQueryError, search, [[[[b"NOT"] * 100]]], [])
