# -*- test-case-name: mailgate.test.keeper.admin.page.test_render -*-
"""
Renders the live page: the document that the scripts fill, and the same tables without scripts.

The templates of Twisted escape all texts. Nothing here writes HTML as text, except for the document type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.error import FlattenerError
from twisted.web.template import Tag, flattenString, tags

from mailgate.keeper.admin.page.cells import CELLS, NUMBERS
from mailgate.keeper.admin.page.columns import SECTIONS, SESSIONS, Column, Section
from mailgate.keeper.admin.page.texts import amount, count, duration, isNumber, moment, rate, visible, wait
from mailgate.watch.metrics import LOGIN_OUTCOMES

__all__ = ["PLOTS", "ROWS_A_TURN", "shell", "tables"]

ROWS_A_TURN = 10
"""Rows that are rendered in one turn of the event loop. That takes some milliseconds."""

PLOTS = (
    ("logins", "Logins", "per second, by outcome"),
    ("wait", "Login time", "until the relay begins"),
    ("sessions", "Sessions", "by protocol"),
    ("bytes", "Relayed bytes", "per second"),
)
"""The plots: name, title, and what their numbers are."""

_NO_SCRIPT = (
    "This page needs JavaScript to stay current. ",
    tags.a("The same tables without JavaScript", href="/plain"),
    " show one moment. Your browser asks for a name and a password: the password is the token.",
)

_TABLES = (*SECTIONS[:-1], SESSIONS, SECTIONS[-1])
"""All tables, in their order on the page."""


T = TypeVar("T")


class _Pace:
    """
    Spreads rows over turns of the event loop, in between which clients are served.

    @param clock: the timers.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._rows = 0

    def spread(self, make: Callable[[T], Tag], rows: Iterable[T]) -> Iterator[Any]:
        """Yield what C{make} makes of each row, and a coroutine where the template must wait."""
        for each in rows:
            if self._rows % ROWS_A_TURN == 0:
                yield self._turn()
            self._rows += 1
            yield make(each)

    # A template would log the cancellation of a Deferred as an error.
    async def _turn(self) -> str:
        await deferLater(self._clock, 0)
        return ""


def shell(clock: IReactorTime, overview: Mapping[str, Any] | None = None) -> Deferred[bytes]:
    """
    Render the live page. It has no data: its scripts ask for them.

    @param clock: the timers. Many rows take several turns of the event loop.
    @param overview: the overview if the caller has a level without a token; L{None}: the page asks for a token. With
        it the page has the tables, for browsers without JavaScript.
    @return: fires with the document, in UTF-8.
    """
    level = "" if overview is None else str(overview.get("level") or "")
    main = Tag("main")(id="main", tabindex="-1")(
        tags.div(id="notice", class_="notice", hidden=""),
        tags.section(id="alarms", class_="alarms", hidden="", **{"aria-label": "Alarms"})(
            tags.h2("Alarms"), tags.ul(id="alarm-list")
        ),
        tags.p(id="announcer", role="status", class_="unseen", **{"aria-live": "polite"}),
        tags.section(id="now", **{"aria-label": "Now"})(tags.h2("Now"), tags.dl(id="numbers", class_="numbers")),
        _plots(),
        tags.div(class_="sections")(
            [_section(each) for each in _TABLES],
        ),
    )
    scripted = tags.div(id="page", hidden="", **{"data-granted": level})(_header(), main, *_dialogs())
    script = tags.script(src="/static/page.js", type="module")
    fallback: Any = tags.noscript(tags.p(_NO_SCRIPT, class_="notice"))
    if overview is not None:
        fallback = [fallback, tags.noscript(*_still(overview, _Pace(clock)))]
    head = (tags.script(src="/static/uplot.js", defer="defer"), script)
    return _document("mailgate", head, (fallback, scripted))


