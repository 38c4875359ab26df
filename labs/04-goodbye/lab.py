"""What does close() do?"""

import json

import pytest

from harness import ladder
from harness.dialogue import SERVER
from harness.lab import inconclusive, nothing_to_see
from harness.recording import Recording
from harness.screen import duration
from harness.tree import KINDS

KNOBS = {"LINK": "delay 100ms", "SEED": 7}

# A state is claimed where it lasts for 100 ms: it is sampled every 2.
LONG_ENOUGH_NS = 45_000_000

# A program that answers a FIN within this answers at once: the kernel waits 40 ms for company for
# an acknowledgement.
AT_ONCE_NS = 20_000_000


class Goodbye:
    """One connection, or one exchange, and how it ended."""

    def __init__(self, record, client_port, server_port):
        self.record, self.rows = record, record.rows
        self.client_port, self.server_port = client_port, server_port

    def changes(self, side):
        """The sampler's lines of this connection in which the state is new."""
        return self.record.changes(side, self.client_port, self.server_port)

    def states(self, side):
        """The states of this connection on one side, in order, ESTABLISHED left out."""
        names = [line["state"] for line in self.changes(side)]
        return [name for name in names if name not in ("SYN_SENT", "SYN_RECV", "ESTABLISHED")]

    def line(self, side, state):
        """The sampler's line in which this state is new; None if it never was."""
        found = [line for line in self.changes(side) if line["state"] == state]
        return found[0] if found else None

    @property
    def segments(self):
        """The wire's rows of this connection from the first FIN or RST on."""
        both = {self.client_port, self.server_port}
        mine = [row for row in self.rows if {row.sport, row.dport} == both]
        last = [row for row in mine if set(row.tcp_flags) & set("FR")]
        return [row for row in mine if last and row.in_ns >= last[0].in_ns]

    @property
    def flags(self):
        """Those, as `up FA`."""
        return [f"{row.direction} {row.tcp_flags.replace('P', '')}" for row in self.segments]

    def calls(self, side, name=None):
        """The calls on this connection's socket, with waits made one."""
        calls = ladder.without_waiting(self.record.calls[side])
        calls = ladder.of_connection(calls, self.client_port)
        return [call for call in calls if name in (None, call.call)]

    def ladder(self, since_ns=None):
        """The whole of it, or from a moment on."""
        return self.record.ladder(self.client_port, self.server_port, since_ns=since_ns)

    def ending(self):
        """From the client's close() on, without what had still to be acknowledged."""
        ladder = self.ladder(self.calls("client", "close")[0].called_ns)
        first = self.segments[0].in_ns if self.segments else 0
        ladder.packets = [packet for packet in ladder.packets if packet.left_ns >= first]
        return ladder

    def long_enough(self):
        """States that pass too quickly are not claimed to be seen."""
        self.record.clean()
        ways = [row.out_ns - row.in_ns for row in self.segments if row.out_ns is not None]
        if ways and min(ways) < LONG_ENOUGH_NS:
            nothing_to_see("a state passes too quickly to be seen: give LINK a delay of 100ms")
        return self


class Hands:
    """Two programs whose calls are made by hand, and a connection between them."""

    def __init__(self, lab, wire, name, options=()):
        self.wire, self.record, self.options = wire, Recording(lab, wire, name), options

    def __enter__(self):
        self.record.__enter__()
        self.server, self.client = self.record.by_hand("server"), self.record.by_hand("client")
        self.listener, self.port = self.server.bound("tcp", options=self.options)
        self.fd, self.conn, self.client_port = self.connect()
        return self

    def connect(self):
        """A further connection: (the client's descriptor, the server's, the client's port)."""
        fd = self.client.connected("tcp", self.port)
        conn = self.server.must(f"accept {self.listener}").value
        return fd, conn, self.client.name(fd).port

    def close_both(self):
        """The rest, for runs that are about something else."""
        self.client.must(f"close {self.fd}")
        self.server.must(f"close {self.conn}")
        self.wire.drain()

    def __exit__(self, *fault):
        self.record.__exit__(*fault)

    def goodbye(self):
        """What was recorded."""
        return Goodbye(self.record, self.client_port, self.port)


# The runs. Each is made once, when the first claim asks for it.


@pytest.fixture(scope="module")
def wire(lab):
    """One wire for all runs; each begins a new run on it."""
    with lab.wire() as wire:
        yield wire


