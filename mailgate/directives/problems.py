# -*- test-case-name: mailgate.test.directives.test_problems -*-
"""
The mistakes of a configuration, with their place in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

__all__ = ["NO_LINES", "ConfigurationError", "Lines", "Problem", "nearest"]


@frozen
class Problem:
    """
    One mistake in a configuration, or one warning. Its text is C{FILE:LINE: [SECTION] OPTION = VALUE: MESSAGE}.

    @ivar file: the path of the file.
    @ivar message: what is wrong. Its subject is the option, or else the section, the line or the file.
    @ivar section: the title of the section; empty if none is concerned.
    @ivar option: the name of the option; empty if none is concerned.
    @ivar value: the value, without secrets; L{None} to show none.
    @ivar line: the number of the line, from 1; 0 if it is not known, or if the problem concerns the whole file.
    """

    file: str
    message: str
    section: str = ""
    option: str = ""
    value: str | None = None
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        if self.section:
            place += f": [{self.section}]"
        if self.option:
            place += f" {self.option}"
        if self.value is not None:
            place += f" = {' | '.join(self.value.split(chr(10))).strip(' |')}"
        line = f"{place}: {self.message}"
        if line.isprintable():
            return line
        # Control characters in the file must not move the cursor of a terminal, nor begin a new line of the log.
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)


@frozen
class Lines:
    """
    The line numbers of a configuration file.

    @ivar items: by section and option, the lines of the option's value, each with its number. The line of the option's
        name is the first. By section and C{""}, the line of the section's header.
    """

    items: Mapping[tuple[str, str], Sequence[tuple[int, str]]] = field(factory=dict, repr=False)

    def find(self, section: str, option: str = "", value: str | None = None) -> int:
        """
        The number of a line: the line of the value in the option, or else of the option, or else of the section's
        header; 0 if none of them is known.

        @param section: the title of the section.
        @param option: the name of the option.
        @param value: one line of the value of the option.
        """
        found = self.items.get((section, option)) or self.items.get((section, "")) or [(0, "")]
        return next((line for line, item in found if item == value), found[0][0])

    def located(self, problem: Problem) -> Problem:
        """Add the number of its line to C{problem}, unless it has one."""
        if problem.line or not problem.section:
            return problem
        return evolve(problem, line=self.find(problem.section, problem.option, problem.value))


NO_LINES = Lines()
"""For a file whose lines are not known."""


class ConfigurationError(Exception):
    """
    The configuration cannot be used. C{str} returns a line for each problem.

    @ivar problems: all the mistakes, as a tuple of L{Problem}.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def locate(self, lines: Lines) -> None:
        """Add line numbers from C{lines} to the problems."""
        self.problems = tuple(map(lines.located, self.problems))
        self.args = ("\n".join(map(str, self.problems)),)


_LEAST = 3
"""The least number of letters of an abbreviation."""


def nearest(word: str, known: Sequence[str]) -> str:
    """
    C{"; did you mean X?"} for an unknown word; empty if no known word is similar.

    @param word: the unknown word.
    @param known: the known words.
    """
    from difflib import get_close_matches

    lowered = {each.lower(): each for each in known}
    word = word.lower()
    close = [word] if word in lowered else _begun(word, lowered) or get_close_matches(word, list(lowered), 1)
    return f"; did you mean {lowered[close[0]]}?" if close else ""


def _begun(word: str, known: Iterable[str]) -> list[str]:
    """
    The words of C{known} that C{word} abbreviates, the shortest first: C{ssl_cert} abbreviates C{ssl_certificate}, and
    C{ssl_key} abbreviates C{ssl_certificate_key}.
    """
    if len(word) < _LEAST:
        return []
    found = [each for each in known if each.startswith(word)]
    if not found and "_" in word:
        found = [each for each in known if _abbreviates(word.split("_"), each.split("_"))]
    return sorted(found, key=len)


def _abbreviates(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether each of C{parts} begins a different word of C{whole}, in the same order."""
    rest = iter(whole)
    return all(len(part) >= _LEAST and any(each.startswith(part) for each in rest) for part in parts)
