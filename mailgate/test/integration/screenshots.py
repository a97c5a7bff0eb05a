# -*- test-case-name: mailgate.test.integration.test_screenshots -*-
"""
Makes the pictures of the live page and of C{mailgate top} in docs/images: C{python -m
mailgate.test.integration.screenshots}.

They show a gateway under load, with a server that is down, one that drains, a service that refuses some users and is
slow for others, and clients at many addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import math
import os
import random
import shlex
import ssl
import sys
import threading
import time

from mailgate.test.integration.authservice import Answer, AuthService, Question
from mailgate.test.integration.browser import Browser
from mailgate.test.integration.pagesite import PASSWORD, TOKENS, PageSite
from mailgate.test.integration.terminal import Terminal
from mailgate.test.integration.terminalpage import asPage
from mailgate.test.integration.webdriver import ENTER
from mailgate.test.support.documents import ROOT

__all__ = ["main"]

FOLDER = os.path.join(ROOT, "docs", "images")

SIZES = {"wide": (1280, 1900), "narrow": (390, 1300)}
TERMINAL = (112, 26)
"""Columns and lines."""

COLOURS = 128
"""So many make a picture a third as large, and look the same."""

_TOP = [sys.executable, "-c", "import sys; from mailgate.cli.main import main; sys.exit(main())", "top"]

_NAMES = ("anna", "bert", "carla", "dora", "emil", "fay", "gus", "hana", "ivan", "jane", "kim", "leo", "mara", "nils")
_FAMILIES = ("abel", "brandt", "costa", "diaz", "ek", "fox", "green", "hill", "ito", "jung", "kaya", "lind", "moreau")
_DOMAINS = ("example.org", "example.com", "example.net")
_MOST = 400
"""The sessions that stay."""

_MESSAGE = "\n".join(["=" * 72] * 250)
"""What they fetch now and then."""


class Load:
    """
    Clients of many users, until L{stop}. Their number rises and falls.

    @param ports: the ports of the gateway, by protocol.
    """

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._isOver = False
        self._staying = 0
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        # Pictures made twice should not differ more than they must.
        self._random = random.Random(1)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all clients."""
        self._isOver = True
        self._thread.join(20)

    async def _run(self) -> None:
        clients: set[asyncio.Task[None]] = set()
        begun = time.monotonic()
        while not self._isOver:
            client = asyncio.create_task(self._client())
            clients.add(client)
            client.add_done_callback(clients.discard)
            rate = 9 + 5 * math.sin((time.monotonic() - begun) / 13)
            await asyncio.sleep(self._random.expovariate(rate))
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self) -> None:
        draw = self._random
        protocol = draw.choices(("imap", "pop3", "smtp"), (82, 11, 7))[0]
        name = "imaps" if protocol == "imap" and draw.random() < 0.7 else protocol
        isSlow = draw.random() < 0.02
        person = draw.choice(_NAMES) + "." + draw.choice(_FAMILIES)
        user = f"{person}{'+slow' if isSlow else ''}@{draw.choice(_DOMAINS)}"
        password = PASSWORD if draw.random() < 0.97 else "wrong"
        # All of 127.0.0.0/8 is this computer.
        source = f"127.{draw.randrange(16, 24)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"
        with contextlib.suppress(OSError, EOFError):
            streams = await asyncio.open_connection(
                "127.0.0.1", self._ports[name], local_addr=(source, 0), ssl=self._tls if name == "imaps" else None
            )
            with contextlib.closing(streams[1]):
                await _logIn(protocol, user, password, *streams)
                stays = protocol == "imap" and self._staying < _MOST and draw.random() < 0.5
                self._staying += stays
                while stays:
                    await _send(b"c FETCH 1 BODY[]", *streams)
                    await asyncio.sleep(draw.uniform(3, 20))
                await asyncio.sleep(draw.expovariate(0.5))


