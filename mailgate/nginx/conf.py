# -*- test-case-name: mailgate.test.nginx.test_conf -*-
"""
nginx.conf with what it includes, as statements: what concerns a mail proxy, and what nginx itself refuses in it.

U{crossplane <https://github.com/nginxinc/crossplane>}, which the extra C{nginx} brings, takes the files apart into
words, and knows where each directive may stand and how many arguments it takes. What its table lacks of nginx's mail
modules stands in L{_NEWER}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from glob import glob
from tempfile import NamedTemporaryFile
from typing import NoReturn

import crossplane
from attrs import frozen
from crossplane.analyzer import analyze
from crossplane.errors import NgxParserDirectiveArgumentsError, NgxParserDirectiveError, NgxParserSyntaxError

__all__ = ["Refused", "Remark", "Statement", "read"]

Context = tuple[str, ...]
"""The names of the blocks around a statement, outermost first."""

_READ: tuple[Context, ...] = ((), ("events",), ("mail",), ("mail", "server"))
"""The contexts whose directives are looked at. All others, such as http's, are passed over up to their end."""

_NEWER = {
    "max_commands": 1,
    "max_errors": 1,
    "proxy": 1,
    "proxy_protocol": 1,
    "proxy_smtp_auth": 1,
    "set_real_ip_from": 1,
    "ssl_certificate_compression": 1,
    "ssl_conf_command": 2,
}
"""Directives of nginx's mail (and freenginx's) that crossplane 0.5.8 does not know there, and their arguments."""

_REPEATABLE = {
    *("error_log", "load_module", "env", "thread_pool", "debug_connection", "server", "listen", "protocol"),
    *("auth_http", "auth_http_header", "set_real_ip_from", "imap_auth", "pop3_auth", "smtp_auth"),
    *("imap_capabilities", "pop3_capabilities", "smtp_capabilities", "ssl_certificate", "ssl_certificate_key"),
    *("ssl_protocols", "ssl_session_cache", "ssl_session_ticket_key", "ssl_conf_command"),
}
"""Directives that nginx takes several times on a level."""

_END = "mailgate_end_of_file"
"""A directive that is put behind each file: where it is not found again, the file ends in the midst of something."""

_OPAQUE = [*range(0x0B, 0x0D), *range(0x0E, 0x20), *range(0x7F, 0x100)]
_HIDDEN = {byte: 0xE000 + byte for byte in _OPAQUE}
_SHOWN = {0xE000 + byte: byte for byte in (*_OPAQUE, *b"{}")}
"""
crossplane reads UTF-8, losing what is not, and splits at all that Unicode calls a blank. nginx knows bytes, and four
blanks. So each of the others goes through crossplane as a character that means nothing to it.
"""

_HIDDEN_BRACES = {ord(brace): 0xE000 + ord(brace) for brace in "{}"}
_INNER_BRACE = re.compile(r"""(?<=\$)(?<!\\\$)\{\}*|(?<=[^\s;{}"'])\}+""")
"""Braces within a word, where nginx takes them for letters: behind a C{$}, and closing ones that no blank precedes."""


@frozen
class Statement:
    """
    One directive: C{file} and C{line} say where it begins; C{block} holds what stands in its braces, if that is looked
    at. nginx's C{complaint} is empty, or says that it does not know the directive, or not in this place.
    """

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: tuple[Statement, ...] = ()
    complaint: str = ""


@frozen
class Remark:
    """Something to tell of one place in nginx.conf; C{line} is 0 where it is the whole file's."""

    file: str
    line: int
    message: str
    directive: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.directive}: {self.message}" if self.directive else f"{place}: {self.message}"


class Refused(Exception):
    """The configuration cannot be used. C{remarks} are all that was found, C{str} gives a line for each."""

    def __init__(self, remarks: Iterable[Remark]) -> None:
        self.remarks = tuple(remarks)
        super().__init__("\n".join(map(str, self.remarks)))


@frozen
class _Token:
    """A word; or, as C{mark}, one of the characters that end a statement."""

    text: str
    line: int
    mark: bool


def read(filename: str) -> tuple[Statement, ...]:
    """
    The statements of the main context in C{filename}, includes in their place.

    @raise Refused: nginx would take no such file: a file that cannot be read, a word too many, a C{;} too few.
    """
    reading = _Reading(filename)
    statements = reading.file(filename, (), Remark(filename, 0, ""))
    reading.faults.extend(_duplicates(statements))
    if reading.faults:
        raise Refused(reading.faults)
    return tuple(statements)


