# -*- test-case-name: bench.test.test_measuring -*-
"""
The order of one run: which proxies are started for each group of measures, and how they take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from attrs import define, field, frozen

from bench.clients import opened
from bench.measures import Measure, SiteSet, Sizes, measuresOf, siteCount
from bench.measuring import Meter, percentile, started
from bench.processes import BenchmarkError, Children
from bench.program import openSite
from bench.proxies import Proxy, Site
from bench.rates import KINDS, Rate, Saturation, limit
from bench.results import OURS, THEIRS, Results
from bench.sites import NEW, Held
from bench.spread import BEFORE

__all__ = ["Bench", "Entrant"]

_CLIENTS = 2
"""Processes of clients: one cannot load a proxy that is not written in Python."""


@frozen
class Entrant:
    """
    A proxy that takes part.

    @ivar column: the column of its figures.
    @ivar variant: of mailgate; it is measured for the measures of this variant alone.
    """

    column: str
    proxy: Proxy
    variant: str = ""


@define
class Bench:
    """
    One run.

    @ivar say: is called with a line for each figure.
    @ivar open: opens an environment with the number of descriptors, capabilities of the backends and their number.
    @ivar entrants: the proxies under test. The first repeat starts with the first one.
    """

    site: Site
    children: Children
    sizes: Sizes
    repeats: int
    results: Results
    say: Callable[[str], None] = field(repr=False)
    open: Callable[[int, str, int], AbstractContextManager[tuple[Site, Children]]] = openSite
    entrants: list[Entrant] = field(factory=list)

    def introduce(self, proxy: Proxy) -> str:
        """
        Let a proxy serve one client without TLS and one with TLS.

        @return: its version, and the version and cipher of TLS.
        @raise BenchmarkError: it fails.
        """
        with self._started([proxy]) as (meter,):
            meter.logins(1, tls=False)
            return f"{meter.running.version()}; {meter.cipher()}"

    def measure(self, group: str) -> None:
        """
        Measure all figures of a group. What fails for a proxy is left out for it.

        @raise BenchmarkError: a service does not start.
        """
        steps = {
            "login": self._login,
            "relay": self._relay,
            "ping": self._ping,
            "memory": self._memory,
            "latency": self._latency,
            "growth": self._growth,
            "worker": self._worker,
            "rate": self._rate,
            "site": self._site,
        }
        steps[group]()

    def _started(self, proxies: Sequence[Proxy]) -> AbstractContextManager[list[Meter]]:
        return started(proxies, self.site, self.children)

    def _note(self, repeat: int, repeats: int, measure: Measure, column: str, figure: float) -> None:
        self.results.add(measure, column, figure)
        self.say(f"{measure.table} {repeat}/{repeats}, {column}: {measure.title}: {figure:,.3f}")

    @contextmanager
    def _excused(self, what: str) -> Iterator[None]:
        """Report a failure; the run goes on without the figures of C{what}."""
        try:
            yield
        except BenchmarkError as error:
            self.results.omitted.append(" ".join(f"{what}: {error}".split()))
            self.say(f"failed: {self.results.omitted[-1]}")

    def _of(self, variant: str) -> list[Entrant]:
        return [entrant for entrant in self.entrants if entrant.variant == variant]

    @contextmanager
    def _entered(self, entrants: Sequence[Entrant]) -> Iterator[list[tuple[Entrant, Meter]]]:
        """Start the proxies of C{entrants}; yield those that start, with a meter for each."""
        entered: list[tuple[Entrant, Meter]] = []
        with ExitStack() as stack:
            for entrant in entrants:
                with self._excused(", ".join(filter(None, (entrant.column, entrant.variant)))):
                    (meter,) = stack.enter_context(self._started([entrant.proxy]))
                    entered.append((entrant, meter))
            yield entered

    def turns(self, group: str, take: Callable[[Meter, Measure], float], variants: bool = False) -> None:
        """
        In every repeat measure every figure of a group once for every proxy, one after the other. Each of them is as
        often before another as behind it. All are restarted after some repeats.

        @param variants: whether to measure mailgate's variants too.
        """
        measures = measuresOf(group, self.sizes)
        wanted = {measure.variant for measure in measures} if variants else {""}
        entrants = [entrant for entrant in self.entrants if entrant.variant in wanted]
        failed: set[tuple[str, str]] = set()
        for first in range(0, self.repeats, self.sizes.renew):
            with self._entered(entrants) as entered:
                for repeat in range(first, min(first + self.sizes.renew, self.repeats)):
                    for measure in measures:
                        for entrant, meter in entered if repeat % 2 == 0 else entered[::-1]:
                            this = entrant.column, measure.key
                            if entrant.variant != measure.variant or this in failed:
                                continue
                            failed.add(this)
                            with self._excused(f"{entrant.column}, {measure.table}, {measure.title}"):
                                self._note(repeat + 1, self.repeats, measure, entrant.column, take(meter, measure))
                                failed.remove(this)

    def _login(self) -> None:
        def take(meter: Meter, measure: Measure) -> float:
            kind = measure.key.split(".")[1]
            return meter.loginCPU(kind, self.sizes.logins if kind == "plain" else self.sizes.tlsLogins)

        self.turns("login", take, variants=True)

    def _relay(self) -> None:
        def take(meter: Meter, measure: Measure) -> float:
            return meter.relayCPU("tls" in measure.key, "big" in measure.key, self.sizes.relayed)

        self.turns("relay", take)

    def _ping(self) -> None:
        self.turns("ping", lambda meter, measure: meter.pingCPU("tls" in measure.key, self.sizes.pings))

    def _latency(self) -> None:
        rows = measuresOf("latency", self.sizes)
        repeats = self.fewerRepeats["latency"]
        with self._entered(self._of("")) as entered:
            for repeat in range(1, repeats + 1):
                for median, rare in zip(rows[::2], rows[1::2], strict=True):
                    for entrant, meter in entered if repeat % 2 else entered[::-1]:
                        with self._excused(f"{entrant.column}, latency, {median.title}"):
                            take = meter.loginLatencies if "login" in median.key else meter.fetchLatencies
                            figures = take("tls" in median.key, self.sizes.latencies)
                            for measure, part in ((median, 50), (rare, 99)):
                                self._note(repeat, repeats, measure, entrant.column, percentile(figures, part))

    @property
    def fewerRepeats(self) -> dict[str, int]:
        """
        The groups that are measured less often than the others, and how often: opening thousands of sessions takes
        long, and their memory hardly varies.
        """
        return {
            "memory": (self.repeats + 7) // 8,
            "latency": (self.repeats + 1) // 2,
            "growth": (self.repeats + 3) // 4,
            "rate": self.sizes.rateRepeats,
            "site": 1,
        }

    def _memory(self) -> None:
        rows = {measure.key: measure for measure in measuresOf("memory", self.sizes)}
        repeats = self.fewerRepeats["memory"]
        for repeat in range(1, repeats + 1):
            for tls, fetched in ((False, False), (False, True), (True, False), (True, True)):
                kind = f"memory.{'tls' if tls else 'plain'}.{'fetched' if fetched else 'idle'}"
                for entrant in self._of(""):
                    counts = [count for count in self.sizes.sessions if count <= entrant.proxy.mostSessions]
                    # A new one each time: memory of earlier sessions would hide that of new ones.
                    with self._excused(f"{entrant.column}, {kind}"), self._started([entrant.proxy]) as (meter,):
                        for count, figure in meter.memoryBySessions(tls, fetched, counts):
                            self._note(repeat, repeats, rows[f"{kind}.{count}"], entrant.column, figure)

    def _growth(self) -> None:
        rows = {measure.sessions or 0: measure for measure in measuresOf("growth", self.sizes)}
        repeats = self.fewerRepeats["growth"]
        for repeat in range(1, repeats + 1):
            for entrant in self._of(""):
                if entrant.column not in (OURS, BEFORE, THEIRS):
                    continue
                with self._excused(f"{entrant.column}, growth"), self._started([entrant.proxy]) as (meter,):
                    for count, figure in meter.growthOfLoginCPU(sorted(rows), self.sizes.growthLogins):
                        self._note(repeat, repeats, rows[count], entrant.column, figure)

    def _worker(self) -> None:
        rows = measuresOf("worker", self.sizes)
        for entrant in self._of("workers"):
            with self._excused(f"{entrant.column}, worker"), self._started([entrant.proxy]) as (meter,):
                for repeat in range(1, self.repeats + 1):
                    for measure, figure in zip(rows, meter.newWorker(), strict=True):
                        self._note(repeat, self.repeats, measure, entrant.column, figure)

    def _scaled(self, workers: int, site: Site, variant: str) -> list[Entrant]:
        """Those that are measured with several numbers of workers, with this one."""
        made = ((entrant, entrant.proxy.scaled(workers, site)) for entrant in self._of(variant))
        return [Entrant(entrant.column, proxy, variant) for entrant, proxy in made if proxy is not None]

    def _rate(self) -> None:
        with opened(self.children, _CLIENTS) as clients:
            for workers in (1, 2):
                for kind, tls, variant in KINDS:
                    with self._entered(self._scaled(workers, self.site, variant)) as entered:
                        rates = [(entrant, Rate(meter, clients, tls)) for entrant, meter in entered]
                        self._half(f"{kind}.{workers}", rates, self._saturate(f"{kind}.{workers}", rates, workers))

    def _saturate(self, key: str, rates: Sequence[tuple[Entrant, Rate]], workers: int) -> dict[str, Saturation]:
        """The saturation of each column."""
        rows = {measure.key: measure for measure in measuresOf("rate", self.sizes)}
        repeats = self.fewerRepeats["rate"]
        title = rows[f"rate.{key}"].title
        found: dict[str, list[Saturation]] = {}
        for repeat in range(1, repeats + 1):
            for entrant, rate in rates if repeat % 2 else rates[::-1]:
                with self._excused(f"{entrant.column}, logins per second, {title}"):
                    found.setdefault(entrant.column, []).append(rate.saturate(self.sizes.saturated))
                    for table, figure in found[entrant.column][-1].figures():
                        self._note(repeat, repeats, rows[f"{table}.{key}"], entrant.column, figure)
        medians = {column: Saturation.of(bursts) for column, bursts in found.items() if bursts}
        for column, one in medians.items():
            self.results.remarks += [f"{column}, {title}: {remark}" for remark in limit(one, workers)]
        return medians

    def _half(self, key: str, rates: Sequence[tuple[Entrant, Rate]], saturations: dict[str, Saturation]) -> None:
        """The latencies at half of the rate of each column's saturation."""
        rows = {measure.key: measure for measure in measuresOf("rate", self.sizes)}
        repeats = (self.fewerRepeats["rate"] + 1) // 2
        latencies: dict[str, list[float]] = {}
        for repeat in range(1, repeats + 1):
            for entrant, rate in rates:
                if entrant.column in saturations:
                    with self._excused(f"{entrant.column}, {rows[f'half.{key}.p50'].title}"):
                        figures = rate.paced(saturations[entrant.column].perSecond / 2, self.sizes.halfLogins)
                        latencies.setdefault(entrant.column, []).extend(figures)
                        for end, part in (("p50", 50), ("p99", 99)):
                            row = rows[f"half.{key}.{end}"]
                            self._note(repeat, repeats, row, entrant.column, percentile(figures, part))
        for column, figures in latencies.items():
            # All bursts together: one alone has too few logins.
            self._note(1, 1, rows[f"half.{key}.p999"], column, percentile(figures, 99.9))

    def _site(self) -> None:
        for one in self.sizes.siteSets:
            # Two backends: a backend needs a descriptor for each session, as a client does.
            with (
                self.open(self.site.openFiles, "", 2) as (site, children),
                self.open(self.site.openFiles, NEW, 1) as (after, _),
            ):
                for entrant in self._scaled(one.workers, site, ""):
                    with self._excused(f"{entrant.column}, sessions at the same time, {one.key}"):
                        self._hold(one, entrant, (site, after), children)

    def _hold(self, one: SiteSet, entrant: Entrant, sites: tuple[Site, Site], children: Children) -> None:
        rows = {measure.key: measure for measure in measuresOf("site", self.sizes, self.site.openFiles)}
        count = siteCount(one, self.sizes, self.site.openFiles)
        with (
            started([entrant.proxy], sites[0], children) as (meter,),
            opened(children, _CLIENTS) as clients,
        ):
            held = Held(meter, clients, one.tls, count, self.sizes)
            for part in (held.idle, held.busy, lambda: held.reload(sites[1])):
                for table, end, figure in part():
                    self._note(1, 1, rows[f"{table}.{one.key}.{end}"], entrant.column, figure)
