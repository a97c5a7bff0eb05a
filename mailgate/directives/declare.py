# -*- test-case-name: mailgate.test.directives.test_declare -*-
"""
The vocabulary in which settings classes declare what they read:
C{timeout: float = directive("timeout", seconds, 60.0)}.

Settings classes stand beside the code that obeys them; L{mailgate.config} reads the ini file's sections into them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from attrs import evolve, field, fields, frozen

from mailgate.directives.needs import Need
from mailgate.directives.values import Parser

__all__ = ["Directive", "Level", "directive", "directives"]

_DIRECTIVE = "mailgate directive"


class Level(Enum):
    """The kinds of section that a directive may stand in."""

    MAILGATE = "mailgate"
    MAIL = "mail"
    SERVER = "server"
    SANDBOX = "sandbox"


@frozen
class Directive:
    """
    One option of gateway.ini; C{group} is the settings class that declares it, C{field} its attribute there. The value
    of a C{secret} one is shown to nobody. Without any of its C{needs} it has no effect.
    """

    name: str
    parse: Parser
    levels: frozenset[Level]
    secret: bool = False
    group: type | None = None
    field: str = ""
    needs: tuple[Need, ...] | None = None


def directive(
    name: str, parse: Parser, default: Any, *levels: Level, secret: bool = False, needs: Sequence[Need] | None = None
) -> Any:
    """
    An attribute of a settings class that is read from option C{name}: in C{[mail]} and C{[server]} unless said. Its
    C{needs} are those of the class unless said.
    """
    where = frozenset(levels or (Level.MAIL, Level.SERVER))
    declared = Directive(name, parse, where, secret, needs=None if needs is None else tuple(needs))
    return field(default=default, metadata={_DIRECTIVE: declared}, repr=not secret)


def directives(group: type) -> Iterator[Directive]:
    """The directives that the settings class C{group} declares, with its C{needs} where they have none."""
    for attribute in fields(group):
        declared = attribute.metadata.get(_DIRECTIVE)
        if declared is not None:
            needs = getattr(group, "needs", ()) if declared.needs is None else declared.needs
            yield evolve(declared, group=group, field=attribute.name, needs=needs)
