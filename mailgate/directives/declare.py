# -*- test-case-name: mailgate.test.directives.test_declare -*-
"""
The vocabulary in which settings classes declare what they read:
C{timeout: float = directive("timeout", seconds, 60.0)}.

Settings classes stand beside the code that obeys them; L{mailgate.config} reads the ini file's sections into them.
A settings class may also have

 - C{needs}, what its directives need to have an effect;
 - C{problems(section)} and C{warnings(section)}, what is wrong or odd with the settings of one section;
 - C{clashes(values)}, a static method: options of one section, as it is written, that contradict others of it;
 - C{conflicts(settings)}, a class method: what is wrong with the settings of all sections together;
 - C{supplies}, options that every server may leave out, as the section gives them a value when the process starts;
 - C{summary()}, the lines that C{mailgate check} shows of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve, field, fields, frozen

from mailgate.directives.needs import Need
from mailgate.directives.values import Parser

__all__ = ["Directive", "directive", "directives"]

_DIRECTIVE = "mailgate directive"


@frozen
class Directive:
    """
    One option of gateway.ini. It stands in each kind of section that its settings class is registered for.

    @ivar only: the one kind among those, by its word, where it is not all of them.
    @ivar secret: whether its value is shown to nobody.
    @ivar group: the settings class that declares it.
    @ivar field: its attribute there.
    @ivar needs: without any of these it has no effect.
    @ivar reloadable: whether a reload changes it. Else it takes a restart, where one process serves.
    """

    name: str
    parse: Parser
    only: str = ""
    secret: bool = False
    group: type | None = None
    field: str = ""
    needs: tuple[Need, ...] | None = None
    reloadable: bool = True


def directive(
    name: str,
    parse: Parser,
    default: Any,
    *,
    only: str = "",
    secret: bool = False,
    needs: Sequence[Need] | None = None,
    reloadable: bool = True,
) -> Any:
    """
    An attribute of a settings class that is read from option C{name}; the rest is described at L{Directive}. Its
    C{needs} are those of the class unless said.
    """
    wanted = None if needs is None else tuple(needs)
    declared = Directive(name, parse, only, secret, needs=wanted, reloadable=reloadable)
    return field(default=default, metadata={_DIRECTIVE: declared}, repr=not secret)


def directives(group: type) -> Iterator[Directive]:
    """The directives that the settings class C{group} declares, with its C{needs} where they have none."""
    for attribute in fields(group):
        declared = attribute.metadata.get(_DIRECTIVE)
        if declared is not None:
            needs = getattr(group, "needs", ()) if declared.needs is None else declared.needs
            yield evolve(declared, group=group, field=attribute.name, needs=needs)
