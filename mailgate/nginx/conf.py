# -*- test-case-name: mailgate.test.nginx.test_conf -*-
"""
Reads an nginx.conf, with the files that it includes, as statements. Reports what nginx itself refuses in it.

U{crossplane <https://github.com/nginxinc/crossplane>} splits the files into words, and knows the contexts and the
number of arguments of each directive. The extra C{nginx} installs it. L{_NEWER} has the directives of nginx's mail
modules that crossplane does not know.
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
"""The contexts whose directives are read. All other blocks, such as http, are skipped."""

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
"""
Directives in the mail block of nginx and freenginx that crossplane 0.5.8 does not know, with their number of arguments.
"""

_REPEATABLE = {
    *("error_log", "load_module", "env", "thread_pool", "debug_connection", "server", "listen", "protocol"),
    *("auth_http", "auth_http_header", "set_real_ip_from", "imap_auth", "pop3_auth", "smtp_auth"),
    *("imap_capabilities", "pop3_capabilities", "smtp_capabilities", "ssl_certificate", "ssl_certificate_key"),
    *("ssl_protocols", "ssl_session_cache", "ssl_session_ticket_key", "ssl_conf_command"),
}
"""Directives that nginx accepts several times on a level."""

_END = "mailgate_end_of_file"
"""A directive that is appended to each file. If it is not read as a directive, the file ends inside a statement."""

_OPAQUE = [*range(0x0B, 0x0D), *range(0x0E, 0x20), *range(0x7F, 0x100)]
_HIDDEN = {byte: 0xE000 + byte for byte in _OPAQUE}
_SHOWN = {0xE000 + byte: byte for byte in (*_OPAQUE, *b"{}")}
"""
crossplane reads UTF-8, drops other bytes, and splits at all blanks of Unicode. nginx reads bytes, and knows four
blanks. So each other byte is replaced by a private character before crossplane reads the file, and restored afterwards.
"""

_HIDDEN_BRACES = {ord(brace): 0xE000 + ord(brace) for brace in "{}"}
_INNER_BRACE = re.compile(r"""(?<=\$)(?<!\\\$)\{\}*|(?<=[^\s;{}"'])\}+""")
"""Braces that nginx reads as part of a word: after a C{$}, and closing braces without a blank before them."""


@frozen
class Statement:
    """
    One directive.

    @ivar name: its name.
    @ivar args: its arguments.
    @ivar file: the path of the file.
    @ivar line: the number of its first line.
    @ivar block: the statements in its braces, if this block is read.
    @ivar complaint: nginx's error message if it does not know the directive, or not in this place; else empty.
    """

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: tuple[Statement, ...] = ()
    complaint: str = ""


@frozen
class Remark:
    """
    A message about one place in nginx.conf.

    @ivar file: the path of the file.
    @ivar line: the number of the line; 0 for the whole file.
    @ivar message: the text.
    @ivar directive: the name of the directive, if one is concerned.
    """

    file: str
    line: int
    message: str
    directive: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.directive}: {self.message}" if self.directive else f"{place}: {self.message}"


class Refused(Exception):
    """
    The configuration cannot be used. C{str} returns a line for each remark.

    @ivar remarks: all that was found.
    """

    def __init__(self, remarks: Iterable[Remark]) -> None:
        self.remarks = tuple(remarks)
        super().__init__("\n".join(map(str, self.remarks)))


@frozen
class _Token:
    """A word; or a C{mark}, one of the characters that end a statement."""

    text: str
    line: int
    mark: bool


def read(filename: str) -> tuple[Statement, ...]:
    """
    Read an nginx.conf.

    @param filename: its path.
    @return: the statements of its main context. Included files stand in place of their include directives.
    @raise Refused: nginx would refuse the file, for example because an included file cannot be read, or a C{;} is
        missing.
    """
    reading = _Reading(filename)
    statements = reading.file(filename, (), Remark(filename, 0, ""))
    reading.faults.extend(_duplicates(statements))
    if reading.faults:
        raise Refused(reading.faults)
    return tuple(statements)


class _Reading:
    """Reads a configuration once, and collects those C{faults} after which reading can continue."""

    def __init__(self, filename: str) -> None:
        self._folder = os.path.dirname(os.path.abspath(filename))
        self._open: list[str] = []
        self.faults: list[Remark] = []

    def file(self, name: str, context: Context, include: Remark) -> list[Statement]:
        """The statements of one file in C{context}. C{include} is the place of the include directive."""
        identity = os.path.realpath(name)
        if identity in self._open:
            self.faults.append(Remark(include.file, include.line, f'"{name}" includes itself', "include"))
            return []
        try:
            with open(name, "rb") as opened:
                content = opened.read()
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            if include.line:
                message = f'"{name}" {message}'
            self.faults.append(Remark(include.file, include.line, message, "include" if include.line else ""))
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
        """Stop at a syntax error: the statements after it cannot be read."""
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
        place = Remark(statement.file, statement.line, "")
        return [found for name in names for found in self.file(name, context, place)]


def _tokens(content: bytes) -> Generator[_Token, None, None]:
    """crossplane's tokens without comments. The last two are those of C{_END;}."""
    hidden = content.decode("latin-1").translate(_HIDDEN)
    # crossplane parses Lua code itself, and counts the braces in it.
    if b"_by_lua_block" not in content:
        hidden = _INNER_BRACE.sub(lambda match: match[0].translate(_HIDDEN_BRACES), hidden)
    # crossplane reads only files. A NamedTemporaryFile is readable by this user only: the content may be secret.
    with NamedTemporaryFile("w", encoding="utf-8", newline="") as copy:
        copy.write(f"{hidden}\n{_END};\n")
        copy.flush()
        for text, line, quoted in crossplane.lex(copy.name):
            if quoted or not text.startswith("#"):
                yield _Token(_plain(text), line, not quoted and text in (";", "{", "}"))


_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}


def _plain(text: str) -> str:
    """A word as nginx reads it, without escapes. Bytes that are not UTF-8 become surrogates."""
    text = re.sub(r"""\\(["'\\trn])""", lambda match: _ESCAPES.get(match[1], match[1]), text)
    return text.translate(_SHOWN).encode("latin-1").decode("utf-8", "surrogateescape")


def _shown(name: str) -> str:
    """The name of a directive for a message. If a quote is missing, C{name} may be part of a secret: it is hidden."""
    return name if re.fullmatch("[a-z0-9_]{1,64}", name) else "…"


def _complaint(statement: Statement, end: str, context: Context) -> tuple[str, bool]:
    """
    Why nginx would refuse a statement in C{context} that C{end} terminates, or empty; and whether the statement cannot
    be read at all because of it.
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
    # crossplane uses its message, with the arguments, as a format string.
    args = [arg.replace("%", "%%") for arg in statement.args]
    parsed = {"directive": statement.name, "line": statement.line, "args": args}
    try:
        analyze(statement.file, parsed, end, context, strict=True)
    except NgxParserDirectiveArgumentsError as error:
        return error.strerror, True
    except NgxParserDirectiveError as error:
        return error.strerror.replace(f'"{statement.name}"', f'"{_shown(statement.name)}"'), False
    return "", False


def _duplicates(statements: Iterable[Statement]) -> Iterator[Remark]:
    """Directives that are repeated on a level, and that nginx accepts only once."""
    seen: set[str] = set()
    for statement in statements:
        yield from _duplicates(statement.block)
        if statement.complaint or statement.name in _REPEATABLE:
            continue
        if statement.name in seen:
            yield Remark(statement.file, statement.line, f'"{statement.name}" directive is duplicate')
        seen.add(statement.name)
