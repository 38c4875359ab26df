"""What does connect() do?"""

import shutil
import subprocess

import pytest

from harness import ladder
from harness.lab import inconclusive, nothing_to_see
from harness.recording import Recording
from harness.screen import duration
from harness.tree import KINDS

KNOBS = {"LINK": "delay 100ms", "SEED": 7}

# A state is claimed where it lasts for 100 ms: it is sampled every 2.
LONG_ENOUGH_NS = 45_000_000


class Exchange:
    """One client that asks one server once, and what is on the record of it."""

    def __init__(self, record, kind, port):
        self.record, self.kind, self.server_port = record, kind, port
        self.rows = record.rows
        self.client = ladder.without_waiting(record.calls["client"])
        self.server = ladder.without_waiting(record.calls["server"])
        self.connect = next((call for call in self.client if call.call == "connect"), None)
        # What getsockname() calls a raw socket's port is the number of its protocol.
        has_port = self.connect and kind != "raw"
        self.client_port = ladder.port_of(self.connect.detail) if has_port else None
        data = [row for row in self.rows if row.direction == "up" and row.payload and row.kind]
        self.first_data = data[0] if data else None

    @property
    def before_data(self):
        """The wire's rows ahead of the first message."""
        if self.first_data is None:
            return self.rows
        return [row for row in self.rows if row.in_ns < self.first_data.in_ns]

    @property
    def accept(self):
        """The server's accept() that returned this connection."""
        return next(
            (
                call
                for call in self.server
                if call.call == "accept" and ladder.port_of(call.address) == self.client_port
            ),
            None,
        )

    def ladder(self):
        """From connect() to the arrival of the first message."""
        until = self.first_data.in_ns if self.first_data else None
        if self.kind == "tcp":
            return self.record.ladder(self.client_port, self.server_port, until_ns=until)
        return self.record.ladder(until_ns=until)

    def drawn(self):
        """What that ladder draws: [(port, flags, seq, ack, bytes)]."""
        ports = {"client": self.client_port, "server": self.server_port}
        return [
            (ports[each.side], each.flags, each.seq, each.ack or 0, each.length)
            for each in self.ladder().packets
        ]

    def changes(self, side):
        """The sampler's lines of this connection."""
        return self.record.changes(side, self.client_port, self.server_port)


def ask(lab, wire, kind, link=None, name=None):
    """A client of a kind asks a server once; the Exchange."""
    if link is not None:
        wire.link(link)
    record = Recording(lab, wire, name or kind)
    with record:
        port = record.ask(kind)
        wire.drain()
    return Exchange(record, kind, port)


# The runs. Each is made once, when the first claim asks for it.


@pytest.fixture(scope="module")
def wire(lab):
    """One wire for all runs; each begins a new run on it."""
    with lab.wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def asked(lab, wire):
    """TCP, UDP and RAW: a client asks a server once."""
    asked = {kind: ask(lab, wire, kind) for kind in KINDS}
    rows = []
    for kind, each in asked.items():
        data, connect = each.first_data, each.connect
        states = [line["state"] for line in each.changes("client")][:2]
        rows.append(
            [
                kind.upper(),
                len(each.before_data),
                duration(connect.returned_ns - connect.called_ns),
                duration(data.out_ns - connect.called_ns) if data and data.out_ns else None,
                each.client_port,
                ", ".join(states) or None,
            ]
        )
    lab.table(
        [
            "",
            "packets ahead\nof the first data",
            "connect()\ntook",
            "first data\nthere after",
            "port that\nconnect() chose",
            "states of the\nclient's socket",
        ],
        rows,
    )
    lab.ladder(
        "handshake",
        asked["tcp"].ladder(),
        "TCP, from connect() to the arrival of the first data.",
        shown=True,
    )
    lab.ladder("udp", asked["udp"].ladder(), "UDP: connect() sends nothing.")
    lab.ladder("raw", asked["raw"].ladder(), "RAW: nor does this one.")
    return asked


@pytest.fixture(scope="module")
def tcp(asked):
    """TCP's exchange."""
    return asked["tcp"]


