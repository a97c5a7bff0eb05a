# -*- test-case-name: mailgate.test.relay.test_leaving -*-
"""
What the last bytes of a client mean for the end of its session: a goodbye, or the end of a message.

A client that has said goodbye expects the backend to close. A client that has ended a message expects an answer, and
sends the message again if there is none. Looking at each line would cost a tenth of relaying it.
L{mailgate.lean.quickack} already looks closer at messages, and at lines that end as those do that announce data:
goodbyes are among them.
"""

from __future__ import annotations

import re

from mailgate.lean.quickack import BEGUN, expectedAfter

__all__ = ["ENDED", "LEAVING", "expectsAfter"]

LEAVING = -1
"""
The state of a client that has said goodbye, besides those of L{mailgate.lean.quickack}. It ends with the next line that
is looked at: a client that goes on after its goodbye may count as leaving.
"""

ENDED = BEGUN + 1
"""The state of a client that has ended a message. As with L{BEGUN}, any answer ends it."""

_GOODBYE = re.compile(rb"(?:\A|\n)(?:(?:[^ \r\n]{1,64} )?LOGOUT|QUIT)\r\n\Z", re.IGNORECASE)
"""The goodbye of IMAP (RFC 9051, section 6.1.3), that of ManageSieve, and that of POP3 and SMTP."""

_END = re.compile(rb"(?:\A|\n)\.\r\n\Z")
"""The end of a message in SMTP (RFC 5321, section 4.1.1.4)."""

_LENGTH = 80
_DOT = ord(".")


def expectsAfter(expected: int, data: bytes | memoryview) -> int:
    """
    Return the new state of a client.

    @param expected: the previous state.
    @param data: what has arrived from the client.
    """
    # Two characters rule out most lines, at a tenth of the cost.
    if len(data) > 3 and data[-4] in b"IiUu" and data[-3] in b"Tt" and _GOODBYE.search(data[-_LENGTH:]):
        return LEAVING
    after = expectedAfter(expected, data)
    if after == BEGUN and len(data) > 2 and data[-3] == _DOT and _END.search(data[-_LENGTH:]):
        return ENDED
    return after
