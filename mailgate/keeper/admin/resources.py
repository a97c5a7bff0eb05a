# -*- test-case-name: mailgate.test.keeper.admin.test_resources -*-
"""
The endpoints about sessions, users, logins and orders: what each one asks the keeper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from mailgate._version import __version__
from mailgate.directives import GatewaySettings
from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.callers import Caller
from mailgate.keeper.admin.endpoints import ENDPOINTS, Endpoint
from mailgate.keeper.admin.parameters import FILTERS
from mailgate.keeper.admin.replies import Refused, Reply
from mailgate.keeper.blocks import LIMIT as MOST_BLOCKS
from mailgate.keeper.blocks import NoLimits, block, listBlocks, release, unblock, withDoubt
from mailgate.keeper.explain import explain
from mailgate.keeper.exposition import Exposition, MetricsMissing
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.kick import kick
from mailgate.keeper.moves import WAIT, Order, follow, move
from mailgate.keeper.moves import Refusal as NotMoved
from mailgate.keeper.sessions import LIMIT, countSessions, listSessions
from mailgate.keeper.stats import stats
from mailgate.keeper.users import showUser
from mailgate.watch.tally import Totals

__all__ = ["HANDLERS", "Functions", "Handler", "Visit"]


class _Exposing:
    """Writes metrics, as soon as they are wanted: prometheus_client is an extra."""

    _exposition: Exposition | None = None

    def __call__(self, totals: Totals, accept: str) -> tuple[bytes, str]:
        if self._exposition is None:
            try:
                self._exposition = Exposition()
            except MetricsMissing as error:
                raise Refused(501, str(error)) from None
        return self._exposition.write(totals, accept)


@frozen
class Functions:
    """
    What the keeper does for operators. Each returns a value of JSON, or a Deferred of it.

    @ivar listSessions: L{mailgate.keeper.sessions.listSessions}.
    @ivar countSessions: L{mailgate.keeper.sessions.countSessions}.
    @ivar showUser: L{mailgate.keeper.users.showUser}.
    @ivar kick: L{mailgate.keeper.kick.kick}.
    @ivar explain: L{mailgate.keeper.explain.explain}.
    @ivar move: L{mailgate.keeper.moves.move}.
    @ivar follow: L{mailgate.keeper.moves.follow}.
    @ivar stats: L{mailgate.keeper.stats.stats}.
    @ivar expose: C{write} of a L{mailgate.keeper.exposition.Exposition}.
    """

    listSessions: Callable[..., Any] = listSessions
    countSessions: Callable[..., Any] = countSessions
    showUser: Callable[..., Any] = showUser
    kick: Callable[..., Any] = kick
    explain: Callable[..., Any] = explain
    move: Callable[..., Any] = move
    follow: Callable[..., Any] = follow
    stats: Callable[..., Any] = stats
    expose: Callable[..., tuple[bytes, str]] = field(factory=_Exposing)


@frozen
class Visit:
    """
    A request that is allowed, and what it needs.

    @ivar keeper: the keeper.
    @ivar functions: what the keeper does.
    @ivar settings: the configuration.
    @ivar caller: who asks.
    @ivar asked: the request.
    @ivar endpoint: what it is for.
    @ivar names: the segments of the path that vary, by name.
    @ivar values: the parameters, by name.
    """

    keeper: Keeper
    functions: Functions
    settings: GatewaySettings
    caller: Caller
    asked: Asked
    endpoint: Endpoint
    names: Mapping[str, str] = field(factory=dict)
    values: Mapping[str, Any] = field(factory=dict)


Handler: TypeAlias = Callable[[Visit], Any]
"""
Carries out a request. It returns a value of JSON or a L{Reply}, or a Deferred of one of these, and raises L{Refused}.
"""


_LATER = "the other gateways hear of it when the store works again"
_UNKNOWN = "what has begun or ended at other gateways meanwhile is not known"


def _asking(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the keeper. It raises C{ValueError} for arguments that are not valid, such as a network."""
    try:
        return function(*arguments)
    except UnicodeError:
        raise
    except NoLimits as error:
        raise Refused(501, str(error)) from None
    except ValueError as error:
        raise Refused(400, str(error), "bad request") from None


