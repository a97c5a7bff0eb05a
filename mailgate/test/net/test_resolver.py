"""
The grammar of C{resolver} and C{resolver_timeout}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.net.resolver import Resolver, ResolverSettings

INI = """
[mail]
auth_http = http://127.0.0.1:9/
{mail}

[server smtp]
listen = 127.0.0.1:25
{server}
"""


def read(value: str = "", mail: str = "", timeout: str = "") -> ResolverSettings:
    """Return the settings of a server with C{resolver = value}."""
    server = "\n".join(
        f"{name} = {given}" for name, given in (("resolver", value), ("resolver_timeout", timeout)) if given
    )
    return parse(INI.format(mail=mail, server=server)).servers[0][ResolverSettings]


class GrammarTests(SynchronousTestCase):
    """Values that are accepted, and values that are refused with a reason."""

    def assertResolver(self, value: str, *servers: tuple[str, int], **fields: Any) -> None:
        self.assertEqual(read(value).resolver, Resolver(servers, **fields), value)

    def assertRefused(self, value: str, *messages: str) -> None:
        error = self.assertRaises(ConfigurationError, read, value)
        (problem,) = error.problems
        self.assertEqual((problem.section, problem.option), ("server smtp", "resolver"))
        for message in messages:
            self.assertIn(message, problem.message, value)

    def test_default(self) -> None:
        """By default there is no resolver, and the timeout is half a minute."""
        self.assertEqual(read(), ResolverSettings(None, 30.0))

    def test_off(self) -> None:
        """off overrides the value in [mail]."""
        self.assertIsNotNone(read(mail="resolver = 127.0.0.1").resolver)
        self.assertIsNone(read("off", mail="resolver = 127.0.0.1").resolver)

    def test_addresses(self) -> None:
        """One or more addresses, with and without a port; IPv6 in brackets, in any spelling."""
        self.assertResolver("127.0.0.1", ("127.0.0.1", 53))
        self.assertResolver("127.0.0.1:5353", ("127.0.0.1", 5353))
        self.assertResolver("[::1]", ("::1", 53))
        self.assertResolver("[2001:DB8:0::1]:5353", ("2001:db8::1", 5353))
        self.assertResolver("10.0.0.2 10.0.0.1:54", ("10.0.0.2", 53), ("10.0.0.1", 54))

    def test_once(self) -> None:
        """A server that is named twice is queried once in each round."""
        self.assertResolver("10.0.0.1 10.0.0.1:53 10.0.0.2", ("10.0.0.1", 53), ("10.0.0.2", 53))

    def test_name(self) -> None:
        """A host name stands for all its addresses at the time of the start."""
        asked = []

        def getaddrinfo(host: str, port: int, **hints: Any) -> list[Any]:
            asked.append(host)
            return [(2, 2, 17, "", ("10.0.0.1", port)), (10, 2, 17, "", ("2001:db8::1", port, 0, 0))]

        self.patch(socket, "getaddrinfo", getaddrinfo)
        self.assertResolver("dns_1.example.com:54", ("10.0.0.1", 54), ("2001:db8::1", 54))
        self.assertEqual(asked, ["dns_1.example.com"])

    def test_unknownName(self) -> None:
        """An unknown host name is refused in nginx's words."""

        def getaddrinfo(*arguments: Any, **hints: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        self.patch(socket, "getaddrinfo", getaddrinfo)
        self.assertRefused("127.0.0.x", 'host not found in resolver "127.0.0.x"')

    def test_parameters(self) -> None:
        """valid is a time in whole seconds, as in nginx; ipv4 and ipv6 switch families."""
        self.assertResolver("10.0.0.1 valid=90", ("10.0.0.1", 53), valid=90)
        self.assertResolver("valid=1h30m 10.0.0.1", ("10.0.0.1", 53), valid=5400)
        self.assertResolver("10.0.0.1 valid=1y1M", ("10.0.0.1", 53), valid=(365 + 30) * 86400)
        self.assertResolver("10.0.0.1 ipv6=off", ("10.0.0.1", 53), ipv6=False)
        self.assertResolver("10.0.0.1 ipv4=off ipv6=on", ("10.0.0.1", 53), ipv4=False)

    def test_badParameters(self) -> None:
        """An invalid parameter is named, with what would be right."""
        self.assertRefused("10.0.0.1 valid=500ms", '"valid=500ms"', "must be a time in whole seconds")
        self.assertRefused("10.0.0.1 valid=", "must be a time")
        self.assertRefused("10.0.0.1 ipv6=no", '"ipv6=no"', 'must be "on" or "off"')
        self.assertRefused("10.0.0.1 ipv6=OFF", '"ipv6=OFF"', 'must be "on" or "off", in lower case')
        self.assertRefused("10.0.0.1 ipv5=off", 'invalid parameter "ipv5="', "did you mean ipv")
        self.assertRefused("10.0.0.1 status_zone=x", "status_zone", "commercial")

    def test_noFamily(self) -> None:
        """Both families cannot be off, as no name could be verified."""
        self.assertRefused("10.0.0.1 ipv4=off ipv6=off", '"ipv4" and "ipv6" cannot both be "off"')

    def test_noServer(self) -> None:
        """Parameters without a server are refused, and so is off with other words."""
        self.assertRefused("valid=30s", "no name servers defined")
        self.assertRefused("10.0.0.1 off", '"off" cannot be combined with other words')

    def test_badAddresses(self) -> None:
        """Invalid addresses are refused, and so is a unix socket."""
        for value in ("2001:db8::1", "[10.0.0.1]", "[::1", "10.0.0.1:", "10.0.0.1:http", "unix:/run/dns"):
            self.assertRefused(value, f'"{value}"')
        self.assertRefused("::1", "must be an address, such as")
        self.assertRefused("10.0.0.1:0", "invalid port 0")
        self.assertRefused("10.0.0.1\n    10.0.0.2", "must be a single line")

    def test_timeout(self) -> None:
        """It is a positive time."""
        self.assertEqual(read(timeout="1500ms").timeout, 1.5)
        self.assertRaises(ConfigurationError, read, timeout="0")
