# -*- test-case-name: mailgate.test.integration.test_balancer -*-
"""
Between a load balancer and a Dovecot with the PROXY protocol: Dovecot learns the client's address.
"""

from __future__ import annotations

import re
import socket
import ssl

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together
from mailgate.test.support.proxyheaders import BINARY6, TEXT4, WITH_TLVS

testSuite = together(__name__)


class BalancerTests(GatewayTestCase):
    """A server for each version of the header to the backend."""

    def configuration(self, site):
        """The backend judges logins; every connection begins with a header."""
        backend = f"proxy_pass = 127.0.0.1:{self.backends.dovecot.ports['haproxy']}\n"
        servers = "".join(
            site.server("imap", f"{backend}proxy_protocol = {version}", name=version) for version in ("on", "v2")
        )
        servers = re.sub("(127.0.0.1:[0-9]+)( ssl)?$", r"\1 proxy_protocol\2", servers.replace(backend, ""), flags=re.M)
        return site.mail(f"{backend}set_real_ip_from = 127.0.0.1") + servers

    def assertKnown(self, header, address):
        """Dovecot sees C{address} as the client, if the load balancer sends C{header}."""
        for name in ("on", "v2"):
            for tls in ("plain", "implicit"):
                before = len(self.backends.dovecot.log())
                self.visit(name, tls, header)

                def logins(before=before):
                    return re.findall(
                        rf"Login: user=<{self.user}>.*, rip=([^,]+), lip=([^,]+)", self.backends.dovecot.log()[before:]
                    )

                waitUntil(logins, "Dovecot logs the login")
                self.assertEqual([remote for remote, local in logins()], [address])
        named = re.compile(rf"connection ended: client \[?{re.escape(address)}\]?:")
        waitUntil(lambda: len(named.findall(self.log())) == 4, "the ends of four sessions are logged")

    def visit(self, name, tls, header):
        """Log in and out."""
        address = self.at(name, tls)
        with socket.create_connection((address.host, address.port), 20) as client:
            client.sendall(header)
            if tls == "implicit":
                context = ssl.create_default_context(cafile=address.authority)
                client = context.wrap_socket(client, server_hostname=address.host)
            with client, client.makefile("rb") as heard:
                self.assertIn(b"* OK", heard.readline())
                client.sendall(f"a LOGIN {self.user} {PASSWORD}\r\nb LOGOUT\r\n".encode())
                self.assertIn(b"\r\nb OK", heard.read())

    def test_ipv4(self):
        """An IPv4 client in a header of version 1, or of version 2 with TLVs."""
        for header in (TEXT4, WITH_TLVS):
            self.logged = len(self.site.gateway.log())
            self.assertKnown(header, "192.0.2.7")

    def test_ipv6(self):
        """An IPv6 client of a gateway that listens on an IPv4 address."""
        self.assertKnown(BINARY6, "2001:db8::7")