def _filter(visit: Visit) -> dict[str, Any]:
    return {each.name: visit.values[each.name] for each in FILTERS if each.name in visit.values}


def _index(visit: Visit) -> Any:
    return {
        "version": __version__,
        "gateway": visit.keeper.name,
        "endpoints": [
            {"method": each.method, "path": each.path, "level": each.level.word, "summary": each.summary}
            for each in ENDPOINTS
        ],
    }


def _stats(visit: Visit) -> Any:
    return visit.functions.stats(visit.keeper)


def _metrics(visit: Visit) -> Deferred[Reply]:
    accept = (visit.asked.header("Accept") or b"").decode("latin-1")

    def exposed(totals: Any) -> Reply:
        body, kind = visit.functions.expose(totals, accept)
        return Reply(200, body, kind.encode("ascii"))

    return maybeDeferred(visit.keeper.scrape).addCallback(exposed)


def _sessions(visit: Visit) -> Any:
    values = visit.values
    limit = values.get("limit", LIMIT)
    if "by" in values:
        if "cursor" in values:
            raise Refused(400, "cursor has no meaning with by: all groups are counted at once", "bad query")
        return _asking(visit.functions.countSessions, visit.keeper, _filter(visit), values["by"], limit)
    return _asking(visit.functions.listSessions, visit.keeper, _filter(visit), limit, values.get("cursor"))


def _session(visit: Visit) -> Deferred[Any]:
    def found(answer: Mapping[str, Any]) -> Any:
        for row in answer["sessions"]:
            return row
        raise Refused(404, "there is no session of this id")

    chosen = {"id": visit.names["id"]}
    listed = maybeDeferred(_asking, visit.functions.listSessions, visit.keeper, chosen, 1, None)
    return listed.addCallback(found)


def _endSession(visit: Visit) -> Deferred[Any]:
    def ended(answer: Mapping[str, Any]) -> Any:
        if not answer["ended"] and not answer.get("unanswered"):
            raise Refused(404, "there is no session of this id")
        return answer

    return maybeDeferred(_kicked, visit, {"id": visit.names["id"]}).addCallback(ended)


def _kicked(visit: Visit, chosen: Mapping[str, Any]) -> Any:
    values = visit.values
    return _asking(
        visit.functions.kick,
        visit.keeper,
        chosen,
        values.get("reason", ""),
        visit.caller.name,
        values.get("over", 0),
        values.get("dry_run", False),
        values.get("all", False),
        values.get("hold", 0),
        values.get("block", 0),
    )


def _kick(visit: Visit) -> Any:
    return _kicked(visit, _filter(visit))


def _user(visit: Visit) -> Any:
    return _asking(visit.functions.showUser, visit.keeper, visit.names["user"])


def _explain(visit: Visit) -> Any:
    values = visit.values
    arguments = (values["user"], values.get("address"), values.get("protocol"))
    return _asking(visit.functions.explain, visit.keeper, *arguments)


def _blocks(visit: Visit) -> Any:
    values = visit.values
    limit = values.get("limit", MOST_BLOCKS)
    found = _asking(listBlocks, visit.keeper, values.get("thing"), values.get("rule"), limit)
    return withDoubt(visit.keeper, found, _UNKNOWN)


def _block(visit: Visit) -> Any:
    values = visit.values
    made = _asking(block, visit.keeper, values["thing"], values["for"], values.get("reason", ""))
    return withDoubt(visit.keeper, made, _LATER)


def _hold(visit: Visit) -> Any:
    values = visit.values
    made = _asking(block, visit.keeper, visit.names["user"], values["for"], values.get("reason", ""), True)
    return withDoubt(visit.keeper, made, _LATER)