def tables(clock: IReactorTime, overview: Mapping[str, Any]) -> Deferred[bytes]:
    """
    Render the tables of the overview as a document that needs no scripts.

    @param clock: the timers. Many rows take several turns of the event loop.
    @param overview: the overview.
    @return: fires with the document, in UTF-8.
    """
    title = f"{visible(overview.get('gateway'))} - mailgate"
    return _document(title, (), tuple(_still(overview, _Pace(clock))))


def _document(title: str, scripts: Sequence[Tag], body: Sequence[Any]) -> Deferred[bytes]:
    document = tags.html(lang="en")(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.title(title),
            tags.link(rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            tags.link(rel="stylesheet", href="/static/page.css"),
            *scripts,
        ),
        tags.body(*body),
    )
    return flattenString(None, document).addCallbacks(lambda found: b"<!DOCTYPE html>\n" + found, _cause)


def _cause(failure: Failure) -> Any:
    """Raise what went wrong. The error of the template would bring the whole document into the log."""
    error: Any = failure.value
    raise error.args[0] if isinstance(error, FlattenerError) else error


def _header() -> Tag:
    return tags.header(class_="bar")(
        tags.a("Skip to the numbers", href="#main", class_="skip"),
        tags.div(class_="who")(
            tags.h1(tags.bdi("mailgate", id="gateway")),
            tags.ul(id="facts", class_="facts"),
        ),
        tags.div(class_="controls")(
            tags.p(id="news", class_="news")("connecting"),
            tags.button("Pause", id="pause", **{"aria-pressed": "false"}),
            tags.button("Token", id="token"),
        ),
        tags.nav(id="places", **{"aria-label": "Sections"})(
            tags.ul(tags.li(tags.a(title, href=f"#{name}"), **_needs(level)) for name, title, level in _places())
        ),
    )


def _needs(level: str) -> dict[str, str]:
    """The attribute of an element that not all levels see."""
    return {} if level == "read" else {"data-level": level}


def _places() -> Iterator[tuple[str, str, str]]:
    yield "now", "Now", "read"
    yield "plots", "Plots", "read"
    for each in _TABLES:
        yield each.name, {"auth": "Auth", "servers": "Servers"}.get(each.name, each.title), each.level


def _plots() -> Tag:
    spans = (("10m", "10 minutes", "true"), ("24h", "24 hours", "false"))
    return tags.section(id="plots", **{"aria-label": "Plots"})(
        tags.div(class_="heading")(
            tags.h2("Plots"),
            tags.div(role="group", class_="choice", **{"aria-label": "Time of the plots"})(
                tags.button(title, **{"data-span": span, "aria-pressed": isPressed}) for span, title, isPressed in spans
            ),
        ),
        tags.div(class_="plots")(
            tags.figure(class_="plot", **{"data-plot": name})(
                tags.figcaption(tags.h3(title), " ", tags.span(what, class_="quiet")),
            )
            for name, title, what in PLOTS
        ),
    )


def _section(section: Section) -> Tag:
    heading = tags.h2(section.title)
    more: list[Any] = []
    if section is SESSIONS:
        more = [_filter(), tags.div(class_="pages", id="pages")]
    elif section.name == "failures":
        heading = tags.div(class_="heading")(heading, tags.button("Explain a login", id="explain-any"))
    # The scripts name the section, and make a region of the table, as L{_region} does.
    return tags.section(id=section.name, **_needs(section.level))(
        heading, *more[:1], tags.div(class_="scroll")(_table(section)), *more[1:]
    )


def _region(section: Section, table: Tag) -> Tag:
    """A table in a region of its own, which scrolls, also by keyboard."""
    label = f"{section.title}: table"
    return tags.div(class_="scroll", role="region", tabindex="0", **{"aria-label": label})(table)


def _table(section: Section, rows: Sequence[Mapping[str, Any]] = (), pace: _Pace | None = None) -> Tag:
    """
    A table. Without a pace it is for the scripts, and has what they read: the key, the fields, and the columns of
    orders.
    """
    isLive = pace is None
    columns = [each for each in section.columns if isLive or each.kind in CELLS]
    facts = {"data-key": " ".join(section.key), "data-empty": section.empty} if isLive else {}
    body: Any = ""
    if pace is not None:
        body = pace.spread(partial(_row, columns), rows) if rows else _emptyRow(section, len(columns))
    return tags.table(**facts)(
        tags.caption(section.caption),
        tags.thead(tags.tr(_head(each, isLive) for each in columns)),
        tags.tbody(body),
    )


