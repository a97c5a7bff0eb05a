# -*- test-case-name: mailgate.test.config.test_config -*-
"""
Reads gateway.ini into settings, and reports all mistakes at once.

The registry and the settings classes declare the sections and options. This module applies inheritance between sections
and the checks that concern more than one option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from attrs import evolve

from mailgate import registry
from mailgate.config.destinations import loops, withTLS
from mailgate.config.outside import HASTY, Authenticators, Outside
from mailgate.config.pitfalls import pitfalls, unchecked
from mailgate.config.sections import Section, SectionReader, made
from mailgate.config.serverchecks import remarks, sharedAddresses, withoutEffect
from mailgate.config.servers import ServerReader
from mailgate.directives import ConfigurationError, GatewaySettings, Problem, SectionSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.system.processors import WorkerSettings
from mailgate.system.regularfiles import readRegularOrPipe, writers

__all__ = ["load", "parse", "read", "readOne"]

T = TypeVar("T")

_LONGEST = 16 * 1024 * 1024
"""The limit of a configuration file, in bytes."""

_PATIENCE = 10.0
"""How long to wait for all of a configuration that comes by a pipe, in seconds."""

_NGINX = re.compile(r"^\s*(events|mail|http|stream)\s*\{", re.MULTILINE)
"""Matches lines of an nginx.conf, which no ini file contains."""


def load(filename: str, authenticators: Mapping[str, AuthenticatorKind | IAuthenticator] = {}) -> GatewaySettings:
    """
    Read a configuration, with the certificates and account files that it names.

    @param filename: the path of the gateway.ini.
    @param authenticators: authenticators, or kinds of them, by the names of the servers whose logins they judge. They
        replace what the configuration selects for these servers. The directives of a kind may stand in the
        configuration.
    @raise ConfigurationError: the configuration has mistakes, or cannot be read.
    """
    return parse(read(filename), filename, authenticators)


def read(filename: str) -> str:
    """
    Read the text of a configuration.

    @param filename: the path of the gateway.ini.
    @return: its text, with C{\\n} as the only line end.
    @raise ConfigurationError: the file cannot be read, or is not UTF-8.
    """
    try:
        content = readRegularOrPipe(filename, _LONGEST, _PATIENCE)
        return re.sub("\r\n?", "\n", content.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError([Problem(filename, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([Problem(filename, "is not UTF-8 text; save it as UTF-8", line=line)]) from None


def parse(
    text: str, filename: str = "gateway.ini", authenticators: Mapping[str, AuthenticatorKind | IAuthenticator] = {}
) -> GatewaySettings:
    """
    Make settings of the text of a configuration. This writes nothing to disk.

    @param text: the contents of the gateway.ini.
    @param filename: its path. Relative paths in C{text} start at its folder.
    @param authenticators: as for L{load}.
    @raise ConfigurationError: the configuration has mistakes.
    """
    block = _NGINX.search(text)
    if block is not None:
        message = 'looks like an nginx.conf; "mailgate import-nginx" converts one to a gateway.ini'
        raise ConfigurationError([Problem(filename, message, line=text.count("\n", 0, block.start(1)) + 1)])
    reading = _Reading(filename, text, authenticators)
    settings = reading.read(text)
    if reading.problems:
        raise ConfigurationError(map(settings.lines.located, reading.problems))
    return settings


def readOne(text: str, filename: str, group: type[T]) -> T:
    """
    Read the settings of one class, and ignore all mistakes in the configuration.

    @param text: the contents of the gateway.ini.
    @param filename: its path. Relative paths in C{text} start at its folder.
    @param group: the settings class. It belongs to a section without a name.
    """
    kind = next(kind for kind in registry.SECTIONS if group in kind.settings and not kind.named)
    values = next((section.values for section in SectionReader(filename).read(text, kind.word)), {})
    found: T = made(group, values)
    return found


def _isServer(section: Section) -> bool:
    return section.kind.word == registry.SERVER.word


class _Reading:
    """Reads the C{text} of C{file} once, and collects C{problems}."""

    def __init__(self, file: str, text: str, authenticators: Authenticators) -> None:
        self._file = file
        self._outside = Outside(text, authenticators, {name for kind in registry.SECTIONS for name in kind.known})
        self._reader = SectionReader(file, self._outside)
        self.problems = self._reader.problems

    def read(self, text: str) -> GatewaySettings:
        """Make settings of all that is valid in C{text}."""
        found = self._reader.read(text)
        general = {section.kind.word: section for section in found if not section.kind.named}
        groups = {group: made(group, every.values) for every in general.values() for group in every.kind.settings}
        above = general.get(registry.SERVER.inherits or "")
        reader = ServerReader(self._file, self._reader, above, groups, self._outside)
        each = [reader.read(section) for section in found if _isServer(section)]
        servers = tuple(server for server in each if server is not None)
        if not each:
            self._reader.problem("mail", "", "there is no [server NAME] section; write at least one")
        self._judgeOutside(found, groups)
        others = [self._section(section, general) for section in found if not _isServer(section)]
        named = tuple(section for section in others if section.name)
        settings = GatewaySettings(servers, groups, named, self._file, lines=self._reader.lines)
        # A section of defaults is checked as part of each section that inherits from it.
        defaults = {kind.inherits for kind in self._reader.kinds}
        judged = [section for section in others if section.word not in defaults]
        self.problems.extend(sharedAddresses(servers))
        wrong = dict.fromkeys(_remarks(judged, "problems"))
        self.problems.extend(problem for problem in wrong if not self._reader.isKnown(problem))
        for group in dict.fromkeys(group for kind in self._reader.kinds for group in kind.settings):
            conflicts = getattr(group, "conflicts", None)
            self.problems.extend(() if conflicts is None else conflicts(settings))
        if not self.problems:
            # Tables of rules that are not good cannot be looked through.
            self.problems.extend(dict.fromkeys(loops(settings)))
        # Those of a configuration that is refused are not shown.
        warnings = [] if self.problems else list(self._warnings(settings, judged))
        self.problems = self._reader.withReasons(self.problems)
        return evolve(settings, warnings=tuple(dict.fromkeys(map(self._reader.lines.located, warnings))))

    def _judgeOutside(self, found: list[Section], groups: Mapping[type, Any]) -> None:
        """Report problems of authenticators from outside for the sections C{found}."""
        names = [section.name for section in found if _isServer(section)]
        self.problems.extend(self._outside.strangers(names, self._file))
        if groups.get(WorkerSettings, WorkerSettings()).count > 1:
            for section in found:
                for option in self._outside.hasty.intersection(section.written):
                    self._reader.problem(section.title, option, HASTY)

    def _section(self, section: Section, general: Mapping[str, Section]) -> SectionSettings:
        """Make settings of a section other than [server NAME], with the defaults of the C{general} section above it."""
        kind = section.kind
        above = None if kind.inherits is None else general.get(kind.inherits)
        inherited = {} if above is None else {k: v for k, v in above.values.items() if k in kind.known}
        values = {**inherited, **section.values}
        return SectionSettings(
            kind.word,
            section.name,
            {group: made(group, values, section.entries) for group in kind.settings},
            frozenset(values),
            self._file,
            frozenset(inherited).difference(section.written),
            self._reader.lines,
            kind.inherits or "",
        )

    def _warnings(self, settings: GatewaySettings, others: list[SectionSettings]) -> Iterator[Problem]:
        """Yield warnings, which do not stop a process from starting."""
        reason = writers(self._file)
        if reason is not None:
            yield Problem(self._file, reason)
        yield from self._reader.warnings
        # A stray ";", comment or quote explains any other warning about the same value.
        used, groups = withTLS(settings, others, isOwn=True)
        odd = [*_remarks(groups, "warnings"), *unchecked(settings)]
        upstreams = sum(section.word == "upstream" for section in others)
        for server, asUsed in zip(settings.servers, used, strict=True):
            odd += [*pitfalls(server, upstreams), *remarks(asUsed, "warnings")]
        yield from (warning for warning in odd if not self._reader.isExplained(warning))
        used, groups = withTLS(settings, others, isOwn=False)
        for kind in self._reader.kinds:
            alike: Iterable[Any] = [section for section in groups if section.word == kind.word]
            yield from withoutEffect(list(used if kind.word == registry.SERVER.word else alike), kind)


def _remarks(sections: Iterable[SectionSettings], method: str) -> Iterator[Problem]:
    """Yield what the settings classes of C{sections} return from C{method}, C{problems} or C{warnings}."""
    for section in sections:
        for settings in section.groups.values():
            check = getattr(settings, method, None)
            if check is not None:
                yield from check(section)
