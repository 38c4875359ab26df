"""The wire's capture (pcapng), for what its log leaves out: windows, and the firewall's answers."""

import struct
from collections import namedtuple

Packet = namedtuple("Packet", "interface time_ns id comment frame")

SECTION, PACKET = 0x0A0D0D0A, 6
COMMENT, PACKET_ID = 1, 5
ETHERNET, TCP = 14, 6


def _options(data):
    """{code: value} of a block's options; of a code that comes twice, the first."""
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("=HH", data, at)
        if code == 0:
            break
        found.setdefault(code, data[at + 4 : at + 4 + length])
        at += 4 + (length + 3) // 4 * 4
    return found


def read(path):
    """Every packet, oldest first.

    The wire writes one section in this machine's byte order, with times in ns. A block that was
    cut short ends the reading.
    """
    data, at, found = path.read_bytes(), 0, []
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if length < 12 or at + length > len(data):
            break
        if kind == PACKET:
            interface, high, low, kept, _ = struct.unpack_from("=IIIII", data, at + 8)
            start = at + 28
            options = _options(data[start + (kept + 3) // 4 * 4 : at + length - 4])
            number = options.get(PACKET_ID)
            found.append(
                Packet(
                    interface,
                    high << 32 | low,
                    struct.unpack("=Q", number)[0] if number else None,
                    options.get(COMMENT, b"").decode(),
                    data[start : start + kept],
                )
            )
        at += length
    return found


def window(frame):
    """The window field of a TCP segment over IPv4, not scaled; None for any other frame."""
    ip = frame[ETHERNET:]
    if len(ip) < 20 or ip[0] >> 4 != 4 or ip[9] != TCP:
        return None
    tcp = ip[(ip[0] & 15) * 4 :]
    return struct.unpack_from(">H", tcp, 14)[0] if len(tcp) >= 16 else None


def windows(path):
    """{the wire's packet id: the window that the segment advertised}."""
    return {
        packet.id: window(packet.frame) for packet in read(path) if window(packet.frame) is not None
    }


def scale(path, number):
    """How far a connection's windows are shifted, as the SYN or SYN-ACK with this id has it."""
    for packet in read(path):
        if packet.id == number:
            ip = packet.frame[ETHERNET:]
            segment = ip[(ip[0] & 15) * 4 :]
            options, at = segment[20 : (segment[12] >> 4) * 4], 0
            while at < len(options) and options[at] != 0:
                if options[at] == 3:
                    return options[at + 2]
                at += 1 if options[at] == 1 else max(2, options[at + 1])
    return 0
