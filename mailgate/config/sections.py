# -*- test-case-name: mailgate.test.config.test_sections -*-
"""
Reads the sections of an ini file, and parses their options as L{mailgate.registry} declares them.
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

    @ivar kind: its kind.
    @ivar title: the text between [ and ].
    @ivar values: the parsed values of its options, by name.
    @ivar entries: its undeclared options, in a section that takes any option.
    @ivar written: its options as messages show them, by name. Options with mistakes, which have no value, are included.
    """

    kind: SectionKind
    title: str
    values: dict[str, Any] = field(factory=dict, repr=False)
    written: dict[str, str] = field(factory=dict)
    entries: dict[str, str] = field(factory=dict)

    @property
    def name(self) -> str:
        """The title without the word of its kind: C{imap} of C{[server imap]}."""
        return self.title.removeprefix(self.kind.word).strip()


def knownDirectives(word: str) -> Mapping[str, Directive]:
    """The directives by name that are allowed in sections whose header begins with C{word}."""
    return next(kind.known for kind in registry.SECTIONS if kind.word == word)


def made(group: type, values: Mapping[str, Any], entries: Mapping[str, str] = {}) -> Any:
    """
    Make settings of parsed values.

    @param group: the settings class.
    @param values: parsed values by the names of options. Options of other classes are ignored.
    @param entries: the undeclared options, for a class that takes any option.
    """
    chosen = {known.field: values[known.name] for known in directives(group) if known.name in values}
    if getattr(group, "isOpen", False):
        chosen["entries"] = tuple(entries.items())
    return group(**chosen)


class SectionReader:
    """
    Reads the sections of one file.

    @param file: the path of the file. Relative paths in values start at its folder.
    @param outside: the authenticators from outside, which may add options to sections.
    @ivar kinds: the kinds of sections that the file may have.
    @ivar problems: the mistakes.
    @ivar warnings: remarks about valid options.
    @ivar lines: the line numbers of sections and options, after L{read}.
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
        """
        Read the sections.

        @param text: the contents of the file.
        @param only: the word of a kind of section. If set, all other sections are ignored.
        @return: the sections of known kinds.
        """
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
            # A line that could not be read is reported already: do not report its option as missing too.
            section = Section(kind, written.name, written=dict.fromkeys(written.unread, ""))
            self._unread.update((written.name, name) for name in written.unread)
            for name, option in written.options.items():
                self._option(section, name, option.value.strip())
            self._clashes(section)
            sections.append(section)
        return sections

    def problem(self, section: str, option: str, message: str, value: str | None = None) -> None:
        """
        Report a mistake.

        @param section: the title of the section.
        @param option: the name of the option, or empty if the problem concerns the section.
        @param message: what is wrong.
        @param value: the value to show, without secrets.
        """
        self.problems.append(self.lines.located(Problem(self._file, message, section, option, value)))

    def withReasons(self, problems: Iterable[Problem]) -> list[Problem]:
        """Append to each of C{problems} the stray characters in its value, which probably cause it."""
        return list(map(self._withReason, problems))

    def isKnown(self, problem: Problem) -> bool:
        """Whether C{problem} concerns a value that could not be parsed, which is reported already."""
        return (problem.section, problem.option) in self._unread

    def isExplained(self, problem: Problem) -> bool:
        """Whether there is already a warning about stray characters in the value that C{problem} concerns."""
        return (problem.section, problem.option) in self._strayed

    def _withReason(self, problem: Problem) -> Problem:
        strayed = self._strayed.get((problem.section, problem.option), [])
        return evolve(problem, message="; ".join([problem.message, *strayed])) if strayed else problem

    def _unknown(self, title: str) -> None:
        message = "is an unknown section"
        if any(kind.named and kind.word == title for kind in self.kinds):
            message = f"needs a name, such as [{title} imap]"
        self.problem(title, "", message + nearest(title, [kind.title for kind in self.kinds]))

    def _option(self, section: Section, name: str, text: str) -> None:
        """Parse the option C{name} of C{section} with the value C{text}."""
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
            reason = f"may be a secret, but every user on this host can read the file; run: chmod o-r {self._file}"
            self.warnings.append(Problem(self._file, reason, *place))
        if strayed:
            self._strayed[section.title, name] = strayed
        remarks = [*strayed, *(f'duplicate value "{word}"' for word in repeatedWords(declared.parse, text))]
        self.warnings.extend(Problem(self._file, remark, *place) for remark in remarks)

    def _misplaced(self, section: Section, name: str) -> None:
        elsewhere = next((kind.title for kind in self.kinds if name in kind.known), None)
        if elsewhere is not None:
            self.problem(section.title, name, f"belongs in [{elsewhere}]; move it there")
            return
        isJudged = section.kind.word in JUDGED
        if name in self._broken:
            section.written[name] = ""
            self.problem(section.title, name, self._broken[name])
        elif not self._broken or not isJudged:
            # If a kind of authenticator could not be loaded, the option may be one that it would have declared.
            others = installed() if isJudged else ()
            self.problem(section.title, name, "is an unknown option" + nearest(name, [*section.kind.known, *others]))

    def _clashes(self, section: Section) -> None:
        """Report options of C{section} that contradict each other."""
        for group in section.kind.settings:
            clashes = getattr(group, "clashes", None)
            for option, message in () if clashes is None else clashes(section.values):
                self.problem(section.title, option, message)
