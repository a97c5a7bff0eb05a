# -*- test-case-name: mailgate.test.rules.test_rules -*-
"""
The values of variables for one login.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import product

from mailgate.directives import GatewaySettings
from mailgate.net.networks import parseNetwork, plainAddress
from mailgate.rules.facts import VARIABLES, Facts
from mailgate.rules.settings import GeoSettings, MapSettings, variablesIn

__all__ = ["Rules"]

_FROM_CLIENTS = ("user", "domain", "ssl_server_name")
"""Variables whose values clients choose."""

_SEPARATORS = re.compile("[:/\0]")
"""What ends a part of an address: a host before its port, a folder in a socket's path."""

_LONGEST_MATCHED = 320
"""
The longest text in characters for which regular expressions are tried: an address has at most so many (RFC 5321,
sections 4.5.3.1.1 and 4.5.3.1.2, with the C{@}). Some expressions take time by the cube of the length or worse, and a
client could block the process with a long name.
"""

_MOST_VALUES = 1000
"""Values of a text that are told apart when the configuration is checked."""


class _Geo:
    """The table of one C{[geo NAME]}."""

    def __init__(self, settings: GeoSettings) -> None:
        self.source = settings.source
        self.default = settings.default or ""
        self._byLength: dict[tuple[int, int], dict[int, str]] = {}
        for key, value in settings.entries:
            try:
                network = parseNetwork(key)
            except ValueError:
                # That is reported elsewhere, while the configuration is checked.
                continue
            bits = self._byLength.setdefault((network.version, network.prefixlen), {})
            bits[int(network.network_address) >> (network.max_prefixlen - network.prefixlen)] = value
        self._lengths = sorted(self._byLength, reverse=True)

    @property
    def values(self) -> Iterable[str]:
        """All values that an address may have."""
        return {self.default, *(value for bits in self._byLength.values() for value in bits.values())}

    def find(self, source: str) -> str:
        """The value of the longest network that holds the address C{source}."""
        address = plainAddress(source)
        if address is None:
            return self.default
        number, longest = int(address), address.max_prefixlen
        for version, length in self._lengths:
            if version == address.version:
                value = self._byLength[version, length].get(number >> (longest - length))
                if value is not None:
                    return value
        return self.default


class _Map:
    """The table of one C{[map NAME]}."""

    def __init__(self, settings: MapSettings) -> None:
        self.source = settings.source or ""
        self.default = settings.default or ""
        self._texts: dict[str, str] = {}
        self._endings: dict[str, str] = {}
        self._beginnings: dict[str, str] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for key, value in settings.entries:
            if key.startswith("~"):
                flags = re.IGNORECASE if key.startswith("~*") else 0
                # One that is no expression is reported elsewhere, while the configuration is checked.
                with suppress(re.error):
                    self._patterns.append((re.compile(key.removeprefix("~").removeprefix("*"), flags), value))
            elif key.startswith("*."):
                self._endings[key[1:].lower()] = value
            elif key.endswith(".*"):
                self._beginnings[key[:-1].lower()] = value
            else:
                self._texts[key.removeprefix("\\").lower()] = value

    @property
    def values(self) -> Iterable[str]:
        """All values that a text may have, their variables as they are written."""
        tables = (self._texts, self._endings, self._beginnings)
        return {
            self.default,
            *(each for table in tables for each in table.values()),
            *(each for _, each in self._patterns),
        }

    def find(self, source: str) -> str:
        """The value of the text C{source}, its variables as they are written."""
        lowered = source.lower()
        if lowered in self._texts:
            return self._texts[lowered]
        dots = [place for place, char in enumerate(lowered) if char == "."]
        for dot in dots if self._endings else ():
            if dot and lowered[dot:] in self._endings:
                return self._endings[lowered[dot:]]
        for dot in reversed(dots) if self._beginnings else ():
            if lowered[: dot + 1] in self._beginnings:
                return self._beginnings[lowered[: dot + 1]]
        if len(source) > _LONGEST_MATCHED:
            return self.default
        return next((value for pattern, value in self._patterns if pattern.search(source)), self.default)


class Rules:
    """
    The tables of a configuration.

    @param settings: a configuration. Of one that has not been checked L{possible} may be used alone.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._tables: dict[str, _Geo | _Map] = {
            **{name: _Geo(table) for name, table in settings.sections(GeoSettings).items()},
            **{name: _Map(table) for name, table in settings.sections(MapSettings).items()},
        }

    def expand(self, text: str, facts: Facts) -> str:
        """C{text}, each of its variables replaced by the value that it has by C{facts}."""
        return _replaced(text, lambda name: self._value(name, facts)) if "$" in text else text

    def withoutPorts(self, text: str, facts: Facts) -> str:
        """
        Expand C{text} like L{expand}, with a space for each colon and slash in values that clients choose. If the
        result is still an address, its port, or the folder of its socket, comes from the configuration.

        @param text: a text with variables.
        @param facts: what is known of the login.
        @return: the expanded text.
        """
        harmless = {name: _SEPARATORS.sub(" ", str(getattr(facts, VARIABLES[name]))) for name in _FROM_CLIENTS}

        def value(name: str) -> str:
            if name in VARIABLES:
                return harmless.get(name) or self._value(name, facts)
            table = self._tables[name]
            return _replaced(table.find(self.expand(table.source, facts)), value)

        return _replaced(text, value)

    def _value(self, name: str, facts: Facts) -> str:
        if name in VARIABLES:
            return str(getattr(facts, VARIABLES[name]))
        table = self._tables[name]
        return self.expand(table.find(self.expand(table.source, facts)), facts)

    def names(self) -> frozenset[str]:
        """The variables of the tables."""
        return frozenset(self._tables)

    def possible(self, text: str, above: frozenset[str] = frozenset()) -> frozenset[str] | None:
        """
        All values that C{text} may have.

        @param above: the tables whose values C{text} is part of.
        @return: L{None} where they depend on what clients send, or are too many.
        """
        values: dict[str, frozenset[str]] = {}
        for name in variablesIn(text):
            found = self._possibleOf(name, above)
            if found is None:
                return None
            values[name] = found
        every = product(*values.values())
        combined: set[str] = set()
        for combination in every:
            chosen: Mapping[str, str] = dict(zip(values, combination, strict=True))
            combined.add(_replaced(text, chosen.__getitem__))
            if len(combined) > _MOST_VALUES:
                return None
        return frozenset(combined)

    def _possibleOf(self, name: str, above: frozenset[str]) -> frozenset[str] | None:
        table = self._tables.get(name)
        if table is None or name in above:
            return None
        found: set[str] = set()
        for value in table.values:
            values = self.possible(value, above | {name})
            if values is None:
                return None
            found |= values
        return frozenset(found)


def _replaced(text: str, value: Callable[[str], str]) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: value(match[1] or match[2]), text)
