# -*- test-case-name: mailgate.test.limits.test_values -*-
"""
Parsers for the directives of the limits. Where nginx has the directive, the grammar is nginx's. Each parser raises
L{ValueError} with a message that says what is valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from mailgate.directives import deadline, lines, nearest, number, seconds, text
from mailgate.limits.policy import Access, LoginPolicy, Mode, Prefixes, Rate
from mailgate.net.networks import Network, parseNetwork, parseNetworks

__all__ = [
    "CONNECTIONS",
    "DELAY",
    "DRY_RUNS",
    "RATES",
    "RULES",
    "TIMES",
    "EarlyDrop",
    "Exempt",
    "Numbers",
    "accessLines",
    "attributesOf",
    "connectionLimits",
    "defaults",
    "delays",
    "earlyDrop",
    "exempt",
    "mode",
    "prefixes",
    "rates",
    "ruleNumbers",
]

Numbers = tuple[tuple[str, Any], ...]
"""Attributes of a policy with their values, in the order of their names."""

_OFF = "off"
_DRY_RUN = Mode.DRY_RUN.value
_MOST = 1_000_000
_KEYS = {"address": "address", "user": "user", "user_address": "userAddress", "server": "server"}
CONNECTIONS = tuple(_KEYS.values())
"""The attributes of L{mailgate.limits.policy.ConnectionPolicy} that C{limit_conn} sets."""

RATES = ("connection", "handshake", "login")
"""Those that C{limit_req} sets, which are its words, too."""


@frozen
class Exempt:
    """
    The value of C{limit_exempt}.

    @ivar networks: the networks; empty for the word C{none}.
    @ivar isGiven: whether the operator has written them.
    """

    networks: tuple[Network, ...] = parseNetworks("127.0.0.0/8 ::1", "")
    isGiven: bool = field(default=False, eq=False)


@frozen
class EarlyDrop:
    """
    The value of C{limit_early_drop}.

    @ivar first: connections that have not logged in, from which new ones are dropped at random.
    @ivar percent: how many in a hundred are dropped then.
    @ivar all: as many, from which all new ones are dropped.
    @ivar mode: whether it holds.
    """

    first: int = 200
    percent: int = 30
    all: int = 2000
    mode: Mode = Mode.ON


def mode(value: str, folder: str) -> Mode:
    """
    Parse C{limit_login}.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: it is not C{on}, C{off} or C{dry_run}.
    """
    try:
        return Mode(value.lower())
    except ValueError:
        raise ValueError("must be on, off or dry_run") from None


def exempt(value: str, folder: str) -> Exempt:
    """
    Parse C{limit_exempt}: networks, or the word C{none}.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: an item is malformed.
    """
    return Exempt(() if value.lower() == "none" else parseNetworks(value, folder), True)


def prefixes(value: str, folder: str) -> Prefixes:
    """
    Parse C{limit_prefix}: the bits of IPv4 and IPv6 that are one address, then those that are one network.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: the form is another one, a number is too large, or a network is smaller than an address.
    """
    found = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})\s+([0-9]{1,3})/([0-9]{1,3})", value)
    if found is None:
        raise ValueError("must be the bits of an address and of a network for IPv4 and IPv6, such as 32/64 24/48")
    address4, address6, network4, network6 = map(int, found.groups())
    if not (0 < address4 <= 32 and 0 < network4 <= 32):
        raise ValueError("bits of IPv4 must be from 1 to 32")
    if not (0 < address6 <= 128 and 0 < network6 <= 128):
        raise ValueError("bits of IPv6 must be from 1 to 128")
    if network4 > address4 or network6 > address6:
        raise ValueError("a network must not have more bits than an address")
    return Prefixes(address4, address6, network4, network6)


def accessLines(value: str, folder: str) -> tuple[Access, ...]:
    """
    Parse C{access}: C{allow} or C{deny} and a network or C{all}, one a line.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: a line is malformed.
    """
    found = []
    for line in lines(value, folder):
        word, *rest = line.split()
        if word not in ("allow", "deny") or len(rest) != 1:
            raise ValueError(f'"{line}" must be allow or deny, and one network or all')
        try:
            network = None if rest[0] == "all" else parseNetwork(rest[0])
        except ValueError:
            raise ValueError(f'"{rest[0]}" is not an address, a network such as 10.0.0.0/8, or all') from None
        found.append(Access(word == "allow", network))
    return tuple(found)


def _keyed(value: str, folder: str, known: Sequence[str]) -> dict[str, list[str]]:
    """Return the words behind the first word of each line; nothing for C{off}."""
    if value.strip() == _OFF:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines(value, folder):
        key, *rest = line.split()
        if key not in known:
            raise ValueError(f'"{key}" is unknown; use one of {", ".join(known)} a line, or off{nearest(key, known)}')
        if key in found:
            raise ValueError(f'"{key}" is duplicate')
        found[key] = rest
    return found


def _positive(item: str, found: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", found) or not 0 < int(found) <= _MOST:
        raise ValueError(f'"{item}": the number must be from 1 to {_MOST}')
    return int(found)


def connectionLimits(value: str, folder: str) -> Numbers:
    """
    Parse C{limit_conn}: C{address}, C{user}, C{user_address} or C{server} and a number, one a line; or C{off}.

    @param value: the text of the option.
    @param folder: not used.
    @return: all four limits; 0 for those that are not in the list, as in nginx.
    @raise ValueError: a line is malformed.
    """
    found = dict.fromkeys(CONNECTIONS, 0)
    for key, rest in _keyed(value, folder, tuple(_KEYS)).items():
        if len(rest) != 1:
            raise ValueError(f'"{key}" needs one number, such as {key} 50')
        found[_KEYS[key]] = _positive(f"{key} {rest[0]}", rest[0])
    return tuple(sorted(found.items()))


def rates(value: str, folder: str) -> Numbers:
    """
    Parse C{limit_req}: C{connection}, C{handshake} or C{login}, and nginx's C{rate=}, C{burst=} and C{nodelay}, one a
    line; or C{off}.

    @param value: the text of the option.
    @param folder: not used.
    @return: all three L{Rate}s; L{None} for those that are not in the list, as in nginx.
    @raise ValueError: a line is malformed.
    """
    found: dict[str, Rate | None] = dict.fromkeys(RATES)
    for key, rest in _keyed(value, folder, RATES).items():
        found[key] = _rate(key, rest)
    return tuple(sorted(found.items()))


def _rate(key: str, words: Sequence[str]) -> Rate:
    interval, burst, isDelayed = 0.0, 0, True
    for word in words:
        name, _, given = word.partition("=")
        if name == "rate":
            interval = _interval(word, given)
        elif name == "burst":
            burst = _positive(word, given)
        elif word == "nodelay":
            isDelayed = False
        elif name == "delay":
            raise ValueError(f'"{word}" is not supported; write nodelay, or leave it out')
        else:
            raise ValueError(f'"{word}" is unknown; use rate=, burst= or nodelay')
    if not interval:
        raise ValueError(f'"{key}" needs a rate, such as rate=60r/m')
    if burst and isDelayed and key != "login":
        raise ValueError(f'"{key}" cannot be delayed; write nodelay behind burst={burst}')
    return Rate(interval, burst, isDelayed and key == "login")


def _interval(word: str, given: str) -> float:
    found = re.fullmatch("([0-9]{1,7})r/([sm])", given)
    if found is None or not int(found[1]):
        raise ValueError(f'"{word}" must be a rate such as rate=5r/s or rate=60r/m')
    return (1.0 if found[2] == "s" else 60.0) / int(found[1])


def earlyDrop(value: str, folder: str) -> EarlyDrop:
    """
    Parse C{limit_early_drop}: C{FROM:PERCENT:ALL}, as OpenSSH's C{MaxStartups}, and C{dry_run}; or C{off}.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: the form is another one.
    """
    if value == _OFF:
        return EarlyDrop(mode=Mode.OFF)
    found = re.fullmatch(r"([0-9]{1,7}):([0-9]{1,3}):([0-9]{1,7})(\s+dry_run)?", value)
    if found is None:
        raise ValueError("must be FROM:PERCENT:ALL, such as 200:30:2000, with dry_run behind it or not; or off")
    first, percent, most = int(found[1]), int(found[2]), int(found[3])
    if not 0 < first < most <= _MOST:
        raise ValueError(f"FROM must be from 1, and ALL larger, up to {_MOST}")
    if not 0 < percent <= 100:
        raise ValueError("PERCENT must be from 1 to 100")
    return EarlyDrop(first, percent, most, Mode.DRY_RUN if found[4] else Mode.ON)


def _count(value: str, folder: str) -> int:
    found = number(value, folder)
    if found > _MOST:
        raise ValueError(f"must not be more than {_MOST}")
    return found


def _some(value: str, folder: str) -> int:
    found = _count(value, folder)
    if not found:
        raise ValueError("must be more than 0")
    return found


_HOLD = 60.0


def _hold(value: str, folder: str) -> float:
    """Parse for how long a login may be held back. Mail programs give up after a minute."""
    found = seconds(value, folder)
    if found > _HOLD:
        raise ValueError(f"must be at most {_HOLD:g}s: mail programs give up then")
    return found


Parsed = tuple[str, Callable[[str, str], Any]]

RULES: Mapping[str, Mapping[str, Parsed]] = {
    "limit_login_pair": {
        "delay": ("pairDelay", _count),
        "block": ("pairBlock", _count),
        "time": ("pairTime", deadline),
        "max": ("pairMost", deadline),
        "window": ("pairWindow", deadline),
        "slow": ("knownSlow", deadline),
        "undecided": ("undecidedPair", _some),
        "digest": ("digestShare", _some),
    },
    "limit_login_address": {
        "delay": ("addressDelay", _count),
        "block": ("addressBlock", _count),
        "users": ("addressUsers", _count),
        "time": ("addressTime", deadline),
        "max": ("addressMost", deadline),
        "undecided": ("undecidedAddress", _some),
        "allowance": ("mostAllowance", _some),
        "good": ("goodFor", deadline),
    },
    "limit_login_network": {
        "delay": ("networkDelay", _count),
        "undecided": ("networkUndecided", _some),
    },
    "limit_login_user": {
        "slow": ("userSlow", _count),
        "interval": ("userInterval", deadline),
        "waiting": ("userWaiting", _some),
        "patience": ("userPatience", _hold),
        "refuse": ("userRefuse", _count),
        "time": ("userTime", deadline),
        "window": ("userWindow", deadline),
        "known": ("knownFor", deadline),
    },
}
"""The rules in directives: by directive and key, the attribute of L{LoginPolicy} and the parser of its value."""

DRY_RUNS: Mapping[str, str] = {
    "limit_login_pair": "pairDryRun",
    "limit_login_address": "addressDryRun",
    "limit_login_network": "networkDryRun",
    "limit_login_user": "userDryRun",
}
"""The attribute of L{LoginPolicy} that the word C{dry_run} sets, by directive."""

DELAY: Mapping[str, Parsed] = {"held": ("held", _some), "shared": ("sharedDelay", _hold)}
"""The keys of C{limit_login_delay}."""

TIMES = ("firstDelay", "longestDelay")
"""What the first two words of C{limit_login_delay} are, which have no key."""

_USUAL = LoginPolicy()


def defaults(policy: object, *attributes: str) -> Numbers:
    """
    Return C{attributes} with their values.

    @param policy: an object that has them.
    @param attributes: their names.
    """
    return tuple((name, getattr(policy, name)) for name in sorted(attributes))


def attributesOf(known: Mapping[str, Parsed]) -> tuple[str, ...]:
    """
    Return the attributes that a directive sets.

    @param known: its keys.
    """
    return tuple(attribute for attribute, _ in known.values())


def _given(words: Sequence[str], known: Mapping[str, Parsed], dryRun: str = "") -> dict[str, Any]:
    """
    Return the values of words of the form KEY=VALUE by their attributes. C{dryRun} is the attribute for the word
    C{dry_run}; empty where there is no such word.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, _, given = word.partition("=")
        if dryRun and word == _DRY_RUN:
            if dryRun in found:
                raise ValueError(f'"{key}" is duplicate')
            found[dryRun] = True
            continue
        if key in known and not given:
            raise ValueError(f'"{word}" needs a value; write {key}=VALUE')
        if key not in known:
            names = [*known, _DRY_RUN] if dryRun else [*known]
            usable = ", ".join(f"{each}=" if each in known else each for each in names)
            raise ValueError(f'"{word}" is unknown; use {usable}{nearest(key, names)}')
        attribute, parse = known[key]
        if attribute in found:
            raise ValueError(f'"{key}" is duplicate')
        try:
            found[attribute] = parse(given, "")
        except ValueError as error:
            raise ValueError(f'"{word}": {error}') from None
    return found


