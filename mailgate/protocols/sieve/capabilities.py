# -*- test-case-name: mailgate.test.protocols.sieve.test_capabilities -*-
"""
The capabilities of ManageSieve (RFC 5804, section 1.7): which of its backends' the gateway announces before the login,
and how they are written on the wire.

Inside the gateway a capability is an item without quotes: C{SIEVE fileinto vacation}. Of a backend each word of a list
is an item of its own, C{SIEVE fileinto} and C{SIEVE vacation}: so the log names the extensions that differ, and a long
list of extensions has no limit but that of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mailgate.protocols.sieve.strings import quoted

__all__ = ["LISTS", "itemsOf", "learnable", "lineOf", "missing"]

LISTS = (b"SIEVE", b"NOTIFY", b"EXTLISTS")
"""Capabilities whose value is a list of words. A client may use those that all backends have."""

_SMALLEST = (b"MAXREDIRECTS",)
"""Capabilities whose value is a number. The smallest holds for all."""

_SAME = (b"VERSION", b"LANGUAGE")
"""Capabilities that mean something else with another value: all backends must have the same."""

_PLAIN = (b"RENAME", b"NOOP")
"""
Capabilities without a value, of servers older than RFC 5804. C{UNAUTHENTICATE} is never announced: it would bring a
session that is proxied back to a login that the gateway does not see.
"""


def itemsOf(capabilities: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """
    Return the items for what a backend offers.

    @param capabilities: the values by the names in capitals, as a backend lists them. A value may be empty.
    """
    return tuple(_items(capabilities))


def _items(capabilities: Mapping[bytes, bytes]) -> Iterator[bytes]:
    for name, value in capabilities.items():
        words = value.split() if name in LISTS else []
        if words:
            yield from (name + b" " + word for word in words)
        else:
            yield name + b" " + value if value else name


def _table(items: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """The values by names. Each word of a list is a value."""
    table: dict[bytes, list[bytes]] = {}
    for item in items:
        name, _, value = item.partition(b" ")
        name = name.upper()
        values = table.setdefault(name, [])
        values.extend(value.split() if name in LISTS else [value])
    return table


def learnable(offers: Sequence[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """
    Return what the gateway may announce before the login of what its backends offer: what all of them have and the
    gateway keeps, in the order of the first. C{SIEVE} is always among it, perhaps without an extension (RFC 5804,
    section 1.7).

    @param offers: for each backend what L{itemsOf} has returned. Those without C{SIEVE} do not count.
    """
    tables = [table for table in map(_table, offers) if b"SIEVE" in table]
    if not tables:
        return (b"SIEVE",)
    return tuple(line for name in tables[0] if (line := _common(name, tables)))


def _common(name: bytes, tables: Sequence[Mapping[bytes, list[bytes]]]) -> bytes:
    """Return the item for the capability C{name} that holds for all backends; empty for none."""
    if any(name not in table for table in tables):
        return b""
    values = [table[name] for table in tables]
    if name in LISTS:
        words = [word for word in values[0] if all(word in each for each in values)]
        return b" ".join((name, *words)) if words or name == b"SIEVE" else b""
    firsts = [each[0] for each in values]
    if name in _SMALLEST:
        isNumber = all(each.isdigit() and len(each) <= 10 for each in firsts)
        return name + b" %d" % min(map(int, firsts)) if isNumber else b""
    if name in _SAME:
        return name + b" " + firsts[0] if firsts[0] and len(set(firsts)) == 1 else b""
    return name if name in _PLAIN else b""


def lineOf(item: bytes) -> bytes:
    """
    Return a capability as a line for a client, line end included.

    @param item: the capability, such as C{SIEVE fileinto vacation}.
    """
    name, blank, value = item.partition(b" ")
    if blank or name.upper() in LISTS:
        return quoted(name) + b" " + quoted(value) + b"\r\n"
    return quoted(name) + b"\r\n"


def missing(announced: Iterable[bytes], capabilities: Mapping[bytes, bytes]) -> list[bytes]:
    """
    Return the words of C{SIEVE} and C{NOTIFY} that clients have got and a backend does not have.

    @param announced: the items that are announced.
    @param capabilities: the values by names that the backend lists.
    """
    there = _table(itemsOf(capabilities))
    return [
        word
        for name, words in _table(announced).items()
        if name in (b"SIEVE", b"NOTIFY")
        for word in words
        if word and word not in there.get(name, ())
    ]