def _emptyRow(section: Section, columns: int) -> Tag:
    return tags.tr(class_="empty")(tags.td(section.empty, colspan=str(columns)))


def _head(column: Column, isLive: bool) -> Tag:
    found = tags.th(column.title)
    if column.help:
        found(title=column.help)
    if isLive:
        # The scripts set the scope.
        found(**{"data-is": f"{column.kind} {column.field}".rstrip()})
        if column.level:
            found(**_needs(column.level))
        return found
    if column.kind in NUMBERS:
        found(class_="number")
    found(scope="col")
    return found


def _row(columns: Sequence[Column], row: Mapping[str, Any]) -> Tag:
    cells = []
    for place, column in enumerate(columns):
        tag = tags.th(scope="row") if place == 0 else tags.td()
        if column.kind in NUMBERS:
            tag(class_="number")
        cells.append(tag(CELLS[column.kind](row.get(column.field), row)))
    return tags.tr(*cells)


def _filter() -> Tag:
    fields = (
        ("user", "User", "joe@example.org or j*"),
        ("address", "Address", "192.0.2.0/24"),
        ("backend", "Backend", "10.0.0.1:143"),
        ("protocol", "Protocol", "imap"),
        ("older", "Older than", "90s, 10m, 2h, 1d"),
    )
    return tags.form(id="filter", class_="filter", autocomplete="off", spellcheck="false", role="search")(
        [
            tags.label(
                title,
                tags.input(
                    name=name,
                    placeholder=example,
                ),
            )
            for name, title, example in fields
        ],
        tags.div(class_="buttons")(
            tags.button("Filter", type="submit"),
            tags.button("Clear", type="reset"),
            tags.button("End all that match…", type="button", id="kick-all", class_="danger"),
        ),
        tags.p(class_="problem", id="filter-problem"),
    )


def _dialogs() -> Sequence[Tag]:
    """The dialogs. Forms are never sent: the scripts answer them."""
    return (
        Tag("dialog")(id="access", **{"aria-labelledby": "access-title"})(
            tags.form(autocomplete="off")(
                tags.h2("Token", id="access-title"),
                tags.p("The page keeps the token in memory until you close or reload it."),
                tags.label(
                    tags.span("Token of ", tags.code("admin_token_file")),
                    tags.input(name="token", type="password", autocomplete="off", required=""),
                ),
                tags.p(class_="problem", role="alert"),
                tags.div(class_="buttons")(
                    tags.button("Use the token", type="submit", class_="primary"),
                    tags.button("Cancel", type="button", class_="cancel"),
                ),
            )
        ),
        Tag("dialog")(id="order", **{"aria-labelledby": "order-title", "aria-describedby": "effect"})(
            tags.form(autocomplete="off")(
                tags.h2(id="order-title"),
                tags.p(class_="effect", id="effect"),
                tags.label(
                    "Reason, for the log",
                    tags.input(name="reason", maxlength="200"),
                    class_="reason",
                ),
                tags.p(class_="problem", role="alert"),
                tags.div(class_="buttons")(
                    tags.button(type="submit", class_="danger go"),
                    tags.button("Cancel", type="button", class_="cancel"),
                ),
            )
        ),
        Tag("dialog")(id="explanation", class_="wide", **{"aria-labelledby": "explanation-title"})(
            tags.form(autocomplete="off", spellcheck="false")(
                tags.h2("Explain a login", id="explanation-title"),
                tags.div(class_="filter")(
                    tags.label("User", tags.input(name="user", required="")),
                    tags.label("Address", tags.input(name="address")),
                    tags.label("Protocol", tags.input(name="protocol")),
                    tags.div(class_="buttons")(
                        tags.button("Explain", type="submit", class_="primary"),
                        tags.button("Close", type="button", class_="cancel"),
                    ),
                ),
                tags.p(class_="problem", role="alert"),
                tags.div(class_="answer", tabindex="-1"),
            )
        ),
    )


