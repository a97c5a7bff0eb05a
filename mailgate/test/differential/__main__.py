"""
C{python -m mailgate.test.differential --before FOLDER --after FOLDER}: compare two trees.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mailgate.test.differential.compare import differences, report
from mailgate.test.differential.generate import scripts
from mailgate.test.differential.recorded import INPROCESS, recorded
from mailgate.test.differential.script import Script
from mailgate.test.differential.trees import HERE, makeCertificates, played, playing

_DIRECTIVE = re.compile(r"\] (\w+)")
"""Matches the directives in the message of a refused configuration."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mailgate.test.differential",
        description="Play conversations through two trees, and show where they differ.",
    )
    parser.add_argument("--before", metavar="FOLDER", required=True, help="the tree that is known to be right")
    parser.add_argument("--after", metavar="FOLDER", default=HERE, help="the other tree (this one)")
    count = "how many random conversations besides the recorded ones (1700)"
    parser.add_argument("--count", type=int, default=1700, help=count)
    parser.add_argument("--seed", type=int, default=1, help="other conversations for another number (1)")
    parser.add_argument("--only", metavar="NAME", help="play this conversation only, and print it")
    parser.add_argument("--show", type=int, default=20, help="the most differing conversations to show (20)")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> Iterator[Script]:
    known = (script for script, _ in recorded())
    for script in chain(known, scripts(options.seed, options.count)):
        if options.only in (None, script.name):
            yield script


def _bothPlayed(options: argparse.Namespace, chosen: list[Script]) -> list[dict[str, Any]]:
    """Return the transcripts of both trees, by the names of the conversations."""
    with tempfile.TemporaryDirectory() as folder:
        makeCertificates(folder)
        trees = [playing(tree, chosen, INPROCESS, folder) for tree in (options.before, options.after)]
        return [{told["name"]: told for told in played(tree)} for tree in trees]


def _unknown(before: dict[str, dict[str, Any]]) -> Counter[str]:
    """The directives for which the tree before refuses configurations, and how many."""
    found: Counter[str] = Counter()
    for told in before.values():
        found.update(set(_DIRECTIVE.findall(told.get("refused", ""))))
    return found


def main() -> int:
    """Compare, and return the exit status: 1 if anything differs, or nothing could be compared."""
    options = _options()
    chosen = list(_chosen(options))
    before, after = _bothPlayed(options, chosen)
    # It is older than a directive.
    refused = {name for name, told in before.items() if "refused" in told}
    chosen = [script for script in chosen if script.name not in refused]
    # Another process may have connected to a port of ours.
    again = [script for script in chosen if list(differences(before[script.name], after[script.name]))]
    if again:
        for known, new in zip((before, after), _bothPlayed(options, again), strict=True):
            known.update(new)
    differing = 0
    kinds: Counter[str] = Counter()
    for script in chosen:
        found = list(differences(before[script.name], after[script.name]))
        if options.only:
            print(json.dumps(script.toJSON(), indent=1))
            for step, then, now in zip(
                [*script.steps, ["end"]], before[script.name]["steps"], after[script.name]["steps"], strict=True
            ):
                print(step, json.dumps(then, indent=1), "" if then == now else "AFTER: " + json.dumps(now, indent=1))
        if found:
            differing += 1
            kinds.update({wire.partition(".")[0] for _, wire, _, _ in found})
            if differing <= options.show:
                print(report(script, found))
    errors = sum("error" in told for told in before.values())
    if refused:
        print(f"left out {len(refused)}, whose configuration the tree before refuses: {dict(_unknown(before))}")
    print(f"{len(chosen)} conversations, {differing} differ ({dict(kinds)}); {errors} could not be played before")
    return 1 if differing or errors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
