"""
C{etc/crowdsec}: the parser finds the clients whose logins were refused, in each form of our log lines, and no address
that only a client names. CrowdSec itself does not run here: its expressions are evaluated as Python's. They use no
syntax in which Go's regular expressions differ; a test checks that.
"""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.privacy import Privacy
from mailgate.login import Denial, Trouble
from mailgate.test.integration.test_fail2ban import FORMS, HOSTILE, RECORDS, STRANGER, inFile, login

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc", "crowdsec")
PARSER = os.path.join(ETC, "parsers", "s01-parse", "mailgate-logs.yaml")
SCENARIOS = os.path.join(ETC, "scenarios", "mailgate-bf.yaml")
ACQUISITION = os.path.join(ETC, "acquis.d", "mailgate.yaml")

_SYSLOG = re.compile(r"(?:\S+ +\d+ [\d:]+|\S+) \S+ (?P<program>[\w]+)\[\d+\]: (?P<message>.*)")
"""What CrowdSec's own parser takes from a line of syslog or of journalctl."""


def content(path: str) -> str:
    """The text of a file."""
    with open(path, encoding="utf-8") as opened:
        return opened.read()


def valuesOf(text: str, key: str) -> list[str]:
    """The values of C{key} in a file of YAML, in any depth."""
    return [value.strip("\"'") for value in re.findall(rf"^[ -]*{key}: (.*)$", text, re.MULTILINE)]


class Parser:
    """CrowdSec's steps for one line: grok patterns are regular expressions with names."""

    def __init__(self) -> None:
        text = content(PARSER)
        self.words = dict(re.findall(r"^  (MAILGATE_[A-Z]+): '(.*)'$", text, re.MULTILINE))
        (pattern,) = valuesOf(text, "pattern")
        self.pattern = re.sub(r"%\{(\w+):(\w+)\}", lambda found: f"(?P<{found[2]}>{self.words[found[1]]})", pattern)
        self.expression = re.compile(self.pattern)
        (programs,) = re.findall(r"evt\.Parsed\.program in \[(.*)\]", text)
        self.programs = re.findall(r"'(\w+)'", programs)

    def parse(self, line: str, isSyslog: bool) -> dict[str, str] | None:
        """What is found in C{line} of a login that counts."""
        message = line
        if isSyslog:
            found = _SYSLOG.fullmatch(line)
            if found is None or found["program"] not in self.programs:
                return None
            message = found["message"]
        matched = self.expression.search(message)
        if matched is None or matched["mailgate_reason"] == "unusable line":
            return None
        return matched.groupdict()


