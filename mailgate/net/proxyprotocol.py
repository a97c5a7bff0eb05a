# -*- test-case-name: mailgate.test.net.test_proxyprotocol -*-
"""
The PROXY protocol, versions 1 and 2 (HAProxy's C{proxy-protocol.txt}): parses headers from pieces of any size, and
makes headers. It does no I/O.

The parser is stricter than nginx's mail module: addresses must match the family that the header names, a checksum must
be correct, and values that the specification does not assign are refused.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from functools import cache

from attrs import frozen

from mailgate.login import Client, ProxiedAddresses, TLSDetails, TLSState, fitForWire
from mailgate.net.networks import unmapped

__all__ = ["LONGEST_TEXT", "MOST_BYTES", "Header", "HeaderError", "HeaderParser", "crc32c", "headerFor", "namesClient"]

LONGEST_TEXT = 107
"""The most bytes of a header of version 1 with its line end, by the specification."""

MOST_BYTES = 4096
"""The most bytes after the first 16 of a header of version 2, as in nginx."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
"""The length of the first part of version 2, which contains the length of the rest."""

_SHOWN_OF_OTHERS = 8
"""Enough bytes to recognize a client at the wrong port, which sends C{EHLO} or a TLS handshake."""

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21

_ADDRESS_SIZES = {1: 12, 2: 36, 3: 216}
"""The length of both addresses and ports, by the address family (upper half of the byte)."""

_ALPN, _AUTHORITY, _CHECKSUM, _SSL = 0x01, 0x02, 0x03, 0x20
_VERSION, _COMMON_NAME, _CIPHER, _SIGNATURE_ALGORITHM, _KEY_ALGORITHM = 0x21, 0x22, 0x23, 0x24, 0x25
_OVER_TLS, _CERTIFICATE_SHOWN, _CERTIFICATE_IN_SESSION = 0x01, 0x02, 0x04
_CHECKSUM_TLV = struct.pack("!BH", _CHECKSUM, 4)
_NOT_VERIFIED = 1

_LONGEST_NAME = 255
"""The most bytes of a text in a TLV. Longer texts are left out."""


class HeaderError(Exception):
    """The received bytes are not a valid header. C{str} says why, in words for the log with the header as subject."""


@frozen
class Header:
    """
    A complete header.

    @ivar addresses: the addresses in the header; L{None} if it has none (C{UNKNOWN}, C{LOCAL}, other transports than
        TCP).
    @ivar rest: the bytes received after the header.
    """

    addresses: ProxiedAddresses | None
    rest: bytes


class HeaderParser:
    """Parses one header from pieces of any size. It keeps at most the longest header and the last piece."""

    def __init__(self) -> None:
        self._received = b""

    @property
    def shown(self) -> bytes:
        """
        The beginning of the received bytes, for the log. It is short, as what follows a header, or comes without one,
        may hold a password.
        """
        if self._received.startswith(b"PROXY "):
            return self._received.partition(b"\n")[0][:LONGEST_TEXT]
        return self._received[: _FIXED if self._received.startswith(_SIGNATURE) else _SHOWN_OF_OTHERS]

    def feed(self, data: bytes) -> Header | None:
        """
        Add received bytes.

        @param data: the bytes.
        @return: the header, if it is complete now; otherwise L{None}.
        @raise HeaderError: the bytes are not a valid header.
        """
        received = self._received = self._received + data
        if received.startswith(b"PROXY "[: len(received)]):
            return self._text()
        if received.startswith(_SIGNATURE[: len(received)]):
            return self._binary()
        raise HeaderError("is not a PROXY header")

    def _text(self) -> Header | None:
        end = self._received.find(b"\n", 0, LONGEST_TEXT)
        if end < 0:
            if len(self._received) >= LONGEST_TEXT:
                raise HeaderError(f"is longer than {LONGEST_TEXT} bytes")
            return None
        if self._received[end - 1 : end] != b"\r":
            raise HeaderError("does not end with CRLF")
        return Header(_addressesOfText(self._received[: end - 1]), self._received[end + 1 :])

    def _binary(self) -> Header | None:
        if len(self._received) < _FIXED:
            return None
        command, family, length = struct.unpack_from("!BBH", self._received, len(_SIGNATURE))
        if command >> 4 != 2:
            raise HeaderError(f"has the unknown version {command >> 4}")
        if command not in (_LOCAL, _PROXY):
            raise HeaderError(f"has the unknown command {command & 15}")
        if length > MOST_BYTES:
            raise HeaderError(f"is longer than {_FIXED + MOST_BYTES} bytes")
        if len(self._received) < _FIXED + length:
            return None
        header, rest = self._received[: _FIXED + length], self._received[_FIXED + length :]
        # The rest of a LOCAL header must be ignored.
        return Header(_addressesOfBinary(header, family) if command == _PROXY else None, rest)


