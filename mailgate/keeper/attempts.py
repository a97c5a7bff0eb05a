# -*- test-case-name: mailgate.test.keeper.test_attempts -*-
"""
Logins and verdicts of limits in messages: lists of values of JSON. These are short, because each login of each worker
needs two.
"""

from __future__ import annotations

from typing import Any

from mailgate.keeper.messages import WireError
from mailgate.limits.attempt import Action, Attempt, Kind, Result, Rule, Verdict
from mailgate.limits.policy import Mode, Rate

__all__ = ["readAttempt", "readResult", "readVerdict", "writeAttempt", "writeVerdict"]

_KINDS = {each.value: each for each in Kind}
_MODES = {each.value: each for each in Mode}
_RESULTS = {each.value: each for each in Result}
_ACTIONS = {each.value: each for each in Action}
_RULES: dict[Any, Rule] = {each.value: each for each in Rule}

_NO_LOGIN = "invalid message: no login"
_NO_VERDICT = "invalid message: no verdict"

_LONGEST_HOST = 64
_LONGEST_TAG = 32
_LONGEST_WORDS = 400
_LONGEST_WAIT = 3600.0


def writeAttempt(attempt: Attempt) -> list[Any]:
    """
    Write a login.

    @param attempt: the login.
    """
    rate = attempt.rate
    return [
        attempt.host,
        attempt.user.decode("latin-1"),
        attempt.kind.value,
        attempt.tag.hex(),
        attempt.mode.value,
        attempt.isExempt,
        None if rate is None else [rate.interval, rate.burst, rate.isDelayed],
        attempt.rateMode.value,
        attempt.protocol,
    ]


def readAttempt(fields: list[Any]) -> Attempt:
    """
    Read a login.

    @param fields: what L{writeAttempt} has returned.
    @raise WireError: it is something else. The error does not quote it.
    """
    try:
        host, user, kind, tag, mode, isExempt, rate, rateMode, protocol = fields
        if len(host) > _LONGEST_HOST or len(tag) > 2 * _LONGEST_TAG or len(protocol) > _LONGEST_HOST:
            raise WireError(_NO_LOGIN)
        return Attempt(
            str(host),
            user.encode("latin-1"),
            _KINDS[kind],
            bytes.fromhex(tag),
            _MODES[mode],
            isExempt is True,
            None if rate is None else _rate(*rate),
            _MODES[rateMode],
            str(protocol),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WireError(_NO_LOGIN) from None


def _rate(interval: Any, burst: Any, isDelayed: Any) -> Rate:
    if type(interval) not in (int, float) or not interval > 0 or type(burst) is not int or burst < 0:
        raise WireError(_NO_LOGIN)
    return Rate(float(interval), burst, isDelayed is True)


def readResult(result: str) -> Result:
    """
    Read how a login has ended.

    @param result: the value of a L{Result}.
    @raise WireError: there is none of this value.
    """
    try:
        return _RESULTS[result]
    except KeyError:
        raise WireError("invalid message: no result of a login") from None


def writeVerdict(verdict: Verdict) -> list[Any]:
    """
    Write a verdict. The sessions at other gateways are written only if there are any.

    @param verdict: the verdict.
    """
    rule = None if verdict.rule is None else verdict.rule.value
    # With a low rate and a large burst a login waits longer. The process asks again in time.
    seconds = min(verdict.seconds, _LONGEST_WAIT)
    fields = [verdict.action.value, verdict.ticket, seconds, rule, verdict.would[:_LONGEST_WORDS]]
    return [*fields, verdict.elsewhere, verdict.elsewhereAddress] if verdict.elsewhere else fields


def readVerdict(fields: list[Any]) -> Verdict:
    """
    Read a verdict.

    @param fields: what L{writeVerdict} has returned.
    @raise WireError: it is something else.
    """
    try:
        action, ticket, seconds, rule, would, *counts = fields
        isNumber = type(ticket) is int and type(seconds) in (int, float)
        if not isNumber or ticket < 0 or not 0 <= seconds <= _LONGEST_WAIT or type(would) is not str:
            raise WireError(_NO_VERDICT)
        elsewhere, elsewhereAddress = counts or (0, 0)
        if type(elsewhere) is not int or type(elsewhereAddress) is not int or not 0 <= elsewhereAddress <= elsewhere:
            raise WireError(_NO_VERDICT)
        # A later release may have further rules.
        rule = _RULES.get(rule)
        return Verdict(_ACTIONS[action], ticket, float(seconds), rule, would, elsewhere, elsewhereAddress)
    except (ValueError, TypeError, KeyError):
        raise WireError(_NO_VERDICT) from None