@pytest.fixture(scope="module")
def lost(lab, wire):
    """The same with one packet of the handshake lost: {"syn": Exchange, ...}."""
    found = {}
    for name in ("syn", "synack", "ack"):
        found[name] = ask(lab, wire, "tcp", f"{lab.LINK} drop {name}:1", f"lost-{name}")
    wire.link(lab.LINK)
    for name, words in (
        ("syn", "The SYN is lost."),
        ("synack", "The SYN-ACK is lost."),
        ("ack", "The ACK is lost, and data follows it."),
    ):
        lab.ladder(f"lost-{name}", found[name].ladder(), words)
    return found


@pytest.fixture(scope="module")
def late(lab, wire):
    """A server that listens, and calls accept() only when the connection has long been there."""
    record = Recording(lab, wire, "late")
    with record:
        server, client = record.by_hand("server"), record.by_hand("client")
        listener, port = server.bound("tcp")
        fd = client.connected("tcp", port)
        client_port = client.name(fd).port
        # Both kernels have it, and 100 ms go by: this waits for the link, and not for a clock.
        record.until("server", "ESTABLISHED", port, client_port)
        client.must(f"send {fd} hello")
        wire.drain()
        server.must(f"accept {listener}")
        wire.drain()
    fetched = [call.returned_ns for call in record.calls["server"] if call.call == "accept"]
    lab.ladder(
        "late",
        record.ladder(client_port, port, until_ns=fetched[0]),
        "The server's program calls accept() long after the connection is there.",
    )
    return record, client_port, port


def long_enough(exchange):
    """States that pass too quickly are not claimed to be seen."""
    for row in exchange.before_data:
        if row.out_ns is not None and row.out_ns - row.in_ns < LONG_ENOUGH_NS:
            nothing_to_see("a state passes too quickly to be seen: give LINK a delay of 100ms")


def handshake(exchange):
    """The first SYN, SYN-ACK and ACK that were delivered."""
    found = {}
    for row in exchange.before_data:
        if row.fate == "delivered":
            found.setdefault(row.tcp_flags, row)
    missing = [flags for flags in ("S", "SA", "A") if flags not in found]
    assert not missing, f"ahead of the first data there was no {' and no '.join(missing)}"
    return found["S"], found["SA"], found["A"]


# The claims.


def test_three_packets(tcp, figures):
    """Exactly three packets go ahead of TCP's first data: SYN, SYN-ACK, ACK. None bears data."""
    tcp.record.clean()
    flags = [row.tcp_flags for row in tcp.before_data]
    figures(
        packets=[f"{row.direction} {row.tcp_flags}" for row in tcp.before_data],
        bytes_in_them=sum(row.payload for row in tcp.before_data),
    )
    assert flags == ["S", "SA", "A"], f"ahead of the first data went {', '.join(flags) or 'none'}"
    assert [row.direction for row in tcp.before_data] == ["up", "down", "up"]
    assert all(row.payload == 0 for row in tcp.before_data), "one of the three bears data"
    # And so does the ladder have it that everybody looks at.
    syn, synack, _ = handshake(tcp)
    one, other, data = (syn.tcp_seq + 1) % 2**32, (synack.tcp_seq + 1) % 2**32, tcp.first_data
    assert tcp.drawn() == [
        (tcp.client_port, "S", syn.tcp_seq, 0, 0),
        (tcp.server_port, "SA", synack.tcp_seq, one, 0),
        (tcp.client_port, "A", one, other, 0),
        (tcp.client_port, data.tcp_flags, one, other, data.payload),
    ], "the ladder draws something else"


def test_each_side_picks_a_number(tcp, figures):
    """Each side picks a number to count from; the other acknowledges it plus 1: a SYN counts."""
    tcp.record.clean()
    syn, synack, ack = handshake(tcp)
    figures(
        client_counts_from=syn.tcp_seq,
        server_acknowledges=synack.tcp_ack,
        server_counts_from=synack.tcp_seq,
        client_acknowledges=ack.tcp_ack,
    )
    assert (
        synack.tcp_ack == (syn.tcp_seq + 1) % 2**32
    ), "the SYN-ACK's ack is not the SYN's seq + 1"
    assert (
        ack.tcp_ack == (synack.tcp_seq + 1) % 2**32
    ), "the ACK's ack is not the SYN-ACK's seq + 1"
    assert ack.tcp_seq == synack.tcp_ack, "the client goes on with another number"
    assert tcp.first_data.tcp_seq == ack.tcp_seq, "the first byte of data has another number"
    assert syn.tcp_seq != synack.tcp_seq, "both sides count from the same number"