def _still(overview: Mapping[str, Any], pace: _Pace) -> Iterator[Any]:
    """The overview as it is, without scripts."""
    at = moment(overview.get("time"))
    yield tags.header(class_="bar")(
        tags.div(class_="who")(
            tags.h1(tags.bdi(visible(overview.get("gateway")))),
            tags.ul(class_="facts")(tags.li(each) for each in _facts(overview)),
        ),
        tags.div(class_="controls")(tags.p(f"as of {at} UTC"), tags.a("Read again", href="/plain")),
    )
    sections = [_alarms(overview), _numbers(overview)]
    for each in _TABLES:
        rows = overview.get(each.name)
        if rows is not None:
            sections.append(_stillSection(each, rows, overview, pace))
    yield Tag("main")(sections)


def _stillSection(section: Section, rows: Sequence[Mapping[str, Any]], overview: Mapping[str, Any], pace: _Pace) -> Tag:
    more = (overview.get("more") or {}).get(section.name)
    return tags.section(class_="panel", **{"aria-label": section.title})(
        tags.h2(section.title),
        _region(section, _table(section, rows, pace)),
        tags.p(f"and {count(more)} more", class_="quiet") if more else "",
    )


def _facts(overview: Mapping[str, Any]) -> Iterator[str]:
    yield f"mailgate {visible(overview.get('version'))}"
    yield f"up {duration(overview.get('uptime'))}"
    yield f"configuration loaded at {moment(overview.get('loaded'))}"
    reload = overview.get("reload")
    if reload and not reload.get("done", True):
        yield f"last reload refused: {'; '.join(map(visible, reload.get('reasons') or ()))}"
    store = (overview.get("stats") or {}).get("store") or {}
    for each in (store.get("gateways") or ())[1:]:
        yield f"{visible(each.get('name'))} heard {duration(each.get('age'))} ago"
    for each in overview.get("missing") or ():
        yield f"no answer: {visible(each)}"


def _alarms(overview: Mapping[str, Any]) -> Tag:
    alarms = overview.get("alarms") or ()
    return tags.section(class_="alarms")(
        tags.h2("Alarms"),
        tags.ul(
            [
                tags.li(class_="warning" if each.get("severity") == "warning" else "critical")(
                    tags.span(visible(each.get("severity")), class_="mark"),
                    " ",
                    tags.bdi(visible(each.get("text"))),
                    f" since {moment(each.get('since'))}",
                )
                for each in alarms
            ]
            or tags.li("No alarm.")
        ),
    )


def _numbers(overview: Mapping[str, Any]) -> Tag:
    pairs = list(_now(overview.get("stats") or {}))
    return tags.section(tags.h2("Now"), tags.dl(class_="numbers")(tags.div(tags.dt(n), tags.dd(v)) for n, v in pairs))


def _now(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sessions = stats.get("sessions") or {}
    yield "Sessions", count(sessions.get("total"))
    for protocol, found in (sessions.get("by_protocol") or {}).items():
        yield visible(protocol), count(found.get("total"))
    yield "Users", count(stats.get("users"))
    logins = stats.get("logins") or {}
    for outcome in LOGIN_OUTCOMES:
        if outcome in logins:
            yield f"{outcome.replace('_', ' ').capitalize()}/s", rate(logins[outcome].get("per_second"))
    waits = stats.get("login_wait") or {}
    for name in ("p50", "p95", "p99"):
        yield f"Login {name}", wait(waits.get(name))
    for direction, found in (stats.get("bytes") or {}).items():
        value = found.get("per_second")
        yield direction.replace("_", " ").capitalize(), f"{amount(value)}/s" if isNumber(value) else visible(value)
