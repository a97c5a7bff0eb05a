# -*- test-case-name: bench.test.test_main -*-
"""
C{python -m bench}: the flow of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from attrs import evolve

from bench.groups import Bench, Entrant
from bench.measures import QUICK, Sizes
from bench.options import parser
from bench.otherproxies import Dovecot, HAProxy, Nginx, Perdition
from bench.processes import BenchmarkError, raiseOpenFiles
from bench.procfs import Processors, processor
from bench.program import caption, conclude, machine, openSite, revision, say
from bench.proxies import VARIANTS, MailgateProxy, Proxy
from bench.readme import SET
from bench.report import document
from bench.results import OURS, THEIRS, Results
from bench.spread import BEFORE

__all__ = ["machineName", "main", "measureAll", "write"]

_SPARE = 300
"""Descriptors of a process besides those of sessions."""


def machineName(model: str) -> str:
    """A short name of a machine for names of files, from the name of its processor."""
    kept = re.sub(r"\(.*?\)|@.*|\b(processor|cpu|core|\d+-core)\b", " ", model.partition(" (family")[0].lower())
    return "-".join(re.findall(r"[a-z0-9]+", kept)) or "unknown"


def _sizes(arguments: argparse.Namespace, openFiles: int, results: Results) -> Sizes:
    """The amount of work. The number of sessions is limited by descriptors: a proxy uses two for each."""
    sizes = QUICK if arguments.quick else Sizes()
    most = (openFiles - _SPARE) // 2
    for count in sizes.sessions:
        if count > most:
            results.omitted.append(f"{count:,} sessions: the limit of open files, {openFiles:,}, lets {most:,} be held")
            say(results.omitted[-1])
    return evolve(
        sizes,
        sessions=tuple(count for count in sizes.sessions if count <= most),
        site=arguments.sessions or sizes.site,
    )


def _invite(bench: Bench, name: str, proxy: Proxy) -> bool:
    """
    Try a proxy out.

    @return: whether it takes part.
    @raise BenchmarkError: mailgate or nginx does not work, or this mailgate does not know an option.
    """
    reason = proxy.find()
    if reason and name == OURS:
        raise BenchmarkError(reason)
    try:
        if reason is None:
            bench.results.facts.append((name, bench.introduce(proxy)))
            return True
    except BenchmarkError as error:
        if name in (OURS, BEFORE, THEIRS):
            raise
        say(str(error))
        reason = "does not run here"
    bench.results.omitted.append(f"{name}: {reason}")
    say(f"left out, {bench.results.omitted[-1]}")
    return False


def _mailgate(arguments: argparse.Namespace, name: str, variant: str = "") -> MailgateProxy:
    if name == BEFORE:
        return MailgateProxy(arguments.before, variant)
    way = VARIANTS[variant].withLines(arguments.process, arguments.more)
    return MailgateProxy(arguments.mailgate, variant, way)


def _columns(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Proxy]]]:
    """The names of the proxies in facts, in the order of the columns, and how to make them."""
    made: dict[str, Callable[[], Proxy]] = {
        THEIRS: lambda: Nginx(arguments.nginx),
        OURS: lambda: _mailgate(arguments, OURS),
        "haproxy": HAProxy,
        "dovecot": Dovecot,
        "perdition": Perdition,
    }
    for name in arguments.proxies:
        yield name, made[name]
        if name == OURS and arguments.before:
            yield BEFORE, lambda: _mailgate(arguments, BEFORE)


def _inviteAll(bench: Bench, arguments: argparse.Namespace) -> None:
    for name, make in _columns(arguments):
        proxy = make()
        if not _invite(bench, name, proxy):
            continue
        isMailgate = isinstance(proxy, MailgateProxy)
        column = name if isMailgate else proxy.name
        bench.entrants.append(Entrant(column, proxy))
        bench.results.proxies.append(column)
        if proxy.note:
            bench.results.notes[column] = proxy.note
        if isMailgate and {"login", "worker", "rate"}.intersection(arguments.only):
            _inviteVariants(bench, name, arguments)


def _inviteVariants(bench: Bench, column: str, arguments: argparse.Namespace) -> None:
    for variant in filter(None, VARIANTS):
        proxy = _mailgate(arguments, column, variant)
        reason = proxy.find()
        if reason is None:
            bench.entrants.append(Entrant(column, proxy, variant))
        else:
            bench.results.omitted.append(f"{column}, {variant}: {reason}")
            say(f"left out, {bench.results.omitted[-1]}")


def measureAll(bench: Bench, groups: list[str], save: Callable[[], None]) -> bool:
    """
    Measure C{groups}, and save after each. A group that fails is left out.

    @return: whether all of them were measured.
    """
    done = True
    for group in groups:
        began = time.monotonic()
        try:
            bench.measure(group)
        except Exception as error:
            # A run takes long: no fault of one group may cost the figures of the others.
            say(traceback.format_exc())
            bench.results.omitted.append(" ".join(f"{group}: {error or type(error).__name__}".split()))
            done = False
        say(f"{group}: {time.monotonic() - began:.0f} s")
        save()
    return done


def _measure(arguments: argparse.Namespace, results: Results, save: Callable[[], None]) -> None:
    openFiles = raiseOpenFiles()
    repeats = 1 if arguments.quick else arguments.repeats
    results.facts.append(("descriptors", f"{openFiles:,} of a process"))
    sources = {OURS: arguments.mailgate, BEFORE: arguments.before}
    results.facts += [(f"revision of {name}", revision(source)) for name, source in sources.items() if source]
    if arguments.more or arguments.process:
        results.facts.append((SET, "; ".join([*arguments.process, *arguments.more])))
    sizes = _sizes(arguments, openFiles, results)
    with openSite(openFiles) as (site, children):
        bench = Bench(site, children, sizes, repeats, results, say)
        _inviteAll(bench, arguments)
        fewer = [f", {group} {times}" for group, times in bench.fewerRepeats.items() if group in arguments.only]
        results.facts.append(("repeats", f"{repeats}{''.join(fewer)}"))
        if arguments.quick:
            results.facts.append(("caution", "little work was done, as --quick was asked for: the figures mean little"))
        before, began, load = Processors.now(), time.monotonic(), os.getloadavg()[0]
        done = measureAll(bench, arguments.only, save)
    seconds = time.monotonic() - began
    stolen = (Processors.now().stolen - before.stolen) / seconds / (os.cpu_count() or 1)
    figures = f"{load:.1f} at the start, {stolen:.1%} of the processors' time taken by the hypervisor"
    results.facts.append(("load", f"{figures}; {seconds / 60:.0f} minutes"))
    if not done:
        raise BenchmarkError("some groups failed; the report has the others")


def write(results: Results, base: str, plots: bool = False) -> None:
    """
    Write the figures and the report into files.

    @param base: the path, without the end of the name.
    @param plots: whether to make the plots, too.
    """
    os.makedirs(os.path.dirname(base), exist_ok=True)
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
    facts = machine()
    results = Results(datetime.now(timezone.utc).strftime("%Y-%m-%d"), facts=facts, machine=caption(facts))
    base = os.path.join(
        os.path.abspath(arguments.output), f"{results.started}-{arguments.name or machineName(processor()[0])}"
    )

    def work() -> None:
        try:
            _measure(arguments, results, lambda: write(results, base))
        finally:
            if results.measures:
                print(document(results))
                write(results, base, arguments.plots)

    return conclude(work)


if __name__ == "__main__":
    sys.exit(main())
