# -*- test-case-name: mailgate.test.tls.test_rfc2253 -*-
"""
Names in certificates as OpenSSL's U{XN_FLAG_RFC2253<https://docs.openssl.org/master/man3/X509_NAME_print_ex/>} writes
them: what nginx tells an authentication service.

They are read here because C{cryptography} refuses names that OpenSSL takes and real certificates have: a
C{PrintableString} with C{*}, C{@}, C{_} or C{&} in it, a C{T61String} in Latin-1, a set that is out of order. Its
C{rfc4514_string} also escapes less, and knows other short names; pyOpenSSL's C{X509Name} is deprecated, and does not
tell which attributes belong together.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

__all__ = ["commonName", "namesOf", "rfc2253"]

_SHORT_NAMES = {
    f"{arc}.{name.split(' ')[0]}": name.split(" ")[1]
    for arc, names in {
        "2.5.4": "3 CN,4 SN,5 serialNumber,6 C,7 L,8 ST,9 street,10 O,11 OU,12 title,13 description,14 searchGuide,"
        "15 businessCategory,16 postalAddress,17 postalCode,18 postOfficeBox,19 physicalDeliveryOfficeName,"
        "20 telephoneNumber,21 telexNumber,22 teletexTerminalIdentifier,23 facsimileTelephoneNumber,24 x121Address,"
        "25 internationaliSDNNumber,26 registeredAddress,27 destinationIndicator,28 preferredDeliveryMethod,"
        "29 presentationAddress,30 supportedApplicationContext,31 member,32 owner,33 roleOccupant,34 seeAlso,41 name,"
        "42 GN,43 initials,44 generationQualifier,45 x500UniqueIdentifier,46 dnQualifier,49 distinguishedName,"
        "50 uniqueMember,51 houseIdentifier,54 dmdName,65 pseudonym,72 role",
        "0.9.2342.19200300.100.1": "1 UID,2 textEncodedORAddress,3 mail,4 info,5 favouriteDrink,6 roomNumber,"
        "8 userClass,9 host,10 manager,20 homeTelephoneNumber,21 secretary,22 otherMailbox,25 DC,37 associatedDomain,"
        "38 associatedName,39 homePostalAddress,40 personalTitle,41 mobileTelephoneNumber,42 pagerTelephoneNumber,"
        "43 friendlyCountryName,45 organizationalStatus,46 janetMailbox,48 buildingName",
        "1.2.840.113549.1.9": "1 emailAddress,2 unstructuredName,8 unstructuredAddress,20 friendlyName",
        "1.3.6.1.4.1.311.60.2.1": "1 jurisdictionL,2 jurisdictionST,3 jurisdictionC",
        "1.2.643.3.131.1": "1 INN",
        "1.2.643.100": "1 OGRN,3 SNILS",
    }.items()
    for name in names.split(",")
}
"""OpenSSL's short names of types of attributes, as its C{objects.txt} has them."""

_UTF8, _BMP, _UNIVERSAL = 12, 30, 28
_ONE_BYTE = (18, 19, 20, 22, 23, 24, 26)
_WIDTHS = {_BMP: 2, _UNIVERSAL: 4}
_VERSION = 0xA0
_LONGEST_NUMBER = 586
"""Bytes of one number in a type: OpenSSL's bound, as what it takes to print one grows with their square."""


@frozen
class _Attribute:
    """One attribute of a name: its type's number, and its value with its tag; C{der} is the value whole."""

    oid: str
    tag: int
    value: bytes
    der: bytes

    @property
    def octets(self) -> bytes | None:
        """The text in UTF-8, unchecked where it was that already; L{None} where it is no text."""
        if self.tag == _UTF8:
            return self.value
        if self.tag in _ONE_BYTE:
            return self.value.decode("latin-1").encode("utf-8")
        width = _WIDTHS.get(self.tag)
        if width is None or len(self.value) % width:
            return None
        try:
            units = [int.from_bytes(self.value[at : at + width], "big") for at in range(0, len(self.value), width)]
            return "".join(map(chr, units)).encode("utf-8", "surrogatepass")
        except (ValueError, OverflowError):
            return None

    @property
    def printed(self) -> str:
        """Type and value by RFC 2253; the value's DER in hexadecimal where one of them is unknown."""
        name, octets = _SHORT_NAMES.get(self.oid), self.octets
        if name is None or octets is None:
            return f"{name or self.oid}=#{self.der.hex().upper()}"
        return f"{name}={_escaped(octets)}"


