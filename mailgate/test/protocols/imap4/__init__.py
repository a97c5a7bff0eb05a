"""Tests of L{mailgate.protocols.imap4}."""
