# -*- test-case-name: mailgate.test.config.test_config -*-
"""
What is to be known of a server as a whole: which authenticator judges its logins, and what no single option can see.
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
from mailgate.interfaces import AuthenticatorKind
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
"""The option that is named where nobody judges logins."""
EXCLUSIVE = tuple(kind.directive for kind in AUTHENTICATORS if kind.directive != "proxy_pass")
"""Options of which a server has but one: its own hides whichever [mail] gives."""


def authenticatorKind(server: ServerSettings) -> AuthenticatorKind | None:
    """Who judges C{server}'s logins."""
    return server.groups.get(AuthenticatorKind)


def judgedBy(server: ServerSettings, kind: AuthenticatorKind) -> ServerSettings:
    """C{server} with C{kind}, and with its way to treat those who guess, as far as the server does not say its own."""
    dialogue = server[DialogueSettings]
    usual = kind.refusals(server)
    delay, most = dialogue.authDelay, dialogue.maxAuthFailures
    if "auth_delay" not in server.given:
        delay = min(usual.delay, BUDGET * dialogue.timeout / 2)
    if "max_auth_failures" not in server.given:
        most = usual.most
    return server.having(kind).having(evolve(dialogue, authDelay=delay, maxAuthFailures=most))


def faults(server: ServerSettings, exclusive: Sequence[str] = EXCLUSIVE) -> Iterator[Problem]:
    """
    What is wrong with C{server} that no single option can see; C{exclusive} are the options that choose who judges its
    logins, of which it has one.
    """
    both = [option for option in exclusive if option in server.given]
    kind = authenticatorKind(server)
    if len(both) > 1:
        yield server.problem(both[0], f"cannot stand together with {both[1]}")
    elif kind is None:
        yield server.problem(WHO, "is missing: give auth_http, auth_file or proxy_pass")
    else:
        yield from _unjudged(server, kind)
    yield from remarks(server, "problems")


def kindFaults(server: ServerSettings) -> Iterator[Problem]:
    """What is wrong with C{server} because of its kind of authenticator."""
    kind = server.groups[AuthenticatorKind]
    yield from _unjudged(server, kind)
    yield from getattr(server[kind.settings], "problems", lambda _: ())(server)


def remarks(server: ServerSettings, about: str) -> Iterator[Problem]:
    """What the settings classes that matter to C{server} give as C{about}: C{problems}, or C{warnings}."""
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
    """What C{section} lacks of what C{declared} needs to have an effect, if anything."""
    return next((need.what for need in declared.needs or () if not need.isMet(section)), "")


def withoutEffect(sections: Sequence[ServerSettings | SectionSettings], kind: SectionKind) -> Iterator[Problem]:
    """
    The options of C{sections}, all of them C{kind}, that change nothing: of each section its own, and those of the
    section of defaults that are of use to none of the sections that have them from there.
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
            reason = f"has no effect: no {kind.word} that has it from here has {' or '.join(found)}"
            yield next(iter(found.values())).problem(declared.name, reason)


def sharedAddresses(servers: Sequence[ServerSettings]) -> Iterator[Problem]:
    """The addresses that two of C{servers} give, and those that share a socket and give it other options."""
    taken: dict[tuple[str, int], ListenAddress] = {}
    owners: dict[tuple[str, int], str] = {}
    for server in servers:
        for address in server.listen:
            place = address.host, address.port
            owner = owners.setdefault(place, server.name)
            if taken.setdefault(place, address) is not address:
                reason = f'duplicate "{address}" address and port pair, which [server {owner}] has already'
                yield server.problem("listen", reason)
    for server in servers:
        for address in server.listen:
            wildcard = taken.get(address.wildcard or ("", 0), address)
            if address.socket not in (wildcard.socket, SocketOptions()):
                reason = f'"{address}" shares the socket of "{wildcard}", and cannot have other options'
                yield server.problem("listen", reason)


def _unjudged(server: ServerSettings, kind: AuthenticatorKind) -> Iterator[Problem]:
    offered = PROTOCOLS[server.protocol].methods(server)
    if not offered <= kind.methods:
        names = ", ".join(sorted(method.value for method in offered - kind.methods))
        option = f"{server.protocol}_auth"
        yield server.problem(option, f"offers {names}, which {kind.directive or kind.name} cannot judge")
