# -*- test-case-name: bench.test.test_compare -*-
"""
C{python -m bench.compare --before FOLDER}: the CPU time of a login in this tree and in another, in turns.

Single figures vary by a quarter on a busy machine, and processes of the same code differ by some percent (because of
their memory layout). So bursts of both sides alternate, each side is first equally often, the pairs of bursts are
compared, and both sides are restarted after some bursts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from bench.comparison import Comparison, order, tables
from bench.measuring import Meter, started
from bench.options import comparing
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import VARIANTS, MailgateProxy, Site, Variant
from bench.spread import AFTER, BEFORE

__all__ = ["COMPARED", "Compared", "Side", "compare", "main"]

_WITHOUT_ID = "IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN"
"""The capabilities of a backend that cannot learn the client's address."""

_CACHED = "auth_cache_ttl = 1h\nauth_cache_size = 10m"


@frozen
class Compared:
    """
    One row of the comparison.

    @ivar kind: of L{Meter.loginCPU}.
    @ivar way: how to run mailgate for it.
    @ivar wayBefore: how to run the other tree's mailgate, where that differs.
    """

    title: str
    kind: str
    way: Variant
    wayBefore: Variant | None = None


COMPARED = {
    "asked": Compared("plain, auth_http asked", "plain", Variant()),
    "cached": Compared("plain, auth cached", "plain", Variant(more=_CACHED, asksAuth=False)),
    "passthrough": Compared(
        "plain, proxy_pass alone", "plain", Variant(judge="proxy_pass = 127.0.0.1:{backendPort}", asksAuth=False)
    ),
    "tls": Compared("TLS, full, auth_http asked", "tls", Variant()),
    "behind": Compared("plain, TLS to the backend, full", "plain", VARIANTS["TLS behind"]),
    "behind-resumed": Compared("plain, TLS to the backend, resumed", "plain", VARIANTS["TLS behind, resumed"]),
    "behind-group": Compared(
        "plain, TLS to one of ten, after one at an address",
        "plain",
        VARIANTS["TLS behind, group"],
        VARIANTS["TLS behind, resumed"],
    ),
}


@frozen
class Side:
    """
    One of the two trees.

    @ivar source: its folder.
    @ivar process: lines of its C{[mailgate]} that the other side does not have.
    @ivar more: lines of its C{[mail]} that the other side does not have.
    """

    name: str
    source: str
    process: Sequence[str] = ()
    more: Sequence[str] = ()

    def proxy(self, way: Variant) -> MailgateProxy:
        """
        Its mailgate, run in C{way} and with its own lines.

        @raise BenchmarkError: it does not know an option.
        """
        proxy = MailgateProxy(self.source, self.name, way.withLines(self.process, self.more))
        reason = proxy.find()
        if reason:
            raise BenchmarkError(f"{proxy.name}: {reason}")
        return proxy

    def facts(self) -> Iterator[tuple[str, str]]:
        """The line about it at the head of the report."""
        proxy = self.proxy(Variant())
        yield self.name, f"{proxy.location()}, revision {revision(self.source)}; {proxy.version()}"
        if self.process or self.more:
            yield f"{self.name}, set", "; ".join([*self.process, *self.more])


def compare(
    compared: Compared, sides: Sequence[Side], site: Site, children: Children, sizes: argparse.Namespace
) -> Comparison:
    """
    Measure one row: C{sizes.bursts} pairs of bursts of C{sizes.logins} logins, with new processes after each
    C{sizes.renew}.

    @raise BenchmarkError: a login failed.
    """
    row = Comparison(compared.title)
    ways = {BEFORE: compared.wayBefore or compared.way}
    proxies = [side.proxy(ways.get(side.name, compared.way)) for side in sides]
    for first in range(0, sizes.bursts, sizes.renew):
        with started(proxies, site, children) as found:
            meters = {side.name: meter for side, meter in zip(sides, found, strict=True)}
            for meter in found:
                meter.concurrency = sizes.concurrency
                meter.logins(sizes.logins, compared.kind != "plain")
            for burst in range(first, min(first + sizes.renew, sizes.bursts)):
                for side in order(burst):
                    _take(row, side, meters[side], lambda meter: meter.loginCPU(compared.kind, sizes.logins))
                before, after = (row.figures[side][-1] for side in (BEFORE, AFTER))
                figures = f"{before:.3f} before, {after:.3f} after, ratio {after / before:.3f}"
                say(f"{compared.title}, {burst + 1}/{sizes.bursts}: {figures}")
    return row


def _take(row: Comparison, side: str, meter: Meter, burst: Callable[[Meter], float]) -> None:
    asked, connections = meter.counter.asked(), meter.counter.connections()
    row.figures[side].append(burst(meter))
    row.asked[side] += meter.counter.asked() - asked
    row.connections[side] += meter.counter.connections() - connections


def _report(arguments: argparse.Namespace) -> str:
    sides = [
        Side(BEFORE, arguments.before, arguments.processBefore, arguments.moreBefore),
        Side(AFTER, arguments.mailgate, arguments.process, arguments.more),
    ]
    facts = [*machine(), *(fact for side in sides for fact in side.facts())]
    size = f"{arguments.logins} logins on each side, {arguments.concurrency} at a time"
    facts.append(("bursts", f"{arguments.bursts} of {size}"))
    facts.append(("backend", "greets without ID" if arguments.withoutID else "greets with ID among its capabilities"))
    load = os.getloadavg()[0]
    capabilities = _WITHOUT_ID if arguments.withoutID else ""
    with openSite(raiseOpenFiles(), capabilities) as (site, children):
        rows = [compare(COMPARED[name], sides, site, children, arguments) for name in arguments.only]
    # The processes of the benchmark itself account for two of it.
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    return "\n\n".join(["\n".join(f":{name}: {text}" for name, text in facts), _EXPLANATION, tables(rows)])


_EXPLANATION = """\
CPU of the gateway for a login, from connecting to the closed connection. *medians*: the median after by the median
before. *pairs*: the median of the ratios of two bursts that followed each other, with quartiles; the median of all
that could be measured is *within* the two figures in 95 of 100 cases. Where 1.000 lies there, no difference was shown.
*connections*: how many the authentication service saw for each login that it was asked for; a new one for every login
costs more than a kept one, and how many there are depends on how fast logins follow each other."""


def main() -> int:
    """Compare and print; return the exit status."""
    arguments = comparing().parse_args()
    return conclude(lambda: print(_report(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