class ParserTests(SynchronousTestCase):
    """C{etc/crowdsec/parsers/s01-parse/mailgate-logs.yaml}."""

    def setUp(self) -> None:
        self.parser = Parser()

    def found(self, events: list[Any]) -> list[dict[str, str]]:
        """What is found in C{events}, which are logged in each form."""
        results = []
        for form in FORMS:
            found = [self.parser.parse(line, form is not inFile) for line in form(events)]
            results.append([each for each in found if each is not None])
        for each in results[1:]:
            self.assertEqual(each, results[0])
        return results[0]

    def addresses(self, events: list[Any]) -> list[str]:
        """The addresses that are found."""
        return [each["mailgate_ip"] for each in self.found(events)]

    def test_found(self) -> None:
        """A refused login is found in each protocol and form, with IPv4 and IPv6, and behind a load balancer."""
        denial = Denial(Trouble.DENIED, b"no", reason="no such user")
        events, expected = [], []
        header = b"PROXY TCP4 198.51.100.%d 10.0.0.1 1234 143\r\n"
        for number, protocol in enumerate(RECORDS, 1):
            events += login(protocol, IPv4Address("TCP", f"192.0.2.{number}", 40123), denial)
            events += login(protocol, IPv6Address("TCP", f"2001:db8::{number}", 40123), denial)
            events += login(protocol, IPv6Address("TCP", f"::ffff:192.0.2.{10 + number}", 40123), denial)
            events += login(protocol, IPv4Address("TCP", "192.0.2.99", 1), denial, header=header % number)
            expected += f"192.0.2.{number} 2001:db8::{number} 192.0.2.{10 + number} 198.51.100.{number}".split()
        # A load balancer may not know the port.
        events += login(
            "imap", IPv4Address("TCP", "192.0.2.99", 1), denial, header=b"PROXY TCP6 2001:db8::7 ::1 0 1\r\n"
        )
        expected.append("2001:db8::7")
        self.assertEqual(self.addresses(events), expected)

    def test_fields(self) -> None:
        """What scenarios use is found."""
        events = login("pop3", IPv4Address("TCP", "192.0.2.7", 40123), Denial(Trouble.DENIED, b"no"), b'j"oe\\')
        (found,) = self.found(events)
        self.assertEqual(
            {name: found[f"mailgate_{name}"] for name in ("user", "protocol", "method", "server", "reason")},
            {
                **{"user": 'j\\"oe\\\\', "protocol": "pop3", "method": "plain"},
                **{"server": "127.0.0.1:143", "reason": None},
            },
        )
        moment = found["mailgate_date"] + found["mailgate_hours"] + ":" + found["mailgate_minutes"]
        self.assertRegex(moment, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d\Z")

    def test_strangers(self) -> None:
        """Whatever a client names itself, and whatever a service replies, only the client is found."""
        events, expected = [], []
        for number, text in enumerate(HOSTILE):
            raw = text.encode()
            for protocol in RECORDS:
                peer = IPv4Address("TCP", f"192.0.2.{number}", 40123)
                events += login(protocol, peer, Denial(Trouble.DENIED, raw), raw)
                expected.append(peer.host)
        self.assertEqual(self.addresses(events), expected)
        self.assertNotIn(STRANGER, expected)

    def test_notFound(self) -> None:
        """Our own failures, a login as another user, an unusable line and a unix socket are not found."""
        peer = IPv4Address("TCP", "192.0.2.7", 40123)
        events = login("imap", peer, Denial(Trouble.DENIED, reason="unusable line"))
        for text in HOSTILE:
            raw = text.encode()
            for protocol in RECORDS:
                for trouble in (Trouble.TEMPORARY, Trouble.UNAUTHORIZED):
                    events += login(protocol, peer, Denial(trouble, raw), raw)
                events += login(protocol, UNIXAddress(None), Denial(Trouble.DENIED, raw), raw)
        self.assertEqual(self.found(events), [])

    def test_masked(self) -> None:
        """Without addresses in the log no client is found, and no whole network is banned."""
        from io import StringIO

        from mailgate.test.log.test_privacy import TARGETS

        stream = StringIO()
        observer = ErrorLogs(stream).observer(TARGETS[:1], Privacy("full", "network"))
        for event in login("imap", IPv4Address("TCP", "192.0.2.7", 40123), Denial(Trouble.DENIED)):
            observer(event)
        self.assertIn("client 192.0.2.0/24, denied", stream.getvalue())
        for line in stream.getvalue().splitlines():
            self.assertIsNone(self.parser.parse(line, False))

    def test_syntax(self) -> None:
        """Every pattern is known and used, and no expression needs what Go's regular expressions lack."""
        used = re.findall(r"%\{(\w+):", content(PARSER))
        self.assertEqual(sorted(set(used)), sorted(self.parser.words))
        self.assertNotIn("%{", self.parser.pattern)
        without = re.sub(r"\(\?:|\(\?P<\w+>", "(", self.parser.pattern)
        self.assertNotIn("(?", without, "a look-around or a flag")
        self.assertFalse(re.search(r"\\[1-9AZbB]|[*+?}]\+", without), "a backreference, an anchor or possessiveness")
        self.assertTrue(without.startswith("^"))

    def test_statics(self) -> None:
        """Expressions name only what the pattern finds."""
        names = set(re.findall(r"evt\.Parsed\.(mailgate_\w+)", content(PARSER)))
        self.assertEqual(names - self.parser.expression.groupindex.keys(), set())


class ScenarioTests(SynchronousTestCase):
    """C{etc/crowdsec/scenarios}, and where CrowdSec reads."""

    def test_names(self) -> None:
        """Scenarios use what the parser sets."""
        parser, scenarios = content(PARSER), content(SCENARIOS)
        given = set(valuesOf(parser, "meta"))
        self.assertEqual(set(re.findall(r"evt\.Meta\.(\w+)", scenarios)) - given, set())
        (kind,) = set(re.findall(r"log_type == '(\w+)'", scenarios))
        self.assertIn(kind, valuesOf(parser, "value"))

    def test_buckets(self) -> None:
        """Three failures in six minutes, and three users in 30 seconds, for each address."""
        scenarios = content(SCENARIOS)
        self.assertEqual(valuesOf(scenarios, "capacity"), ["3", "3"])
        self.assertEqual(valuesOf(scenarios, "leakspeed"), ["6m", "30s"])
        self.assertEqual(set(valuesOf(scenarios, "groupby")), {"evt.Meta.source_ip"})
        self.assertEqual(valuesOf(scenarios, "distinct"), ["evt.Meta.target_user"])

    def test_acquisition(self) -> None:
        """The label of the file is the program that the parser takes."""
        kind, *_ = valuesOf(content(ACQUISITION), "type")
        self.assertIn(kind, Parser().programs)