async def _logIn(
    protocol: str, user: str, password: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    response = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    lines = {
        "imap": (f"a LOGIN {user} {password}", "b SELECT INBOX"),
        "pop3": (f"USER {user}", f"PASS {password}", "STAT"),
        "smtp": ("EHLO client.example", f"AUTH PLAIN {response}", "NOOP"),
    }
    await reader.readline()
    for line in lines[protocol]:
        await _send(line.encode(), reader, writer)


async def _send(line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a command, and read all lines of its reply."""
    writer.write(line + b"\r\n")
    answer = await reader.readline()
    while answer.startswith((b"*", b"250-", b"=")):
        answer = await reader.readline()
    if not answer:
        raise EOFError


def _judge(service: AuthService, question: Question) -> Answer:
    """Answer after some milliseconds; for users with the mark slow after twenty seconds."""
    isSlow = "+slow@" in question["Auth-User"]
    service.stopping.wait(20 if isSlow else random.expovariate(80))
    if question["Auth-Pass"] == PASSWORD:
        return Answer({"Auth-Status": "OK"})
    return Answer({"Auth-Status": "Invalid login or password"})


def _write(name: str, picture: bytes) -> None:
    # The extra bench brings it.
    from PIL import Image

    path = os.path.join(FOLDER, f"{name}.png")
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{os.path.relpath(path, ROOT)}: {os.path.getsize(path):,} bytes")


def photographPage(site: PageSite, browser: Browser) -> None:
    """Make the pictures of the page."""
    browser.renew()
    browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
    browser.go(f"{site.origin}/")
    browser.wait("document.querySelector('#access').open")
    browser.type("#access [name=token]", TOKENS["admin"] + ENTER)
    browser.wait("document.querySelector('#numbers dd')")
    for name, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            browser.look(width, height, scheme)
            browser.run("document.activeElement.blur(); scrollTo(0, document.body.scrollHeight)")
            browser.wait("document.querySelectorAll('#sessions tbody tr').length > 10")
            browser.run("scrollTo(0, 0)")
            # uPlot draws anew in the next frames.
            browser.run("return new Promise(done => setTimeout(done, 1500))")
            _write(f"page-{name}-{scheme}", browser.picture())


def photographTerminal(site: PageSite, browser: Browser) -> None:
    """Make the picture of C{mailgate top}."""
    terminal = Terminal(site.folder, *TERMINAL)
    try:
        terminal.type(shlex.join([*_TOP, *site.options()]))
        terminal.waitFor("127.0.10.1")
        time.sleep(3)
        path = os.path.join(site.folder, "terminal.html")
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(asPage(terminal.coloured()))
    finally:
        terminal.close()
    browser.renew()
    browser.go(f"file://{path}")
    box = browser.run(
        "const box = document.querySelector('pre').getBoundingClientRect(); return [box.width, box.height]"
    )
    browser.look(*(math.ceil(each) for each in box))
    _write("top", browser.picture())


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(prog="python -m mailgate.test.integration.screenshots", description=__doc__)
    parser.add_argument("--seconds", type=int, default=240, metavar="N", help="the time under load before the pictures")
    options = parser.parse_args()
    os.makedirs(FOLDER, exist_ok=True)
    hosts = [f"127.0.10.{number}" for number in range(1, 5)]
    site = PageSite(hosts, "worker_processes = 2\ngateway_name = g1\n", _judge).start()
    for server in site.servers.values():
        server.reply({"FETCH": f"* 1 FETCH\n{_MESSAGE}\nTAG OK done"})
    browser = Browser()
    load = Load(site.ports)
    try:
        time.sleep(0.6 * options.seconds)
        site.ask(f"backends/{site.at('C')}/drain", {})
        time.sleep(0.4 * options.seconds - 5)
        site.lose("D")
        time.sleep(5)
        photographPage(site, browser)
        photographTerminal(site, browser)
    finally:
        load.stop()
        browser.stop()
        site.stop()


if __name__ == "__main__":
    main()
