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

__all__ = ["GatewaySettings", "SectionSettings", "ServerSettings"]

T = TypeVar("T")


class _Section:
    """What every section can be asked; where its attributes come from is said at L{SectionSettings}."""

    __slots__ = ()

    groups: Mapping[type, Any]
    file: str
    inherited: frozenset[str]
    lines: Lines

    @property
    def title(self) -> str:
        """What stands between [ and ] in its header."""
        raise NotImplementedError

    @property
    def general(self) -> str:
        """The header of the section that its defaults stand in."""
        raise NotImplementedError

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults, where nothing was read into it."""
        found: T | None = self.groups.get(group)
        return group() if found is None else found

    def problem(self, option: str, message: str, value: str | None = None) -> Problem:
        """What is wrong with this section's C{option}, located in the section that it is read from."""
        return self.lines.located(Problem(self.file, message, self.sectionOf(option), option, value))

    def sectionOf(self, option: str) -> str:
        """The section that C{option} is read from, or would be written in."""
        return self.general if option in self.inherited else self.title


@frozen
class SectionSettings(_Section):
    """
    One section that is not of a server: C{section[LogSettings]} gives the directives of one settings class.

    @ivar word: what its header begins with.
    @ivar name: the rest of its header.
    @ivar groups: settings by their class.
    @ivar given: the options that were written, here or in the section C{general}, which has the defaults.
    @ivar inherited: those that are written only there.
    """

    word: str
    name: str = ""
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    given: frozenset[str] = frozenset()
    file: str = "gateway.ini"
    inherited: frozenset[str] = frozenset()
    lines: Lines = field(factory=Lines, repr=False, eq=False)
    general: str = ""

    @property
    def title(self) -> str:
        return f"{self.word} {self.name}".strip()


@frozen
class ServerSettings(_Section):
    """
    One C{[server NAME]}, defaults of C{[mail]} filled in: C{settings[TLSSettings]} gives the directives of one
    settings class. C{given} holds the names of the options that were written, here or in C{[mail]}; C{inherited} those
    that C{[mail]} alone has; C{supplied} those that another section gives a value when the process starts.
    """

    name: str
    protocol: str
    listen: tuple[ListenAddress, ...]
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    given: frozenset[str] = frozenset()
    file: str = "gateway.ini"
    inherited: frozenset[str] = frozenset()
    lines: Lines = field(factory=Lines, repr=False, eq=False)
    supplied: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return f"server {self.name}"

    @property
    def general(self) -> str:
        return "mail"

    @property
    def speaksTLS(self) -> bool:
        """Whether one of its listening addresses speaks TLS from the first byte."""
        return any(address.ssl for address in self.listen)

    def having(self, *settings: Any) -> ServerSettings:
        """The same with C{settings}, each in the place of those of its class."""
        return evolve(self, groups={**self.groups, **_byClass(settings)})


@frozen
class GatewaySettings:
    """
    A whole configuration: C{settings[LogSettings]} gives the directives of one settings class, and
    C{settings.sections(Upstream)} those of each section with a name.

    @ivar servers: the C{[server NAME]} sections.
    @ivar groups: settings by their class, of the sections without a name that are in the file.
    @ivar named: the sections with a name, but for servers.
    @ivar warnings: what is odd, and keeps no process from starting.
    """

    servers: tuple[ServerSettings, ...] = ()
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    named: tuple[SectionSettings, ...] = ()
    file: str = "gateway.ini"
    warnings: tuple[Problem, ...] = ()
    lines: Lines = field(factory=Lines, repr=False, eq=False)

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults, where its section is not there."""
        found = self.find(group)
        return group() if found is None else found

    def find(self, group: type[T]) -> T | None:
        """The settings of class C{group}; L{None} where its section is not there."""
        return self.groups.get(group)

    def sections(self, group: type[T]) -> Mapping[str, T]:
        """The settings of class C{group} by the name of their section, in the order of the file; none of servers."""
        return {section.name: section[group] for section in self.named if group in section.groups}

    def having(self, *settings: Any) -> GatewaySettings:
        """The same with C{settings}, each in the place of those of its class."""
        return evolve(self, groups={**self.groups, **_byClass(settings)})


def _byClass(settings: tuple[Any, ...]) -> dict[type, Any]:
    return {type(each): each for each in settings}
