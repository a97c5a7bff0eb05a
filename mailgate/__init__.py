"""
mailgate: a gateway for IMAP4, POP3 and SMTP on Twisted.

Reading order: L{mailgate.login} and L{mailgate.session} (the words), L{mailgate.frontend.dialogue} (the dialogue before
login) with L{mailgate.protocols.pop3.server} as its shortest example, L{mailgate.frontend.loginflow} (the login),
L{mailgate.backend.client} (the backend's side), L{mailgate.relay.portable}, L{mailgate.auth.http.authenticator},
L{mailgate.config}, and L{mailgate.service}, which puts them together. What is logged of a connection:
L{mailgate.log.connection}. How one such gateway follows another without anybody being dropped:
L{mailgate.process.generations}, and over several processes L{mailgate.process.workers.master},
L{mailgate.process.workers.zygote} and L{mailgate.process.workers.worker}; L{mailgate.process.operation} is what may be
asked of them.

Below them all, and not needed to understand them: L{mailgate.lean.poller}, L{mailgate.lean.transport} with
L{mailgate.lean.tls}, and L{mailgate.lean.reactor}, which are to dialogues what Twisted's own reactor and transports
are; and L{mailgate.relay.stream}, which takes the connections over when the login is done.

Imports go downward only: L{mailgate.test.test_layers} holds the table.
"""

from mailgate._version import __version__

__all__ = ["__version__"]
