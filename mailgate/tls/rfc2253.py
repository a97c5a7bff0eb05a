# -*- test-case-name: mailgate.test.tls.test_rfc2253 -*-
"""
Writes the names in certificates as OpenSSL's U{XN_FLAG_RFC2253
<https://docs.openssl.org/master/man3/X509_NAME_print_ex/>} does. nginx sends them in this form to the authentication
service.

This module parses the names itself, because C{cryptography} refuses names that OpenSSL accepts and that occur in real
certificates: a C{PrintableString} with C{*}, C{@}, C{_} or C{&}, a C{T61String} in Latin-1, an unsorted set. Its
C{rfc4514_string} also escapes fewer characters and has other short names. pyOpenSSL's C{X509Name} is deprecated, and
does not show which attributes belong to one relative name.
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
"""OpenSSL's short names of attribute types, by their dotted numbers (its C{objects.txt})."""

_UTF8, _BMP, _UNIVERSAL = 12, 30, 28
_ONE_BYTE = (18, 19, 20, 22, 23, 24, 26)
_WIDTHS = {_BMP: 2, _UNIVERSAL: 4}
_VERSION = 0xA0
_LONGEST_NUMBER = 586
"""
The most bytes of one number in a type. OpenSSL has this limit because the time to print a number grows with the square
of its size.
"""


@frozen
class _Attribute:
    """
    One attribute of a name.

    @ivar oid: the dotted number of its type.
    @ivar tag: the ASN.1 tag of the value.
    @ivar value: the content of the value.
    @ivar der: the whole value in DER.
    """

    oid: str
    tag: int
    value: bytes
    der: bytes

    @property
    def octets(self) -> bytes | None:
        """The value in UTF-8, or L{None} if it is not text. A C{UTF8String} is not checked."""
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
        """Type and value in the form of RFC 2253. The value is its DER in hexadecimal if its type or tag is unknown."""
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
    # OpenSSL does not escape a "#" that is the whole value.
    special = shown in ',+"\\<>;' or (shown == " " and (isFirst or isLast)) or (shown == "#" and isFirst and not isLast)
    return f"\\{shown}" if special else shown


def rfc2253(name: bytes) -> str:
    """
    The name C{name}, which is in DER, in one line of printable ASCII.

    @raise ValueError: it is not a valid name.
    """
    relative = [list(attributes) for attributes in _relativeNames(name)]
    return ",".join("+".join(each.printed for each in reversed(attributes)) for attributes in reversed(relative))


def commonName(name: bytes) -> str:
    """
    The first CN in C{name}, which is in DER; empty if there is none.

    @raise ValueError: it is not a valid name.
    """
    for attributes in _relativeNames(name):
        for attribute in attributes:
            if _SHORT_NAMES.get(attribute.oid) == "CN":
                return (attribute.octets or b"").decode("utf-8", "replace")
    return ""


def namesOf(certificate: bytes) -> tuple[bytes, bytes]:
    """
    The subject and the issuer of C{certificate} (RFC 5280, 4.1). All are in DER.

    @raise ValueError: the certificate cannot be parsed.
    """
    toBeSigned = _content(_content(certificate))
    fields = [der for tag, _, der in _elements(toBeSigned) if tag != _VERSION]
    if len(fields) < 5:
        raise ValueError("is not a certificate")
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
            raise ValueError("has too large a number in a type")
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
    """The elements of C{content}: the tag, the content, and the whole element of each (X.690, 8.1)."""
    found, at = [], 0
    while at < len(content):
        if at + 2 > len(content) or content[at] & 0x1F == 0x1F:
            raise ValueError("is not valid DER")
        start, size = at + 2, content[at + 1]
        if size >= 0x80:
            digits = size & 0x7F
            if not 0 < digits <= 4:
                raise ValueError("has too large a length")
            size = int.from_bytes(content[start : start + digits], "big")
            start += digits
        end = start + size
        if end > len(content):
            raise ValueError("ends too early")
        found.append((content[at], content[start:end], content[at:end]))
        at = end
    return found