def _escaped(octets: bytes) -> str:
    last = len(octets) - 1
    return "".join(_escapedOctet(octet, at == 0, at == last) for at, octet in enumerate(octets))


def _escapedOctet(octet: int, isFirst: bool, isLast: bool) -> str:
    if not 0x20 <= octet < 0x7F:
        return f"\\{octet:02X}"
    shown = chr(octet)
    # A "#" that is all there is OpenSSL looks at as the last.
    special = shown in ',+"\\<>;' or (shown == " " and (isFirst or isLast)) or (shown == "#" and isFirst and not isLast)
    return f"\\{shown}" if special else shown


def rfc2253(name: bytes) -> str:
    """
    C{name}, which is DER, in one line of printable ASCII.

    @raise ValueError: it is no name.
    """
    relative = [list(attributes) for attributes in _relativeNames(name)]
    return ",".join("+".join(each.printed for each in reversed(attributes)) for attributes in reversed(relative))


def commonName(name: bytes) -> str:
    """
    The first CN in C{name}, empty where it has none.

    @raise ValueError: it is no name.
    """
    for attributes in _relativeNames(name):
        for attribute in attributes:
            if _SHORT_NAMES.get(attribute.oid) == "CN":
                return (attribute.octets or b"").decode("utf-8", "replace")
    return ""


def namesOf(certificate: bytes) -> tuple[bytes, bytes]:
    """
    The subject and the issuer of C{certificate} (RFC 5280, 4.1), all in DER.

    @raise ValueError: that cannot be read.
    """
    toBeSigned = _content(_content(certificate))
    fields = [der for tag, _, der in _elements(toBeSigned) if tag != _VERSION]
    if len(fields) < 5:
        raise ValueError("is no certificate")
    _, _, issuer, _, subject, *_ = fields
    return subject, issuer


def _relativeNames(name: bytes) -> Iterator[Iterator[_Attribute]]:
    return (map(_attribute, _values(relative)) for relative in _values(_content(name)))


def _attribute(content: bytes) -> _Attribute:
    (_, oid, _), (tag, value, der), *_ = _elements(content) or ((0, b"", b""), (0, b"", b""))
    return _Attribute(_dotted(oid), tag, value, der)


def _dotted(oid: bytes) -> str:
    numbers, number, length = [], 0, 0
    for octet in oid:
        number, length = number << 7 | octet & 0x7F, length + 1
        if length > _LONGEST_NUMBER:
            raise ValueError("has a type that no certificate has")
        if octet < 0x80:
            numbers.append(number)
            number = length = 0
    if not numbers:
        raise ValueError("has an attribute without a type")
    top = min(numbers[0] // 40, 2)
    return ".".join(map(str, [top, numbers[0] - 40 * top, *numbers[1:]]))


def _content(der: bytes) -> bytes:
    """The content of the first element in C{der}."""
    for _, content, _ in _elements(der):
        return content
    raise ValueError("is empty")


def _values(content: bytes) -> list[bytes]:
    return [value for _, value, _ in _elements(content)]


def _elements(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """The elements that C{content} is made of: tag, content, and the element as it stands (X.690, 8.1)."""
    found, at = [], 0
    while at < len(content):
        if at + 2 > len(content) or content[at] & 0x1F == 0x1F:
            raise ValueError("is no DER that is known here")
        start, size = at + 2, content[at + 1]
        if size >= 0x80:
            digits = size & 0x7F
            if not 0 < digits <= 4:
                raise ValueError("has a length that no certificate has")
            size = int.from_bytes(content[start : start + digits], "big")
            start += digits
        end = start + size
        if end > len(content):
            raise ValueError("ends too early")
        found.append((content[at], content[start:end], content[at:end]))
        at = end
    return found
