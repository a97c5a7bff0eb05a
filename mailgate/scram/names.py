# -*- test-case-name: mailgate.test.scram.test_names -*-
"""
The names of the SASL mechanisms with SCRAM.
"""

from __future__ import annotations

from functools import cache

from mailgate.login import Method

__all__ = ["BOUND", "SCRAM", "withBinding"]

SCRAM: dict[bytes, Method] = {b"SCRAM-SHA-256": Method.SCRAM_SHA_256, b"SCRAM-SHA-1": Method.SCRAM_SHA_1}
"""The mechanisms without a channel binding, the best first, and their login methods."""

BOUND: dict[bytes, Method] = {name + b"-PLUS": method for name, method in SCRAM.items()}
"""The mechanisms with a channel binding, and their login methods."""


@cache
def withBinding(names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """
    Return the mechanisms for a connection with a channel binding; empty if it changes nothing.

    @param names: the mechanisms of a server, in capitals.
    @return: C{names}, with C{-PLUS} before each mechanism of L{SCRAM}.
    """
    if SCRAM.keys().isdisjoint(names):
        return ()
    return tuple(each for name in names for each in ((name + b"-PLUS", name) if name in SCRAM else (name,)))
