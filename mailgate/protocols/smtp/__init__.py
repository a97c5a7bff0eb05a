"""
SMTP: the dialogue before login (L{mailgate.protocols.smtp.smtp}), the login at a backend, its settings, and which
rights a client gets there.
"""
