# -*- test-case-name: mailgate.test.config.test_config -*-
"""
Checks of a server as a whole: which authenticator judges its logins, and mistakes that concern more than one option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from mailgate.directives import (
    Directive,
    ListenAddress,
    Problem,
    SectionKind,
    SectionSettings,
    ServerSettings,
    SocketOptions,
)
from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.interfaces import AuthenticatorKind, Refusals
from mailgate.registry import AUTHENTICATORS, PROTOCOLS, SERVER_SETTINGS

__all__ = [
    "EXCLUSIVE",
    "WHO",
    "authenticatorKind",
    "faults",
    "judgedBy",
    "kindFaults",
    "remarks",
    "sharedAddresses",
    "withoutEffect",
]

WHO = "auth_http"
"""The option in the message about a server without an authenticator."""
EXCLUSIVE = tuple(kind.directive for kind in AUTHENTICATORS if kind.directive != "proxy_pass")
"""Options of which a server has only one. An option in its own section replaces any of these in [mail]."""

_OWN = Refusals()
"""The defaults of a server whose gateway judges passwords or proofs itself."""


def authenticatorKind(server: ServerSettings) -> AuthenticatorKind | None:
    """The kind of authenticator that judges the logins of C{server}; L{None} if its configuration selects none."""
    return server.groups.get(AuthenticatorKind)


def judgedBy(server: ServerSettings, kind: AuthenticatorKind) -> ServerSettings:
    """
    Set the authenticator of a server. The kind also sets C{auth_delay} and C{max_auth_failures}, unless the server sets
    them.

    @param server: the server.
    @param kind: the kind of authenticator.
    @return: the changed server.
    """
    dialogue = server[DialogueSettings]
    usual = kind.refusals(server)
    if any(method.isScram for method in PROTOCOLS[server.protocol].methods(server)):
        # The gateway itself judges the proofs of SCRAM, whatever a service does about passwords.
        usual = Refusals(max(usual.delay, _OWN.delay), usual.most or _OWN.most)
    delay, most = dialogue.authDelay, dialogue.maxAuthFailures
    if "auth_delay" not in server.given:
        delay = min(usual.delay, BUDGET * dialogue.timeout / 2)
    if "max_auth_failures" not in server.given:
        most = usual.most
    return server.having(kind).having(evolve(dialogue, authDelay=delay, maxAuthFailures=most))


def faults(server: ServerSettings, exclusive: Sequence[str] = EXCLUSIVE) -> Iterator[Problem]:
    """
    Yield the mistakes of a server that concern more than one option.

    @param server: the server.
    @param exclusive: the options that select an authenticator. A server may have one of them.
    """
    both = [option for option in exclusive if option in server.given]
    kind = authenticatorKind(server)
    if len(both) > 1:
        yield server.problem(both[0], f"conflicts with {both[1]}; remove one of them")
    elif kind is None:
        yield server.problem(WHO, "is missing; set auth_http, auth_file or proxy_pass")
    else:
        yield from _unjudged(server, kind)
    yield from remarks(server, "problems")


def kindFaults(server: ServerSettings) -> Iterator[Problem]:
    """Yield the mistakes of C{server} that concern its kind of authenticator."""
    kind = server.groups[AuthenticatorKind]
    yield from _unjudged(server, kind)
    yield from getattr(server[kind.settings], "problems", lambda _: ())(server)


def remarks(server: ServerSettings, about: str) -> Iterator[Problem]:
    """
    Yield what the settings classes of a server report. Classes of other protocols and other authenticators are left
    out.

    @param server: the server.
    @param about: the name of the method that reports, C{problems} or C{warnings}.
    """
    kind = authenticatorKind(server)
    relevant = [PROTOCOLS[server.protocol].settings, *(() if kind is None else (kind.settings,))]
    special = {protocol.settings for protocol in PROTOCOLS.values()}
    # Those of proxy_pass say how every backend is spoken to.
    special |= {kind.settings for kind in AUTHENTICATORS if kind.directive != "proxy_pass"}
    for group in dict.fromkeys((*(g for g in SERVER_SETTINGS if g not in special), *relevant)):
        found = getattr(server[group], about, None)
        if found is not None:
            yield from found(server)


def _unmet(declared: Directive, section: ServerSettings | SectionSettings) -> str:
    """What C{declared} needs to have an effect and C{section} lacks; empty if nothing."""
    return next((need.what for need in declared.needs or () if not need.isMet(section)), "")


def withoutEffect(sections: Sequence[ServerSettings | SectionSettings], kind: SectionKind) -> Iterator[Problem]:
    """
    Yield a problem for each option that has no effect. An option in a section of defaults counts only if it has no
    effect in any section that inherits it.

    @param sections: the sections of one kind.
    @param kind: this kind.
    """
    unmet: dict[Directive, dict[str, ServerSettings | SectionSettings]] = {}
    used: set[Directive] = set()
    for section in sections:
        for declared in kind.known.values():
            if declared.name not in section.given:
                continue
            what = _unmet(declared, section)
            if not what:
                used.add(declared)
            elif declared.name in section.inherited:
                unmet.setdefault(declared, {}).setdefault(what, section)
            else:
                yield section.problem(declared.name, f"has no effect without {what}")
    for declared, found in unmet.items():
        if declared not in used:
            reason = f"has no effect: no {kind.word} that inherits it has {' or '.join(found)}"
            yield next(iter(found.values())).problem(declared.name, reason)


def sharedAddresses(servers: Sequence[ServerSettings]) -> Iterator[Problem]:
    """
    Yield a problem for each address that two of C{servers} have, and for each address that shares the socket of a
    wildcard address but has other socket options.
    """
    taken: dict[tuple[str, int], ListenAddress] = {}
    owners: dict[tuple[str, int], str] = {}
    for server in servers:
        for address in server.listen:
            place = address.host, address.port
            owner = owners.setdefault(place, server.name)
            if taken.setdefault(place, address) is not address:
                reason = f'duplicate "{address}" address and port pair; [server {owner}] has it already'
                yield server.problem("listen", reason)
    for server in servers:
        for address in server.listen:
            wildcard = taken.get(address.wildcard or ("", 0), address)
            if address.socket not in (wildcard.socket, SocketOptions()):
                reason = f'"{address}" shares the socket of "{wildcard}"; give it the same socket options or none'
                yield server.problem("listen", reason)


def _unjudged(server: ServerSettings, kind: AuthenticatorKind) -> Iterator[Problem]:
    offered = PROTOCOLS[server.protocol].methods(server)
    if not offered <= kind.methods:
        names = ", ".join(sorted(method.value for method in offered - kind.methods))
        option = f"{server.protocol}_auth"
        yield server.problem(option, f"offers {names}, which {kind.directive or kind.name} does not support")
