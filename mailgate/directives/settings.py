# -*- test-case-name: mailgate.test.directives.test_settings -*-
"""
A configuration as values: its sections with their settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import evolve, field, frozen

from mailgate.directives.addresses import ListenAddress
from mailgate.directives.declare import directives
from mailgate.directives.problems import Lines, Problem

__all__ = ["GatewaySettings", "SectionSettings", "ServerSettings"]

T = TypeVar("T")


class _Section:
    """The methods that all sections have. L{SectionSettings} describes the attributes."""

    __slots__ = ()

    groups: Mapping[type, Any]
    file: str
    inherited: frozenset[str]
    lines: Lines

    @property
    def title(self) -> str:
        """The text between [ and ] of its header."""
        raise NotImplementedError

    @property
    def general(self) -> str:
        """The title of the section that contains the defaults of this section."""
        raise NotImplementedError

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults if the section sets none of its options."""
        found: T | None = self.groups.get(group)
        return group() if found is None else found

    def problem(self, option: str, message: str, value: str | None = None) -> Problem:
        """
        Make a problem of an option, with its place in the file. If the option is inherited, the place is in the section
        of defaults.

        @param option: the name of the option.
        @param message: what is wrong.
        @param value: the value to show, without secrets; L{None} to show none.
        """
        return self.lines.located(Problem(self.file, message, self.sectionOf(option), option, value))

    def sectionOf(self, option: str) -> str:
        """The title of the section that sets C{option}; this section's title if none sets it."""
        return self.general if option in self.inherited else self.title


@frozen
class SectionSettings(_Section):
    """
    One section other than [server NAME]. C{section[LogSettings]} returns the settings of one class.

    @ivar word: the first word of its header.
    @ivar name: the rest of its header.
    @ivar groups: settings by their class.
    @ivar given: the names of the options that are set here or in the section of defaults.
    @ivar file: the path of the configuration file.
    @ivar inherited: the names of the options that only the section of defaults sets.
    @ivar lines: the line numbers of the file.
    @ivar general: the title of the section of defaults; empty if there is none.
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

    def over(self, settings: T) -> T:
        """
        Return C{settings}, those of another section, with what this section says instead.

        @param settings: an instance of a settings class.
        """
        own: Any = self[type(settings)]
        names = [each.field for each in directives(type(settings)) if each.name in self.given]
        changed: T = evolve(cast(Any, settings), **{name: getattr(own, name) for name in names})
        return changed


@frozen
class ServerSettings(_Section):
    """
    One C{[server NAME]}, with the defaults of C{[mail]}. C{settings[TLSSettings]} returns the settings of one class.

    @ivar name: the name in its header.
    @ivar protocol: the name of its protocol, such as C{imap}.
    @ivar listen: the addresses of its listeners.
    @ivar groups: settings by their class.
    @ivar given: the names of the options that are set here or in C{[mail]}.
    @ivar file: the path of the configuration file.
    @ivar inherited: the names of the options that only C{[mail]} sets.
    @ivar lines: the line numbers of the file.
    @ivar ports: the usual ports of backends of its protocol, without TLS and with TLS from the first byte; 0 if there
        is none.
    @ivar supplied: the names of the options that another section sets when the process starts.
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
    supplied: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return f"server {self.name}"

    @property
    def general(self) -> str:
        return "mail"

    @property
    def speaksTLS(self) -> bool:
        """Whether clients speak TLS from the first byte at one of its addresses."""
        return any(address.ssl for address in self.listen)

    def having(self, *settings: Any) -> ServerSettings:
        """A copy in which C{settings} replace the settings of the same classes."""
        return evolve(self, groups={**self.groups, **_byClass(settings)})


@frozen
class GatewaySettings:
    """
    A whole configuration. C{settings[LogSettings]} returns the settings of one class of a section without a name, and
    C{settings.sections(Upstream)} those of one class of all sections with a name.

    @ivar servers: the C{[server NAME]} sections.
    @ivar groups: settings by their class, of the sections without a name that are in the file.
    @ivar named: the sections with a name, except servers.
    @ivar file: the path of the configuration file.
    @ivar warnings: doubtful settings, which do not stop a process from starting.
    @ivar lines: the line numbers of the file.
    """

    servers: tuple[ServerSettings, ...] = ()
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    named: tuple[SectionSettings, ...] = ()
    file: str = "gateway.ini"
    warnings: tuple[Problem, ...] = ()
    lines: Lines = field(factory=Lines, repr=False, eq=False)

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults if the file does not have its section."""
        found = self.find(group)
        return group() if found is None else found

    def find(self, group: type[T]) -> T | None:
        """The settings of class C{group}; L{None} if the file does not have its section."""
        return self.groups.get(group)

    def sections(self, group: type[T]) -> Mapping[str, T]:
        """The settings of class C{group} by the name of their section, in the order of the file, without servers."""
        return {section.name: section[group] for section in self.named if group in section.groups}

    def having(self, *settings: Any) -> GatewaySettings:
        """A copy in which C{settings} replace the settings of the same classes."""
        return evolve(self, groups={**self.groups, **_byClass(settings)})


def _byClass(settings: tuple[Any, ...]) -> dict[type, Any]:
    return {type(each): each for each in settings}
