# -*- test-case-name: bench.test.test_options -*-
"""
C{python -m bench}: the flow of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone

from attrs import evolve

from bench.groups import Bench
from bench.measures import QUICK, Sizes
from bench.options import parser
from bench.otherproxies import Dovecot, HAProxy, Perdition
from bench.processes import BenchmarkError, raiseOpenFiles
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import VARIANTS, MailgateProxy, Nginx, Proxy
from bench.report import document
from bench.results import OURS, THEIRS, Results

_SPARE = 300
"""Descriptors of a process besides those of sessions."""


def _sizes(quick: bool, openFiles: int, results: Results) -> Sizes:
    """The amount of work. The number of sessions is limited by descriptors: a proxy uses two for each."""
    sizes = QUICK if quick else Sizes()
    most = (openFiles - _SPARE) // 2
    for count in sizes.sessions:
        if count > most:
            results.omitted.append(f"{count:,} sessions: the limit of open files, {openFiles:,}, lets {most:,} be held")
            say(results.omitted[-1])
    return evolve(sizes, sessions=tuple(count for count in sizes.sessions if count <= most))


def _invite(bench: Bench, name: str, proxy: Proxy) -> bool:
    """
    Try a proxy out.

    @return: whether it takes part.
    @raise BenchmarkError: mailgate or nginx does not work.
    """
    reason = proxy.find()
    try:
        if reason is None:
            bench.results.facts.append((name, bench.introduce(proxy)))
            return True
    except BenchmarkError as error:
        if name in (OURS, THEIRS):
            raise
        say(str(error))
        reason = "does not run here"
    bench.results.omitted.append(f"{name}: {reason}")
    say(f"left out, {bench.results.omitted[-1]}")
    return False


def _inviteAll(bench: Bench, arguments: argparse.Namespace) -> None:
    made: dict[str, Callable[[], Proxy]] = {
        THEIRS: lambda: Nginx(arguments.nginx),
        OURS: lambda: MailgateProxy(arguments.mailgate),
        "haproxy": HAProxy,
        "dovecot": Dovecot,
        "perdition": Perdition,
    }
    for name in arguments.proxies:
        proxy = made[name]()
        if _invite(bench, name, proxy):
            bench.proxies.append(proxy)
            bench.results.proxies.append(proxy.name)
            if proxy.note:
                bench.results.notes[proxy.name] = proxy.note
    if OURS in bench.results.proxies and {"login", "worker"}.intersection(arguments.only):
        _inviteVariants(bench, arguments.mailgate)


def _inviteVariants(bench: Bench, source: str) -> None:
    for variant in filter(None, VARIANTS):
        proxy = MailgateProxy(source, variant)
        reason = proxy.find()
        if reason is None:
            bench.variants[variant] = proxy
        else:
            bench.results.omitted.append(f"{proxy.name}: {reason}")
            say(f"left out, {bench.results.omitted[-1]}")


def _measure(arguments: argparse.Namespace) -> Results:
    openFiles = raiseOpenFiles()
    repeats = 1 if arguments.quick else arguments.repeats
    facts = [*machine(), ("revision", revision(arguments.mailgate))]
    results = Results(datetime.now(timezone.utc).strftime("%Y-%m-%d"), facts=facts)
    sizes = _sizes(arguments.quick, openFiles, results)
    with openSite(openFiles) as (site, children):
        bench = Bench(site, children, sizes, repeats, results, say)
        _inviteAll(bench, arguments)
        fewer = [f", {group} {times}" for group, times in bench.fewerRepeats.items() if group in arguments.only]
        results.facts.append(("repeats", f"{repeats}{''.join(fewer)}"))
        if arguments.quick:
            results.facts.append(("caution", "little work was done, as --quick was asked for: the figures mean little"))
        for group in arguments.only:
            bench.measure(group)
    return results


def _write(results: Results, folder: str, plots: bool) -> None:
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, results.started)
    with open(f"{base}.json", "w", encoding="utf-8") as stream:
        json.dump(results.asData(), stream, indent=1)
        stream.write("\n")
    with open(f"{base}.rst", "w", encoding="utf-8") as stream:
        stream.write(document(results))
    if plots:
        from bench.plots import draw

        draw(results, base)


def _canPlot() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> int:
    """Measure, print and write the results; return the exit status."""
    arguments = parser().parse_args()
    if arguments.plots and not _canPlot():
        say("plots take matplotlib, which is not installed: pip install mailgate[bench], or --no-plots")
        return 2

    def work() -> None:
        results = _measure(arguments)
        print(document(results))
        _write(results, arguments.output, arguments.plots)

    return conclude(work)


if __name__ == "__main__":
    sys.exit(main())
