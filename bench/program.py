# -*- test-case-name: bench.test.test_program -*-
"""
The common parts of all programs of the benchmark: the services behind the proxies, the facts at the head of a report,
and the end.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.certificate import makeCertificate
from bench.processes import BenchmarkError, Children
from bench.procfs import processor
from bench.proxies import TLS_BACKENDS, Site

__all__ = ["caption", "conclude", "machine", "openSite", "publish", "revision", "say"]


def say(text: str) -> None:
    """Print progress, separately from the report."""
    print(text, file=sys.stderr, flush=True)


def revision(source: str) -> str:
    """git's name for the tree in the folder C{source}."""
    command = ["git", "-C", source, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> list[tuple[str, str]]:
    """Names and texts of facts about the machine. The first one tells it from others."""
    model, virtual = processor()
    kind = "virtual machine" if virtual else "no virtual machine"
    return [
        ("machine", f"{model}, {os.cpu_count()} cores, {kind}"),
        ("kernel", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]


def caption(facts: Sequence[tuple[str, str]]) -> str:
    """The name of the machine in every table, from its facts."""
    (_, name), (_, kernel), *_ = facts
    return f"{name}, {kernel.partition(',')[0]}"


@contextmanager
def openSite(openFiles: int, capabilities: str = "", backends: int = 1) -> Iterator[tuple[Site, Children]]:
    """
    Backends, a group of backends that speak TLS, an authentication service, and a folder for all files.

    @param capabilities: the capabilities in the backends' greeting, if not L{bench.backend.CAPABILITIES}.
    @param backends: the number of plain backends. The authentication service names them in turns. Each is a process
        that needs a descriptor for each session.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Children(folder) as children:
        os.chmod(folder, 0o711)  # some proxies do not stay root
        with ExitStack() as stack:
            auth, *plain = (
                stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096)) for _ in range(1 + backends)
            )
            ports = tuple(listener.getsockname()[1] for listener in plain)
            greeted = (capabilities,) if capabilities else ()
            for listener in plain:
                descriptor = listener.fileno()
                children.startModule("bench.backend", str(descriptor), *greeted, descriptors=[descriptor])
            descriptor, authPort = auth.fileno(), auth.getsockname()[1]
            children.startModule("bench.authservice", str(descriptor), *map(str, ports), descriptors=[descriptor])
        certificate, key, both = makeCertificate(folder)
        with ExitStack() as stack:
            listeners = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096)) for _ in range(TLS_BACKENDS)
            ]
            tlsPorts = tuple(listener.getsockname()[1] for listener in listeners)
            descriptors = [listener.fileno() for listener in listeners]
            children.startModule("bench.tlsbackend", certificate, key, *map(str, descriptors), descriptors=descriptors)
        yield Site(folder, ports[0], authPort, certificate, key, both, openFiles, tlsPorts, ports[1:]), children


def publish(report: str, output: str | None) -> None:
    """
    Print a report, and write it.

    @param report: the report.
    @param output: the path of a file for it, or L{None}.
    """
    print(report)
    if output:
        with open(output, "w", encoding="utf-8") as stream:
            stream.write(f"{report}\n")


def conclude(work: Callable[[], None]) -> int:
    """Run C{work}; return the exit status."""
    # So that child processes are ended then, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        work()
    except BenchmarkError as error:
        say(f"given up: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    return 0