def ask(lab, wire, kind, link=None, name=None):
    """A client of a kind asks a server once, and closes; the Goodbye."""
    if link is not None:
        wire.link(link)
    record = Recording(lab, wire, name or kind)
    with record:
        port = record.ask(kind)
        if kind == "tcp":
            # Its end is the connection's, and nobody else's: the server is still there.
            wire.until_closed()
        wire.drain()
    connects = [call for call in record.calls["client"] if call.call == "connect"]
    client_port = ladder.port_of(connects[0].detail) if connects and kind != "raw" else None
    return Goodbye(record, client_port, port)


@pytest.fixture(scope="module")
def asked(lab, wire):
    """TCP, UDP and RAW: a client asks once, has its answer, and closes."""
    asked = {kind: ask(lab, wire, kind) for kind in KINDS}
    rows = []
    for kind, each in asked.items():
        behind = after_close(each)
        rows.append(
            [
                kind.upper(),
                len([row for row in each.rows if row.in_ns < closed_ns(each)]),
                len(behind),
                "the end" if told_of_the_end(each) else "nothing",
                ", ".join(each.states("client")) if kind == "tcp" else None,
            ]
        )
    lab.table(
        [
            "",
            "packets until\nclose()",
            "packets\nafter it",
            "what the server's\nread is told",
            "the client's socket,\nclosed, goes on in",
        ],
        rows,
    )
    return asked


@pytest.fixture(scope="module")
def at_once(lab, asked):
    """The server closes as soon as it reads the end."""
    lab.ladder(
        "at-once",
        asked["tcp"].ending(),
        "The server closes at once: three segments, and no FIN_WAIT_2.",
        shown=True,
    )
    return asked["tcp"]


@pytest.fixture(scope="module")
def later(lab, wire):
    """The server closes when the client has long been in FIN_WAIT_2."""
    with Hands(lab, wire, "later") as hands:
        hands.client.must(f"close {hands.fd}")
        hands.record.until("client", "FIN_WAIT_2", hands.client_port)
        assert hands.server.must(f"recv {hands.conn} 100").value == 0
        hands.server.must(f"close {hands.conn}")
        hands.record.until("server", "CLOSED", hands.port, hands.client_port)
        wire.drain()
    found = hands.goodbye()
    lab.ladder(
        "later",
        found.ending(),
        "The server takes its time: four segments, and every state in its turn.",
        shown=True,
    )
    return found


@pytest.fixture(scope="module")
def behind_data(lab, wire):
    """The client sends and closes before the server reads anything."""
    with Hands(lab, wire, "behind") as hands:
        for text in ("one", "two", "three"):
            hands.client.must(f"send {hands.fd} {text}")
        hands.client.must(f"close {hands.fd}")
        hands.record.until("server", "CLOSE_WAIT", hands.port, hands.client_port)
        wire.drain()
        hands.read = [hands.server.must(f"recv {hands.conn} 5").data for _ in range(4)]
        hands.server.must(f"close {hands.conn}")
        wire.drain()
    found = hands.goodbye()
    found.read = hands.read
    lab.ladder("behind-data", found.ladder(), "The end stands behind the data.")
    return found


@pytest.fixture(scope="module")
def half(lab, wire):
    """The client says that it sends no more, and goes on reading."""
    with Hands(lab, wire, "half") as hands:
        hands.client.must(f"send {hands.fd} question")
        hands.client.must(f"shutdown {hands.fd}")
        hands.refused = hands.client.call(f"send {hands.fd} more")
        hands.record.until("client", "FIN_WAIT_2", hands.client_port)
        hands.asked = hands.server.must(f"recv {hands.conn} 100").data
        hands.ended = hands.server.must(f"recv {hands.conn} 100").value
        hands.server.must(f"send {hands.conn} answer")
        hands.answer = hands.client.must(f"recv {hands.fd} 100").data
        hands.server.must(f"close {hands.conn}")
        hands.last = hands.client.must(f"recv {hands.fd} 100").value
        hands.client.must(f"close {hands.fd}")
        wire.drain()
    found = hands.goodbye()
    found.hands = hands
    lab.ladder("half-close", found.ladder(), "A half-close: data comes after the FIN has gone.")
    return found