_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")


def _addressesOfText(line: bytes) -> ProxiedAddresses | None:
    """Return the addresses in C{line}, a header of version 1."""
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    family = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}.get(words[1])
    if family is None:
        raise HeaderError("names a protocol other than TCP4, TCP6 and UNKNOWN")
    if len(words) != 6:
        raise HeaderError("does not have exactly two addresses and two ports")
    source, destination = (_addressOfText(family, word) for word in words[2:4])
    sourcePort, destinationPort = map(_portOfText, words[4:])
    return ProxiedAddresses(unmapped(source), sourcePort, unmapped(destination), destinationPort)


def _addressOfText(family: socket.AddressFamily, word: bytes) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, word.decode("ascii")))
    except (OSError, ValueError):
        raise HeaderError("has an address that does not match its family") from None


def _portOfText(word: bytes) -> int:
    if not _PORT.fullmatch(word) or int(word) > 65535:
        raise HeaderError("has an invalid port")
    return int(word)


def _addressesOfBinary(header: bytes, family: int) -> ProxiedAddresses | None:
    """Return the addresses in a header of version 2. C{family} is the byte of address family and transport."""
    if family >> 4 > 3 or family & 15 > 2:
        raise HeaderError(f"has the unknown family and transport 0x{family:02x}")
    size = _ADDRESS_SIZES.get(family >> 4)
    if size is None:
        # For the unspecified family, the specification does not say where the addresses end.
        return None
    if len(header) < _FIXED + size:
        raise HeaderError("is too short for its addresses")
    _checkTLVs(header, _FIXED + size)
    if family not in (_TCP4, _TCP6):
        return None
    kind, length = (socket.AF_INET, 4) if family == _TCP4 else (socket.AF_INET6, 16)
    source, destination, sourcePort, destinationPort = struct.unpack_from(f"!{length}s{length}sHH", header, _FIXED)
    sourceHost, destinationHost = (unmapped(socket.inet_ntop(kind, end)) for end in (source, destination))
    return ProxiedAddresses(sourceHost, sourcePort, destinationHost, destinationPort)


def _checkTLVs(header: bytes, start: int) -> None:
    """
    Check the TLVs of C{header} from C{start} on. Their values are not used.

    @raise HeaderError: the lengths do not fit, or the checksum is wrong.
    """
    checked = False
    while start < len(header):
        if len(header) < start + 3:
            raise HeaderError("ends within a TLV")
        kind, length = struct.unpack_from("!BH", header, start)
        value, start = start + 3, start + 3 + length
        if len(header) < start:
            raise HeaderError("ends within a TLV")
        if kind == _CHECKSUM:
            # Only one checksum: each costs a pass over the whole header.
            if checked or length != 4:
                raise HeaderError("has a malformed checksum")
            checked = True
            blanked = header[:value] + bytes(4) + header[start:]
            if crc32c(blanked) != int.from_bytes(header[value:start], "big"):
                raise HeaderError("has a wrong checksum")


