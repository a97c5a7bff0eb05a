"""
Tests of L{mailgate.limits.values}.
"""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import Parser
from mailgate.limits.policy import Access, LoginPolicy, Mode, Prefixes, Rate
from mailgate.limits.values import (
    DRY_RUNS,
    RULES,
    EarlyDrop,
    Exempt,
    accessLines,
    connectionLimits,
    delays,
    earlyDrop,
    exempt,
    mode,
    prefixes,
    rates,
    ruleNumbers,
)

WRONG: tuple[tuple[Parser, str, str], ...] = (
    (mode, "yes", "must be on, off or dry_run"),
    (exempt, "", "a value is missing"),
    (exempt, "none 10.0.0.0/8", '"none" is neither an address nor a network such as 10.0.0.0/8'),
    (prefixes, "32 24", "must be the bits of an address and of a network for IPv4 and IPv6, such as 32/64 24/48"),
    (prefixes, "33/64 24/48", "bits of IPv4 must be from 1 to 32"),
    (prefixes, "32/64 0/48", "bits of IPv4 must be from 1 to 32"),
    (prefixes, "32/129 24/48", "bits of IPv6 must be from 1 to 128"),
    (prefixes, "24/64 32/48", "a network must not have more bits than an address"),
    (prefixes, "32/48 24/64", "a network must not have more bits than an address"),
    (accessLines, "permit all", '"permit all" must be allow or deny, and one network or all'),
    (accessLines, "deny", '"deny" must be allow or deny, and one network or all'),
    (accessLines, "allow 10.0.0.0/8 all", '"allow 10.0.0.0/8 all" must be allow or deny, and one network or all'),
    (accessLines, "deny unix:", '"unix:" is not an address, a network such as 10.0.0.0/8, or all'),
    (
        connectionLimits,
        "addres 5",
        '"addres" is unknown; use one of address, user, user_address, server a line, or off',
    ),
    (connectionLimits, "address", '"address" needs one number, such as address 50'),
    (connectionLimits, "address 0", '"address 0": the number must be from 1 to 1000000'),
    (connectionLimits, "address -1", '"address -1": the number must be from 1 to 1000000'),
    (connectionLimits, "user 5\nuser 6", '"user" is duplicate'),
    (rates, "login", '"login" needs a rate, such as rate=60r/m'),
    (rates, "login rate=5", '"rate=5" must be a rate such as rate=5r/s or rate=60r/m'),
    (rates, "login rate=0r/s", '"rate=0r/s" must be a rate such as rate=5r/s or rate=60r/m'),
    (rates, "login rate=5r/h", '"rate=5r/h" must be a rate such as rate=5r/s or rate=60r/m'),
    (rates, "login rate=5r/s burst=0", '"burst=0": the number must be from 1 to 1000000'),
    (rates, "login rate=5r/s delay=3", '"delay=3" is not supported; write nodelay, or leave it out'),
    (rates, "login rate=5r/s now", '"now" is unknown; use rate=, burst= or nodelay'),
    (rates, "handshake rate=5r/s burst=3", '"handshake" cannot be delayed; write nodelay behind burst=3'),
    (rates, "logins rate=5r/s", '"logins" is unknown; use one of connection, handshake, login a line, or off'),
    (earlyDrop, "200", "must be FROM:PERCENT:ALL, such as 200:30:2000"),
    (earlyDrop, "200:30:200", "FROM must be from 1, and ALL larger, up to 1000000"),
    (earlyDrop, "0:30:200", "FROM must be from 1, and ALL larger, up to 1000000"),
    (earlyDrop, "1:0:200", "PERCENT must be from 1 to 100"),
    (earlyDrop, "1:101:200", "PERCENT must be from 1 to 100"),
    (ruleNumbers("limit_login_pair"), "dely=4", '"dely=4" is unknown; use delay=, block=, time=, max='),
    (ruleNumbers("limit_login_pair"), "delay", '"delay" needs a value; write delay=VALUE'),
    (ruleNumbers("limit_login_pair"), "delay= block=9", '"delay=" needs a value; write delay=VALUE'),
    (ruleNumbers("limit_login_pair"), "delay=4 delay=5", '"delay" is duplicate'),
    (ruleNumbers("limit_login_pair"), "delay=x", '"delay=x": must be a whole number, such as 5'),
    (ruleNumbers("limit_login_pair"), "dry_run dry_run", '"dry_run" is duplicate'),
    (
        ruleNumbers("limit_login_network"),
        "dry_run=on",
        '"dry_run=on" is unknown; use delay=, undecided=, dry_run; did you mean dry_run?',
    ),
    (ruleNumbers("limit_login_user"), "off dry_run", '"off" is unknown; use slow=, interval=, waiting=, '),
    (ruleNumbers("limit_login_pair"), "digest=0", '"digest=0": must be more than 0'),
    (ruleNumbers("limit_login_address"), "time=0", '"time=0": must be longer than 0'),
    (ruleNumbers("limit_login_address"), "block=1000001", '"block=1000001": must not be more than 1000000'),
    (ruleNumbers("limit_login_user"), "patience=2m", '"patience=2m": must be at most 60s: mail programs give up then'),
    (ruleNumbers("limit_login_network"), "", "a value is missing"),
    (delays, "1s 2s 3s", '"3s" is one time too many; use the first delay and the longest one'),
    (delays, "1s 61s", "must be at most 60s: mail programs give up then"),
    (delays, "1s dry_run", "must be a time, such as 30s, 1h30m or 500ms"),
    (delays, "soon", "must be a time, such as 30s, 1h30m or 500ms"),
    (delays, "wait=3s", '"wait=3s" is unknown; use held=, shared='),
)
"""Parsers, values, and how the message about each begins."""


