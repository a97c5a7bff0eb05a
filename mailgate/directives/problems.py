# -*- test-case-name: mailgate.test.directives.test_problems -*-
"""
What is wrong with a configuration, and where it stands in its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

__all__ = ["NO_LINES", "ConfigurationError", "Lines", "Problem", "nearest"]


@frozen
class Problem:
    """
    One thing that is wrong with a configuration, and where it stands.

    @ivar line: the line of the C{file}, counted from 1; 0 where it is not known, or the file as a whole is meant.
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
        # What was pasted into the file must not move a terminal's cursor, nor begin a line of the log.
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)


@frozen
class Lines:
    """
    The lines of a configuration file. C{items} has, for a section and an option, each line of the option's value with
    its number, the option's own line first; for a section and C{""} the line of its header.
    """

    items: Mapping[tuple[str, str], Sequence[tuple[int, str]]] = field(factory=dict, repr=False)

    def find(self, section: str, option: str = "", value: str | None = None) -> int:
        """
        The line of C{value}, if it is one of the items of C{option} of C{section}; or else of the option, or else of
        the section's header. 0 where there is none.
        """
        found = self.items.get((section, option)) or self.items.get((section, "")) or [(0, "")]
        return next((line for line, item in found if item == value), found[0][0])

    def located(self, problem: Problem) -> Problem:
        """C{problem} with its line, unless it has one."""
        if problem.line or not problem.section:
            return problem
        return evolve(problem, line=self.find(problem.section, problem.option, problem.value))


NO_LINES = Lines()
"""Where nothing is known of a file."""


class ConfigurationError(Exception):
    """The configuration cannot be used. C{problems} are all that was found, C{str} gives a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def locate(self, lines: Lines) -> None:
        """Give each of the problems its line, of those C{lines}."""
        self.problems = tuple(map(lines.located, self.problems))
        self.args = ("\n".join(map(str, self.problems)),)


_LEAST = 3
"""Letters of a word that count as the beginning of another."""


def nearest(word: str, known: Sequence[str]) -> str:
    """C{"; did you mean X?"} for an unknown C{word}, where one of C{known} is near enough; or nothing."""
    from difflib import get_close_matches

    lowered = {each.lower(): each for each in known}
    word = word.lower()
    close = [word] if word in lowered else _begun(word, lowered) or get_close_matches(word, list(lowered), 1)
    return f"; did you mean {lowered[close[0]]}?" if close else ""


def _begun(word: str, known: Iterable[str]) -> list[str]:
    """
    Those of C{known} of which C{word} is an abbreviation, the shortest first: C{ssl_cert} of C{ssl_certificate}, and
    C{ssl_key} of C{ssl_certificate_key}.
    """
    if len(word) < _LEAST:
        return []
    found = [each for each in known if each.startswith(word)]
    if not found and "_" in word:
        found = [each for each in known if _abbreviates(word.split("_"), each.split("_"))]
    return sorted(found, key=len)


def _abbreviates(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether each of C{parts} is the beginning of another of the C{whole}, in that order."""
    rest = iter(whole)
    return all(len(part) >= _LEAST and any(each.startswith(part) for each in rest) for part in parts)
