"""
Collects the messages of mailgate from its code (log messages, errors, warnings, reasons) and maintains
docs/messages.rst, which explains each. C{python -m mailgate.test.support.messages} adds missing rows, removes rows
whose message no longer exists, and keeps the explanations of all others.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import textwrap
from collections.abc import Iterator, Mapping

from attrs import field, frozen

from mailgate.log.connection import line
from mailgate.test.support.imports import ROOT, trees

__all__ = ["BEGIN", "GROUPS", "PATH", "TO_DO", "Message", "found", "levelsOf", "messagesOf", "rendered", "rows"]

PATH = os.path.join(os.path.dirname(ROOT), "docs", "messages.rst")
BEGIN = ".. The tables begin: python -m mailgate.test.support.messages makes their rows from the code.\n"
TO_DO = "TODO"
"""The explanation of a new row."""

LEAST_WORDS = 3
"""A literal with fewer words is a part of a message or no message, unless it is passed to a log."""

TERSE = frozenset({"auth.cred", "auth.passwdfile.authenticator"})
"""Modules whose reasons in log lines may have one word less, such as C{wrong password}."""

GROUPS = (
    ("Start, reload, stop and upgrade", ("process", "service", "tap", "cli", "sandbox")),
    ("Workers and keeper", ("process.workers", "process.keeper")),
    ("Configuration file", ("config", "directives", "interfaces", "registry")),
    ("Import from nginx", ("nginx",)),
    ("Addresses, networks and names", ("net",)),
    (
        "Connections and logins",
        ("frontend", "log.connection", "login", "scram", "session", "protocols", "relay", "lean"),
    ),
    ("Backends", ("backend", "protocols.imap4.client", "protocols.pop3.client", "protocols.smtp.client")),
    ("Groups of backends and rules", ("upstream", "rules", "backend.places")),
    ("Authentication service", ("auth", "auth.http")),
    ("Account file", ("auth.passwdfile",)),
    ("Limits", ("limits",)),
    ("TLS and certificates", ("tls",)),
    ("The store", ("store",)),
    ("The admin side", ("keeper", "watch")),
    ("Log files, rights and the system", ("log", "system")),
)
"""The sections of the document, and the modules whose messages they contain. The longest matching name counts."""

LEVELS = {
    **{name: name for name in ("debug", "info", "notice", "warn", "error", "critical")},
    "failure": "critical",
    "record": "info",
}
"""The level of each logging method."""

NOT_MESSAGES = frozenset(
    {
        "mailgate",
        # Errors in a body are not reported: the connection is closed.
        "auth.http.response._ChunkedBody",
        # A type.
        "config.outside.Authenticators",
        # Messages between processes that are not valid are not quoted.
        "system.fields",
        "keeper.messages",
        "process.workers.channel.ChannelEnd",
        "process.keeper.talk.Duty",
        # Questions of the keeper, whose arguments it has checked.
        "keeper.answers.kick",
        "keeper.answers.sessions",
        "keeper.answers.tickets",
        "keeper.answers.walk",
        # What metrics count.
        "watch.metrics.METRICS",
        # Parts of answers of the admin server, the documentation of its endpoints, and the words for HTTP statuses.
        "keeper.admin.asked",
        "keeper.admin.site.Desk._find",
        "keeper.admin.endpoints",
        "keeper.admin.examples",
        "keeper.admin.events.Streams._event",
        "keeper.admin.page",
        "keeper.admin.pages.PAGE_FIELDS",
        "keeper.admin.parameters",
        "keeper.admin.replies._TITLES",
        "keeper.admin.replies.SECURITY",
        # Scripts, which the store runs.
        "store.redis.loginscripts",
        "store.redis.parts",
        "store.redis.registryscripts",
        "store.redis.script",
        # Another form of messages, and a line of tracebacks.
        "log.jsonlines",
        "log.privacy._withoutMessage",
        # Parts of others' messages.
        "log.levels._LIFE_LEGACY",
        "net.connectionerrors._RESET",
        "net.listen._listen",
        # Texts of --help, and what `mailgate check` prints.
        "cli.main._server",
        "cli.remote._statuses",
        "cli.asking._STATUSES",
        "cli.blocks._PATH",
        "cli.blocks._THINGS",
        "cli.blocks._addBlock",
        "cli.blocks._addBlocked",
        "cli.blocks._addHold",
        "cli.blocks._addMaking",
        "cli.blocks._addRelease",
        "cli.blocks._addUnblock",
        "cli.blocks._blocked",
        "cli.blocks._ended",
        "cli.blocks.told",
        "cli.moves._moved",
        "cli.moves.addMoves",
        "cli.limitlines",
        "cli.adminclient._NO_PATH",
        "cli.explain.lines",
        "cli.explain._NAMED",
        "cli.explain._ONLY_NAMED",
        "cli.explain._title",
        "cli.explain._services",
        "cli.explain._held",
        "cli.explain._file",
        "cli.explain._passed",
        "cli.explain._other",
        "cli.explain._goes",
        "cli.explain._story",
        "cli.explain.addExplain",
        "cli.kick._summary",
        "cli.kick.addKick",
        "cli.sessions._summary",
        "cli.sessions.addFilters",
        "cli.sessions.addSessions",
        "cli.stats._numbers",
        "cli.stats.addStats",
        "cli.stats.title",
        "cli.status._lines",
        "cli.status.addStatus",
        # The page of mailgate top. Its messages answer keys, and ? explains those.
        "cli.top.actions",
        "cli.top.helping",
        "cli.top.keys",
        "cli.top.screen",
        "cli.top.summary",
        "cli.top.tables",
        "cli.top.texts",
        "cli.top.command.addTop",
        "keeper.answers.explain",
        "process.commands.BackendAddress",
        "process.commands.SUBJECTS",
        "process.commands._KINDS",
        "process.commands._TEXTS",
        "tap.Options.longdesc",
        "tap.Options.optParameters",
        # Comments in the gateway.ini that import-nginx makes, and reasons that explain themselves.
        "nginx.importer.DIFFERENCES",
        "nginx.importer._entry",
        "nginx.importer._head",
        "nginx.importer._render",
        "nginx.importer._section",
        "nginx.mapping.Mapping._readProcess.why",
        "nginx.mapping.NGINX_DEFAULTS",
        "nginx.mapping._ELSEWHERE",
        "nginx.mapping._HEADER_ALONE",
        "nginx.mapping._NOT_NEEDED",
        "frontend.framing.Unit",
        # The fields that lines about connections share.
        "log.connection.line",
        "log.journal.traced",
        # Parts of lines at level debug.
        "auth.http.narration.logAnswer",
        "backend.steps",
        # The names of rules, and how a login ended: docs/limits.rst explains the rules.
        "limits.attempt.Rule",
        "limits.attempt.Result",
        # Replies to clients of the demo, and its mails.
        "sandbox.account",
        "sandbox.imap4",
        "sandbox.mailbox",
        "sandbox.managesieve",
        "sandbox.message",
        "sandbox.pop3",
        "sandbox.scripts",
        "sandbox.search",
        "sandbox.smtp",
        "sandbox.welcome",
        "testing",
        # The help texts of metrics, and of their labels.
        "watch.failures._REASONS",
        "watch.metrics",
        "keeper.ownprocess",
        "keeper.exposition.Exposition",
        # Programs in Lua, a label of keys, and replies of the store that are not valid, which are not quoted.
        "store.redis.replies",
        "store.redis.script._COMMON",
        "tls.ticketkeys.derivedKey",
        # Twisted's text; parts of messages; errors of parsing, which are caught; OpenSSL's own texts.
        "lean.connecting.LeanConnector",
        "tls.certificatechecks._days",
        "tls.certificatechecks.namesShown",
        "tls.files._KEY",
        "tls.files._KINDS",
        "tls.files._REVOKED",
        "tls.rfc2253",
        "tls.verifyerrors",
        "tls.errors._GENERAL",
        "tls.errors._NO_TLS",
    }
)
"""Modules, classes, functions and constants whose texts are no messages to an operator."""

_NOT_SHOWN = frozenset(
    {
        "AssertionError",
        "AttributeError",
        "NotImplementedError",
        "Attribute",
        # Answers of the admin server to requests that it does not carry out: they explain themselves.
        "Refused",
        "RuntimeError",
        "TypeError",
        "re.compile",
        "compile",
    }
)
"""Calls whose texts no operator sees: errors of a program that embeds mailgate, and patterns."""

_HELP = frozenset({"help", "description", "epilog", "metavar", "statuses", "summary", "usage", "title", "comment"})
"""Arguments whose texts are for C{--help}, or comments of a configuration."""


@frozen
class Message:
    """
    One message.

    @ivar text: the message, with the names of inserted values in braces.
    @ivar module: the module that contains it, without C{mailgate.}.
    @ivar level: the levels at which it is logged; empty for an error or a part of a message.
    """

    text: str
    module: str = field(eq=False)
    level: str = field(default="", eq=False)

    @property
    def group(self) -> str:
        """The title of its section in the document."""
        best = max(
            ((name, title) for title, names in GROUPS for name in names if f"{self.module}.".startswith(f"{name}.")),
            key=lambda pair: len(pair[0]),
        )
        return best[1]


def found() -> dict[str, Message]:
    """Return all messages by their text, ordered by module and line."""
    messages: dict[str, Message] = {}
    levels = levelsOf(*trees().values())
    for module, tree in sorted(trees().items()):
        if not _excluded(module):
            for message in messagesOf(module, tree, levels):
                kept = messages.setdefault(message.text, message)
                if message.level and not kept.level:
                    messages[message.text] = message
    return messages


def levelsOf(*sources: ast.Module) -> dict[str, str]:
    """Return the levels of each constant that C{sources} pass to a log, by the name of the constant."""
    levels: dict[str, list[str]] = {}
    for tree in sources:
        for name, level in _constantsLogged(tree):
            kept = levels.setdefault(name, [])
            if level not in kept:
                kept.append(level)
    return {name: ", ".join(kept) for name, kept in levels.items()}


def _constantsLogged(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """
    Yield the name and the level of each constant that is logged: by a call of a log, by a call of a local variable that
    is a method of a log, or by a function that gets such a method and the constant.
    """
    methods: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        name = _assigned(node)
        if name and isinstance(node, ast.Assign):
            choices = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            methods[name] = [level for each in choices if (level := _level(each))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            message, *others = node.args
            levels = methods.get(node.func.id, []) if isinstance(node.func, ast.Name) else [_level(node.func)]
            if others and _level(message):
                levels, message = [_level(message)], others[0]
            if isinstance(message, ast.Name) and message.id.isupper():
                yield from ((message.id, level) for level in levels if level)


def messagesOf(module: str, tree: ast.Module, levels: Mapping[str, str]) -> Iterator[Message]:
    """
    Yield the messages of one C{module}, in the order of its lines.

    @param tree: its source.
    @param levels: the result of L{levelsOf}.
    """
    scan = _Scan(module, levels)
    for node in tree.body:
        yield from scan.scan(node, module)


def _excluded(name: str) -> bool:
    return any(f"{name}.".startswith(f"{each}.") for each in NOT_MESSAGES)


class _Scan:
    """Walks through one module."""

    def __init__(self, module: str, levels: Mapping[str, str]) -> None:
        self._module = module
        self._levels = levels

    def scan(self, node: ast.AST, place: str) -> Iterator[Message]:
        """Yield the messages in C{node}, which belongs to the module, class or function C{place}."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            place = f"{place}.{node.name}"
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Enum") for base in node.bases):
                yield from () if _excluded(place) else self._members(node)
                return
        named = _assigned(node)
        if _excluded(place) or (named and _excluded(f"{place}.{named}")):
            return
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _NOT_SHOWN:
            return
        if isinstance(node, ast.keyword) and node.arg in _HELP:
            return
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return
        text = self._constant(node, named)
        if text is not None:
            yield self._message(text, self._levels.get(named, ""))
            return
        children: Iterator[ast.AST]
        logged = _logged(node)
        if logged is not None and isinstance(node, ast.Call):
            text = _template(logged[1])
            if text is not None and re.search(r"[a-z]", re.sub(r"\{.*?\}", "", text)):
                yield self._message(text, logged[0])
            rest: list[ast.AST] = [*node.args, *node.keywords]
            children = (each for each in rest if each is not logged[1] or text is None)
        else:
            children = ast.iter_child_nodes(node)
        text = _template(node)
        if text is not None:
            if _isMessage(text, LEAST_WORDS - (self._module in TERSE)):
                yield self._message(text, "")
            # Inserted values may contain further messages.
            children = (each.value for each in getattr(node, "values", ()) if isinstance(each, ast.FormattedValue))
        for child in children:
            yield from self.scan(child, place)

    def _constant(self, node: ast.AST, name: str) -> str | None:
        """Return the value if C{node} assigns a constant that is logged by its C{name}, or a format made by L{line}."""
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) == line.__name__ and name:
            return str(getattr(importlib.import_module(f"mailgate.{self._module}"), name))
        return _template(value) if name in self._levels and isinstance(value, ast.expr) else None

    def _members(self, node: ast.ClassDef) -> Iterator[Message]:
        """Yield the values of an enumeration that consist of several words, such as outcomes."""
        for each in node.body:
            text = _template(each.value) if isinstance(each, ast.Assign) else None
            if text is not None and " " in text:
                yield self._message(text, "")

    def _message(self, text: str, level: str) -> Message:
        return Message(" ".join(text.split()).strip(" ,;:"), self._module, level)


