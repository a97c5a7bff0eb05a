# -*- test-case-name: mailgate.test.limits.test_settings -*-
"""
The directives of the limits. C{limit_conn} and C{limit_req} are nginx's, with its meaning of rate, burst and nodelay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

from mailgate.directives import GatewaySettings, Parser, Problem, ServerSettings, directive, flag, oneOf, path, size
from mailgate.directives.needs import Need
from mailgate.limits.policy import Access, ConnectionPolicy, LoginPolicy, Mode, Prefixes
from mailgate.limits.values import (
    CONNECTIONS,
    DELAY,
    DRY_RUNS,
    RATES,
    RULES,
    TIMES,
    EarlyDrop,
    Exempt,
    Numbers,
    accessLines,
    attributesOf,
    connectionLimits,
    defaults,
    delays,
    earlyDrop,
    exempt,
    mode,
    prefixes,
    rates,
    ruleNumbers,
)
from mailgate.log.settings import LogSettings
from mailgate.login import LoginRequest
from mailgate.net.networks import isWithin, sourceOf
from mailgate.system.pidfile import PIDSettings
from mailgate.system.regularfiles import OVERWRITTEN, isSameFile

__all__ = ["LEAST_MEMORY", "LimitSettings"]

LEAST_MEMORY = 1024 * 1024
"""The least C{limit_memory}, in bytes."""

_MOST_MEMORY = 1024 * LEAST_MEMORY

_PER_CLIENT = 5
"""Thunderbird keeps as many connections to one account, Apple Mail a few more."""

_PER_ADDRESS = 10
"""Two mail programs behind one address open as many at the same time."""

_SOME_CONN = Need("a limit in limit_conn", lambda server: any(dict(server[LimitSettings].conn).values()))
_SOME_REQ = Need("a rate in limit_req", lambda server: any(dict(server[LimitSettings].req).values()))


def _memory(value: str, folder: str) -> int:
    given = size(value, folder)
    if not LEAST_MEMORY <= given <= _MOST_MEMORY:
        raise ValueError("must be from 1m to 1024m")
    return given


def _stateFile(value: str, folder: str) -> str:
    """Parse a path; the empty text for C{off}."""
    return "" if value == "off" else path(value, folder)


def _rules(name: str, parse: Parser, *attributes: str) -> Any:
    """Declare the attribute of a directive that sets C{attributes} of L{LoginPolicy}."""
    return directive(name, parse, defaults(LoginPolicy(), *attributes), only="mail")


def _rule(name: str) -> Any:
    return _rules(name, ruleNumbers(name), *attributesOf(RULES[name]), DRY_RUNS[name])


@frozen
class LimitSettings:
    """
    The limits of a server. Those that only C{[mail]} accepts are the same for all servers, so that
    C{settings[LimitSettings]} of the whole configuration has them, too.

    @ivar exempt: C{limit_exempt}. Logins from there also queue by user, if the directive is set.
    @ivar stateFile: C{state_file}: the path; empty for C{off}; L{None} if it is not set.
    @ivar logLevel: C{limit_log_level}: a name of L{mailgate.log.levels.LEVELS}.
    @ivar memory: C{limit_memory} in bytes.
    """

    exempt: Exempt = directive("limit_exempt", exempt, Exempt())
    conn: Numbers = directive("limit_conn", connectionLimits, defaults(ConnectionPolicy(), *CONNECTIONS))
    connDryRun: bool = directive("limit_conn_dry_run", flag, False, needs=(_SOME_CONN,))
    req: Numbers = directive("limit_req", rates, defaults(ConnectionPolicy(), *RATES))
    reqDryRun: bool = directive("limit_req_dry_run", flag, False, needs=(_SOME_REQ,))
    earlyDrop: EarlyDrop = directive("limit_early_drop", earlyDrop, EarlyDrop())
    access: tuple[Access, ...] = directive("access", accessLines, ())
    loginMode: Mode = directive("limit_login", mode, Mode.ON)
    pair: Numbers = _rule("limit_login_pair")
    address: Numbers = _rule("limit_login_address")
    network: Numbers = _rule("limit_login_network")
    user: Numbers = _rule("limit_login_user")
    delay: Numbers = _rules("limit_login_delay", delays, *attributesOf(DELAY), *TIMES)
    prefixes: Prefixes = directive("limit_prefix", prefixes, Prefixes(), only="mail")
    memory: int = directive("limit_memory", _memory, 16 * LEAST_MEMORY, only="mail")
    stateFile: str | None = directive("state_file", _stateFile, None, only="mail")
    logLevel: str = directive("limit_log_level", oneOf("info", "notice", "warn", "error"), "info", only="mail")

    def clientOf(self, request: LoginRequest) -> str:
        """
        Return the key under which L{mailgate.auth.fairqueue.FairQueue} counts a login.

        @param request: the login.
        @return: the client's address or network (L{sourceOf}). If the address is in a C{limit_exempt} that is set, the
            user, or the recipient with C{smtp_auth = none}.
        """
        host, exempt = request.client.host, self.exempt
        if exempt.isGiven and exempt.networks and isWithin(host, exempt.networks):
            return f"user {(request.credentials.user or request.envelope.recipient).lower()!r}"
        return sourceOf(host)

    def connectionPolicy(self) -> ConnectionPolicy:
        """Return the limits for connections and sessions, and the rate of logins."""
        drop = self.earlyDrop
        return ConnectionPolicy(
            **dict(self.conn),
            **dict(self.req),
            connMode=_mode(self.connDryRun),
            reqMode=_mode(self.reqDryRun),
            dropFrom=drop.first,
            dropAll=drop.all,
            dropShare=drop.percent / 100,
            dropMode=drop.mode,
            exempt=self.exempt.networks,
            access=self.access,
        )

    def loginPolicy(self) -> LoginPolicy:
        """Return the rules against guessed passwords, which are the same for all servers."""
        return LoginPolicy(**dict((*self.pair, *self.address, *self.network, *self.user, *self.delay)))

    @property
    def isAnyOn(self) -> bool:
        """Whether any limit of the server acts, or would with dry run."""
        some = (*dict(self.conn).values(), *dict(self.req).values(), self.access)
        return any(some) or self.earlyDrop.mode is not Mode.OFF or self.loginMode is not Mode.OFF

    def problems(self, section: ServerSettings) -> Iterator[Problem]:
        """
        Yield the mistakes of a server.

        @param section: the server.
        """
        if self.stateFile and isSameFile(self.stateFile, section.file):
            yield section.problem("state_file", OVERWRITTEN, self.stateFile)
        rules = self.loginPolicy()
        if rules.firstDelay > rules.longestDelay:
            message = (
                f"the first delay ({rules.firstDelay:g}s) is longer than the longest one ({rules.longestDelay:g}s)"
            )
            yield section.problem("limit_login_delay", message)
        for option, time, longest in (
            ("limit_login_pair", rules.pairTime, rules.pairMost),
            ("limit_login_address", rules.addressTime, rules.addressMost),
        ):
            if time > longest:
                yield section.problem(option, f"time={_spelled(time)} is longer than max={_spelled(longest)}")

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """
        Yield a problem if C{state_file} is the file of another directive. At its start the gateway renames a state file
        that it cannot read.

        @param settings: the whole configuration.
        """
        found = settings[cls].stateFile
        logs = [log.file for log in settings[LogSettings].errorLog]
        for option, others in (("pid", [settings[PIDSettings].path]), ("error_log", logs)):
            if found and any(other and isSameFile(found, other) for other in others):
                reason = f"is the file of {option}, too; each needs its own"
                yield Problem(settings.file, reason, "mail", "state_file", found)

    def warnings(self, section: ServerSettings) -> Iterator[Problem]:
        """
        Yield the doubtful settings of a server.

        @param section: the server.
        """
        yield from self._doubtfulNumbers(section)
        for network in self.exempt.networks:
            if not network.prefixlen:
                message = f"has all clients of IPv{network.version} in it: no limit by address holds for them"
                yield section.problem("limit_exempt", message, str(network))
        yield from self._doubtfulAccess(section)

    def _doubtfulNumbers(self, section: ServerSettings) -> Iterator[Problem]:
        limits = dict(self.conn)
        if 0 < limits["address"] < _PER_ADDRESS:
            message = "is low: a mail program opens up to 5 connections at once, and many users may share an address"
            yield section.problem("limit_conn", message, f"address {limits['address']}")
        if 0 < limits["userAddress"] < _PER_CLIENT:
            message = f"is low: a mail program keeps {_PER_CLIENT} sessions or more"
            yield section.problem("limit_conn", message, f"user_address {limits['userAddress']}")
        if 0 < limits["user"] <= limits["userAddress"]:
            message = "has no effect: user is not higher, and is reached first"
            yield section.problem("limit_conn", message, f"user_address {limits['userAddress']}")
        rules = self.loginPolicy()
        for option, delay, block in (
            ("limit_login_pair", rules.pairDelay, rules.pairBlock),
            ("limit_login_address", rules.addressDelay, rules.addressBlock),
        ):
            if 0 < block <= delay:
                yield section.problem(option, f"delay={delay} is not reached before block={block}")
        if 0 < rules.userRefuse <= rules.userSlow:
            message = f"slow={rules.userSlow} is not reached before refuse={rules.userRefuse}"
            yield section.problem("limit_login_user", message)

    def _doubtfulAccess(self, section: ServerSettings) -> Iterator[Problem]:
        words = ["allow" if line.isAllowed else "deny" for line in self.access]
        behind = next((number for number, line in enumerate(self.access, 1) if line.network is None), len(words))
        if behind < len(words):
            yield section.problem("access", "has lines behind all, which have no effect")
        if words and "deny" not in words:
            yield section.problem("access", "denies no client; add deny all as the last line")


def _mode(isDryRun: bool) -> Mode:
    return Mode.DRY_RUN if isDryRun else Mode.ON


def _spelled(time: float) -> str:
    """Return a time as an operator writes it: C{5h}, not C{18000s}."""
    for unit, length in (("h", 3600), ("m", 60)):
        if time and time % length == 0:
            return f"{time / length:g}{unit}"
    return f"{time:g}s"
