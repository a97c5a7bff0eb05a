"""
mailgate: a gateway for IMAP4, POP3 and SMTP on Twisted. Where things live, from the bottom up::

    directives, login         the words of gateway.ini, and of a login
    system, log, tls          the process's rights and files; lines of the log; contexts, certificates and engines
    lean, net                 connections on raw descriptors; addresses, names and the PROXY protocol
    session, interfaces       the ledger of a connection; what can be put in from outside
    relay, backend            bytes both ways; the way out: from a route to a backend that has logged us in
    frontend, auth            the way in: a client's connection before the relay; who judges logins
    protocols                 what IMAP, POP3 and SMTP have of their own
    registry, config          what can be chosen; gateway.ini into settings
    service                   a gateway, as a Twisted service
    process, nginx            reload, drain, upgrade, several processes; nginx.conf into gateway.ini
    tap, cli                  twistd mailgate; the command mailgate
    sandbox, testing          mail servers for the demo; fakes for tests of authenticators

To read a login from end to end: L{mailgate.frontend.dialogue} with L{mailgate.protocols.pop3}, its shortest example,
L{mailgate.frontend.loginflow}, L{mailgate.backend.client}, L{mailgate.relay.portable}. The picture of the packages is
in docs/architecture.rst, and the table of who may import whom in L{mailgate.test.test_layers}.
"""

from mailgate._version import __version__

__all__ = ["__version__"]
