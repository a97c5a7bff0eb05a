"""
mailgate: a gateway for IMAP4, POP3, SMTP and ManageSieve on Twisted. Its packages and modules, from the bottom up::

    directives, login         the grammar of gateway.ini; the values of a login
    system, log, tls          rights and files of the process; the log; TLS contexts, certificates and engines
    lean, net                 connections on raw descriptors; addresses, host names and the PROXY protocol
    sessionids, session       the id of a connection; its record
    interfaces                the interfaces of extension points
    relay, backend            the relay of a proxied session; connections to backends, and the login there
    frontend, auth            connections of clients until the relay begins; authenticators
    protocols                 what differs between IMAP, POP3, SMTP and ManageSieve
    registry, config          protocols, authenticators and directives; gateway.ini to settings
    service                   a gateway, as a Twisted service
    process, nginx            reload, drain, upgrade, workers; nginx.conf to gateway.ini
    tap, cli                  twistd mailgate; the command mailgate
    sandbox, testing          mail servers for the demo; fakes for tests of authenticators

To follow a login from start to end, read L{mailgate.frontend.dialogue} with L{mailgate.protocols.pop3} (the shortest
protocol), L{mailgate.frontend.loginflow}, L{mailgate.backend.client} and L{mailgate.relay.portable}.
docs/architecture.rst has a diagram of the packages. The table in L{mailgate.test.test_layers} lists which package may
import which.
"""

from mailgate._version import __version__

__all__ = ["__version__"]
