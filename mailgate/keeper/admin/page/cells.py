# -*- test-case-name: mailgate.test.keeper.admin.page.test_cells -*-
"""
The cells of the tables: how a value of each kind of column is shown. C{static/cells.js} makes the same cells in the
browser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.template import tags

from mailgate.keeper.admin.page.texts import (
    NONE,
    amount,
    count,
    duration,
    isNumber,
    moment,
    rate,
    share,
    unquoted,
    visible,
    wait,
    words,
)

__all__ = ["CELLS", "NUMBERS", "bracketed", "text"]

NUMBERS = frozenset(("amount", "bar", "count", "duration", "plain", "rate", "share", "wait"))
"""Kinds of columns that are aligned at the right."""

_STATES = {"up": "good", "accepts": "good", "failing": "bad", "down": "bad", "resting": "bad"}
"""Which mark a state has; all others are between good and bad."""

Cell = Callable[[Any, Mapping[str, Any]], Any]


def text(value: Any) -> Any:
    """
    Return a text of the network as an element that keeps its direction to itself. Its whole text is the title.

    @param value: the text, or another value of JSON.
    """
    found = visible(value)
    return found if found == NONE else tags.bdi(found, class_="text", title=found)


def bracketed(client: Any) -> str:
    """
    Return the address and the port of a client, such as C{[2001:db8::1]:56416}.

    @param client: the object with C{address} and C{port}.
    """
    if not isinstance(client, Mapping) or not client.get("address"):
        return NONE
    address, port = visible(client["address"]), client.get("port")
    if not isNumber(port):
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _state(value: Any, row: Mapping[str, Any]) -> Any:
    state = tags.span(visible(value), class_=f"state {_STATES.get(str(value), 'between')}")
    # A backend that is up keeps the reason of its last failure.
    isBad = _STATES.get(str(value)) != "good"
    return [state, " ", text(row["reason"])] if isBad and row.get("reason") else state


def _accepts(value: Any, row: Mapping[str, Any]) -> Any:
    return _state("accepts" if value else "drains", row)


def _shares(value: Any, row: Mapping[str, Any]) -> str:
    if not isinstance(value, Mapping):
        return NONE
    return ", ".join(f"{visible(name)} {share(part)}" for name, part in value.items()) or NONE


def _counts(value: Any, row: Mapping[str, Any]) -> str:
    if not isinstance(value, Mapping):
        return NONE
    return ", ".join(f"{visible(name)} {rate(part)}" for name, part in value.items() if part) or "0"


def _error(value: Any, row: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping):
        return NONE
    return [text(value.get("text")), " at ", moment(value.get("at"))]


def _certificates(value: Any, row: Mapping[str, Any]) -> Any:
    if not isinstance(value, list) or not value:
        return NONE
    found: list[Any] = []
    for each in value:
        if isinstance(each, Mapping):
            found += ["; " if found else "", text(each.get("name")), " until ", moment(each.get("not_after"))[:10]]
    return found or NONE


def _trouble(value: Any, row: Mapping[str, Any]) -> Any:
    """The words for why a login failed, and those that the backend or the service has given, if there are any."""
    first = value or row.get("reason") or row.get("outcome")
    if row.get("outcome") in ("limited", "blocked") and row.get("reason"):
        # The rule.
        first = f"{first} ({row['reason']})"
    told = unquoted(row.get("text"))
    return [text(first), ": ", text(told)] if told and told != first else text(first)


def _version(value: Any, row: Mapping[str, Any]) -> Any:
    return visible(value.get("version")) if isinstance(value, Mapping) else "no"


def _plainly(write: Callable[[Any], str]) -> Cell:
    return lambda value, row: write(value)


CELLS: dict[str, Cell] = {
    "accepts": _accepts,
    "amount": _plainly(amount),
    "bar": _plainly(count),
    "certificates": _certificates,
    "client": lambda value, row: text(bracketed(value)),
    "count": _plainly(count),
    "counts": _counts,
    "duration": _plainly(duration),
    "error": _error,
    "id": lambda value, row: text(value),
    "list": lambda value, row: text(words(value)),
    "moment": _plainly(moment),
    "plain": _plainly(visible),
    "rate": _plainly(rate),
    "share": _plainly(share),
    "shares": _shares,
    "state": _state,
    "text": lambda value, row: text(value),
    "trouble": _trouble,
    "version": _version,
    "wait": _plainly(wait),
    "word": _plainly(visible),
}
"""
How each kind of column is shown: called with the value and its row, it returns what flattens to HTML. Columns of orders
have other kinds, and only scripts fill them.
"""