def test_states(tcp, figures):
    """The client's socket goes from SYN_SENT to ESTABLISHED, later the server's from SYN_RECV."""
    tcp.record.clean()
    long_enough(tcp)
    seen = {side: [line["state"] for line in tcp.changes(side)][:2] for side in ladder.SIDES}
    figures(client=seen["client"], server=seen["server"])
    tcp.record.saw(seen["client"], ["SYN_SENT", "ESTABLISHED"], "the client's states")
    tcp.record.saw(seen["server"], ["SYN_RECV", "ESTABLISHED"], "the server's states")
    _, ours = tcp.changes("client")[:2]
    half, whole = tcp.changes("server")[:2]
    syn, synack, ack = handshake(tcp)
    assert half["since_ns"] < synack.in_ns, "the half-open socket came after its SYN-ACK"
    assert ours["time_ns"] > synack.out_ns, "the client's was whole before the SYN-ACK came"
    assert whole["time_ns"] > ack.out_ns, "the server's was whole before the ACK came"
    assert ours["time_ns"] < whole["time_ns"], "the server's was whole first"
    assert half["inode"] == 0, "a program holds the half-open socket"


def test_connect_takes_a_round_trip(tcp, figures):
    """connect() returns with the SYN-ACK, one round trip on; accept() half a round trip later."""
    tcp.record.clean()
    syn, synack, ack = handshake(tcp)
    connect, accept = tcp.connect, tcp.accept
    trip = (syn.out_ns - syn.in_ns) + (synack.out_ns - synack.in_ns)
    half = ack.out_ns - ack.in_ns
    figures(
        round_trip_on_the_wire_ns=trip,
        connect_took_ns=connect.returned_ns - connect.called_ns,
        accept_returned_later_by_ns=accept.returned_ns - connect.returned_ns,
    )
    assert connect.result == 0
    assert connect.called_ns < syn.in_ns, "the SYN left before connect() was called"
    assert connect.returned_ns > synack.out_ns, "connect() returned before the SYN-ACK came"
    assert accept.returned_ns > ack.out_ns, "accept() returned before the ACK came"
    # What the machine adds has to be small against the way of the ACK, or the order says nothing.
    slow = connect.returned_ns - synack.out_ns
    if slow > half / 2:
        inconclusive(f"connect() woke up {duration(slow)} after the SYN-ACK: the machine is busy")
    assert connect.returned_ns < ack.out_ns, "connect() waited for the server to have the ACK"
    assert accept.returned_ns > connect.returned_ns + half / 4, "accept() did not return later"


def test_the_kernel_does_it(late, figures):
    """The kernel does it: the connection is whole, and has data, before accept() is called."""
    record, client_port, port = late
    record.clean()
    accept = next(call for call in record.calls["server"] if call.call == "accept")
    connect = next(call for call in record.calls["client"] if call.call == "connect")
    changes = record.changes("server", client_port, port)
    whole = [line for line in changes if line["state"] == "ESTABLISHED"]
    queued = [
        line["rqueue"]
        for line in record.states["server"]
        if line["state"] == "LISTEN" and line["time_ns"] < accept.called_ns
    ]
    data = [row for row in record.rows if row.direction == "up" and row.payload]
    assert whole, "the server's socket was never seen in ESTABLISHED"
    figures(
        whole_before_accept_was_called_by_ns=accept.called_ns - whole[0]["time_ns"],
        belongs_to_a_program=bool(whole[0]["inode"]),
        waiting_to_be_accepted=max(queued, default=0),
        accept_took_ns=accept.returned_ns - accept.called_ns,
    )
    assert connect.returned_ns < accept.called_ns, "connect() waited for accept()"
    assert whole[0]["time_ns"] < accept.called_ns, "the connection was not whole before accept()"
    assert whole[0]["inode"] == 0, "a program held the connection before accept()"
    assert max(queued, default=0) == 1, "the listener's queue did not hold it"
    assert data and data[0].out_ns < accept.called_ns, "no data came before accept() was called"
    assert not [row for row in record.rows if row.in_ns > accept.called_ns and "S" in row.tcp_flags]


