"""
mailgate: a gateway for IMAP4, POP3 and SMTP on Twisted.

Reading order: L{mailgate.login} and L{mailgate.session} (the words), L{mailgate.server} (the dialogue before login)
with L{mailgate.protocols.pop3} as its shortest example, L{mailgate.loginflow} (the login), L{mailgate.client} (the
backend's side), L{mailgate.relay}, L{mailgate.authenticators.http}, L{mailgate.config}, and L{mailgate.service}, which
puts them together. What is logged of a connection: L{mailgate.connectionlog}. How one such gateway follows another
without anybody being dropped: L{mailgate.generations}, and over several processes L{mailgate.master},
L{mailgate.zygote} and L{mailgate.worker}; L{mailgate.operation} is what may be asked of them.

Below them all, and not needed to understand them: L{mailgate.poller}, L{mailgate.transport} with L{mailgate.tlslayer},
and L{mailgate.leanreactor}, which are to dialogues what Twisted's own reactor and transports are; and
L{mailgate.streamrelay}, which takes the connections over when the login is done.

Imports go downward only: L{mailgate.test.test_layers} holds the table.
"""

from mailgate._version import __version__

__all__ = ["__version__"]
