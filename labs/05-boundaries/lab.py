"""How many reads does one write make?"""

import time
from dataclasses import dataclass

import pytest

from harness import sockets
from harness.dialogue import CLIENT, SERVER, ByHand
from harness.lab import nothing_to_see
from harness.recording import Recording
from harness.tree import KINDS

KNOBS = {"LINK": "delay 2ms rate 10mbit", "SEED": 7, "COUNT": 20, "BYTES": 6000}

WRITES, PIECE = 10, "abcde"
LARGE, READ = 3000, 1000
HEADER = 20  # an IPv4 header without options

PICTURES = {
    "tcp": "TCP: ten calls write, fewer packets carry it, and one call reads it all.",
    "udp": "UDP: each of the ten writes is a packet of its own, and each packet a read.",
}


@dataclass
class Pair:
    """Two processes of calls by hand, with a socket each that reaches the other's."""

    kind: str
    server: ByHand
    fd: int
    client: ByHand
    own: int
    delivered: int = 0  # datagrams that the server's kernel had handed up before
    since_ns: int = 0  # when all this was there
    port: int = None  # the client's
    server_port: int = None
    over_ns: int = None  # when they were told to end

    def reads(self, size):
        """Reads of so many bytes until nothing is left."""
        answers = []
        while True:
            answer = self.server.call(f"recv {self.fd} {size} MSG_DONTWAIT")
            if answer.error or (self.kind == "tcp" and answer.value == 0):
                return answers
            answers.append(answer)

    def end(self):
        """Ends both."""
        self.over_ns = time.monotonic_ns()
        self.client.kill()
        self.server.kill()


def pair(wire, kind, record=None):
    """A Pair, after a new run has begun and its handshake, if any, is over.

    With a Recording, which is a new run itself, the calls of both are recorded.
    """
    if record is None:
        wire.new_run()
    server, client = (
        record.by_hand(side) if record else ByHand(wire, side) for side in ("server", "client")
    )
    fd, port = server.bound(kind)
    own = client.connected(kind, port)
    if kind == "tcp":
        fd = server.must(f"accept {fd}").value
    now_ns, own_port = time.monotonic_ns(), client.name(own).port
    return Pair(kind, server, fd, client, own, delivered(wire), now_ns, own_port, port)


def delivered(wire):
    """Datagrams that the server's kernel has handed to a protocol: whole ones, not fragments."""
    return wire.kernel("server")["Ip.InDelivers"]


def carried(wire, kind):
    """The packets of this run that carried bytes to the server; for datagrams, all."""
    rows = [row for row in wire.log() if row.direction == "up" and row.class_ in (kind, "frag")]
    return [row for row in rows if row.payload or kind != "tcp"]


def is_there(wire, ends, size, datagrams=1):
    """Returns when so many bytes (TCP) or datagrams (UDP, RAW) lie in the server's socket."""
    if ends.kind == "tcp":
        sockets.until(
            wire, lambda: sockets.unread(wire, "server", "tcp") >= size, "the bytes are there"
        )
    else:
        wanted = ends.delivered + datagrams
        sockets.until(wire, lambda: delivered(wire) >= wanted, "the datagrams are there")
    wire.drain()


def many_writes(wire, kind, read_at_once=False, ends=None):
    """WRITES writes of PIECE, and then reads: (packets, [Answer of each read])."""
    ends = ends or pair(wire, kind)
    reads = []
    for _ in range(WRITES):
        ends.client.must(f"send {ends.own} {PIECE}")
        if read_at_once:
            reads.append(ends.server.must(f"recv {ends.fd} 10000"))
    if not read_at_once:
        is_there(wire, ends, WRITES * len(PIECE), WRITES)
        reads = ends.reads(10000)
    ends.end()
    return len(carried(wire, kind)), reads


def one_write(wire, kind, size=READ):
    """One write of LARGE bytes, and then reads of `size` each: (packets, [Answer])."""
    ends = pair(wire, kind)
    ends.client.must(f"fill {ends.own} {LARGE}")
    is_there(wire, ends, LARGE)
    reads = ends.reads(size)
    ends.end()
    return len(carried(wire, kind)), reads


def empty_write(wire, kind, text=""):
    """A write of no bytes, and then one of PIECE: (packets, [Answer])."""
    ends = pair(wire, kind)
    ends.client.must(f"send {ends.own} {text}")
    wire.drain()
    ends.client.must(f"send {ends.own} {PIECE}")
    is_there(wire, ends, len(text) + len(PIECE), 2)
    reads = ends.reads(READ)
    ends.end()
    return len(carried(wire, kind)), reads


@pytest.fixture(scope="module")
def wire(lab):
    """A wire that only takes its time, for what needs no more."""
    with lab.wire(link="delay 5ms", name="first") as wire:
        yield wire
        lab.commands += sockets.commands(wire)


