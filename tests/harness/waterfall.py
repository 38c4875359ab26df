"""Does every message have a fate, and every fate a count?

For a UDP or a raw run, from what was to be sent down to what the account holds. Each total is
measured on its own, by somebody else than what was taken off above it, and has to come out:

    scheduled - refused                                   = sent             the sender's log
    sent - TAP drops + what others sent                   = entered the wire the wire's counters
    entered - lost - queue - dropped - blocked + copies   = left it          the server's device
    left - IP header - no port - bad checksum - overflow  = read             the receiver's log
    read - foreign - corrupt - alien - duplicates - late  = distinct         the account

IP fragments are no messages, so a message has to fit into one packet.
"""

from collections import namedtuple

from harness import counters

# Taken off or added; and a measured total, which has to be what the total above and the lines
# between leave.
Line = namedtuple("Line", "sign what count source")
Total = namedtuple("Total", "what count source")
LARGEST = 1500 - 20 - 8


def _fates(run):
    rows = run.data_rows
    others = sum(row.flow is None or row.flow >> 16 != run.sender["run"] for row in rows)
    fates = {fate: 0 for fate in ("lost", "queue", "dropped", "blocked", "failed")}
    for row in rows:
        if row.fate in fates:
            fates[row.fate] += 1
    copies = sum(row.copies or 0 for row in rows if row.fate == "delivered")
    return others, fates, copies


WITHOUT = "server: InErrors for no other reason"


def _short(run, rest):
    """How many datagrams said to be longer than they are, for which the kernel has no counter.

    They are what is left of InErrors, but no more than the wire has corrupted: else a wrong count
    of one of the others would make up for itself here.
    """
    spoilt = sum(1 + (row.copies or 0) for row in run.data_rows if row.corrupted)
    return rest if 0 <= rest <= spoilt else 0


def _kernel_lines(run):
    server = run.kernel["server"]
    if run.family == "6":
        header = server["Ip6InHdrErrors"] + server["Ip6InAddrErrors"]
        overflow, ports = server["Udp6RcvbufErrors"], server["Udp6NoPorts"]
        bad, memory = server["Udp6InCsumErrors"], server.get("Udp6MemErrors", 0)
        errors = server["Udp6InErrors"]
        ip, udp = "Ip6", "Udp6"
    else:
        header = server["Ip.InHdrErrors"] + server["Ip.InAddrErrors"]
        overflow, ports = server["Udp.RcvbufErrors"], server["Udp.NoPorts"]
        bad, memory = server["Udp.InCsumErrors"], server.get("Udp.MemErrors", 0)
        errors = server["Udp.InErrors"]
        ip, udp = "Ip ", "Udp "
    first = Line("-", "IP header wrong", header, f"server: {ip}InHdrErrors, {ip}InAddrErrors")
    if run.kind == "udp":
        return [
            first,
            Line("-", "no such port", ports, f"server: {udp}NoPorts"),
            Line("-", "checksum wrong", bad, f"server: {udp}InCsumErrors"),
            Line("-", "length wrong", _short(run, errors - bad - overflow - memory), WITHOUT),
            Line("-", "buffer overflow", overflow, f"server: {udp}RcvbufErrors"),
        ]
    drops = sum(each.get("drops") or 0 for each in run.receiver["kernel"])
    # Where a raw socket's buffer is full, newer kernels look no further and count the packet as one
    # that nobody wanted, too (and answer protocol unreachable); older ones count it at the socket.
    unknown = server["Ip.InUnknownProtos"]
    unknown -= drops if unknown >= drops else 0
    return [
        first,
        Line("-", "nobody listens", unknown, "server: Ip InUnknownProtos, less overflow"),
        Line("-", "buffer overflow", drops, "the socket: SO_MEMINFO drops"),
    ]


def waterfall(run):
    """The Lines and Totals from top to bottom. ValueError for TCP and for fragments."""
    if run.kind not in ("udp", "raw"):
        raise ValueError("TCP's messages are bytes in segments: they have no waterfall")
    if run.size > LARGEST:
        raise ValueError(f"messages of {run.size} bytes are cut into fragments")
    others, fates, copies = _fates(run)
    said, verdicts = run.receiver, [row.verdict for row in run.arrivals]
    sent = sum(row.verdict == "sent" for row in run.sent_rows)
    read = len(run.arrivals) + said["foreign"] + said["corrupt"] + said["alien"]
    return [
        Total("scheduled", run.sender["scheduled"], "sender"),
        Line("-", "refused by send()", run.sender["refused"], "sender"),
        Total("sent", sent, "sender's log"),
        Line("-", "dropped before the wire", run.wire["client_tx_dropped"], "client: tx_dropped"),
        Line("+", "sent by others", others, "wire's log"),
        Total("entered the wire", run.wire["up"][run.kind]["entered"], "wire's counters"),
        Line("-", "lost", fates["lost"], "wire's log"),
        Line("-", "found the queue full", fates["queue"], "wire's log"),
        Line("-", "dropped by order", fates["dropped"], "wire's log"),
        Line("-", "blocked", fates["blocked"], "wire's log"),
        Line("-", "not taken by the host", fates["failed"], "wire's log"),
        Line("+", "copies", copies, "wire's log"),
        Total(
            "left the wire",
            counters.device(run.kernel["server"], "rx_packets"),
            "server: device's rx_packets",
        ),
        *_kernel_lines(run),
        Total("read by the program", read, "receiver's log"),
        Line("-", "not of this run", said["foreign"], "receiver"),
        Line("-", "corrupt (CRC)", said["corrupt"], "receiver"),
        Line("-", "no message of ours", said["alien"], "receiver"),
        Line("-", "duplicates", verdicts.count("duplicate"), "receiver's log"),
        Line("-", "too late", verdicts.count("late"), "receiver's log"),
        Total("distinct", run.account["received"], "account"),
    ]


def left_over(rows):
    """[(Total, what the total above it and the lines between leave)], but for the first."""
    found, left = [], None
    for row in rows:
        if isinstance(row, Line):
            left += -row.count if row.sign == "-" else row.count
            continue
        if left is not None:
            found.append((row, left))
        left = row.count
    return found


def first_open(rows):
    """The first Total that is not what the rows above leave, or None: the waterfall closes."""
    return next((total for total, left in left_over(rows) if total.count != left), None)


def text(rows):
    """The waterfall as lines of text."""
    left, out = dict(left_over(rows)), []
    for row in rows:
        sign = row.sign if isinstance(row, Line) else "="
        line = f"{sign} {row.what:<26} {row.count:>8}   {row.source}"
        if left.get(row, row.count) != row.count:
            line += f"   but the lines above leave {left[row]}"
        out.append(line)
    return "\n".join(out)
