# -*- test-case-name: bench.test.test_measuring -*-
"""
The order of one run: which proxies are started for each group of measures, and how they take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from attrs import define, field

from bench.measures import Measure, Sizes, measuresOf
from bench.measuring import Meter, percentile, started
from bench.processes import Children
from bench.proxies import Proxy, Site
from bench.results import OURS, THEIRS, Results

__all__ = ["Bench"]


@define
class Bench:
    """
    One run.

    @ivar proxies: the proxies under test. The first repeat starts with the first one.
    @ivar variants: mailgate in its variants, by their names.
    @ivar say: is called with a line for each figure.
    """

    site: Site
    children: Children
    sizes: Sizes
    repeats: int
    results: Results
    say: Callable[[str], None] = field(repr=False)
    proxies: list[Proxy] = field(factory=list)
    variants: dict[str, Proxy] = field(factory=dict)

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
        Measure all figures of a group.

        @raise BenchmarkError: something failed, so that no figure can be trusted.
        """
        steps = {
            "login": self._login,
            "relay": self._relay,
            "ping": self._ping,
            "memory": self._memory,
            "latency": self._latency,
            "growth": self._growth,
            "worker": self._worker,
        }
        steps[group]()

    def _started(self, proxies: Sequence[Proxy]) -> AbstractContextManager[list[Meter]]:
        return started(proxies, self.site, self.children)

    def _note(self, repeat: int, repeats: int, measure: Measure, name: str, figure: float) -> None:
        proxy = OURS if measure.variant else name
        self.results.add(measure, proxy, figure)
        self.say(f"{measure.group} {repeat}/{repeats}, {name}: {measure.title}: {figure:,.3f}")

    def turns(self, group: str, take: Callable[[Meter, Measure], float], variants: bool = False) -> None:
        """
        In every repeat measure every figure of a group once for every proxy, one after the other.

        @param variants: whether to measure mailgate's variants too.
        """
        wanted = {measure.variant for measure in measuresOf(group, self.sizes)} if variants else set()
        proxies = [*self.proxies, *(proxy for variant, proxy in self.variants.items() if variant in wanted)]
        named = {proxy.name: variant for variant, proxy in self.variants.items()}
        with self._started(proxies) as meters:
            for repeat in range(1, self.repeats + 1):
                for measure in measuresOf(group, self.sizes):
                    for meter in meters:
                        if named.get(meter.name, "") == measure.variant:
                            self._note(repeat, self.repeats, measure, meter.name, take(meter, measure))

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
        with self._started(self.proxies) as meters:
            for repeat in range(1, self.repeats + 1):
                for median, rare in zip(rows[::2], rows[1::2], strict=True):
                    for meter in meters:
                        take = meter.loginLatencies if "login" in median.key else meter.fetchLatencies
                        figures = take("tls" in median.key, self.sizes.latencies)
                        for measure, part in ((median, 50), (rare, 99)):
                            self._note(repeat, self.repeats, measure, meter.name, percentile(figures, part))

    @property
    def fewerRepeats(self) -> dict[str, int]:
        """
        The groups that are measured less often than the others, and how often: opening thousands of sessions takes
        long, and their memory hardly varies.
        """
        return {"memory": (self.repeats + 4) // 5, "growth": (self.repeats + 1) // 2}

    def _memory(self) -> None:
        rows = {measure.key: measure for measure in measuresOf("memory", self.sizes)}
        repeats = self.fewerRepeats["memory"]
        for repeat in range(1, repeats + 1):
            for tls, fetched in ((False, False), (False, True), (True, False), (True, True)):
                kind = f"memory.{'tls' if tls else 'plain'}.{'fetched' if fetched else 'idle'}"
                for proxy in self.proxies:
                    counts = [count for count in self.sizes.sessions if count <= proxy.mostSessions]
                    # A new one each time: memory of earlier sessions would hide that of new ones.
                    with self._started([proxy]) as (meter,):
                        for count, figure in meter.memoryBySessions(tls, fetched, counts):
                            self._note(repeat, repeats, rows[f"{kind}.{count}"], proxy.name, figure)

    def _growth(self) -> None:
        rows = {measure.sessions or 0: measure for measure in measuresOf("growth", self.sizes)}
        repeats = self.fewerRepeats["growth"]
        for repeat in range(1, repeats + 1):
            for proxy in self.proxies:
                if proxy.name in (OURS, THEIRS):
                    with self._started([proxy]) as (meter,):
                        for count, figure in meter.growthOfLoginCPU(sorted(rows), self.sizes.growthLogins):
                            self._note(repeat, repeats, rows[count], proxy.name, figure)

    def _worker(self) -> None:
        proxy = self.variants.get("workers")
        if proxy is None:
            return
        rows = measuresOf("worker", self.sizes)
        with self._started([proxy]) as (meter,):
            for repeat in range(1, self.repeats + 1):
                for measure, figure in zip(rows, meter.newWorker(), strict=True):
                    self._note(repeat, self.repeats, measure, OURS, figure)
