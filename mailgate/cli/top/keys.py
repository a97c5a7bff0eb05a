# -*- test-case-name: mailgate.test.cli.top.test_keys -*-
"""
What keys do, what is asked when, and what answers change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from mailgate.cli.adminclient import NoAnswer
from mailgate.cli.sessions import FILTERS
from mailgate.cli.top.actions import Action, Question, drain, kickSession, kickUser, resume, unblock
from mailgate.cli.top.helping import HELP
from mailgate.cli.top.summary import troubles
from mailgate.cli.top.tables import TABLES, Table
from mailgate.cli.top.text import Marks, clean, steady
from mailgate.cli.top.texts import details, explanation
from mailgate.cli.top.values import Row, mapping, rows, text
from mailgate.cli.top.view import View

__all__ = ["IAsker", "Top", "sessionsQuery"]

_EVERY = 1.0
"""Seconds between two overviews."""

_EVERY_LIST = 2.0
"""Seconds between two lists of sessions."""

_SILENT = 3.0
"""Seconds without an answer that are too many."""

_MESSAGE = 15.0
"""Seconds for which a message stands there."""

_MOST_SESSIONS = 1000
"""Sessions of a list: as many as the admin server has on one page."""

_LONGEST_FILTER = 200

_OVERVIEW = Question("overview", "/api/1/overview")
_HISTORY = Question("history", "/api/1/history", {"span": "10m"})

_BY_KEY = {table.key: table for table in TABLES}
_SESSIONS = next(table.key for table in TABLES if table.member == "sessions")

_MOVES: dict[str, Callable[[View], int]] = {
    "up": lambda view: -1,
    "down": lambda view: 1,
    "page up": lambda view: -max(1, view.page - 1),
    "page down": lambda view: max(1, view.page - 1),
    "home": lambda view: -(10**9),
    "end": lambda view: 10**9,
}


class IAsker(Protocol):
    """Asks the admin server without waiting."""

    def ask(self, question: Question) -> None:
        """
        Send a question. L{Top.answered} is called later with the answer.

        @param question: the question.
        """


def sessionsQuery(words: str) -> dict[str, Any]:
    """
    Return the parameters for a list of sessions: C{NAME=VALUE} is a filter of C{mailgate sessions}, another word a part
    of the user name.

    @param words: what the operator has typed.
    """
    query: dict[str, Any] = {"limit": _MOST_SESSIONS}
    for word in words.split():
        name, equals, value = word.partition("=")
        if equals and name in FILTERS and value:
            query[name] = value
        else:
            query["user"] = word if set(word) & set("*?[") else f"*{word}*"
    return query


def _listOf(words: str) -> Question:
    return Question("sessions", "/api/1/sessions", sessionsQuery(words))


class Top:
    """
    The page.

    @param asker: asks the admin server.
    @param clock: returns a time in seconds that always grows.
    @param wallClock: returns the time in seconds since 1970.
    @param marks: what the terminal can show.
    @ivar view: what it shows.
    @ivar isOver: whether the operator has left it.
    """

    def __init__(self, asker: IAsker, clock: Callable[[], float], wallClock: Callable[[], float], marks: Marks) -> None:
        self._asker = asker
        self._clock = clock
        self._wallClock = wallClock
        self.view = View(marks)
        self.isOver = False
        self._underWay: set[str] = set()
        self._due = {"overview": clock(), "sessions": clock()}
        self._lastAnswer = clock()
        self._needsHistory = True
        self._messageEnds = clock()
        self._ordered: Action | None = None

    def tick(self) -> None:
        """Ask what is due, and forget what has been there long enough."""
        now = self._clock()
        view = self.view
        if now >= self._messageEnds:
            view.message = ""
        if view.isPaused:
            view.silent = None
            return
        since = now - self._lastAnswer
        view.silent = since if view.trouble or since > _SILENT else None
        if self._needsHistory:
            self._needsHistory = not self._send(_HISTORY)
        if now >= self._due["overview"] and self._send(_OVERVIEW):
            self._due["overview"] = now + _EVERY
        isListed = view.table.key == _SESSIONS and view.may("operate")
        if isListed and now >= self._due["sessions"] and self._send(_listOf(view.filter)):
            self._due["sessions"] = now + _EVERY_LIST

    def _send(self, question: Question) -> bool:
        if question.purpose in self._underWay:
            return False
        self._underWay.add(question.purpose)
        self._asker.ask(question)
        return True

    def _say(self, message: str) -> None:
        self.view.message = message
        self._messageEnds = self._clock() + _MESSAGE

    # Answers.

    def begin(self, overview: Row) -> None:
        """
        Show a first overview.

        @param overview: the overview.
        """
        self._overviewAnswered(_OVERVIEW, overview)
        self._due["overview"] = self._clock() + _EVERY

    def answered(self, question: Question, answer: Any) -> None:
        """
        Take the answer to a question.

        @param question: the question.
        @param answer: a value of JSON, or the L{NoAnswer}.
        """
        self._underWay.discard(question.purpose)
        handle: Callable[[Question, Any], None] = getattr(self, f"_{question.purpose}Answered")
        handle(question, answer)

    def _overviewAnswered(self, question: Question, answer: Any) -> None:
        view = self.view
        if view.isPaused:
            return
        if not isinstance(answer, NoAnswer) and not isinstance(mapping(answer).get("stats"), dict):
            answer = NoAnswer("this is not an admin server of mailgate", 1)
        if isinstance(answer, NoAnswer):
            view.trouble = str(answer)
            view.past.gap()
            return
        view.trouble = ""
        view.silent = None
        view.overview = answer
        view.answered = self._wallClock()
        self._lastAnswer = self._clock()
        view.past.add(mapping(answer.get("stats")))

    def _historyAnswered(self, question: Question, answer: Any) -> None:
        # A gateway of an earlier release has none. The plots begin now.
        if not isinstance(answer, NoAnswer):
            self.view.past.load(mapping(answer))

    def _sessionsAnswered(self, question: Question, answer: Any) -> None:
        view = self.view
        if view.isPaused:
            return
        if question != _listOf(view.filters.get(_SESSIONS, "")):
            # The filter has changed meanwhile.
            self._due["sessions"] = self._clock()
            return
        if isinstance(answer, NoAnswer):
            view.sessions, view.sessionsCut = (), False
            self._say(str(answer))
            return
        view.sessions = rows(mapping(answer).get("sessions"))
        view.sessionsCut = mapping(answer).get("next") is not None
        view.isListed = True

    def _trialAnswered(self, question: Question, answer: Any) -> None:
        view, action = self.view, self.view.action
        if action is None or action.trial != question or view.question:
            return
        if isinstance(answer, NoAnswer):
            makesSense, words = False, str(answer)
        else:
            makesSense, words = action.judge(answer)
        if makesSense:
            view.question, view.message, view.text, view.typed = words, "", None, None
        else:
            view.action = None
            self._say(words)

    def _orderAnswered(self, question: Question, answer: Any) -> None:
        action, self._ordered = self._ordered, None
        if isinstance(answer, NoAnswer):
            self._say(str(answer))
        elif action is not None:
            self._say(action.report(answer))
        self._soon()

    def _explainAnswered(self, question: Question, answer: Any) -> None:
        if isinstance(answer, NoAnswer):
            self._say(str(answer))
            return
        marks = self.view.marks
        body = mapping(question.body)
        try:
            found = explanation(body, answer, self._wallClock(), marks)
        except ValueError as error:
            self._say(str(error))
            return
        self._show(f"explain {clean(body.get('user'), marks)}", found)

    def _soon(self) -> None:
        """Ask again at once: an order has changed something."""
        self._due = dict.fromkeys(self._due, self._clock())

    # Keys.

    def key(self, key: str) -> None:
        """
        Do what a key means.

        @param key: the character, or C{up}, C{down}, C{left}, C{right}, C{page up}, C{page down}, C{home}, C{end},
            C{enter}, C{escape} or C{backspace}.
        """
        view = self.view
        if view.question:
            self._confirm(key)
        elif view.typed is not None:
            self._type(key)
        elif view.text is not None:
            self._read(key)
        else:
            self._command(key)

    def _confirm(self, key: str) -> None:
        view, action = self.view, self.view.action
        view.question, view.action = "", None
        if key not in ("y", "Y") or action is None:
            self._say("nothing was changed")
        elif self._send(action.order):
            self._ordered = action
            self._say(f"{action.name} ...")
        else:
            self._say("another order is under way; nothing was changed")

    def _type(self, key: str) -> None:
        view = self.view
        typed = view.typed or ""
        if key == "escape":
            view.typed = None
        elif key == "enter":
            view.typed = None
            view.place = view.offset = 0
            view.selected.pop(view.table.key, None)
            self._filterBy(typed.strip())
        elif key == "backspace":
            view.typed = typed[:-1]
        elif len(key) == 1 and key.isprintable() and len(typed) < _LONGEST_FILTER:
            view.typed = typed + key

    def _read(self, key: str) -> None:
        view = self.view
        if key in _MOVES:
            view.offset = max(0, view.offset + _MOVES[key](view))
        elif key == " ":
            view.offset += max(1, view.page - 1)
        elif key in ("q", "escape", "enter", "?"):
            view.text = None
            view.offset = 0

    def _command(self, key: str) -> None:
        view = self.view
        view.message = ""
        if key == "q":
            self.isOver = True
        elif key in _BY_KEY:
            self._switch(_BY_KEY[key])
        elif key in _MOVES:
            view.select(view.place + _MOVES[key](view))
        elif key in ("<", ">", "left", "right"):
            self._sortBy(-1 if key in ("<", "left") else 1)
        elif key in _COMMANDS:
            _COMMANDS[key](self)

    def _switch(self, table: Table) -> None:
        view = self.view
        view.table, view.place, view.offset = table, 0, 0
        view.place = max(0, view.find(view.rows()))
        self._due["sessions"] = self._clock()

    def _sortBy(self, step: int) -> None:
        view = self.view
        place, _ = view.sorting
        columns = len(view.table.fields) + 1
        place = (place + 1 + step) % columns - 1
        isDescending = place >= 0 and view.table.fields[place].isNumber
        view.sortings[view.table.key] = (place, isDescending)

    def _invert(self) -> None:
        place, isDescending = self.view.sorting
        self.view.sortings[self.view.table.key] = (place, not isDescending)

    def _pause(self) -> None:
        view = self.view
        view.isPaused = not view.isPaused
        if not view.isPaused:
            self._lastAnswer = self._clock()
            self._needsHistory = True
            self._soon()

    def _filterBy(self, words: str) -> None:
        view = self.view
        if view.table.key == _SESSIONS and words != view.filter:
            # Rows that the filter before has chosen must not stand under this one.
            view.sessions, view.sessionsCut, view.isListed = (), False, False
        view.filters[view.table.key] = words
        self._soon()

    def _filter(self) -> None:
        self.view.typed = self.view.filter

    def _escape(self) -> None:
        view = self.view
        if view.action is not None:
            view.action = None
            self._say("nothing was changed")
        elif view.filter:
            self._filterBy("")

    def _help(self) -> None:
        self._show("keys", HELP)

    def _alarms(self) -> None:
        found = [span.text for span in troubles(self.view.overview, self.view.marks)]
        self._show("alarms", found or ["no alarms"])

    def _show(self, title: str, found: Iterable[str]) -> None:
        view = self.view
        marks = view.marks
        view.title = steady(title, marks)
        view.text = [steady(line, marks) for line in found]
        view.offset = 0
        view.message = ""

    def _row(self) -> Row:
        """The selected row; an empty one if there is none."""
        found = self.view.rows()
        return found[self.view.find(found)] if found else {}

    def _details(self) -> None:
        row = self._row()
        if row:
            self._show(self.view.table.name, details(row, self.view.marks))

    def _order(self, tables: str, make: Callable[[Row, Marks], Action | None], what: str) -> None:
        view = self.view
        action = make(self._row(), view.marks) if view.table.key in tables else None
        if action is None:
            self._say(f"select {what} first")
        elif not view.may(action.level):
            self._say(f"{action.name} needs the level {action.level}")
        elif self._send(action.trial):
            view.action = action
            self._say(f"{action.name}: counting ...")
        else:
            self._say("wait for the answer to the question before")

    def _kick(self) -> None:
        self._order("sl", kickSession, "a session (s)")

    def _kickUser(self) -> None:
        self._order("slf", kickUser, "a session of a user (s)")

    def _drain(self) -> None:
        self._order("b", drain, "a backend (b)")

    def _resume(self) -> None:
        self._order("b", resume, "a backend (b)")

    def _unblock(self) -> None:
        self._order("x", unblock, "a block (x)")

    def _explain(self) -> None:
        view = self.view
        row = self._row() if view.table.key in "slf" else {}
        user = text(row.get("user"))
        if not user:
            self._say("select a failure (f) or a session (s) with a user first")
            return
        asked = {
            "user": user,
            "address": text(mapping(row.get("client")).get("address")),
            "protocol": text(row.get("protocol")),
        }
        if asked["address"].startswith("unix:"):
            asked["address"] = ""
        body = {name: value for name, value in asked.items() if value}
        if self._send(Question("explain", "/api/1/explain", body=body)):
            self._say("asking for an explanation ...")


_COMMANDS: dict[str, Callable[[Top], None]] = {
    "i": Top._invert,
    " ": Top._pause,
    "/": Top._filter,
    "escape": Top._escape,
    "?": Top._help,
    "!": Top._alarms,
    "enter": Top._details,
    "k": Top._kick,
    "K": Top._kickUser,
    "d": Top._drain,
    "r": Top._resume,
    "u": Top._unblock,
    "e": Top._explain,
}
