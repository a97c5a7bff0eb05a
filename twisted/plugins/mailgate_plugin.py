"""
Registers C{twistd mailgate}. This folder and the one above have no C{__init__.py}, so that they extend Twisted's own.
"""

from twisted.application.service import ServiceMaker

mailgate = ServiceMaker("Mailgate", "mailgate.tap", "Mail gateway for IMAP4, POP3 and SMTP.", "mailgate")