class ParserTests(SynchronousTestCase):
    """The parsers of the limits."""

    def test_wrong(self) -> None:
        """L{WRONG}."""
        for parse, value, message in WRONG:
            error = self.assertRaises(ValueError, parse, value, "/")
            self.assertEqual(str(error)[: len(message)], message)

    def test_exempt(self) -> None:
        self.assertEqual(exempt("127.0.0.0/8 ::1", "/"), Exempt())
        self.assertTrue(exempt("127.0.0.0/8 ::1", "/").isGiven)
        self.assertFalse(Exempt().isGiven)
        self.assertEqual(exempt("none", "/").networks, ())

    def test_prefixes(self) -> None:
        self.assertEqual(prefixes("32/56  20/40", "/"), Prefixes(32, 56, 20, 40))

    def test_access(self) -> None:
        """A network of IPv4-mapped addresses is one of IPv4."""
        expected = (
            Access(True, ip_network("10.0.0.0/8")),
            Access(True, ip_network("192.0.2.0/24")),
            Access(False, None),
        )
        self.assertEqual(accessLines("allow 10.0.0.0/8\nallow ::ffff:192.0.2.0/120\ndeny all", "/"), expected)

    def test_connectionLimits(self) -> None:
        """What is not in the list has no limit, as in nginx."""
        self.assertEqual(
            dict(connectionLimits("user_address 7\naddress 30", "/")),
            {"address": 30, "user": 0, "userAddress": 7, "server": 0},
        )
        self.assertEqual(set(dict(connectionLimits("off", "/")).values()), {0})

    def test_rates(self) -> None:
        """nginx's parameters stand in any order. Connections and handshakes are never delayed."""
        found = dict(rates("login burst=5 rate=2r/s\nconnection rate=30r/m nodelay burst=9", "/"))
        self.assertEqual(found, {"login": Rate(0.5, 5, True), "connection": Rate(2.0, 9), "handshake": None})
        self.assertEqual(dict(rates("handshake rate=1r/s", "/"))["handshake"], Rate(1.0))
        self.assertEqual(dict(rates("login rate=1r/s burst=3 nodelay", "/"))["login"], Rate(1.0, 3))
        self.assertEqual(set(dict(rates("off", "/")).values()), {None})

    def test_earlyDrop(self) -> None:
        self.assertEqual(earlyDrop("10:30:100", "/"), EarlyDrop(10, 30, 100))
        self.assertEqual(earlyDrop("10:30:100 dry_run", "/"), EarlyDrop(10, 30, 100, Mode.DRY_RUN))
        self.assertEqual(earlyDrop("off", "/").mode, Mode.OFF)

    def test_rules(self) -> None:
        """Each key alone changes one number."""
        for name, known in RULES.items():
            for key, (attribute, _) in known.items():
                found = dict(ruleNumbers(name)(f"{key}=7", "/"))
                usual = {each: getattr(LoginPolicy(), each) for each, _ in known.values()}
                usual[DRY_RUNS[name]] = False
                self.assertEqual(found, {**usual, attribute: 7}, f"{name} {key}")

    def test_dryRun(self) -> None:
        """The word stands anywhere among the keys, or alone, and changes no number."""
        for name, attribute in DRY_RUNS.items():
            alone = dict(ruleNumbers(name)("dry_run", "/"))
            self.assertEqual({key for key, value in alone.items() if value is True}, {attribute})
            self.assertEqual(LoginPolicy(**alone), LoginPolicy(**{attribute: True}))
        for value in ("slow=7 dry_run", "dry_run slow=7"):
            found = LoginPolicy(**dict(ruleNumbers("limit_login_user")(value, "/")))
            self.assertEqual(found, LoginPolicy(userSlow=7, userDryRun=True))

    def test_off(self) -> None:
        """C{off} makes all thresholds of a rule unreachable, and leaves its times."""
        found = dict(ruleNumbers("limit_login_pair")("off", "/"))
        self.assertEqual((found["pairDelay"], found["pairBlock"], found["pairTime"]), (0, 0, 900.0))
        self.assertEqual(dict(ruleNumbers("limit_login_network")("off", "/"))["networkUndecided"], 8)

    def test_delays(self) -> None:
        """The two times have no key, and each part may stand alone."""
        self.assertEqual(dict(delays("500ms", "/"))["firstDelay"], 0.5)
        found = dict(delays("held=20 2s 30s shared=1s", "/"))
        self.assertEqual(found, {"firstDelay": 2.0, "longestDelay": 30.0, "held": 20, "sharedDelay": 1.0})
        self.assertEqual(dict(delays("held=20", "/"))["longestDelay"], LoginPolicy().longestDelay)
