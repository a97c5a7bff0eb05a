# -*- test-case-name: mailgate.test.sandbox.test_scripts -*-
"""
The Sieve scripts of an account, in memory. They are stored, never run: mail of the sandbox always arrives in the inbox.

A script is checked for its form only (RFC 5228, section 8.1): comments, strings, brackets, and the extensions that it
requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zope.interface import Interface, implementer

__all__ = ["EXTENSIONS", "LARGEST_SCRIPT", "MOST_SCRIPTS", "IScripts", "ScriptRefused", "Scripts", "fault"]

EXTENSIONS = (
    "fileinto",
    "reject",
    "envelope",
    "vacation",
    "imap4flags",
    "copy",
    "include",
    "variables",
    "body",
    "date",
)
"""The extensions of Sieve that a script may require."""

LARGEST_SCRIPT = 65536
"""The size limit of a script, in bytes."""

MOST_SCRIPTS = 32
"""The limit of scripts of an account."""

_LONGEST_NAME = 128
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*(?:\n|\Z) | /\*.*?\*/
    | (?P<text>text:[ \t]*(?:\#[^\n]*)?\r?\n(?:(?!\.\r?\n).*?\n)??\.(?:\r?\n|\Z))
    | "(?P<string>(?:[^"\\]|\\.)*)"
    | (?P<open>[({\[]) | (?P<close>[)}\]])
    | (?P<word>:?[A-Za-z_][A-Za-z0-9_]*|[0-9]+[KMGkmg]?) | [;,]""",
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {")": "(", "}": "{", "]": "["}


class ScriptRefused(Exception):
    """
    The account refuses an operation with a script. The message is a sentence for the client.

    @ivar code: the response code of RFC 5804, without parentheses; empty for none.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        """
        @param reason: the sentence.
        @param code: the response code.
        """
        super().__init__(reason)
        self.code = code


def _line(script: str, position: int) -> int:
    return script.count("\n", 0, position) + 1


def _required(tokens: Iterator[re.Match[str]]) -> Iterator[str]:
    """Yield the extensions of C{require}, whose arguments end with a semicolon."""
    for token in tokens:
        if token["string"] is not None:
            yield token["string"]
        elif token[0] == ";":
            return


def fault(script: bytes) -> str | None:
    """
    Check the form of a script.

    @param script: the script.
    @return: what is wrong with it, in one line; C{None} for a valid form.
    """
    try:
        source = script.decode("utf-8")
    except UnicodeDecodeError:
        return "error: the script must be UTF-8"
    tokens: list[re.Match[str]] = []
    open_: list[str] = []
    position = 0
    while position < len(source):
        token = _TOKEN.match(source, position)
        if token is None:
            return f"line {_line(source, position)}: error: unexpected characters"
        if token["open"]:
            open_.append(token["open"])
        elif token["close"] and (not open_ or open_.pop() != _PAIRS[token["close"]]):
            return f"line {_line(source, position)}: error: unexpected {token['close']}"
        if token.lastgroup or token[0] in ";,":
            tokens.append(token)
        position = token.end()
    if open_:
        return f"line {_line(source, position)}: error: {open_[-1]} is not closed"
    if tokens and tokens[-1][0] not in (";", "}"):
        return f"line {_line(source, position)}: error: the last command does not end with a semicolon"
    remaining = iter(tokens)
    for token in remaining:
        if token["word"] and token["word"].lower() == "require":
            for name in _required(remaining):
                if name not in EXTENSIONS and not name.startswith("comparator-"):
                    return f"line {_line(source, token.start())}: error: unknown extension in require"
    return None


class IScripts(Interface):
    """The scripts of an account. A portal returns them for a login at the ManageSieve server."""


@implementer(IScripts)
class Scripts:
    """
    The scripts of one user by name, in the order of their creation. At most one of them is active.

    @ivar scripts: the contents by name.
    @ivar active: the name of the active script; C{None} if there is none.
    """

    def __init__(self) -> None:
        self.scripts: dict[str, bytes] = {}
        self.active: str | None = None

    def checkSpace(self, name: str, size: int) -> None:
        """
        Return if a script has room.

        @param name: its name.
        @param size: its size, in bytes.
        @raise ScriptRefused: it has no room, or the name is invalid.
        """
        if not name or len(name) > _LONGEST_NAME or _FORBIDDEN.search(name):
            raise ScriptRefused("No script can have this name.")
        if size > LARGEST_SCRIPT:
            raise ScriptRefused(f"A script can have {LARGEST_SCRIPT} bytes.", "QUOTA/MAXSIZE")
        if name not in self.scripts and len(self.scripts) >= MOST_SCRIPTS:
            raise ScriptRefused(f"An account can have {MOST_SCRIPTS} scripts.", "QUOTA/MAXSCRIPTS")

    def put(self, name: str, script: bytes) -> None:
        """
        Store a script, in place of one with the same name.

        @param name: its name.
        @param script: its content.
        @raise ScriptRefused: it has no room, the name is invalid, or the form of the script is wrong.
        """
        self.checkSpace(name, len(script))
        self.check(script)
        self.scripts[name] = script

    def check(self, script: bytes) -> None:
        """
        Return if the form of a script is right.

        @param script: its content.
        @raise ScriptRefused: its form is wrong.
        """
        wrong = fault(script)
        if wrong is not None:
            raise ScriptRefused(wrong)

    def get(self, name: str) -> bytes:
        """
        The content of the script C{name}.

        @raise ScriptRefused: there is no such script.
        """
        if name not in self.scripts:
            raise ScriptRefused("There is no script with this name.", "NONEXISTENT")
        return self.scripts[name]

    def activate(self, name: str) -> None:
        """
        Make the script C{name} the active one; an empty name deactivates all.

        @raise ScriptRefused: there is no such script.
        """
        if name:
            self.get(name)
        self.active = name or None

    def delete(self, name: str) -> None:
        """
        Delete the script C{name}.

        @raise ScriptRefused: there is no such script, or it is active.
        """
        self.get(name)
        if name == self.active:
            raise ScriptRefused("The active script cannot be deleted.", "ACTIVE")
        del self.scripts[name]

    def rename(self, old: str, new: str) -> None:
        """
        Rename a script. It stays active.

        @param old: its name.
        @param new: its new name.
        @raise ScriptRefused: there is no script C{old}, there is a script C{new}, or no script can have this name.
        """
        script = self.get(old)
        if new in self.scripts:
            raise ScriptRefused("There is a script with this name.", "ALREADYEXISTS")
        del self.scripts[old]
        try:
            self.checkSpace(new, len(script))
        except ScriptRefused:
            self.scripts[old] = script
            raise
        self.scripts[new] = script
        if self.active == old:
            self.active = new