class _Reading:
    """One reading of a configuration, which gathers the C{faults} that do not end it at once."""

    def __init__(self, filename: str) -> None:
        self._folder = os.path.dirname(os.path.abspath(filename))
        self._open: list[str] = []
        self.faults: list[Remark] = []

    def file(self, name: str, context: Context, wantedBy: Remark) -> list[Statement]:
        """The statements of one file, which is read in C{context}; C{wantedBy} is where its name stands."""
        identity = os.path.realpath(name)
        if identity in self._open:
            self.faults.append(Remark(wantedBy.file, wantedBy.line, f'"{name}" includes itself', "include"))
            return []
        try:
            with open(name, "rb") as opened:
                content = opened.read()
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            if wantedBy.line:
                message = f'"{name}" {message}'
            self.faults.append(Remark(wantedBy.file, wantedBy.line, message, "include" if wantedBy.line else ""))
            return []
        self._open.append(identity)
        try:
            return self._content(name, content, context)
        finally:
            self._open.pop()

    def _content(self, name: str, content: bytes, context: Context) -> list[Statement]:
        lastLine = max(content.rstrip().count(b"\n") + 1, 1)
        try:
            with closing(_tokens(content)) as tokens:
                statements = self._block(name, tokens, context)
        except NgxParserSyntaxError as error:
            self._refuse(name, min(error.lineno or 1, lastLine), error.strerror)
        if not statements or statements.pop().name != _END:
            self._refuse(name, lastLine, 'unexpected end of file, expecting ";" or "}"')
        return statements

    def _refuse(self, file: str, line: int, message: str) -> NoReturn:
        """What stands behind a fault of syntax cannot be told from it."""
        raise Refused([*self.faults, Remark(file, line, message)])

    def _block(self, file: str, tokens: Iterator[_Token], context: Context) -> list[Statement]:
        found: list[Statement] = []
        for token in tokens:
            if token.mark and token.text == "}":
                break
            if token.mark:
                self._refuse(file, token.line, f'unexpected "{token.text}"')
            found.extend(self._statement(file, token, tokens, context))
        return found

    def _statement(self, file: str, name: _Token, tokens: Iterator[_Token], context: Context) -> list[Statement]:
        args: list[str] = []
        end = next(tokens, None)
        while end is not None and not end.mark:
            args.append(end.text)
            end = next(tokens, None)
        if end is None or _END in args:
            self._refuse(file, name.line, f'unexpected end of file in "{_shown(name.text)}", expecting ";" or "}}"')
        if end.text == "}":
            self._refuse(file, end.line, f'unexpected "}}": "{_shown(name.text)}" is not terminated by ";"')
        statement = Statement(name.text, tuple(args), file, name.line)
        complaint, isFatal = _complaint(statement, end.text, context)
        if isFatal:
            self.faults.append(Remark(file, name.line, complaint))
        elif statement.name == "include":
            return self._include(statement, context)
        block = self._braces(statement, tokens, context, complaint) if end.text == "{" else ()
        return [Statement(name.text, tuple(args), file, name.line, block, complaint)]

    def _braces(
        self, statement: Statement, tokens: Iterator[_Token], context: Context, complaint: str
    ) -> tuple[Statement, ...]:
        inner = (*context, statement.name)
        if inner in _READ and not complaint:
            return tuple(self._block(statement.file, tokens, inner))
        depth = 1
        for token in tokens:
            if token.mark and token.text in "{}":
                depth += 1 if token.text == "{" else -1
                if not depth:
                    break
        return ()

    def _include(self, statement: Statement, context: Context) -> list[Statement]:
        (pattern,) = statement.args
        path = os.path.join(self._folder, pattern)
        names = sorted(glob(path)) if re.search(r"[*?\[]", path) else [path]
        wantedBy = Remark(statement.file, statement.line, "")
        return [found for name in names for found in self.file(name, context, wantedBy)]


def _tokens(content: bytes) -> Generator[_Token, None, None]:
    """crossplane's tokens without comments, C{_END;} being the last two."""
    hidden = content.decode("latin-1").translate(_HIDDEN)
    # crossplane takes Lua code apart itself, and counts braces in it.
    if b"_by_lua_block" not in content:
        hidden = _INNER_BRACE.sub(lambda match: match[0].translate(_HIDDEN_BRACES), hidden)
    # crossplane reads files alone. This one is nobody else's, for what is in it may be secret.
    with NamedTemporaryFile("w", encoding="utf-8", newline="") as copy:
        copy.write(f"{hidden}\n{_END};\n")
        copy.flush()
        for text, line, quoted in crossplane.lex(copy.name):
            if quoted or not text.startswith("#"):
                yield _Token(_plain(text), line, not quoted and text in (";", "{", "}"))


_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}


def _plain(text: str) -> str:
    """A word as nginx has it, when it has replaced what is escaped; bytes that are not UTF-8 become surrogates."""
    text = re.sub(r"""\\(["'\\trn])""", lambda match: _ESCAPES.get(match[1], match[1]), text)
    return text.translate(_SHOWN).encode("latin-1").decode("utf-8", "surrogateescape")


def _shown(name: str) -> str:
    """The C{name} of a directive, if it looks like one: where a quote is missing, it may be part of a secret."""
    return name if re.fullmatch("[a-z0-9_]{1,64}", name) else "…"


def _complaint(statement: Statement, end: str, context: Context) -> tuple[str, bool]:
    """
    What nginx has against C{statement} in C{context}, where C{end} stands behind its words, or nothing; and whether it
    leaves open what is meant.
    """
    newer = _NEWER.get(statement.name) if context[:1] == ("mail",) else None
    if newer is not None:
        if end != ";":
            return f'directive "{statement.name}" is not terminated by ";"', True
        if len(statement.args) != newer:
            return f'invalid number of arguments in "{statement.name}" directive', True
        return "", False
    if statement.name == _END:
        return "", False
    # crossplane makes a format of its message, arguments and all.
    args = [arg.replace("%", "%%") for arg in statement.args]
    told = {"directive": statement.name, "line": statement.line, "args": args}
    try:
        analyze(statement.file, told, end, context, strict=True)
    except NgxParserDirectiveArgumentsError as error:
        return error.strerror, True
    except NgxParserDirectiveError as error:
        return error.strerror.replace(f'"{statement.name}"', f'"{_shown(statement.name)}"'), False
    return "", False


def _duplicates(statements: Iterable[Statement]) -> Iterator[Remark]:
    """What nginx takes but once on a level, and finds twice."""
    seen: set[str] = set()
    for statement in statements:
        yield from _duplicates(statement.block)
        if statement.complaint or statement.name in _REPEATABLE:
            continue
        if statement.name in seen:
            yield Remark(statement.file, statement.line, f'"{statement.name}" directive is duplicate')
        seen.add(statement.name)
