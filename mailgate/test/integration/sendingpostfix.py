# -*- test-case-name: mailgate.test.integration.test_postfixclient -*-
"""
A Postfix that sends its mail on to a submission server, as a smarthost's client: it logs in with SASL where that is
offered, under TLS. It is configured as such a Postfix usually is.

It accepts mail at C{port} of 127.0.0.1 and relays a message to the server that belongs to the sender.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.postfix import MAIN, MASTER, PostfixInstance

__all__ = ["SendingPostfix", "Smarthost"]

_MAIN = """
myhostname = sender.example
smtputf8_enable = yes
smtpd_relay_restrictions = permit_mynetworks, reject
sender_dependent_relayhost_maps = texthash:{folder}/relayhosts
smtp_sasl_auth_enable = yes
smtp_sender_dependent_authentication = yes
smtp_sasl_password_maps = texthash:{folder}/passwords
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = encrypt
smtp_dns_support_level = disabled
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
smtp unix - - n - - smtp
relay unix - - n - - smtp
discard unix - - n - - discard
"""


@frozen
class Smarthost:
    """
    A submission server at 127.0.0.1.

    @ivar port: its port.
    @ivar user: the user to log in as; empty where no login is possible.
    @ivar password: the password.
    """

    port: int
    user: str = ""
    password: str = ""


class SendingPostfix(PostfixInstance):
    """
    A running Postfix.

    @param smarthosts: where the mail of a sender goes.
    """

    def __init__(self, smarthosts: Mapping[str, Smarthost]) -> None:
        super().__init__("sending")
        self.port = freePort()
        self.write("main.cf", (MAIN + _MAIN).format(folder=self.folder))
        self.write("master.cf", (MASTER + _MASTER).format(port=self.port))
        hosts = "".join(f"{sender} [127.0.0.1]:{host.port}\n" for sender, host in smarthosts.items())
        self.write("relayhosts", hosts)
        logins = ((sender, host) for sender, host in smarthosts.items() if host.user)
        self.write("passwords", "".join(f"{sender} {host.user}:{host.password}\n" for sender, host in logins))
        self.start(self.port)