@cache
def _table() -> tuple[int, ...]:
    """Return the table of CRC32C (RFC 3720, appendix B.4: Castagnoli's polynomial, reflected)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Return the CRC32C of C{data}, the checksum of version 2."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


# Headers for backends.


def headerFor(client: Client, version: str) -> bytes:
    """
    Make the header that names a client to a backend.

    If one address is IPv4 and the other is IPv6, both become IPv6 addresses, or both IPv4 addresses if that is
    possible. nginx makes an invalid line of version 1 then.

    @param client: the client. The header has its address and the address that it connected to.
    @param version: C{on} for version 1, as in nginx, or C{v2}.
    @return: the header, as bytes.
    """
    ends = _commonFamily(client.host, client.local)
    if version != "v2":
        return _text(client, ends)
    if ends is None:
        head, addresses = bytes((_LOCAL, 0)), b""
    else:
        head = bytes((_PROXY, _TCP4 if len(ends[0]) == 4 else _TCP6))
        addresses = b"".join(ends) + struct.pack("!HH", client.port, client.localPort)
    body = addresses + b"".join(_tlvs(client)) + _CHECKSUM_TLV
    header = _SIGNATURE + head + struct.pack("!H", len(body) + 4) + body
    return header + struct.pack("!I", crc32c(header + bytes(4)))


def namesClient(client: Client) -> bool:
    """Return whether L{headerFor} names the address of C{client}, and not C{UNKNOWN} or C{LOCAL}."""
    return _commonFamily(client.host, client.local) is not None


def _text(client: Client, ends: tuple[bytes, bytes] | None) -> bytes:
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    family = b"TCP4" if len(ends[0]) == 4 else b"TCP6"
    source, destination = map(_textOf, ends)
    return b"PROXY %s %s %s %d %d\r\n" % (family, source, destination, client.port, client.localPort)


_MAPPED = bytes(10) + b"\xff\xff"
"""The first bytes of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2)."""


def _textOf(address: bytes) -> bytes:
    if address.startswith(_MAPPED) and len(address) == 16:
        # The specification allows hexadecimal digits only, no dotted form.
        return b"::ffff:%x:%x" % struct.unpack_from("!HH", address, len(_MAPPED))
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, address).encode("ascii")


def _commonFamily(*hosts: str) -> tuple[bytes, bytes] | None:
    """Return both C{hosts} as packed addresses of one length: 4 bytes if possible, or 16. L{None} for a unix socket."""
    source, destination = map(_packed, hosts)
    if source is None or destination is None:
        return None
    if len(source) != len(destination):
        source, destination = (_MAPPED + end if len(end) == 4 else end for end in (source, destination))
    return source, destination


def _packed(host: str) -> bytes | None:
    """
    Return the address C{host} in 4 bytes if it is IPv4 or IPv4-mapped, otherwise in 16; L{None} if it is no address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # A link-local address may have the name of an interface.
        packed = socket.inet_pton(family, host.partition("%")[0])
    except OSError:
        return None
    return packed.removeprefix(_MAPPED) if len(packed) == 16 else packed


def _tlvs(client: Client) -> Iterator[bytes]:
    """Yield the TLVs about the client's TLS, in nginx's order."""
    if client.tls is None:
        return
    details = client.details or TLSDetails()
    yield _named(_AUTHORITY, details.serverName)
    yield _named(_ALPN, details.alpn)
    yield _ssl(client.tls, details)


def _ssl(tls: TLSState, details: TLSDetails) -> bytes:
    bits, verify, commonName = _OVER_TLS, _NOT_VERIFIED, ""
    if details.certificate is not None:
        # In a resumed TLS session the client presented the certificate when the session began. The gateway cannot
        # distinguish the two cases here.
        bits |= _CERTIFICATE_SHOWN | _CERTIFICATE_IN_SESSION
        verify, commonName = details.verifyCode, details.certificate.commonName
    return _tlv(
        _SSL,
        struct.pack("!BI", bits, verify)
        + _named(_VERSION, tls.protocol)
        + _named(_COMMON_NAME, commonName)
        + _named(_CIPHER, tls.cipher)
        + _named(_SIGNATURE_ALGORITHM, details.signature)
        + _named(_KEY_ALGORITHM, details.key),
    )


def _named(kind: int, text: str) -> bytes:
    """
    Return the TLV of C{text}; nothing if the text is empty, too long or not one line, as a name in a certificate may
    be.
    """
    raw = text.encode("utf-8", "replace")
    return _tlv(kind, raw) if 0 < len(raw) <= _LONGEST_NAME and fitForWire(raw) else b""


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value
