# -*- test-case-name: mailgate.test.cli.test_figures -*-
"""
Numbers of the admin server as short texts. What is not a number is C{-}: another release may leave it out.
"""

from __future__ import annotations

from typing import Any

__all__ = ["count", "isNumber", "rate", "seconds", "share"]


_MOST = 10**18
"""Larger numbers have too many digits for a terminal, or cannot be converted."""


def isNumber(value: Any) -> bool:
    """
    Return whether a value of JSON is a number of a size that a gateway can mean.

    @param value: the value.
    """
    return type(value) in (int, float) and abs(value) < _MOST


def count(number: Any) -> str:
    """
    Return a whole number in groups of three digits, such as C{48 211}.

    @param number: the number.
    """
    return f"{number:,.0f}".replace(",", " ") if isNumber(number) else "-"


def rate(number: Any) -> str:
    """
    Return a number of events a second, such as C{2.1/s}.

    @param number: the number.
    """
    if not isNumber(number):
        return "-"
    return f"{number:.1f}/s" if number < 100 else f"{number:.0f}/s"


def seconds(number: Any) -> str:
    """
    Return a short time, such as C{18 ms} or C{1.5 s}.

    @param number: the seconds.
    """
    if not isNumber(number):
        return "-"
    return f"{1000 * number:.0f} ms" if number < 1 else f"{number:.1f} s"


def share(number: Any) -> str:
    """
    Return a share as a percentage, such as C{82 %}.

    @param number: the share, from 0 to 1.
    """
    return f"{100 * number:.0f} %" if isNumber(number) else "-"