def _assigned(node: ast.AST) -> str:
    """Return the name that C{node} assigns to, or an empty string."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


def _logged(node: ast.AST) -> tuple[str, ast.expr] | None:
    """Return the level and the message if C{node} is a call of a log."""
    if not isinstance(node, ast.Call) or not node.args or not _level(node.func):
        return None
    return _level(node.func), node.args[0]


def _level(node: ast.expr) -> str:
    """
    Return the level at which C{node} logs if it is a method of a log, or C{step} of a session or a login; or else an
    empty string. The level info of a Logger is C{notice}: only a Journal logs events of connections.
    """
    if not isinstance(node, ast.Attribute):
        return ""
    if node.attr == "step":
        return "debug"
    of = ast.unparse(node.value).lower()
    if not of.endswith(("log", "journal")):
        return ""
    return "notice" if node.attr == "info" and not of.endswith("journal") else LEVELS.get(node.attr, "")


def _template(node: ast.AST) -> str | None:
    """Return the text of a literal with the names of inserted values; L{None} for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(each.value) if isinstance(each, ast.Constant) else f"{{{_name(getattr(each, 'value', each))}}}"
            for each in node.values
        )
    return None


def _name(node: ast.AST) -> str:
    """Return a name for an expression that is inserted into a message."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_")
    if isinstance(node, ast.Attribute):
        return (
            _name(node.value) if node.attr in ("name", "path", "strerror", "text", "value") else node.attr.lstrip("_")
        )
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Call) and _name(node.func) == "nearest":
        return "hint"
    if isinstance(node, ast.Call):
        return _name(node.args[0]) if node.args else _name(node.func)
    if isinstance(node, ast.BoolOp):
        return _name(node.values[0])
    return "…"


def _isMessage(text: str, least: int) -> bool:
    words = re.sub(r"\{.*?\}", "", text).split()
    return (
        len(text.split()) >= least
        and sum(bool(re.fullmatch(r"[\"'(]?[A-Za-z'-]+[\"'),.:;]*", word)) for word in words) >= 2
    )


def rows(document: str) -> list[tuple[str, str, str]]:
    """Return the rows of the tables in C{document}: the message, its level or C{-}, and its explanation."""
    found = []
    for row in re.findall(r"^   \* - .+\n(?:     .+\n)+", document, re.MULTILINE):
        message, level, explanation = (
            " ".join(cell.split()) for cell in re.split(r"^   (?:\* |  )- ", row, flags=re.M)[1:]
        )
        if message.startswith("``"):
            found.append((message.strip("`"), level, explanation))
    return found


def rendered(messages: dict[str, Message], document: str) -> str:
    """Return C{document} with a section for each group and a row for each of C{messages}. The explanations are kept."""
    explained = {message: explanation for message, _, explanation in rows(document)}
    introduction = document[: document.index(BEGIN)] + BEGIN
    parts = [introduction]
    for title, _ in GROUPS:
        parts.append(f"\n{title}\n{'-' * len(title)}\n\n.. list-table::\n   :header-rows: 1\n   :widths: 45 8 47\n\n")
        parts.append("   * - Message\n     - Level\n     - Meaning, and what to do\n")
        group = sorted((each for each in messages.values() if each.group == title), key=lambda each: each.text.lower())
        parts.extend(_row(each, explained.get(each.text, TO_DO)) for each in group)
    return "".join(parts)


def _row(message: Message, explanation: str) -> str:
    cells = (f"``{message.text}``", message.level or "-", explanation)
    return "".join(map(_cell, ("   * - ", "     - ", "     - "), cells))


def _cell(mark: str, text: str) -> str:
    indent = " " * len(mark)
    wrapper = textwrap.TextWrapper(
        width=120, initial_indent=mark, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(text) + "\n"


def main() -> None:
    """Write the document, and print how many messages lack an explanation."""
    with open(PATH, encoding="utf-8") as file:
        document = file.read()
    written = rendered(found(), document)
    with open(PATH, "w", encoding="utf-8") as file:
        file.write(written)
    missing = [message for message, _, explanation in rows(written) if explanation == TO_DO]
    print(f"{PATH}: {len(missing)} of {len(rows(written))} messages lack an explanation")


if __name__ == "__main__":
    main()
