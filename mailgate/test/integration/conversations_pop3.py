# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations in POP3."""

from __future__ import annotations

from mailgate.test.integration.conversation import TLS, Raw, talk

LOGIN = ("USER alice", "PASS secret")

CONVERSATIONS = (
    talk("pop3 login", "pop3", *LOGIN),
)
