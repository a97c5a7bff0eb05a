# -*- test-case-name: mailgate.test.directives.test_sections -*-
"""
Kinds of sections of a configuration. L{mailgate.registry} lists them.
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

    @ivar word: the first word of its header.
    @ivar named: whether a name follows in the header. A configuration may have several sections of such a kind.
    @ivar settings: the settings classes that its options are read into.
    @ivar inherits: the C{word} of the section that contains the defaults of this one; L{None} without defaults.
    @ivar isDemo: whether the section starts backends to try mailgate out. They run in the gateway's own process. The
        values of this section are never secret.
    """

    word: str
    named: bool
    settings: tuple[type, ...]
    inherits: str | None = None
    isDemo: bool = False

    @property
    def title(self) -> str:
        """The text between [ and ] of its header, as messages show it."""
        return f"{self.word} NAME" if self.named else self.word

    @property
    def isOpen(self) -> bool:
        """Whether it takes any other option, too: one of its settings classes has a field C{entries} for those."""
        return any(getattr(group, "isOpen", False) for group in self.settings)

    @property
    def known(self) -> Mapping[str, Directive]:
        """The directives by name that such a section accepts."""
        return _known(self)

    def takes(self, header: str) -> bool:
        """Whether C{header}, the text between [ and ], belongs to a section of this kind."""
        if not self.named:
            return header == self.word
        return header.startswith(f"{self.word} ") and bool(header.removeprefix(self.word).strip())


@lru_cache
def _known(kind: SectionKind) -> Mapping[str, Directive]:
    declared = (each for group in kind.settings for each in directives(group))
    return {each.name: each for each in declared if each.only in ("", kind.word)}
