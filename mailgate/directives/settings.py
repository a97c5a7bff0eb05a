# -*- test-case-name: mailgate.test.directives.test_settings -*-
"""
A configuration that has been read: its sections, each with the settings that its options make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from mailgate.directives.addresses import ListenAddress
from mailgate.directives.problems import Lines, Problem

__all__ = ["GatewaySettings", "ServerSettings"]

T = TypeVar("T")


@frozen
class ServerSettings:
    """
    One C{[server NAME]}, defaults of C{[mail]} filled in: C{settings[TLSSettings]} gives the directives of one
    settings class. C{given} holds the names of the options that were written, here or in C{[mail]}; C{inherited} those
    that C{[mail]} alone has. C{ports} are those of backends of its protocol, in the clear and with TLS from the first
    byte on, 0 where it has none of its own.
    """

    name: str
    protocol: str
    listen: tuple[ListenAddress, ...]
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    given: frozenset[str] = frozenset()
    file: str = "gateway.ini"
    inherited: frozenset[str] = frozenset()
    lines: Lines = field(factory=Lines, repr=False, eq=False)
    ports: tuple[int, int] = (0, 0)

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults, where nothing was read into it."""
        found: T = self.groups.get(group) or group()
        return found

    @property
    def speaksTLS(self) -> bool:
        """Whether one of its listening addresses speaks TLS from the first byte."""
        return any(address.ssl for address in self.listen)

    def problem(self, option: str, message: str, value: str | None = None) -> Problem:
        """What is wrong with this server's C{option}, which stands in the section that it is read from."""
        return self.lines.located(Problem(self.file, message, self.sectionOf(option), option, value))

    def sectionOf(self, option: str) -> str:
        """The section that C{option} is read from, or would be written in."""
        return "mail" if option in self.inherited else f"server {self.name}"


@frozen
class GatewaySettings:
    """
    A whole configuration: C{settings[LogSettings]} gives the directives of one settings class.

    @ivar servers: the C{[server NAME]} sections.
    @ivar groups: settings by their class, of the sections that have no name and are in the file.
    @ivar warnings: what is odd, and keeps no process from starting.
    """

    servers: tuple[ServerSettings, ...] = ()
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    sandbox: Any = None
    file: str = "gateway.ini"
    warnings: tuple[Problem, ...] = ()
    lines: Lines = field(factory=Lines, repr=False, eq=False)
    ports: tuple[int, int] = (0, 0)

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults, where its section is not there."""
        found = self.find(group)
        return group() if found is None else found

    def find(self, group: type[T]) -> T | None:
        """The settings of class C{group}; L{None} where its section is not there."""
        return self.groups.get(group)

    def having(self, *settings: Any) -> GatewaySettings:
        """The same with C{settings}, each in the place of those of its class."""
        return evolve(self, groups={**self.groups, **{type(each): each for each in settings}})