@pytest.fixture(scope="module")
def leak(lab, wire):
    """A server that forgets to close: three clients come and go. Nothing here needs a long way."""
    before = wire.setting("client", "ipv4/tcp_fin_timeout")
    # How long the client's kernel keeps FIN_WAIT_2 for a program that is gone: 60 s, as a rule.
    wire.setting("client", "ipv4/tcp_fin_timeout", 1)
    wire.link("")
    with Hands(lab, wire, "leak") as hands:
        conns = [(hands.fd, hands.conn, hands.client_port)] + [hands.connect() for _ in range(2)]
        for fd, conn, _ in conns:
            hands.client.must(f"close {fd}")
            assert hands.server.must(f"recv {conn} 100").value == 0
        for _, _, port in conns:
            hands.record.until("client", "CLOSED", port)
        wire.drain()
        text = wire.output("server", "tcp-states", "-4", "-J", "-c", 1, "-p", hands.port)
    wire.setting("client", "ipv4/tcp_fin_timeout", before)
    wire.link(lab.LINK)
    found = hands.goodbye()
    found.ports = [port for _, _, port in conns]
    lines = [json.loads(line) for line in text.splitlines()]
    found.forgotten = [line for line in lines if line.get("state") not in (None, "LISTEN")]
    lab.ladder("leak", found.ladder(), "A server that forgets to close, until its program ends.")
    return found


@pytest.fixture(scope="module")
def unread(lab, wire):
    """The client closes while something lies unread in its socket."""
    with Hands(lab, wire, "unread") as hands:
        hands.server.must(f"send {hands.conn} unread")
        wire.drain()
        hands.client.must(f"close {hands.fd}")
        wire.drain()
        hands.told = hands.server.call(f"recv {hands.conn} 100").error
    found = hands.goodbye()
    found.told = hands.told
    lab.ladder("unread", found.ladder(), "close() with something unread: a reset.")
    return found


@pytest.fixture(scope="module")
def linger(lab, wire):
    """The client has set SO_LINGER to 0 before it closes."""
    with Hands(lab, wire, "linger") as hands:
        hands.client.must(f"send {hands.fd} last words")
        wire.drain()
        hands.client.must(f"setsockopt {hands.fd} SO_LINGER 0")
        hands.client.must(f"close {hands.fd}")
        wire.drain()
        # What had come before the reset can still be read, on Linux.
        hands.server.call(f"recv {hands.conn} 100")
        hands.told = hands.server.call(f"recv {hands.conn} 100").error
    found = hands.goodbye()
    found.told = hands.told
    lab.ladder("linger", found.ladder(), "close() with SO_LINGER 0: a reset.")
    return found


@pytest.fixture(scope="module")
def server_first(lab, wire):
    """The server closes first, ends, and wants its port back."""
    # The kernel wants the option from both, the socket in TIME_WAIT and the new one.
    with Hands(lab, wire, "server-first", options=("SO_REUSEADDR",)) as hands:
        hands.server.must(f"close {hands.conn}")
        hands.record.until("server", "FIN_WAIT_2", hands.port)
        assert hands.client.must(f"recv {hands.fd} 100").value == 0
        hands.client.must(f"close {hands.fd}")
        hands.record.until("server", "TIME_WAIT", hands.port)
        wire.drain()
        hands.server.must(f"close {hands.listener}")
        fd = hands.server.socket("tcp")
        hands.plain = hands.server.call(f"bind {fd} {SERVER} {hands.port}").error
        hands.server.must(f"setsockopt {fd} SO_REUSEADDR 1")
        hands.reuse = hands.server.call(f"bind {fd} {SERVER} {hands.port}")
    found = hands.goodbye()
    found.plain, found.reuse = hands.plain, hands.reuse
    lab.ladder("server-first", found.ladder(), "The server closes first, and has TIME_WAIT.")
    return found


@pytest.fixture(scope="module")
def lost_fin(lab, wire):
    """The client's FIN is lost."""
    wire.up(f"{lab.LINK} drop fin:1")
    found = ask(lab, wire, "tcp", name="lost-fin")
    wire.link(lab.LINK)
    lab.ladder("lost-fin", found.ladder(), "The client's FIN is lost.")
    return found


@pytest.fixture(scope="module")
def untold(lab, asked):
    """UDP and RAW beside TCP, with their ladders last on the page."""
    lab.ladder("udp", asked["udp"].record.ladder(), "UDP: close() sends nothing.")
    lab.ladder("raw", asked["raw"].record.ladder(), "RAW: nor does this one.")
    return asked


