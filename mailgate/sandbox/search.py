# -*- test-case-name: mailgate.test.sandbox.test_search -*-
"""
IMAP's SEARCH (RFC 3501, 6.4.4) over messages in memory. twisted.mail's own compares text with bytes and finds nothing.

A query is compiled to one predicate of a sequence number and a message before any message is read. So an unknown key is
refused even if the mailbox is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.mail.imap4 import IllegalIdentifierError, IllegalQueryError, parseIdList

from mailgate.sandbox.message import Message

__all__ = ["search"]

Predicate = Callable[[int, Message], bool]

_DEEPEST = 50
_FLAGS = ("ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN")
_HEADERS = ("BCC", "CC", "FROM", "SUBJECT", "TO")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def search(query: Sequence[Any], messages: Sequence[Message]) -> list[int]:
    """
    Search messages.

    @param query: keys and arguments as bytes, parenthesized lists as lists.
    @param messages: the messages, in the order of their sequence numbers.
    @return: the sequence numbers of the messages that match.
    @raise IllegalQueryError: the query is not valid.
    """
    matches = _Query(messages).all(list(query), 0)
    return [number for number, message in enumerate(messages, 1) if matches(number, message)]


def _day(text: bytes) -> date:
    try:
        day, month, year = text.decode("ascii").strip('"').split("-")
        return date(int(year), _MONTHS.index(month.lower()) + 1, int(day))
    except (UnicodeDecodeError, ValueError):
        raise IllegalQueryError("A date is written 1-Feb-1994") from None


def _sent(message: Message) -> date | None:
    try:
        return parsedate_to_datetime(message.getHeaders(False, "date")["date"]).date()
    except (KeyError, TypeError, ValueError):
        return None


def _arrived(message: Message) -> date:
    moment: datetime = message.date
    return moment.date()


def _holds(name: str, wanted: bytes) -> Predicate:
    # RFC 3501 requires to search the decoded text. This also searches the encoded text, which is mostly ASCII.
    text = wanted.decode("utf-8", "replace").lower()
    key = name.lower()

    def matches(number: int, message: Message) -> bool:
        return any(found == key and text in value.lower() for found, _, value in message.fields)

    return matches


def _flag(name: str, present: bool) -> Predicate:
    return lambda number, message: (name in message.flags) is present


_COMPARE: dict[str, Callable[[date, date], bool]] = {
    "BEFORE": lambda found, wanted: found < wanted,
    "ON": lambda found, wanted: found == wanted,
    "SINCE": lambda found, wanted: found >= wanted,
}


class _Query:
    """Makes predicates. The last one of C{messages} is C{*}."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._lastNumber = len(messages)
        self._lastUID = messages[-1].uid if messages else 0

    def all(self, terms: list[Any], depth: int) -> Predicate:
        """The predicate of a list of keys, all of which must match."""
        predicates = []
        while terms:
            predicates.append(self._one(terms, depth))
        return lambda number, message: all(matches(number, message) for matches in predicates)

    def _one(self, terms: list[Any], depth: int) -> Predicate:
        """The predicate of the first key of C{terms}. The key and its arguments are removed from C{terms}."""
        if depth > _DEEPEST:
            raise IllegalQueryError("Too deeply nested")
        if not terms:
            raise IllegalQueryError("A search key is missing")
        term = terms.pop(0)
        if isinstance(term, list):
            return self.all(term, depth + 1)
        key = term.decode("ascii", "replace").upper()
        if key[:1].isdigit() or key[:1] == "*":
            return self._set(term, False)
        if key == "NOT":
            inner = self._one(terms, depth + 1)
            return lambda number, message: not inner(number, message)
        if key == "OR":
            first, second = self._one(terms, depth + 1), self._one(terms, depth + 1)
            return lambda number, message: first(number, message) or second(number, message)
        return self._simple(key, terms)

    def _simple(self, key: str, terms: list[Any]) -> Predicate:
        if key in ("ALL", "OLD"):
            return lambda number, message: True
        if key in ("NEW", "RECENT"):  # no message is recent
            return lambda number, message: False
        if key in _FLAGS:
            return _flag(f"\\{key.capitalize()}", True)
        if key.removeprefix("UN") in _FLAGS:
            return _flag(f"\\{key.removeprefix('UN').capitalize()}", False)
        if key.endswith(tuple(_COMPARE)):
            return self._dated(key, _day(_argument(key, terms)))
        return self._argued(key, _argument(key, terms), terms)

    def _dated(self, key: str, wanted: date) -> Predicate:
        compare = _COMPARE.get(key.removeprefix("SENT"))
        if compare is None:
            raise IllegalQueryError("Unknown search key")
        if not key.startswith("SENT"):
            return lambda number, message: compare(_arrived(message), wanted)

        def matches(number: int, message: Message) -> bool:
            sent = _sent(message)
            return sent is not None and compare(sent, wanted)

        return matches

    def _argued(self, key: str, argument: bytes, terms: list[Any]) -> Predicate:
        if key in _HEADERS:
            return _holds(key, argument)
        if key == "HEADER":
            return _holds(argument.decode("ascii", "replace"), _argument(key, terms))
        if key == "BODY":
            return lambda number, message: argument.lower() in message.body.lower()
        if key == "TEXT":
            return lambda number, message: argument.lower() in message.raw.lower()
        if key in ("KEYWORD", "UNKEYWORD"):
            return _flag(argument.decode("ascii", "replace"), key == "KEYWORD")
        if key in ("LARGER", "SMALLER") and argument.isdigit():
            size = int(argument)
            larger = key == "LARGER"
            return lambda number, message: len(message.raw) > size if larger else len(message.raw) < size
        if key == "UID":
            return self._set(argument, True)
        raise IllegalQueryError("Unknown search key")

    def _set(self, text: bytes, uid: bool) -> Predicate:
        try:
            wanted = parseIdList(text)
        except IllegalIdentifierError:
            raise IllegalQueryError("Bad sequence set") from None
        wanted.last = self._lastUID if uid else self._lastNumber
        return lambda number, message: (message.uid if uid else number) in wanted


def _argument(key: str, terms: list[Any]) -> bytes:
    if not terms or not isinstance(terms[0], bytes):
        raise IllegalQueryError(f"{key} takes an argument" if key.isalpha() else "Unknown search key")
    argument: bytes = terms.pop(0)
    return argument
