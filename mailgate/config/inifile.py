# -*- test-case-name: mailgate.test.config.test_inifile -*-
"""
Splits an ini file into sections and options. The grammar is that of C{configparser} with C{=} as the only delimiter.
Unlike C{configparser}, this module keeps the line of each option and reports all mistakes at once.

 - C{[NAME]} begins a section, C{NAME = VALUE} is an option of it.
 - A line that is indented more than the option above it continues the option's value.
 - A line that begins with C{#} or C{;} is a comment. Blank lines are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from attrs import define, field

from mailgate.directives import SectionKind
from mailgate.directives.problems import Lines, Problem

__all__ = ["IniFile", "Section"]

_HEADER = re.compile(r"\[([^\]]*)\]\s*(.*)", re.DOTALL)
_OPTION = re.compile(r"([\w.$-]+)\s*=\s*(.*)", re.DOTALL)
_ENTRY = re.compile(r"(\S+(?:\s+[^\s=]\S*)*?)\s+=\s*(.*)|([^\s=]+)=\s*(.*)", re.DOTALL)
"""An option of a section that takes any: a network, a domain, a regular expression, which may hold C{=}."""

_WORD = re.compile(r"[\w.$-]+")


@define
class _Option:
    """
    One option.

    @ivar indent: in characters.
    @ivar items: the lines of the value, each with its number. The first is the line of the option's name.
    """

    indent: int
    items: list[tuple[int, str]] = field(repr=False)

    @property
    def value(self) -> str:
        """The lines of the value."""
        return "\n".join(item for _, item in self.items).strip()


@define
class Section:
    """
    One section.

    @ivar name: the text between [ and ].
    @ivar line: the number of the line of its header.
    @ivar options: its options by name.
    @ivar unread: the known names at the beginning of lines that are not valid options.
    """

    name: str
    line: int
    options: dict[str, _Option] = field(factory=dict)
    unread: set[str] = field(factory=set)


class IniFile:
    """
    The sections of an ini file, and what is wrong with its lines. A second section or option of the same name is
    reported and dropped.

    @param text: the contents of the file.
    @param file: the file's name, for the problems.
    @param known: the names of all options.
    @param kinds: the kinds of sections.
    @ivar sections: the sections by name.
    @ivar problems: the mistakes, in the order of the lines.
    """

    def __init__(self, text: str, file: str, known: Collection[str], kinds: Iterable[SectionKind]) -> None:
        self._file = file
        kinds = tuple(kinds)
        self._headers = _headers(kinds)
        self._open = [kind for kind in kinds if kind.isOpen]
        self._isOpen = False
        self._known = known
        self.sections: dict[str, Section] = {}
        self.problems: list[Problem] = []
        self._section: Section | None = None
        self._option: _Option | None = None
        self._name = ""
        self._isReported = False
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.strip() and line.strip()[0] not in "#;":
                self._read(number, line.strip(), len(line) - len(line.lstrip()))

    @property
    def lines(self) -> Lines:
        """The line numbers of all sections and options."""
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for section in self.sections.values():
            found[section.name, ""] = [(section.line, "")]
            found |= {(section.name, name): option.items for name, option in section.options.items()}
        return Lines(found)

    def _tell(self, line: int, message: str, option: str = "") -> None:
        section = "" if self._section is None else self._section.name
        self.problems.append(Problem(self._file, message, section, option, line=line))

    def _read(self, number: int, line: str, indent: int) -> None:
        if self._option is not None and indent > self._option.indent:
            strayed = _OPTION.match(line)
            isOption = strayed is not None and strayed[1] in self._known
            if not isOption and not self._headers.fullmatch(line):
                self._option.items.append((number, line))
                return
            name = strayed[1] if strayed is not None and isOption else ""
            self._tell(number, self._strayed(name or line), name)
            # Read it as the option or section that it was meant to be, so that this mistake causes no second message.
            indent = self._option.indent
        if line[0] == "[":
            self._begin(number, line)
        elif self._section is None:
            self._beforeAll(number)
        else:
            self._add(number, line, indent)

    def _strayed(self, what: str) -> str:
        assert self._option is not None
        above = f"line {self._option.items[0][0]}"
        if self._name:
            above = f"the value of {self._name} in {above}"
        subject = "is" if what[0] != "[" else f"{what} is"
        return f"{subject} indented and therefore continues {above}; remove the indentation"

    def _begin(self, number: int, line: str) -> None:
        """A section's header."""
        header = _HEADER.match(line)
        name = "" if header is None else " ".join(header[1].split())
        self._option = None
        self._section = Section(name, number)
        self._isOpen = any(kind.takes(name) for kind in self._open)
        if header is None or not name:
            self._section.name = ""
            self._tell(number, 'has no "]" after the section name' if header is None else "has no name between [ and ]")
            return
        if header[2] and header[2][0] not in "#;":
            self._tell(number, f'has text after "[{name}]"; put that on a line of its own')
        if name in self.sections:
            self._tell(number, f"this section appears twice, first in line {self.sections[name].line}; merge them")
        else:
            self.sections[name] = self._section

    def _beforeAll(self, number: int) -> None:
        # Report the first such line only: the others belong to the same missing section.
        if not self._isReported:
            self._tell(number, "is before the first section; write a header such as [mailgate] above it")
        self._isReported = True

    def _add(self, number: int, line: str, indent: int) -> None:
        """An option."""
        assert self._section is not None
        name, value = self._split(line)
        self._option = _Option(indent, [(number, value)])
        if not name:
            self._name = ""
            self._section.unread |= {_wordOf(line)}.intersection(self._known)
            self.problems.append(Problem(self._file, self._mistake(line), line=number))
            if _isOfBlock(line):
                self._option = None
            return
        self._name = name
        before = self._section.options.setdefault(name, self._option)
        if before is not self._option:
            self._tell(number, f"is set twice, first in line {before.items[0][0]}; remove one of them", name)

    def _split(self, line: str) -> tuple[str, str]:
        """The name and the value of the option in C{line}; empty ones where it is no option."""
        found = (_ENTRY if self._isOpen else _OPTION).match(line)
        if found is None:
            return "", ""
        name, value, *other = found.groups()
        return (name, value) if name is not None else (other[0], other[1])

    def _mistake(self, line: str) -> str:
        """
        What is wrong with C{line}, which is not an option. The message shows only the name of an option: the rest of
        the line may be a secret.
        """
        if _isOfBlock(line):
            return 'is nginx syntax; begin a section with "[server NAME]" in place of "server {", and remove "}"'
        name = _wordOf(line)
        if name in self._known:
            if line[len(name) :].lstrip().startswith(":"):
                return f'has ":" after {name} in place of "="; write {name} = VALUE'
            closed = ', without the ";"' if line[-1] == ";" else ""
            return f'has no "=" after {name}; write {name} = VALUE{closed}'
        invisible = next((char for char in line if not char.isprintable() and char != "\t"), None)
        if invisible is not None:
            return f"contains the invisible character U+{ord(invisible):04X}; type the line again"
        return 'is neither "[SECTION]" nor "OPTION = VALUE"'


def _headers(kinds: Iterable[SectionKind]) -> re.Pattern[str]:
    """
    Matches the headers of C{kinds} only: a line of a value may also begin with a bracket, such as C{[::1]:143} of
    C{listen}.
    """
    forms = (re.escape(kind.word) + (r"\s[^\]]*" if kind.named else "") for kind in kinds)
    return re.compile(rf"\[\s*(?:{'|'.join(forms)})\]")


def _wordOf(line: str) -> str:
    """The word that C{line} begins with."""
    word = _WORD.match(line)
    return "" if word is None else word[0]


def _isOfBlock(line: str) -> bool:
    """Whether C{line} begins or ends a block in nginx syntax."""
    return line[0] == "}" or line[-1] == "{"
