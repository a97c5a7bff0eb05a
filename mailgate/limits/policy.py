# -*- test-case-name: mailgate.test.limits.test_policy -*-
"""
The numbers of the limits, as values. L{mailgate.limits.settings} reads them from directives.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from mailgate.net.networks import Network

__all__ = ["Access", "ConnectionPolicy", "LoginPolicy", "Mode", "Prefixes", "Rate"]


class Mode(Enum):
    """Whether a limit holds."""

    OFF = "off"
    DRY_RUN = "dry_run"
    """It counts, and the log has what it would have done."""
    ON = "on"


@frozen
class Rate:
    """
    How fast something may happen, with nginx's meaning (C{limit_req}): a leaky bucket.

    @ivar interval: seconds between two events at the rate; nginx's C{rate=30r/m} is 2.0.
    @ivar burst: how many events may come too early.
    @ivar isDelayed: whether those that come too early wait for their turn. False with C{nodelay}.
    """

    interval: float
    burst: int = 0
    isDelayed: bool = False


@frozen
class Prefixes:
    """
    C{limit_prefix}: how many bits of an address are one client (an I{address}), and how many its I{network}.

    @ivar address4: of IPv4, an address.
    @ivar address6: of IPv6, an address.
    @ivar network4: of IPv4, a network.
    @ivar network6: of IPv6, a network.
    """

    address4: int = 32
    address6: int = 64
    network4: int = 24
    network6: int = 48


@frozen
class Access:
    """
    One line of C{access}: nginx's C{allow} and C{deny}. The first that matches counts.

    @ivar isAllowed: whether clients of the network may connect.
    @ivar network: the network; L{None} is C{all}.
    """

    isAllowed: bool
    network: Network | None


@frozen
class ConnectionPolicy:
    """
    The limits of one server for connections and sessions. 0 and L{None} are no limit.

    @ivar address: C{limit_conn}: connections from one address that have not logged in.
    @ivar user: C{limit_conn}: sessions of one user.
    @ivar userAddress: C{limit_conn}: sessions of one user from one address.
    @ivar server: C{limit_conn}: sessions of the server.
    @ivar connection: C{limit_req}: connections from one address.
    @ivar handshake: C{limit_req}: full TLS handshakes from one address.
    @ivar login: C{limit_req}: logins from one address.
    @ivar connMode: whether C{limit_conn} holds.
    @ivar reqMode: whether C{limit_req} holds.
    @ivar dropFrom: R8: connections of the server that have not logged in, from which new ones are dropped at random.
    @ivar dropAll: R8: as many, from which all new ones are dropped.
    @ivar dropShare: R8: the probability at C{dropFrom}, up to 1 at C{dropAll}.
    @ivar dropMode: whether R8 holds.
    @ivar exempt: the networks of C{limit_exempt}.
    @ivar access: the lines of C{access}.
    """

    address: int = 100
    user: int = 50
    userAddress: int = 20
    server: int = 20000
    connection: Rate | None = Rate(1.0, 60)
    handshake: Rate | None = Rate(0.5, 120)
    login: Rate | None = Rate(1.0, 30, isDelayed=True)
    connMode: Mode = Mode.ON
    reqMode: Mode = Mode.ON
    dropFrom: int = 200
    dropAll: int = 2000
    dropShare: float = 0.3
    dropMode: Mode = Mode.ON
    exempt: tuple[Network, ...] = ()
    access: tuple[Access, ...] = ()


@frozen
class LoginPolicy:
    """
    The rules R1 to R7 of docs/limits.rst against guessed passwords. The gateway has one; servers differ in C{mode}
    alone. All times are in seconds.

    @ivar pairDelay: R1: failures of a pair from which its logins are delayed.
    @ivar firstDelay: R1: the first delay. Each further failure doubles it.
    @ivar longestDelay: R1: the longest delay.
    @ivar pairWindow: R1 to R5: for how long a failure counts.
    @ivar pairBlock: R2: failures of a pair that block it.
    @ivar pairTime: R2: for how long the first time.
    @ivar pairMost: R2: for how long at most.
    @ivar knownSlow: R2: seconds between the logins of a known pair, which is not blocked.
    @ivar addressDelay: R3: failures of an address from which unknown pairs are delayed.
    @ivar sharedDelay: R3 and R5: that delay.
    @ivar addressBlock: R4: failures of an address that block it for unknown pairs.
    @ivar addressUsers: R4: failed users of an address without a success that block it for unknown pairs.
    @ivar addressTime: R4: for how long the first time.
    @ivar addressMost: R4: for how long at most.
    @ivar networkDelay: R5: failures of a network from which unknown pairs are delayed.
    @ivar networkUndecided: R5: how many undecided logins of unknown pairs the network may have then.
    @ivar userSlow: R6: failures of a user from unknown networks, from which logins from unknown networks are slowed
        down; 0: never.
    @ivar userWindow: R6 and R7: for how long a failure counts.
    @ivar userInterval: R6: seconds between the logins from unknown networks.
    @ivar userWaiting: R6: how many wait for that at most.
    @ivar userPatience: R6: for how long each waits at most.
    @ivar userRefuse: R7: failures from which unknown networks are refused; 0: never.
    @ivar userTime: R7: for how long.
    @ivar held: how many logins are held back at the same time at most, by all rules.
    @ivar undecidedAddress: how many undecided logins an address may have, times its allowance.
    @ivar undecidedPair: how many undecided logins a pair may have.
    @ivar digestShare: by what the failures of digest methods count less, as their repeats cannot be told.
    @ivar knownFor: for how long a network stays known to a user after a success.
    @ivar goodFor: for how long a success counts for the allowance of an address.
    @ivar mostAllowance: the largest allowance (C{a}).
    @ivar pairDryRun: whether R1 and R2 only say what they would do.
    @ivar addressDryRun: whether R3 and R4 only say it.
    @ivar networkDryRun: whether R5 only says it.
    @ivar userDryRun: whether R6 and R7 only say it.
    """

    pairDelay: int = 4
    firstDelay: float = 1.0
    longestDelay: float = 15.0
    pairWindow: float = 3600.0
    pairBlock: int = 10
    pairTime: float = 900.0
    pairMost: float = 4 * 3600.0
    knownSlow: float = 60.0
    addressDelay: int = 50
    sharedDelay: float = 5.0
    addressBlock: int = 100
    addressUsers: int = 20
    addressTime: float = 1800.0
    addressMost: float = 24 * 3600.0
    networkDelay: int = 500
    networkUndecided: int = 8
    userSlow: int = 50
    userWindow: float = 24 * 3600.0
    userInterval: float = 60.0
    userWaiting: int = 10
    userPatience: float = 20.0
    userRefuse: int = 0
    userTime: float = 3600.0
    held: int = 1000
    undecidedAddress: int = 100
    undecidedPair: int = 10
    digestShare: int = 3
    knownFor: float = 30 * 24 * 3600.0
    goodFor: float = 7 * 24 * 3600.0
    mostAllowance: int = 10
    pairDryRun: bool = False
    addressDryRun: bool = False
    networkDryRun: bool = False
    userDryRun: bool = False