def ruleNumbers(name: str) -> Callable[[str, str], Numbers]:
    """
    Make the parser of a directive of L{RULES}: C{KEY=VALUE} and C{dry_run}, separated by blanks, each optional; or
    C{off}, which is 0 for all its thresholds. A threshold of 0 is never reached.

    @param name: the name of the directive.
    """
    known, dryRun = RULES[name], DRY_RUNS[name]

    def parse(value: str, folder: str) -> Numbers:
        given: dict[str, Any] = {}
        if value.strip() == _OFF:
            given = {attribute: 0 for key, (attribute, parser) in known.items() if parser is _count}
        else:
            given = _given(text(value, folder).split(), known, dryRun)
        return tuple(sorted({**dict(defaults(_USUAL, *attributesOf(known), dryRun)), **given}.items()))

    return parse


def delays(value: str, folder: str) -> Numbers:
    """
    Parse C{limit_login_delay}: C{FIRST LONGEST held=N shared=TIME}, each optional.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: the form is another one.
    """
    words = text(value, folder).split()
    times = [word for word in words if "=" not in word]
    if len(times) > 2:
        raise ValueError(f'"{times[2]}" is one time too many; use the first delay and the longest one')
    found = _given([word for word in words if "=" in word], DELAY)
    for attribute, given in zip(TIMES, times, strict=False):
        found[attribute] = _hold(given, folder)
    return tuple(sorted({**dict(defaults(_USUAL, *attributesOf(DELAY), *TIMES)), **found}.items()))
