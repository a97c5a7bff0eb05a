# -*- test-case-name: mailgate.test.differential.test_recorded -*-
"""
The recorded conversations, with their transcripts.

C{python -m mailgate.test.differential.recorded FOLDER} records them anew with the gateway in FOLDER. Only a change of
what is sent or logged is a reason for that; C{zdiff} shows what it changes.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from mailgate.test.differential.generate import scripts
from mailgate.test.differential.script import Script
from mailgate.test.differential.trees import makeCertificates, played, playing

__all__ = ["FILE", "INPROCESS", "play", "recorded"]

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded", "conversations.jsonl.gz")
"""A conversation and its transcript a line."""

INPROCESS = "mailgate.test.differential.inprocess"

SEED, COUNT = 1998, 300


def play(tree: str, chosen: Iterable[Script]) -> dict[str, dict[str, Any]]:
    """
    Return the transcripts of conversations by name.

    @param tree: the folder of the tree whose gateway is used.
    @param chosen: the conversations.
    """
    with tempfile.TemporaryDirectory() as folder:
        makeCertificates(folder)
        return {told["name"]: told for told in played(playing(tree, chosen, INPROCESS, folder))}


def recorded() -> Iterator[tuple[Script, dict[str, Any]]]:
    """Yield the recorded conversations and their transcripts."""
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        for line in file:
            written = json.loads(line)
            yield Script.fromJSON(written["script"]), written["transcript"]


def main(tree: str) -> None:
    """
    Record.

    @param tree: the folder of the tree whose gateway is used.
    """
    chosen = list(scripts(SEED, COUNT, "recorded-"))
    transcripts = play(tree, chosen)
    lines = [
        json.dumps({"script": script.toJSON(), "transcript": transcripts[script.name]}, sort_keys=True) + "\n"
        for script in chosen
    ]
    with open(FILE, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("".join(lines).encode())


if __name__ == "__main__":
    main(sys.argv[1])