# The claims.


def closed_ns(goodbye):
    """When the client called close()."""
    calls = [call for call in goodbye.record.calls["client"] if call.call == "close"]
    assert calls, "the client never called close()"
    return calls[-1].called_ns


def told_of_the_end(goodbye):
    """Reads of the server's that returned 0."""
    calls = goodbye.record.calls["server"]
    return [call for call in calls if call.call in ladder.HEARING and call.result == 0]


def after_close(goodbye):
    """The wire's rows from the client's close() on."""
    return [row for row in goodbye.rows if row.in_ns >= closed_ns(goodbye)]


def as_drawn(goodbye, flags):
    """Asserts that the ladder on the page has these segments too, as the wire had them."""
    packets = goodbye.ending().packets
    ways = {"client": "up", "server": "down"}
    drawn = [f"{ways[each.side]} {each.flags.replace('P', '')}" for each in packets]
    assert drawn == flags, f"the ladder draws {', '.join(drawn) or 'none'}"
    for packet, row in zip(packets, goodbye.segments):
        assert (packet.left_ns, packet.arrived_ns) == (
            row.in_ns,
            row.out_ns,
        ), "drawn at another time"
        assert (packet.seq, packet.ack) == (row.tcp_seq, row.tcp_ack), "drawn with other numbers"
        assert packet.length == row.payload == 0, "one of them bears data"


def test_three_segments(at_once, figures):
    """A server that closes at once puts FIN and ACK in one: three segments, no FIN_WAIT_2."""
    at_once.record.clean()
    segments = at_once.segments
    figures(segments=at_once.flags, client=at_once.states("client"))
    assert segments, "nobody said goodbye"
    closes = at_once.calls("server", "close")
    took = closes[0].called_ns - segments[0].out_ns if closes else None
    figures(the_server_closed_after_ns=took)
    assert closes, "the server never closed"
    if at_once.flags != THREE and took > AT_ONCE_NS:
        inconclusive(f"the server was held up: it closed {duration(took)} after the FIN came")
    assert at_once.flags == THREE
    assert segments[1].tcp_ack == (segments[0].tcp_seq + 1) % 2**32, "the FIN is not acknowledged"
    assert segments[2].tcp_ack == (segments[1].tcp_seq + 1) % 2**32, "nor is the other"
    as_drawn(at_once, THREE)
    # The kernel takes the segment's ACK first and its FIN next: a sample may fall in between.
    between = at_once.line("client", "FIN_WAIT_2")
    if between:
        stayed = at_once.line("client", "TIME_WAIT")["time_ns"] - between["time_ns"]
        assert stayed < AT_ONCE_NS, f"the client was in FIN_WAIT_2 for {duration(stayed)}"


THREE = ["up FA", "down FA", "up A"]
FOUR = ["up FA", "down A", "down FA", "up A"]


def test_four_segments(later, figures):
    """A server that takes its time makes it four: FIN, ACK, and later its own FIN, ACK."""
    later.record.clean()
    segments = later.segments
    figures(segments=later.flags)
    assert later.flags == FOUR
    fin, ack, other, last = segments
    close = later.calls("server", "close")[0]
    figures(between_ACK_and_FIN_ns=other.in_ns - ack.in_ns)
    assert ack.tcp_ack == (fin.tcp_seq + 1) % 2**32, "the first FIN is not acknowledged plus one"
    assert last.tcp_ack == (other.tcp_seq + 1) % 2**32, "the second FIN is not, either"
    assert ack.in_ns < close.called_ns < other.in_ns, "the server's FIN is not its close()'s"
    as_drawn(later, FOUR)


