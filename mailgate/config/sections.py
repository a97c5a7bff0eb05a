# -*- test-case-name: mailgate.test.config.test_sections -*-
"""
The sections of the ini file with their options as values, each kind of section as L{mailgate.registry} describes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, evolve, field

from mailgate import registry
from mailgate.config.entrypoints import JUDGED, installed
from mailgate.config.inifile import IniFile
from mailgate.config.outside import Outside
from mailgate.config.secretvalues import isSecret, shownValue
from mailgate.config.strays import explained, holdsOwnWords, strays
from mailgate.directives import Directive, Problem, SectionKind, directives, nearest, repeatedWords
from mailgate.directives.problems import Lines
from mailgate.system.regularfiles import isOpenToAll

__all__ = ["Section", "SectionReader", "knownDirectives", "made"]


@define
class Section:
    """
    A section of the file.

    @ivar title: what stands between [ and ].
    @ivar values: the values of its options, by their names.
    @ivar entries: its options that are not declared, where it takes any.
    @ivar written: its options as messages show them, those that have no value because of a mistake among them.
    """

    kind: SectionKind
    title: str
    values: dict[str, Any] = field(factory=dict, repr=False)
    written: dict[str, str] = field(factory=dict)
    entries: dict[str, str] = field(factory=dict)

    @property
    def name(self) -> str:
        """The part of the title that is its own."""
        return self.title.removeprefix(self.kind.word).strip()


def knownDirectives(word: str) -> Mapping[str, Directive]:
    """The options that may stand in sections whose header begins with C{word}, by name."""
    return next(kind.known for kind in registry.SECTIONS if kind.word == word)


def made(group: type, values: Mapping[str, Any], entries: Mapping[str, str] = {}) -> Any:
    """
    The settings of class C{group} that C{values} make, by the names of options.

    @param entries: the options that are not declared, for a class that takes any.
    """
    chosen = {known.field: values[known.name] for known in directives(group) if known.name in values}
    if getattr(group, "isOpen", False):
        chosen["entries"] = tuple(entries.items())
    return group(**chosen)


class SectionReader:
    """
    Reads the sections of C{file}, and gathers C{problems}, and C{warnings} of what makes no difference. C{lines} is
    where everything stands.

    @param outside: what authenticators from outside add to the sections; without it there are none.
    @ivar kinds: the kinds of sections that there may be.
    """

    def __init__(self, file: str, outside: Outside | None = None) -> None:
        self.kinds = registry.SECTIONS if outside is None else outside.extended(registry.SECTIONS)
        self._broken = {} if outside is None else outside.broken
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.lines = Lines()
        self._file = file
        self._folder = os.path.dirname(os.path.abspath(file))
        self._isOpen = isOpenToAll(file)
        self._strayed: dict[tuple[str, str], list[str]] = {}
        self._unread: set[tuple[str, str]] = set()

    def read(self, text: str, only: str = "") -> list[Section]:
        """The sections of C{text} that are known; with C{only} no others than those of this kind."""
        known = {name for kind in self.kinds for name in kind.known}
        found = IniFile(text, self._file, known, self.kinds)
        self.lines = found.lines
        self.problems.extend(found.problems)
        sections = []
        for written in found.sections.values():
            kind = next((each for each in self.kinds if each.takes(written.name)), None)
            if only and (kind is None or kind.word != only):
                continue
            if kind is None:
                self._unknown(written.name)
                continue
            # An option in a line that could not be read has been told of, and is not missing.
            section = Section(kind, written.name, written=dict.fromkeys(written.unread, ""))
            self._unread.update((written.name, name) for name in written.unread)
            for name, option in written.options.items():
                self._option(section, name, option.value.strip())
            self._clashes(section)
            sections.append(section)
        return sections

    def problem(self, section: str, option: str, message: str, value: str | None = None) -> None:
        """Note what is wrong with C{option} of the section that is titled C{section}."""
        self.problems.append(self.lines.located(Problem(self._file, message, section, option, value)))

    def withReasons(self, problems: Iterable[Problem]) -> list[Problem]:
        """C{problems}, with what strayed into the values that they are about: it is the reason for them."""
        return list(map(self._withReason, problems))

    def isKnown(self, problem: Problem) -> bool:
        """Whether C{problem} is about a value that could not be read, which has been told of: it is no news."""
        return (problem.section, problem.option) in self._unread

    def isExplained(self, problem: Problem) -> bool:
        """Whether there is a warning already of something that strayed into the value which C{problem} is about."""
        return (problem.section, problem.option) in self._strayed

    def _withReason(self, problem: Problem) -> Problem:
        strayed = self._strayed.get((problem.section, problem.option), [])
        return evolve(problem, message="; ".join([problem.message, *strayed])) if strayed else problem

    def _unknown(self, title: str) -> None:
        message = "is no known section"
        if any(kind.named and kind.word == title for kind in self.kinds):
            message = f"needs a name, such as [{title} imap]"
        self.problem(title, "", message + nearest(title, [kind.title for kind in self.kinds]))

    def _option(self, section: Section, name: str, text: str) -> None:
        """The option C{name} of C{section}, whose value is C{text}."""
        known = section.kind.known
        declared = known.get(name)
        if declared is None:
            if section.kind.isOpen:
                section.entries[name] = " ".join(text.split("\n"))
            else:
                self._misplaced(section, name)
            return
        section.written[name] = shownValue(declared, text)
        place = (section.title, name, section.written[name])
        strayed = [] if holdsOwnWords(declared) else list(strays(text))
        try:
            section.values[name] = declared.parse(text, self._folder)
        except ValueError as error:
            self.problem(section.title, name, explained(declared, text, self._folder, str(error)), place[2])
            self._unread.add((section.title, name))
            return
        if self._isOpen and not section.kind.isDemo and isSecret(declared, text):
            reason = f"may be a secret, and everybody on this host may read it: chmod o-r {self._file}"
            self.warnings.append(Problem(self._file, reason, *place))
        if strayed:
            self._strayed[section.title, name] = strayed
        remarks = [*strayed, *(f'duplicate value "{word}"' for word in repeatedWords(declared.parse, text))]
        self.warnings.extend(Problem(self._file, remark, *place) for remark in remarks)

    def _misplaced(self, section: Section, name: str) -> None:
        elsewhere = next((kind.title for kind in self.kinds if name in kind.known), None)
        if elsewhere is not None:
            self.problem(section.title, name, f"does not belong here, but in [{elsewhere}]")
            return
        isJudged = section.kind.word in JUDGED
        if name in self._broken:
            section.written[name] = ""
            self.problem(section.title, name, self._broken[name])
        elif not self._broken or not isJudged:
            # Else it may be one that the broken kind of authenticator would have declared.
            others = installed() if isJudged else ()
            self.problem(section.title, name, "is no known option" + nearest(name, [*section.kind.known, *others]))

    def _clashes(self, section: Section) -> None:
        """What the options of C{section} say against each other."""
        for group in section.kind.settings:
            clashes = getattr(group, "clashes", None)
            for option, message in () if clashes is None else clashes(section.values):
                self.problem(section.title, option, message)
