# -*- test-case-name: mailgate.test.config.test_restart -*-
"""
The parts of a configuration that a reload cannot change: directives that are declared C{reloadable=False}, and the demo
section.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from mailgate import registry
from mailgate.directives import Directive, GatewaySettings, SectionKind, directives

__all__ = ["demoSection", "fixed", "kept", "untouchable", "withFixed"]


def demoSection(settings: GatewaySettings) -> str | None:
    """The word of the demo section of C{settings}, which starts backends to try mailgate out; L{None} without one."""
    demos = (kind for kind in registry.SECTIONS if kind.isDemo)
    return next((kind.word for kind in demos if not settings.groups.keys().isdisjoint(kind.settings)), None)


def untouchable(now: GatewaySettings, wanted: GatewaySettings) -> Iterator[str]:
    """
    Yield the names of the options that changed and take effect only after a restart. The demo section counts as one
    option.

    @param now: the current settings.
    @param wanted: the new settings.
    """
    found: dict[str, None] = {}
    for kind, group in _groups():
        before, after = (settings.find(group) if kind.isDemo else settings[group] for settings in (now, wanted))
        for declared in _lasting(group):
            if getattr(before, declared.field, None) != getattr(after, declared.field, None):
                found[_shown(kind, declared)] = None
    yield from found


def kept(now: GatewaySettings, wanted: GatewaySettings) -> GatewaySettings:
    """
    The settings for a reload: the new ones, with the current values of all options that a reload cannot change.

    @param now: the current settings.
    @param wanted: the new settings.
    """
    groups = dict(wanted.groups)
    for kind, group in _groups():
        fields = {declared.field: getattr(now[group], declared.field) for declared in _lasting(group)}
        if fields and kind.isDemo and now.find(group) is None:
            groups.pop(group, None)
        elif fields:
            groups[group] = evolve(wanted[group], **fields)
    return evolve(wanted, groups=groups)


def fixed(now: Any, wanted: Any) -> list[str]:
    """
    Return the names of the options of one settings class that changed and take effect only after a restart.

    @param now: the current settings.
    @param wanted: the new settings.
    """
    return [each.name for each in _lasting(type(now)) if getattr(now, each.field) != getattr(wanted, each.field)]


def withFixed(now: Any, wanted: Any) -> Any:
    """
    Return the new settings of one settings class, with the current values of all options that a reload cannot change.

    @param now: the current settings.
    @param wanted: the new settings.
    """
    return evolve(wanted, **{each.field: getattr(now, each.field) for each in _lasting(type(now))})


def _shown(kind: SectionKind, declared: Directive) -> str:
    # The demo starts as a whole.
    return f"[{kind.word}]" if kind.isDemo else declared.name


def _groups() -> Iterator[tuple[SectionKind, Any]]:
    """The settings classes of sections without a name, each with the kind of its section."""
    yield from ((kind, group) for kind in registry.SECTIONS if not kind.named for group in kind.settings)


def _lasting(group: type) -> Iterator[Directive]:
    return (declared for declared in directives(group) if not declared.reloadable)
