"""What the wire's log says of a TCP connection: which bytes, which messages, which for the second
time.

Sequence numbers are compared as RFC 9293 (3.4) does it, modulo 2^32.
"""


def _before(left, right):
    return ((left - right) & 0xFFFFFFFF) > 0x7FFFFFFF


def _room(row):
    """Sequence numbers that a segment takes: its bytes, and one each for SYN and FIN."""
    return (row.payload or 0) + ("S" in row.tcp_flags) + ("F" in row.tcp_flags)


def again(run, direction="up"):
    """Rows that carry what this side of their connection had sent before, oldest first."""
    highest, found = {}, []
    for row in run.wire_rows:
        if row.class_ != "tcp" or row.direction != direction or not _room(row):
            continue
        key = (row.sport, row.dport)
        end = (row.tcp_seq + _room(row)) & 0xFFFFFFFF
        top = highest.get(key)
        if top is not None and _before(row.tcp_seq, top):
            found.append(row)
        if top is None or _before(top, end):
            highest[key] = end
    return found


def first_byte(run):
    """{client's port: the sequence number of its first byte}."""
    return {
        row.sport: (row.tcp_seq + 1) & 0xFFFFFFFF for row in run.data_rows if "S" in row.tcp_flags
    }


def byte_range(run, row):
    """(first, behind the last) byte of the stream in a segment from client to server."""
    start = (row.tcp_seq - first_byte(run)[row.sport]) & 0xFFFFFFFF
    return start, start + row.payload


def messages(run, row):
    """The numbers of the messages that a segment has bytes of; all are run.size long."""
    if not row.payload:
        return range(0)
    start, end = byte_range(run, row)
    return range(start // run.size, (end - 1) // run.size + 1)


def lost_data(run):
    """Rows with bytes that the wire did not let out."""
    return [row for row in run.data_rows if row.payload and row.fate != "delivered"]


def healed(run):
    """{row id of a lost segment: ns until the wire let the last of its bytes out}.

    A segment that is not in it was never made good.
    """
    found = {}
    delivered = [
        (*byte_range(run, row), row.out_ns, row.sport)
        for row in run.data_rows
        if row.payload and row.fate == "delivered"
    ]
    for row in lost_data(run):
        start, end = byte_range(run, row)
        have, when = start, None
        later = sorted(each for each in delivered if each[3] == row.sport and each[1] > start)
        # Bytes from `start` on, by whichever segments cover them first.
        for left, right, out_ns, _ in sorted(later, key=lambda each: each[2]):
            if left <= have < right:
                have, when = right, out_ns
            if have >= end:
                break
        if have >= end:
            found[row.id] = when - row.in_ns
    return found


def carriers(run):
    """{message: the row of the segment that brought its last byte to the server first}."""
    found = {}
    for row in run.departures:
        if row.class_ != "tcp" or not row.payload:
            continue
        _, end = byte_range(run, row)
        for seq in messages(run, row):
            if (seq + 1) * run.size <= end:
                found.setdefault(seq, row)
    return found


def duplicate_acks(run):
    """{acknowledgement number: how often the server repeated it}; data and window do not count."""
    found, last = {}, {}
    for row in run.wire_rows:
        if row.class_ != "tcp" or row.direction != "down" or row.tcp_flags != "A" or row.payload:
            continue
        key = row.dport
        if last.get(key) == row.tcp_ack:
            found[row.tcp_ack] = found.get(row.tcp_ack, 0) + 1
        last[key] = row.tcp_ack
    return found


def story(run, row):
    """The rows that tell what became of a segment that was lost or late, oldest first.

    The handshake; the segment; the first three later ones that arrived before its bytes did; every
    further sending of its bytes, up to the first that arrived; and the ACKs that these arrivals led
    to. None if its bytes were not sent again.
    """

    def has_its_bytes(other):
        start, end = byte_range(run, other)
        return start < mine[1] and mine[0] < end

    def answer_to(arrival):
        return next((ack for ack in acks if ack.in_ns >= arrival.out_ns), arrival)

    mine = byte_range(run, row)
    later = [each for each in run.data_rows if each.payload and each.in_ns > row.in_ns]
    again = [each for each in later if has_its_bytes(each)]
    healing = next((each for each in again if each.fate == "delivered"), None)
    if healing is None:
        return None
    there_ns = min(each.out_ns for each in (row, healing) if each.fate == "delivered")
    ahead = [each for each in later if each.out_ns and each.out_ns < there_ns]
    ahead = sorted(ahead, key=lambda each: each.out_ns)[:3]
    again = again[: again.index(healing) + 1]
    acks = [
        each
        for each in run.wire_rows
        if each.class_ == "tcp" and each.direction == "down" and each.fate == "delivered"
    ]
    found = [each for each in run.wire_rows if "S" in each.tcp_flags] + [row, *ahead, *again]
    found += [answer_to(each) for each in (*ahead, healing)]
    return sorted({each.id: each for each in found}.values(), key=lambda each: each.in_ns)
