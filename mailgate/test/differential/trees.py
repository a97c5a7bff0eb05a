# -*- test-case-name: mailgate.test.differential -*-
"""
Plays conversations in a process that imports the gateway of a given tree, and these modules from this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from mailgate.test.differential.script import Script
from mailgate.test.integration.certificates import Authority

__all__ = ["HERE", "makeCertificates", "played", "playing"]

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
"""The tree of these modules."""

_START = """
import sys
tree, here, module = sys.argv[1:4]
sys.path.insert(0, tree)
import mailgate.test
assert mailgate.__file__.startswith(tree + "/"), mailgate.__file__
mailgate.test.__path__.insert(0, here + "/mailgate/test")
import mailgate.test.differential
del mailgate.test.__path__[0]
sys.argv[1:4] = []
from importlib import import_module
import_module(module).main()
"""


def makeCertificates(folder: str) -> None:
    """
    Write the certificates that L{mailgate.test.differential.player.Certificates} reads.

    @param folder: where.
    """
    pair = Authority(folder, "authority").sign("it")
    with open(os.path.join(folder, "server.pem"), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        for path in (pair.certificate, pair.key):
            with open(path) as read:
                file.write(read.read())


def playing(tree: str, scripts: Iterable[Script], module: str, *arguments: str) -> subprocess.Popen[str]:
    """
    Start the process that plays conversations in a tree.

    @param tree: the folder of the tree.
    @param scripts: the conversations.
    @param module: the module whose C{main} plays.
    @param arguments: its arguments.
    """
    # A file, so that neither process waits for the other one.
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115
    for script in scripts:
        file.write(json.dumps(script.toJSON()) + "\n")
    file.seek(0)
    command = [sys.executable, "-W", "ignore", "-c", _START, os.path.abspath(tree), HERE, module, *arguments]
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, stdin=file, stdout=output, text=True)
    process.stdout = output
    file.close()
    return process


def played(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """
    Wait for a process of L{playing}, and yield the transcripts.

    @param process: the process.
    @raise AssertionError: it failed.
    """
    status = process.wait()
    assert process.stdout is not None
    with process.stdout as output:
        output.seek(0)
        for line in output:
            yield json.loads(line)
    assert status == 0, f"the process that plays ended with status {status}"
