# -*- test-case-name: mailgate.test.cli.top.test_keys -*-
"""
What the page shows: the last answers of the gateway, and what the operator has chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from mailgate.cli.top.actions import Action
from mailgate.cli.top.grid import chosen, sortedRows
from mailgate.cli.top.past import Past
from mailgate.cli.top.tables import TABLES, Table, rowsOf
from mailgate.cli.top.text import Marks
from mailgate.cli.top.values import Row
from mailgate.keeper.moments import secondsOf

__all__ = ["LEVELS", "View"]

LEVELS = ("read", "operate", "admin")


@define
class View:
    """
    The state of the page.

    @ivar marks: what the terminal can show.
    @ivar overview: the last overview.
    @ivar sessions: the last list of sessions.
    @ivar sessionsCut: whether there are more.
    @ivar isListed: whether they are those that the filter chooses: the gateway has answered since it was typed.
    @ivar past: the numbers of the last minutes.
    @ivar trouble: why there is no answer; empty if there is one.
    @ivar answered: the time of the last overview, in seconds since 1970.
    @ivar silent: how many seconds ago that was, if that is too long; L{None} if it is not.
    @ivar table: the table that is shown.
    @ivar sortings: how tables are sorted, by their keys.
    @ivar filters: the words that rows must contain, by the keys of tables.
    @ivar selected: the identities of the selected rows, by the keys of tables.
    @ivar place: the number of the selected row.
    @ivar offset: the number of the first row, or line of a text, that is shown.
    @ivar page: how many rows or lines are shown.
    @ivar isPaused: whether the page stands still.
    @ivar typed: the filter that is being typed; L{None} if none is.
    @ivar message: a sentence for the operator.
    @ivar action: the order whose confirmation is awaited.
    @ivar question: what the order would do.
    @ivar title: the title of the text that is shown instead of the table.
    @ivar text: its lines; L{None} if none is shown.
    """

    marks: Marks
    overview: Row = field(factory=dict)
    sessions: Sequence[Row] = ()
    sessionsCut: bool = False
    isListed: bool = False
    past: Past = field(factory=Past)
    trouble: str = ""
    answered: float | None = None
    silent: float | None = None
    table: Table = TABLES[0]
    sortings: dict[str, tuple[int, bool]] = field(factory=dict)
    filters: dict[str, str] = field(factory=dict)
    selected: dict[str, str] = field(factory=dict)
    place: int = 0
    offset: int = 0
    page: int = 1
    isPaused: bool = False
    typed: str | None = None
    message: str = ""
    action: Action | None = None
    question: str = ""
    title: str = ""
    text: Sequence[str] | None = None

    @property
    def now(self) -> float | None:
        """The time of the gateway, in seconds since 1970."""
        return secondsOf(self.overview.get("time"))

    @property
    def sorting(self) -> tuple[int, bool]:
        """How the table is sorted."""
        return self.sortings.get(self.table.key, self.table.sorting)

    @property
    def filter(self) -> str:
        """The words that the rows of the table must contain."""
        return self.filters.get(self.table.key, "")

    def may(self, level: str) -> bool:
        """
        Return whether the operator has a level.

        @param level: its name.
        """
        own = self.overview.get("level")
        return own in LEVELS and LEVELS.index(own) >= LEVELS.index(level)

    def rows(self) -> Sequence[Row]:
        """Return the rows of the table that the filter chooses, in their order."""
        found = rowsOf(self.table, self.overview, self.sessions)
        if self.table.member != "sessions":
            # The gateway has chosen the sessions.
            found = chosen(self.table, found, self.filter, self.now, self.marks)
        return sortedRows(self.table, found, self.sorting, self.now)

    def find(self, rows: Sequence[Row]) -> int:
        """
        Return the number of the selected row; -1 if there are none. A row stays selected wherever it moves. If it has
        ended, the one at its place is selected.

        @param rows: the rows of the table.
        """
        wanted = self.selected.get(self.table.key)
        for place, row in enumerate(rows):
            if self.table.identity(row) == wanted:
                return place
        return min(max(self.place, 0), len(rows) - 1)

    def select(self, place: int) -> None:
        """
        Select a row.

        @param place: its number; the nearest one if there is none.
        """
        rows = self.rows()
        self.place = max(0, min(place, len(rows) - 1))
        if rows:
            self.selected[self.table.key] = self.table.identity(rows[self.place])