@pytest.fixture(scope="module")
def many(lab, wire):
    """Ten small writes."""
    found = {}
    for kind in KINDS:
        record = Recording(lab, wire, kind)
        with record:
            ends = pair(wire, kind, record)
            found[kind] = many_writes(wire, kind, ends=ends)
        if kind in PICTURES:
            # UDP has no connection to tell its calls by: they are all of these two sockets.
            ports = (ends.port, ends.server_port) if kind == "tcp" else ()
            cut = {"since_ns": ends.since_ns, "until_ns": ends.over_ns}
            lab.ladder(kind, record.ladder(*ports, **cut), PICTURES[kind])
    return found


@pytest.fixture(scope="module")
def one(wire):
    """One large write."""
    return {kind: one_write(wire, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def empty(wire):
    """An empty write."""
    return {kind: empty_write(wire, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def table(lab, many, one, empty):
    """What the first three experiments counted."""
    lab.table(
        [
            "",
            f"{WRITES} writes of\n{len(PIECE)} bytes: packets",
            "reads",
            f"1 write of {LARGE}:\npackets",
            f"reads of\n{READ}",
            "bytes that were\nnever read",
            "an empty write:\npackets",
            "reads",
        ],
        [
            [
                kind.upper(),
                many[kind][0],
                len(many[kind][1]),
                one[kind][0],
                len(one[kind][1]),
                LARGE + (HEADER if kind == "raw" else 0) - total(one[kind][1]),
                empty[kind][0] - 1,
                len(empty[kind][1]) - 1,
            ]
            for kind in KINDS
        ],
    )
    lab.note(
        "TCP carries bytes: how they were cut into writes is forgotten. UDP and RAW carry packets: "
        "what was one write is one read, and what does not fit into that read is gone."
    )


def total(reads):
    """The bytes that these reads returned."""
    return sum(len(answer.data) for answer in reads)


# The claims.


def test_ten_writes_one_read(table, many, figures):
    """TCP: ten writes, one read. The bytes of all ten were there, so it returned them all."""
    packets, reads = many["tcp"]
    figures(writes=WRITES, packets=packets, reads=len(reads), bytes_read=reads[0].value)
    assert len(reads) == 1, f"it took {len(reads)} reads"
    assert reads[0].data == PIECE.encode() * WRITES, f"the read returned {reads[0].data!r}"


def test_ten_writes_ten_reads(many, figures):
    """UDP and RAW: ten writes, ten packets, ten reads."""
    for kind in ("udp", "raw"):
        packets, reads = many[kind]
        skip = HEADER if kind == "raw" else 0
        figures(**{f"{kind.upper()}_packets": packets, f"{kind.upper()}_reads": len(reads)})
        assert packets == WRITES, f"{kind}: {packets} packets"
        assert [answer.data[skip:] for answer in reads] == [PIECE.encode()] * WRITES, f"{kind}"


def test_one_write_many_reads(one, figures):
    """TCP: one write, several packets, as many reads as it takes. What a read leaves stays."""
    packets, reads = one["tcp"]
    figures(packets=packets, reads=[answer.value for answer in reads])
    assert packets > 1, "one packet carried it all"
    assert [answer.value for answer in reads] == [READ] * (LARGE // READ), "other reads"
    text = b"".join(answer.data for answer in reads)
    assert text == bytes(97 + n % 26 for n in range(LARGE)), "the bytes are not those written"


def test_a_datagram_is_whole_or_cut(one, figures):
    """UDP and RAW: one read gets what fits and says MSG_TRUNC; there is no rest for a second."""
    for kind in ("udp", "raw"):
        packets, reads = one[kind]
        figures(**{f"{kind.upper()}_fragments": packets, f"{kind.upper()}_reads": len(reads)})
        assert packets > 1, f"{kind}: one packet carried it all"
        assert [answer.value for answer in reads] == [READ], f"{kind}: other reads"
        assert reads[0].truncated, f"{kind}: the read was not told that there was more"


@pytest.fixture(scope="module")
def roomy(wire):
    """One large write again, and reads that have room for it."""
    return {kind: one_write(wire, kind, size=10000) for kind in KINDS}


def test_a_large_read_gets_it_whole(roomy, figures):
    """With room enough, one read gets the whole datagram, though it crossed in fragments."""
    for kind in ("udp", "raw"):
        packets, reads = roomy[kind]
        skip = HEADER if kind == "raw" else 0
        figures(**{f"{kind.upper()}_fragments": packets, f"{kind.upper()}_read": reads[0].value})
        assert len(reads) == 1 and reads[0].value == LARGE + skip, f"{kind}: {reads[0].value} read"
        assert packets > 1 and not reads[0].truncated, f"{kind}: it was whole all the way"


def test_an_empty_datagram_is_real(empty, figures):
    """An empty datagram crosses and is read: 0 bytes. TCP's empty write sends nothing at all."""
    for kind in KINDS:
        packets, reads = empty[kind]
        values = [answer.value for answer in reads]
        figures(**{f"{kind.upper()}_packets": packets, f"{kind.upper()}_reads": values})
    assert [answer.value for answer in empty["udp"][1]] == [0, len(PIECE)], "UDP read other"
    assert [answer.value for answer in empty["raw"][1]] == [HEADER, HEADER + len(PIECE)]
    assert empty["udp"][0] == empty["raw"][0] == 2, "the empty one did not cross"
    assert empty["tcp"][0] == 1, "TCP sent a packet for nothing"
    assert [answer.value for answer in empty["tcp"][1]] == [len(PIECE)], "TCP read other"


def raw_header(wire):
    """What a raw socket read of one packet, and the wire's row of it."""
    ends = pair(wire, "raw")
    ends.client.must(f"send {ends.own} {PIECE}")
    answer = ends.server.must(f"recv {ends.fd} 1000")
    ends.end()
    return answer.data, carried(wire, "raw")[0]


@pytest.fixture(scope="module")
def header(wire):
    """One raw packet."""
    return raw_header(wire)


def test_raw_shows_the_ip_header(header, figures):
    """RAW: each read begins with the IP header: version, length, protocol, both addresses."""
    data, row = header
    source, destination = (".".join(map(str, data[n : n + 4])) for n in (12, 16))
    figures(
        version=data[0] >> 4,
        header_bytes=(data[0] & 15) * 4,
        protocol=data[9],
        source=source,
        destination=destination,
    )
    assert data[0] == 0x45, f"it begins with {data[0]:#x}"
    assert int.from_bytes(data[2:4], "big") == len(data), "the total length is another"
    assert int.from_bytes(data[4:6], "big") == row.ip_id, "the wire saw another identification"
    assert (data[9], source, destination) == (253, CLIENT, SERVER), "other addresses"
    assert data[HEADER:] == PIECE.encode(), f"behind it stands {data[HEADER:]!r}"


# Framing.


def asked(wire, program, count, size):
    """The summary of a client that asks the TCP echo server."""
    wire.new_run()
    server = wire.start("server", "tcp-server", "-B", SERVER, label=f"{program}-{size}-server")
    server.ready()
    client = wire.start(
        "client",
        program,
        *("-p", server.port, "-c", count, "-i", "1ms", "-s", size, "-q", SERVER),
        label=f"{program}-{size}",
    )
    client.expect(0, 3)
    server.terminate()
    return client.summary


@pytest.fixture(scope="module")
def slow_wire(lab):
    """The wire with the lab's link, on which a long message takes a while to arrive."""
    with lab.wire() as wire:
        yield wire
        lab.commands += sockets.commands(wire)


@pytest.fixture(scope="module")
def unframed(lab, slow_wire):
    """The client that takes one read for one message."""
    return asked(slow_wire, "tcp-unframed", lab.COUNT, lab.BYTES)


@pytest.fixture(scope="module")
def framed(lab, slow_wire):
    """The client that reads on until a message is whole."""
    return asked(slow_wire, "tcp-client", lab.COUNT, lab.BYTES)


def wrong(summary):
    """How many reads gave a client something else than a reply to it."""
    return summary["alien"] + summary["corrupt"] + summary["foreign"]


def test_one_read_per_message_is_caught(lab, unframed, figures):
    """A client that takes one read for one message gets pieces: its messages are not whole."""
    if lab.BYTES <= 1448:
        nothing_to_see("a message fits into one packet: turn BYTES up")
    pieces = wrong(unframed)
    figures(asked=unframed["sent"], got_whole=unframed["received"], got_something_else=pieces)
    assert unframed["sent"] > 0 and pieces > 0, "every read was a whole message"
    assert unframed["received"] < unframed["sent"], "all of them were whole"


def test_framing_mends_it(lab, framed, figures):
    """The same over the same link, with a length in front of each message: all are whole."""
    figures(asked=framed["sent"], got_whole=framed["received"], got_something_else=wrong(framed))
    assert framed["received"] == framed["sent"] == lab.COUNT, "messages are missing"
    assert not wrong(framed), "pieces were taken for messages"


@pytest.fixture(scope="module")
def small(lab, slow_wire):
    """The wrong client again, with messages that fit into one packet."""
    return asked(slow_wire, "tcp-unframed", lab.COUNT, 100)


def test_why_nobody_noticed(small, figures):
    """The same wrong client, with short messages: all are whole. So it passes its first tests."""
    figures(asked=small["sent"], got_whole=small["received"], got_something_else=wrong(small))
    assert small["received"] == small["sent"] and not wrong(small), "it failed with these, too"
