# -*- test-case-name: mailgate.test.directives.test_declare -*-
"""
How settings classes declare their options: C{timeout: float = directive("timeout", seconds, 60.0)}.

A settings class is beside the code that uses it. L{mailgate.config} reads the sections of the ini file into it. A
settings class may also have

 - C{needs}: what its directives need to have an effect;
 - C{problems(section)} and C{warnings(section)}: yield the mistakes and the doubtful settings of one section;
 - C{clashes(values)}, a static method: yields options of one section, as written, that contradict each other;
 - C{conflicts(settings)}, a class method: yields the mistakes that concern several sections;
 - C{supplies}: options that each server may leave out, because the section sets them when the process starts;
 - C{summary()}: the lines about it in the output of C{mailgate check}.
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
    One option of gateway.ini. Each kind of section that its settings class is registered for accepts it.

    @ivar name: the name of the option.
    @ivar parse: makes a value of the option's text.
    @ivar only: the word of the only kind of section that accepts it; empty for all of them.
    @ivar secret: whether messages hide its value.
    @ivar group: the settings class that declares it.
    @ivar field: the attribute of that class that holds its value.
    @ivar needs: what it needs to have an effect: all of these. L{None} for those of the class.
    @ivar reloadable: whether a reload changes it. If not, a change needs a restart, unless worker processes serve.
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
    Declare an attribute of a settings class that is read from an option. L{Directive} describes C{only}, C{secret} and
    C{reloadable}.

    @param name: the name of the option.
    @param parse: makes a value of the option's text.
    @param default: the value of the attribute without the option.
    @param needs: what the option needs to have an effect. The default is the attribute C{needs} of the class.
    """
    ownNeeds = None if needs is None else tuple(needs)
    declared = Directive(name, parse, only, secret, needs=ownNeeds, reloadable=reloadable)
    return field(default=default, metadata={_DIRECTIVE: declared}, repr=not secret)


def directives(group: type) -> Iterator[Directive]:
    """Yield the directives of the settings class C{group}. Those without C{needs} have the C{needs} of the class."""
    for attribute in fields(group):
        declared = attribute.metadata.get(_DIRECTIVE)
        if declared is not None:
            needs = getattr(group, "needs", ()) if declared.needs is None else declared.needs
            yield evolve(declared, group=group, field=attribute.name, needs=needs)
