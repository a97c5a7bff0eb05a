"""
C{twistd mailgate}. This folder and the one above hold no C{__init__.py}: they extend Twisted's own.
"""

from twisted.application.service import ServiceMaker

mailgate = ServiceMaker("Mailgate", "mailgate.tap", "A gateway for IMAP4, POP3 and SMTP.", "mailgate")
