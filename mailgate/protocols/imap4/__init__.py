"""
IMAP4: the dialogue before login and the login at a backend (L{mailgate.protocols.imap4.imap4}), its settings, and the
grammar of its commands.
"""
