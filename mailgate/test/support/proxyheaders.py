"""
Headers of the PROXY protocol, as load balancers send them.
"""

from __future__ import annotations

import struct

from mailgate.login import ProxiedAddresses
from mailgate.net.proxyprotocol import crc32c

__all__ = [
    "BINARY4",
    "BINARY6",
    "ENDS4",
    "ENDS6",
    "IPV4",
    "IPV6",
    "SIGNATURE",
    "TEXT4",
    "TEXT6",
    "WITH_TLVS",
    "binary",
    "checked",
]

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
ENDS4 = b"\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\xbb\x03\xe1"
ENDS6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x20\x01\x0d\xb8" + bytes(11) + b"\x01\xff\xff\x00\x00"
IPV4 = ProxiedAddresses("192.0.2.7", 40123, "198.51.100.1", 993)
IPV6 = ProxiedAddresses("2001:db8::7", 65535, "2001:db8::1", 0)
TEXT4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 993\r\n"
TEXT6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n"


def binary(rest: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def checked(header: bytes) -> bytes:
    """Return C{header} with its checksum in place of the four zero bytes at its end."""
    return header[:-4] + struct.pack("!I", crc32c(header))


BINARY4 = binary(ENDS4)
BINARY6 = binary(ENDS6, family=0x21)
WITH_TLVS = checked(binary(ENDS4 + b"\x02\x00\x0bexample.com\x04\x00\x00\x03\x00\x04" + bytes(4)))
