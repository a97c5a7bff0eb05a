# -*- test-case-name: mailgate.test.directives.test_sections -*-
"""
The kinds of sections that a configuration may have. Which there are is for L{mailgate.registry} to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from attrs import frozen

from mailgate.directives.declare import Directive, directives

__all__ = ["SectionKind"]


@frozen
class SectionKind:
    """
    A kind of section of gateway.ini.

    @ivar word: what its header begins with.
    @ivar named: whether a name follows in the header: there may be several such sections.
    @ivar settings: the settings classes that its options are read into.
    @ivar inherits: the C{word} of the section, without a name, whose options are the defaults of this one.
    @ivar isDemo: whether it starts servers to try mailgate out with. They live in one process and end with it, and what
        would be a secret elsewhere is none.
    """

    word: str
    named: bool
    settings: tuple[type, ...]
    inherits: str | None = None
    isDemo: bool = False

    @property
    def title(self) -> str:
        """The header, as messages show it."""
        return f"{self.word} NAME" if self.named else self.word

    @property
    def isOpen(self) -> bool:
        """Whether it takes any other option, too: one of its settings classes has a field C{entries} for those."""
        return any(getattr(group, "isOpen", False) for group in self.settings)

    @property
    def known(self) -> Mapping[str, Directive]:
        """The options that may stand in such a section, by name."""
        return _known(self)

    def takes(self, header: str) -> bool:
        """Whether C{header}, what stands between [ and ], is that of such a section."""
        if not self.named:
            return header == self.word
        return header.startswith(f"{self.word} ") and bool(header.removeprefix(self.word).strip())


@lru_cache
def _known(kind: SectionKind) -> Mapping[str, Directive]:
    declared = (each for group in kind.settings for each in directives(group))
    return {each.name: each for each in declared if each.only in ("", kind.word)}