def test_connect_chooses_a_port(asked, wire, figures):
    """Nobody called bind(): connect() chose the client's port, out of the range for that."""
    low, high = map(int, wire.setting("client", "ipv4/ip_local_port_range").split())
    for kind in ("tcp", "udp"):
        each = asked[kind]
        ports = {row.sport for row in each.rows if row.direction == "up" and row.sport}
        figures(**{f"{kind.upper()}_chose": each.client_port})
        assert not [call for call in each.client if call.call == "bind"], "the client called bind()"
        assert ports == {each.client_port}, "packets come from another port than connect() chose"
        assert low <= each.client_port <= high, f"{each.client_port} is not in {low} to {high}"
        assert ports != {each.server_port}
    raw = asked["raw"]
    figures(out_of=[low, high])
    assert raw.rows and not [row for row in raw.rows if row.sport or row.dport], "RAW has ports"


def test_udp_and_raw_send_nothing(asked, figures):
    """UDP's and RAW's connect() sends nothing and waits for nobody: it notes an address."""
    for kind in ("udp", "raw"):
        each = asked[kind]
        connect = each.connect
        during = [row for row in each.rows if connect.called_ns <= row.in_ns <= connect.returned_ns]
        way = each.first_data.out_ns - each.first_data.in_ns
        figures(
            **{
                f"{kind.upper()}_packets": len(each.before_data),
                f"{kind.upper()}_took_ns": connect.returned_ns - connect.called_ns,
            }
        )
        assert connect.result == 0
        assert not each.before_data, f"{kind.upper()} sent something ahead of its first data"
        assert not during, f"{kind.upper()}'s connect() sent something"
        if way > LONG_ENOUGH_NS and connect.returned_ns - connect.called_ns > way:
            inconclusive("connect() took longer than the link does: the machine is busy")


def counted(exchange, name):
    """A kernel counter of the client's host."""
    return exchange.record.kernel["client"].get(name, 0)


def test_a_lost_syn(lost, figures):
    """A lost SYN is sent again by the kernel, as it was, when its timer of 1 s has run out."""
    run = lost["syn"]
    run.record.clean()
    syns = [row for row in run.rows if row.tcp_flags == "S"]
    figures(
        SYNs=len(syns),
        again_after_ns=syns[1].in_ns - syns[0].in_ns if len(syns) > 1 else None,
        counted_by_the_kernel=counted(run, "TcpExt.TCPSynRetrans"),
        connect_took_ns=run.connect.returned_ns - run.connect.called_ns,
    )
    assert [row.fate for row in syns] == [
        "dropped",
        "delivered",
    ], "it was not the first that was lost"
    assert syns[0].tcp_seq == syns[1].tcp_seq, "the second SYN has another number"
    # The timer is set to 1 s (RFC 6298, 2.1); the kernel counts in ticks: it may be a little less.
    assert syns[1].in_ns - syns[0].in_ns > 900_000_000, "it was sent again before the timer ran out"
    assert counted(run, "TcpExt.TCPSynRetrans") == 1
    assert run.connect.result == 0 and run.connect.returned_ns > syns[1].out_ns
    # The first look may fall between the new state and the timer; when it is sent again is another.
    waiting = [
        line["timer"]
        for line in run.record.states["client"]
        if line["state"] == "SYN_SENT" and ladder.port_of(line["local"]) == run.client_port
    ]
    assert "retransmit" in waiting, "no timer ran in SYN_SENT"


