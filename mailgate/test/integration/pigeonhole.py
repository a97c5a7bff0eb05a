# -*- test-case-name: mailgate.test.integration.test_sieve -*-
"""
A Dovecot of the tests that serves ManageSieve (Pigeonhole) and nothing else. It believes a gateway at 127.0.0.1 about
the client's address.
"""

from __future__ import annotations

import os

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import newFolder
from mailgate.test.integration.dovecot import Dovecot
from mailgate.test.integration.site import Backends

__all__ = ["SERVICE", "Pigeonhole", "SieveBackends"]

SERVICE = """
login_trusted_networks = 127.0.0.1
plugin {
  sieve = file:~/sieve;active=~/active.sieve
}
service managesieve-login {
  inet_listener sieve {
    port = %(sieve)s
  }
  inet_listener sieve_haproxy {
    port = %(sieve-haproxy)s
    haproxy = yes
  }
}
"""
"""Lines of Dovecot's configuration for ManageSieve at the ports C{sieve} and C{sieve-haproxy}."""

if os.geteuid() != 0:
    # See dovecot._ORDINARY_USER.
    SERVICE += """
service managesieve-login {
  chroot =
}
"""


class Pigeonhole(Dovecot):
    """
    The server.

    @ivar ports: C{sieve} is ManageSieve with STARTTLS, C{sieve-haproxy} the same after a PROXY header.
    """

    listening = ("sieve", "sieve-haproxy")

    def __init__(self, authority: Authority) -> None:
        """
        @param authority: the issuer of its certificates.
        """
        super().__init__(authority, f"protocols = sieve\n{SERVICE}")


class SieveBackends(Backends):
    """The backends of the tests of ManageSieve: Pigeonhole alone."""

    protocols = ("sieve",)

    def __init__(self) -> None:
        self.folder = newFolder("sieve")
        self.authority = Authority(self.folder, "authority")
        self.dovecot = Pigeonhole(self.authority)
        self.services = {name: ("127.0.0.1", self.dovecot.ports[name]) for name in Pigeonhole.listening}
