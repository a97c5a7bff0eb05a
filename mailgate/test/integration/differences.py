# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
In what mailgate is to differ from Debian's nginx, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

__all__ = ["DIFFERENCES", "Difference"]


@frozen
class Difference:
    """
    Where nginx says C{old}, mailgate says C{new}, for a C{reason}.

    C{side} is that of the L{mailgate.test.integration.conversation.Transcript} which shows it; C{where} are patterns of
    names of conversations, each of which is to show it at least once.
    """

    reason: str
    side: str
    where: tuple[str, ...]
    old: str | re.Pattern[str]
    new: str | Callable[[re.Match[str]], str]

    def apply(self, text: str) -> str:
        """What becomes of C{text}."""
        pattern = re.escape(self.old) if isinstance(self.old, str) else self.old
        new = self.new
        return re.sub(pattern, new if callable(new) else lambda match: new, text)



def _quoted(match: re.Match[str]) -> str:
    """nginx's LOGIN with two literals, as mailgate sends it."""
    tag, *arguments = match.groups()
    said = f"{tag} LOGIN"
    for argument in arguments:
        if re.search(r"\\[^\\]", argument):
            said += f" {{{len(argument.encode().decode('unicode_escape'))}}}\\r\\n\n{argument}"
        else:
            said += ' "' + argument.replace(r"\\", r"\\\\").replace('"', r"\\" + '"') + '"'
    return said + "\\r\\n"


_LITERALS = re.compile(r"^(\S*) LOGIN \{\d+\}\\r\\n\n(.*) \{\d+\}\\r\\n\n(.*)\\r\\n$", re.MULTILINE)

DIFFERENCES = (
    Difference("connections to the service are kept", "auth", ("*",), " HTTP/1.0\\r\\n\nHost", " HTTP/1.1\\r\\n\nHost"),
    Difference("quoted strings save two round trips", "backend", ("imap*",), _LITERALS, _quoted),
)