def test_five_states(later, figures):
    """Five states, in order: FIN_WAIT_1, CLOSE_WAIT, FIN_WAIT_2, LAST_ACK, TIME_WAIT."""
    later.long_enough()
    record = later.record
    figures(client=later.states("client"), server=later.states("server"))
    record.saw(later.states("client"), ["FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT"], "the client's")
    record.saw(later.states("server"), ["CLOSE_WAIT", "LAST_ACK", "CLOSED"], "the server's")
    turns = [
        ("client", "FIN_WAIT_1"),
        ("server", "CLOSE_WAIT"),
        ("client", "FIN_WAIT_2"),
        ("server", "LAST_ACK"),
        ("client", "TIME_WAIT"),
        ("server", "CLOSED"),
    ]
    lines = [later.line(side, state) for side, state in turns]
    # No later than the sample that has it, the state was there; no sooner than the one before.
    for n in range(1, len(lines)):
        before, after = turns[n - 1][1], turns[n][1]
        assert lines[n - 1]["since_ns"] < lines[n]["time_ns"], f"{after} came before {before}"
    fin, ack, other, last = later.segments
    close = later.calls("server", "close")[0]
    makers = (fin.out_ns, ack.out_ns, close.called_ns, other.out_ns, last.out_ns)
    for line, moment, turn in zip(lines[1:], makers, turns[1:]):
        assert line["time_ns"] > moment, f"{turn[1]} came before what makes it"


def test_who_closes_first_waits(at_once, server_first, figures):
    """TIME_WAIT is for the side that closed first, whichever it is; its timer runs 60 s."""
    for first, other, run in (("client", "server", at_once), ("server", "client", server_first)):
        run.record.clean()
        line = run.line(first, "TIME_WAIT")
        assert line, f"the {first} closed first, and was never in TIME_WAIT"
        figures(**{f"{first}_first_timer_ms": line["timer_ms"], f"{other}_then": run.states(other)})
        assert line["timer"] == "time_wait", "it is not the timer of TIME_WAIT that runs"
        assert 50_000 < line["timer_ms"] <= 60_000, "the timer is not the kernel's 60 s"
        assert line["inode"] == 0, "a program still holds it"
        assert run.line(other, "TIME_WAIT") is None, f"the {other} is in TIME_WAIT, too"


def test_restart(server_first, figures):
    """TIME_WAIT blocks the server's restart: its port is in use, but not for SO_REUSEADDR."""
    run = server_first
    run.record.clean()
    binds = [call for call in run.record.calls["server"] if call.call == "bind"]
    figures(bind_says=run.plain, with_SO_REUSEADDR=run.reuse.error or run.reuse.value)
    assert run.line("server", "TIME_WAIT"), "the server is not in TIME_WAIT"
    assert run.plain == "EADDRINUSE", "bind() took the port all the same"
    assert run.reuse.value == 0, f"bind() failed with SO_REUSEADDR, too: {run.reuse.error}"
    assert [call.result for call in binds] == [0, -1, 0]


def test_the_end_stands_behind_the_data(behind_data, figures):
    """The end of the stream stands behind what was sent: the server reads all of it, then 0."""
    run = behind_data
    run.record.clean()
    line = run.line("server", "CLOSE_WAIT")
    reads = [call for call in run.calls("server") if call.call in ladder.HEARING]
    figures(unread_in_CLOSE_WAIT_bytes=line["rqueue"], reads_returned=[c.result for c in reads])
    assert b"".join(run.read) == b"onetwothree", "the server did not read what was sent"
    assert [call.result for call in reads] == [5, 5, 1, 0]
    # The kernel counts the FIN as a byte to be read.
    assert line["rqueue"] in (11, 12), "the data did not lie in the socket when the FIN came"
    assert reads[0].called_ns > line["time_ns"], "the server read before the end had come"


def test_half_close(half, figures):
    """shutdown() closes one way: the FIN has gone, and data still comes the other way."""
    run, hands = half.long_enough(), half.hands
    fin = run.segments[0]
    answer = [row for row in run.segments if row.direction == "down" and row.payload]
    figures(
        after_the_FIN_came_bytes=sum(row.payload for row in answer),
        client=run.states("client"),
        writing_on_says=hands.refused.error,
    )
    assert fin.direction == "up" and "F" in fin.tcp_flags
    assert (hands.asked, hands.ended) == (
        b"question",
        0,
    ), "the server did not read question and end"
    assert answer and answer[0].in_ns > fin.out_ns, "the answer went out before the FIN had come"
    assert hands.answer == b"answer" and hands.last == 0, "the client did not read answer and end"
    assert hands.refused.error == "EPIPE", "the client could go on sending"
    wanted = ["FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT"]
    run.record.saw(run.states("client"), wanted, "the client's states")
    assert run.line("client", "FIN_WAIT_2")[
        "inode"
    ], "the client's program had let go of its socket"


