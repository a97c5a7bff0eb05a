# -*- test-case-name: bench.test.test_services -*-
"""
IMAP servers that speak TLS from the first byte on, for gateways that encrypt what they send to backends. All are one
process of its own, so that what it takes is not counted with the proxy: C{python -m bench.tlsbackend CERTIFICATE KEY
DESCRIPTOR...}, with a listening socket for each. They issue tickets, and take logins as L{bench.backend} does: every
name and password is right.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Sequence

from bench.backend import CAPABILITIES

__all__ = ["main"]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"* OK [CAPABILITY %s] ready\r\n" % CAPABILITIES)
    try:
        while line := await reader.readline():
            tag, verb, *_ = [*line.split(None, 2), b"", b""]
            untagged = {b"LOGOUT": b"* BYE see you\r\n", b"CAPABILITY": b"* CAPABILITY %s\r\n" % CAPABILITIES}
            writer.write(untagged.get(verb.upper(), b"") + b"%s OK done\r\n" % tag)
            if verb.upper() == b"LOGOUT":
                break
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _run(context: ssl.SSLContext, descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        await asyncio.start_server(_serve, sock=socket.socket(fileno=descriptor), ssl=context, backlog=4096)
    await asyncio.Event().wait()


def main(certificate: str, key: str, descriptors: Sequence[int]) -> None:
    """Serve on the listening sockets C{descriptors}, for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asyncio.run(_run(context, descriptors))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(descriptor) for descriptor in sys.argv[3:]])
