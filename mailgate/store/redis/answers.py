# -*- test-case-name: mailgate.test.store.test_answers -*-
"""
Puts commands into the form of Redis' protocol (RESP2), and its error replies into words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from mailgate.log.journal import oneLine

__all__ = ["NO_SCRIPT", "RENEWED", "Runnable", "Word", "codeOf", "encoded", "errorWords"]

Word = bytes | str | int | float

NO_SCRIPT = "NOSCRIPT"
"""The code of the reply to C{EVALSHA} of a script that the server does not have."""

RENEWED = frozenset(("READONLY", "MASTERDOWN", "NOAUTH"))
"""The codes after which another connection may find a server that works: another one is the master now."""

_WORDS = {
    "OOM": "is out of memory",
    "READONLY": "is a replica, which cannot be written to",
    "MASTERDOWN": "is a replica that has lost its master",
    "MISCONF": "cannot save its data to disk and refuses to write",
    "LOADING": "is still loading its data",
    "BUSY": "is busy with a script",
    "NOAUTH": "requires a password; store_password_file names the file for it",
    "WRONGPASS": "refuses the user or the password of store_password_file",
    "MOVED": "is a cluster, which cannot be used",
    "CROSSSLOT": "is a cluster, which cannot be used",
    "CLUSTERDOWN": "is a cluster, which cannot be used",
    "NOREPLICAS": "has too few replicas and refuses to write",
}
_MOST = 120
_INNER = re.compile(r"@user_script: ?[0-9]+: -?([A-Z]{3,}) ")


def encoded(words: Sequence[Word]) -> bytes:
    """
    Return a command as it is sent.

    @param words: the command and its arguments.
    """
    texts = [word if type(word) is bytes else str(word).encode("utf-8") for word in words]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]))


def errorWords(reply: str) -> str:
    """
    Return an error reply in words that follow "the store".

    @param reply: the reply without the minus, from the network.
    """
    code = codeOf(reply)
    if code == "NOPERM":
        return f"does not give its user the rights that the gateway needs: {oneLine(reply)[:_MOST]}"
    known = _WORDS.get(code)
    return f'has answered "{oneLine(reply)[:_MOST]}"' if known is None else known


def codeOf(reply: str) -> str:
    """
    Return the code of an error reply.

    @param reply: as for L{errorWords}.
    """
    # Redis before 7 reports an error of a command in a script in the middle of its own text.
    found = _INNER.search(reply)
    return reply.split(" ", 1)[0] if found is None else found[1]


class Runnable(Protocol):
    """
    A script of the store: L{Script<mailgate.store.redis.script.Script>}.

    @ivar source: its text, in Lua.
    @ivar sha: its hash in hex, under which the server keeps it.
    """

    @property
    def source(self) -> str: ...

    @property
    def sha(self) -> str: ...