def test_leak(leak, figures):
    """Who forgets close() leaks: CLOSE_WAIT has no timer, and stays until the program ends."""
    states = sorted(line["state"] for line in leak.forgotten)
    ends = [row for row in leak.rows if row.direction == "down" and "F" in row.tcp_flags]
    gone = max(leak.record.states["client"], key=lambda line: line["time_ns"])["time_ns"]
    answers = [row for row in leak.rows if row.direction == "up" and "R" in row.tcp_flags]
    figures(
        left_behind=states,
        timers=sorted({line["timer"] for line in leak.forgotten}),
        FINs_when_the_program_ended=len(ends),
        answered_by_resets=len(answers),
    )
    assert states == ["CLOSE_WAIT"] * 3, "the server's sockets are not all in CLOSE_WAIT"
    assert all(line["timer"] == "off" for line in leak.forgotten), "a timer runs in CLOSE_WAIT"
    assert all(line["inode"] for line in leak.forgotten), "no program holds them"
    assert len(ends) == 3 and min(row.in_ns for row in ends) > gone, "the server closed before"
    assert len(answers) == 3, "the client's kernel still knew the connections"


def reset(run, figures):
    """What a close() that is a reset looks like."""
    ends = [row for row in run.rows if set(row.tcp_flags) & set("FR")]
    figures(
        segments=[f"{row.direction} {row.tcp_flags}" for row in ends],
        the_server_reads=run.told,
        client=run.states("client"),
        server=run.states("server"),
    )
    assert ends and all("R" in row.tcp_flags and row.direction == "up" for row in ends), "no reset"
    assert run.told == "ECONNRESET", "the server's read was not told of a reset"
    assert run.states("client") == ["CLOSED"], "the client's socket went through further states"
    assert run.states("server") == ["CLOSED"], "the server's socket went through further states"


def test_unread(unread, figures):
    """close() with something unread is a reset, for it is lost, and the other side must know."""
    reset(unread.long_enough(), figures)
    read = [call for call in unread.calls("client") if call.call in ladder.HEARING]
    assert not read, "the client read it"


def test_linger(linger, figures):
    """With SO_LINGER 0 close() is a reset, too: no FIN, no TIME_WAIT."""
    reset(linger.long_enough(), figures)
    options = [call.detail for call in linger.calls("client", "setsockopt")]
    assert options == ["SO_LINGER=1 0"], "SO_LINGER was not set to 0"


def test_lost_fin(lost_fin, figures):
    """A lost FIN is sent again, as data would be, though close() has long returned."""
    run = lost_fin
    run.record.clean()
    fins = [row for row in run.segments if row.direction == "up" and "F" in row.tcp_flags]
    close = run.calls("client", "close")[0]
    figures(
        FINs=len(fins),
        again_after_ns=fins[1].in_ns - fins[0].in_ns if len(fins) > 1 else None,
        close_took_ns=close.returned_ns - close.called_ns,
        counted_by_the_kernel=run.record.kernel["client"]["Tcp.RetransSegs"],
    )
    assert [row.fate for row in fins] == ["dropped"] + ["delivered"] * (len(fins) - 1)
    assert len(fins) > 1, "the FIN was not sent again"
    assert len({row.tcp_seq for row in fins}) == 1, "it was sent with another number"
    assert run.record.kernel["client"]["Tcp.RetransSegs"] == len(fins) - 1
    assert close.returned_ns < fins[1].in_ns, "close() waited for it"
    # The last of what was seen in that state: the first look may fall into close() itself.
    waiting = [
        line
        for line in run.record.states["client"]
        if line["state"] == "FIN_WAIT_1" and ladder.port_of(line["local"]) == run.client_port
    ]
    assert waiting[-1]["inode"] == 0, "the program still held the socket"


def test_udp_tells_nobody(untold, figures):
    """UDP's and RAW's close() tells nobody: not a packet goes, and the server waits on."""
    for kind in ("udp", "raw"):
        run = untold[kind]
        run.record.clean()
        figures(**{f"{kind.upper()}_packets_after_close": len(after_close(run))})
        assert run.rows, "nothing was sent at all"
        assert not after_close(run), f"{kind.upper()} sent something at close()"
        assert not told_of_the_end(run), f"{kind.upper()}'s server read an end"
    tcp = after_close(untold["tcp"])
    figures(TCP_packets_after_close=len(tcp))
    assert tcp, "TCP sent nothing at close()"
    assert told_of_the_end(untold["tcp"]), "TCP's server read no end"