def test_a_lost_synack(lost, figures):
    """A lost SYN-ACK looks the same to the client: it asks again, and is told the same number."""
    run = lost["synack"]
    run.record.clean()
    syns = [row for row in run.rows if row.tcp_flags == "S"]
    answers = [row for row in run.rows if row.tcp_flags == "SA"]
    arrived = [row for row in answers if row.fate == "delivered"]
    figures(SYNs=len(syns), SYN_ACKs=len(answers), arrived=len(arrived))
    assert [row.fate for row in syns] == ["delivered"] * len(syns), "a SYN was lost, too"
    assert answers[0].fate == "dropped" and arrived, "it was not the first SYN-ACK that was lost"
    assert len(syns) > 1, "the client did not ask again"
    assert len({row.tcp_seq for row in syns}) == 1, "it asked with another number"
    assert len({row.tcp_seq for row in answers}) == 1, "the server answered with another number"
    assert run.connect.returned_ns > arrived[0].out_ns, "connect() returned without a SYN-ACK"


# A sender with one segment under way waits for this and two round trips more before it sends the
# segment again (RFC 8985 section 7.2, and Linux's least RTO).
PATIENCE_NS = 200_000_000


def test_a_lost_ack(lost, figures):
    """A lost ACK costs nothing if data follows: the data acknowledges the SYN-ACK as well."""
    run = lost["ack"]
    run.record.clean()
    syn_flags = [row.tcp_flags for row in run.rows if "S" in row.tcp_flags]
    acks = [row for row in run.before_data if row.tcp_flags == "A"]
    data = run.first_data
    figures(
        ACKs_lost=sum(row.fate == "dropped" for row in acks),
        sent_again=counted(run, "Tcp.RetransSegs"),
        accept_returned_after_the_data_by_ns=run.accept.returned_ns - data.out_ns,
    )
    assert [row.fate for row in acks] == ["dropped"], "it was not the ACK that was lost"
    assert syn_flags == ["S", "SA"], "a part of the handshake was sent again"
    again = [row for row in run.rows if row.direction == "up" and row.payload][1:]
    if again and again[0].in_ns - data.out_ns > PATIENCE_NS and data.fate == "delivered":
        inconclusive("this machine is too busy: what had arrived was sent again before its answer")
    assert counted(run, "Tcp.RetransSegs") == 0, "the client sent something again"
    assert run.connect.returned_ns < data.in_ns, "connect() waited for more than the SYN-ACK"
    assert run.accept.returned_ns > data.out_ns, "accept() returned before any ACK had come"
    whole = [line for line in run.changes("server") if line["state"] == "ESTABLISHED"]
    assert not whole or whole[0]["time_ns"] > data.in_ns, "ESTABLISHED before any ACK had come"


def test_tshark_sees_the_same(asked, wire, figures):
    """A stranger sees the same: tshark reads the same packets and numbers out of the capture."""
    if not shutil.which("tshark"):
        nothing_to_see("tshark is not installed: `apt install tshark` brings it")
    tcp = asked["tcp"]
    wire.counters()
    fields = (
        "frame.interface_id",
        "tcp.srcport",
        "tcp.flags",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "tcp.len",
    )
    # Both ports: a later run's connection may have got the same port to come from.
    ours = f"tcp.port == {tcp.client_port} && tcp.port == {tcp.server_port}"
    command = ["tshark", "-r", str(wire.pcap_path), "-Y", ours]
    command += ["-T", "fields", "-E", "separator=,"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bits = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
    # A packet is in the capture where it enters and where it leaves: in order of the first of both.
    theirs = {}
    for line in done.stdout.splitlines():
        _, sport, flags, seq, ack, length = line.split(",")
        theirs[int(sport), int(flags, 16) & 31, int(seq), int(ack or 0), int(length)] = True
    rows = [row for row in tcp.rows if tcp.client_port in (row.sport, row.dport)]
    ours = {
        (
            row.sport,
            sum(bits[flag] for flag in row.tcp_flags),
            row.tcp_seq,
            row.tcp_ack,
            row.payload,
        )
        for row in rows
    }
    figures(packets=len(ours), seen_by_tshark=len(theirs))
    shown = {
        (sport, sum(bits[flag] for flag in flags), *numbers)
        for sport, flags, *numbers in tcp.drawn()
    }
    assert ours == set(theirs), "tshark reads other packets than the ladder is drawn from"
    until_data = list(theirs)
    for n, (sport, *_, length) in enumerate(until_data):
        if sport == tcp.client_port and length:
            del until_data[n + 1 :]
            break
    assert shown == set(until_data), "tshark reads other packets than the ladder draws"
