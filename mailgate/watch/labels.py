# -*- test-case-name: mailgate.test.watch.test_labels -*-
"""
Keeps the values of labels few, although clients and authentication services choose some of them.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["OTHER", "FirstNames"]

OTHER = "other"
"""Stands for all further values."""


class FirstNames:
    """
    Names that are known from the configuration, and the first of the others.

    @param most: how many others keep their names.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._kept: dict[str, str] = {}

    def know(self, names: Iterable[str]) -> None:
        """
        Keep names of the configuration.

        @param names: the names.
        """
        for name in names:
            self._kept[name] = name

    def of(self, name: str) -> str:
        """
        Return a name as the value of a label: itself, or L{OTHER}.

        @param name: the name.
        """
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if not self._left:
            return OTHER
        self._left -= 1
        self._kept[name] = name
        return name
