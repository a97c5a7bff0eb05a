# -*- test-case-name: mailgate.test.config.test_restart -*-
"""
What of a configuration a running process cannot change: the directives that are declared C{reloadable=False}, and the
demo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from mailgate import registry
from mailgate.directives import Directive, GatewaySettings, SectionKind, directives

__all__ = ["demoSection", "kept", "untouchable"]


def demoSection(settings: GatewaySettings) -> str | None:
    """The section of C{settings} that starts servers to try mailgate out with, if there is one."""
    demos = (kind for kind in registry.SECTIONS if kind.isDemo)
    return next((kind.word for kind in demos if not settings.groups.keys().isdisjoint(kind.settings)), None)


def untouchable(now: GatewaySettings, wanted: GatewaySettings) -> Iterator[str]:
    """The options that a reload cannot change, of those in which C{wanted} is not as C{now}."""
    found: dict[str, None] = {}
    for kind, group in _groups():
        before, after = (settings.find(group) if kind.isDemo else settings[group] for settings in (now, wanted))
        for declared in _lasting(group):
            if getattr(before, declared.field, None) != getattr(after, declared.field, None):
                found[_shown(kind, declared)] = None
    yield from found


def kept(now: GatewaySettings, wanted: GatewaySettings) -> GatewaySettings:
    """C{wanted}, in which the options that a reload cannot change are as C{now}."""
    groups = dict(wanted.groups)
    for kind, group in _groups():
        fields = {declared.field: getattr(now[group], declared.field) for declared in _lasting(group)}
        if fields and kind.isDemo and now.find(group) is None:
            groups.pop(group, None)
        elif fields:
            groups[group] = evolve(wanted[group], **fields)
    return evolve(wanted, groups=groups)


def _shown(kind: SectionKind, declared: Directive) -> str:
    # A demo is started as a whole.
    return f"[{kind.word}]" if kind.isDemo else declared.name


def _groups() -> Iterator[tuple[SectionKind, Any]]:
    """The settings classes of sections without a name, each with the kind of its section."""
    yield from ((kind, group) for kind in registry.SECTIONS if not kind.named for group in kind.settings)


def _lasting(group: type) -> Iterator[Directive]:
    return (declared for declared in directives(group) if not declared.reloadable)