def _move(visit: Visit) -> Deferred[Any]:
    values = visit.values
    order = Order(visit.names["user"], values["backend"], values.get("group"), visit.caller.name)
    whenQuiet, wait = values.get("when_quiet", False), values.get("for", WAIT)
    return maybeDeferred(visit.functions.move, visit.keeper, order, whenQuiet, wait).addErrback(_notMoved)


def _follow(visit: Visit) -> Deferred[Any]:
    followed = maybeDeferred(visit.functions.follow, visit.keeper, visit.names["user"], visit.names["id"])
    return followed.addErrback(_notMoved)


def _notMoved(failure: Failure) -> Any:
    error = failure.value
    if isinstance(error, NotMoved):
        before = f"; before that: {', '.join(error.done)}" if error.done else ""
        raise Refused(409, f"{error}{before}", "not moved", done=error.done)
    if isinstance(error, KeyError):
        raise Refused(404, "there is no such move; the gateway may have been replaced, and the hold ends by itself")
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        raise Refused(400, str(error), "bad request")
    return failure


def _unblock(visit: Visit) -> Any:
    ended = _ended(_asking(unblock, visit.keeper, visit.names["id"]), "nothing was blocked; failures were forgotten")
    return withDoubt(visit.keeper, ended, _LATER)


def _release(visit: Visit) -> Any:
    ended = _ended(_asking(release, visit.keeper, visit.names["user"]), "this user is not held")
    return withDoubt(visit.keeper, ended, _LATER)


def _ended(answer: dict[str, Any], otherwise: str) -> dict[str, Any]:
    if not answer["ended"]:
        raise Refused(404, otherwise)
    return answer


def _ordered(visit: Visit, command: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
    operator = visit.keeper.operator
    if operator is None:
        raise Refused(501, "this gateway takes no orders: an application runs it")
    return maybeDeferred(operator.order, command, arguments)


def _reload(visit: Visit) -> Deferred[Any]:
    def done(answer: Any) -> Any:
        if not answer.done:
            raise Refused(409, "the configuration was not loaded", "reload refused", reasons=list(answer.reasons))
        return {"reloaded": True}

    return _ordered(visit, "reload", {}).addCallback(done)


def _order(word: str, visit: Visit) -> Deferred[Any]:
    def done(answer: Any) -> Any:
        reasons = list(answer.reasons)
        if answer.isUnknown:
            raise Refused(404, reasons[0] if reasons else "no server has this address")
        if not answer.done:
            raise Refused(409, reasons[0] if reasons else "the order was refused", reasons=reasons)
        return {"backends": list(answer.rows), "missing": reasons}

    address = visit.names["address"]
    if not address.isprintable():
        raise Refused(400, "the address must be printable text")
    return _ordered(visit, f"backend {word}", {"address": address}).addCallback(done)


HANDLERS: dict[tuple[str, str], Handler] = {
    ("GET", "/metrics"): _metrics,
    ("GET", "/api/1/"): _index,
    ("GET", "/api/1/stats"): _stats,
    ("GET", "/api/1/sessions"): _sessions,
    ("GET", "/api/1/sessions/{id}"): _session,
    ("DELETE", "/api/1/sessions/{id}"): _endSession,
    ("POST", "/api/1/kick"): _kick,
    ("GET", "/api/1/users/{user}"): _user,
    ("POST", "/api/1/explain"): _explain,
    ("GET", "/api/1/blocks"): _blocks,
    ("POST", "/api/1/blocks"): _block,
    ("DELETE", "/api/1/blocks/{id}"): _unblock,
    ("POST", "/api/1/users/{user}/hold"): _hold,
    ("POST", "/api/1/users/{user}/release"): _release,
    ("POST", "/api/1/users/{user}/move"): _move,
    ("GET", "/api/1/users/{user}/moves/{id}"): _follow,
    ("POST", "/api/1/reload"): _reload,
    **{
        ("POST", f"/api/1/backends/{{address}}/{word}"): partial(_order, word)
        for word in ("drain", "resume", "down", "up")
    },
}
"""What carries out each endpoint, by method and path. L{mailgate.keeper.admin.processes} has the others."""
