# -*- test-case-name: mailgate.test.rules.test_rules -*-
"""
The sections C{[geo NAME]} and C{[map NAME]}: nginx's C{geo} and C{map}. Each is a variable, C{$NAME}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen

from mailgate.directives import GatewaySettings, Problem, SectionSettings, directive, text
from mailgate.net.networks import parseNetwork
from mailgate.rules.facts import VARIABLES

__all__ = ["GeoSettings", "MapSettings", "variablesIn"]

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_NAME = re.compile(r"[A-Za-z_]\w{0,63}")


def variablesIn(value: str) -> list[str]:
    """The names of the variables in C{value}, each written C{$name} or C{${name}}."""
    return [braced or bare for braced, bare in _VARIABLE.findall(value)]


@frozen
class GeoSettings:
    """
    A table of networks: the longest prefix that holds the address decides (nginx's C{geo}).

    @ivar source: a text with variables that stands for an address.
    @ivar default: the value of other addresses.
    @ivar entries: networks and their values.
    """

    isOpen: ClassVar[bool] = True

    source: str = directive("source", text, "$remote_addr")
    default: str | None = directive("default", text, None)
    entries: tuple[tuple[str, str], ...] = ()

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield the keys of C{section} that are not networks, and an invalid name of the variable."""
        yield from _nameProblems(section)
        networks: dict[object, str] = {}
        for key, value in self.entries:
            try:
                network = parseNetwork(key)
            except ValueError:
                yield section.problem(key, "must be an address or a network, such as 10.0.0.0/8", value)
                continue
            other = networks.setdefault(network, key)
            if other != key:
                yield section.problem(key, f"is the same network as {other}", value)

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """Yield unknown variables in all C{[geo]} and C{[map]} sections of C{settings}, and circles."""
        tables = _tables(settings)
        for name, (section, table) in tables.items():
            for option, value in (("source", table.source), ("default", table.default), *table.entries):
                for variable in variablesIn(value or ""):
                    if variable not in VARIABLES and variable not in tables:
                        yield section.problem(option, unknownVariable(variable, tables), value)
            if name in _needed(name, tables):
                yield section.problem("source", f"depends on ${name} itself")


@frozen
class MapSettings:
    """
    A table of texts (nginx's C{map}). A key is a text as it stands, a domain C{*.example.com} or C{mail.*}, or
    C{~REGEX} (C{~*REGEX} without regard to case), and is looked for in this order; texts and domains match without
    regard to case. A key that begins with a backslash is taken as it stands behind that.

    @ivar source: a text with variables that is looked for.
    @ivar default: the value of other texts.
    @ivar entries: keys and their values, which may have variables.
    """

    isOpen: ClassVar[bool] = True

    source: str | None = directive("source", text, None)
    default: str | None = directive("default", text, None)
    entries: tuple[tuple[str, str], ...] = ()

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a missing source of C{section}, and keys that are not valid."""
        yield from _nameProblems(section)
        if self.source is None:
            yield section.problem("source", "is missing: give what is looked for, such as $domain")
        for key, value in self.entries:
            if key.startswith("~"):
                try:
                    re.compile(key.removeprefix("~").removeprefix("*"))
                except re.error as error:
                    yield section.problem(key, f"is not a regular expression: {error}", value)
            elif "*" in key.removeprefix("*.").removesuffix(".*") and not key.startswith("\\"):
                yield section.problem(key, "may have a * only as the first or the last label of a domain", value)


_Table = GeoSettings | MapSettings


def _tables(settings: GatewaySettings) -> dict[str, tuple[SectionSettings, _Table]]:
    kinds: tuple[type[_Table], ...] = (GeoSettings, MapSettings)
    found: dict[str, tuple[SectionSettings, _Table]] = {}
    for section in settings.named:
        for kind in kinds:
            if kind in section.groups:
                table: _Table = section[kind]
                found.setdefault(section.name, (section, table))
    return found


def _nameProblems(section: SectionSettings) -> Iterator[Problem]:
    if not _NAME.fullmatch(section.name):
        yield section.problem("", "the name of a variable has letters, digits and underscores only")
    elif section.name in VARIABLES:
        yield section.problem("", f"${section.name} exists already: choose another name")


def _needed(name: str, tables: dict[str, tuple[SectionSettings, _Table]]) -> set[str]:
    """The tables that the table C{name} needs, and those need, and so on."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        _, table = tables[waiting.pop()]
        for value in (table.source or "", table.default or "", *(value for _, value in table.entries)):
            for variable in variablesIn(value):
                if variable in tables and variable not in needed:
                    needed.add(variable)
                    waiting.append(variable)
    return needed


def unknownVariable(variable: str, tables: object) -> str:
    """What is wrong with the C{variable} that does not exist beside C{tables}, a collection of names."""
    names = ", ".join(f"${name}" for name in (*VARIABLES, *tables))  # type: ignore[misc]
    return f"the variable ${variable} does not exist; there are {names}"
