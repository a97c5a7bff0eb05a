# -*- test-case-name: mailgate.test.relay.test_leaving -*-
"""
Tells clients that leave from those whose backend fails: their last line is the goodbye of their protocol.

Looking at each line would cost a tenth of relaying it. L{mailgate.lean.quickack} already looks closer at lines that end
as those do that announce data, and goodbyes are among them.
"""

from __future__ import annotations

import re

__all__ = ["LEAVING", "saysGoodbye"]

LEAVING = -1
"""
The state of a client that has said goodbye, besides those of L{mailgate.lean.quickack}. It ends with the next line that
is looked at: a client that goes on after its goodbye may count as leaving.
"""

_GOODBYE = re.compile(rb"(?:\A|\n)(?:[^ \r\n]{1,64} LOGOUT|QUIT)\r\n\Z", re.IGNORECASE)
"""The goodbye of IMAP (RFC 9051, section 6.1.3), and that of POP3 and SMTP."""

_LENGTH = 80


def saysGoodbye(data: bytes | memoryview) -> bool:
    """
    Return whether bytes of a client end with its goodbye. The backend then answers and closes.

    @param data: the bytes.
    """
    return _GOODBYE.search(data[-_LENGTH:]) is not None
