"""Messages made by hand, whole or broken, and a sender of whatever bytes one likes.

As a program: `forge.py KIND HOST PORT HEX...` sends each HEX as one datagram or packet. With
`SOURCE[:PORT]` in the environment variable FORGE_FROM it writes the IP header itself, with that
source.
"""

import os
import socket
import struct
import sys

HEADER_BYTES = 48
MAGIC = 0x534C4142
PROTOCOL = 253
DATA, REQUEST, REPLY = 1, 2, 3


def _table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


TABLE = _table()


def crc32c(data):
    """CRC-32C (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def message(kind=REQUEST, seq=0, run=1, index=0, length=HEADER_BYTES, **odd):
    """The bytes. `odd`: magic, claims, clock_id, version, zero, due_ns, sent_ns."""
    head = struct.pack(
        ">IIIIBBHIQqq",
        odd.get("magic", MAGIC),
        odd.get("claims", length),
        odd.get("clock_id", 0),
        run << 16 | index,
        odd.get("version", 1),
        kind,
        odd.get("zero", 0),
        0,
        seq,
        odd.get("due_ns", 0),
        odd.get("sent_ns", 0),
    )
    data = head + bytes(length - HEADER_BYTES)
    return data[:20] + struct.pack(">I", crc32c(data)) + data[24:]


def reply_to(request, run=None):
    """The reply to a request: its own bytes, but for kind and CRC (and another run, if told)."""
    flow = request[12:14] if run is None else struct.pack(">H", run)
    data = request[:12] + flow + request[14:17] + bytes([REPLY]) + request[18:20] + bytes(4)
    data += request[24:]
    return data[:20] + struct.pack(">I", crc32c(data)) + data[24:]


def flipped(data, bit=-1):
    """The same bytes with one bit changed: what a link does that corrupts."""
    bit %= len(data) * 8
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def kind_and_seq(data):
    """(kind, seq) of a message's bytes."""
    return data[17], struct.unpack(">Q", data[24:32])[0]


def ip_packet(source, destination, protocol, payload):
    """An IPv4 packet; the kernel fills in checksum, id and length (raw(7))."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, 64, protocol, 0) + addresses + payload


def main():
    """The program."""
    kind, host, port, *payloads = sys.argv[1:]
    source, _, source_port = os.environ.get("FORGE_FROM", "").partition(":")
    host = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    if source:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    elif kind == "raw":
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for payload in map(bytes.fromhex, payloads):
        if source and kind == "udp":
            # A UDP checksum of 0 says that there is none (RFC 768).
            head = struct.pack(">HHHH", int(source_port), int(port), 8 + len(payload), 0)
            payload = ip_packet(source, host, socket.IPPROTO_UDP, head + payload)
        elif source:
            payload = ip_packet(source, host, PROTOCOL, payload)
        sock.sendto(payload, (host, int(port)))


if __name__ == "__main__":
    main()
