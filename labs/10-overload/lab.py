"""What happens when the reader is slow?"""

import errno
import os
import time

import pytest

from harness import capture, charts, ladder, sockets, tcp
from harness.lab import duration_ns, inconclusive, nothing_to_see, seqs
from harness.screen import duration
from harness.svg import Linear, Panel, Path, chart
from harness.tree import KINDS

KNOBS = {
    "LINK": "delay 2ms",
    "COUNT": 600,
    "INTERVAL": "200us",
    "SIZE": 1000,
    "RCVBUF": "16k",
}

SERVER = "10.0.0.2"
PROBES = 3
NO_PROTOCOL = os.strerror(errno.ENOPROTOOPT)


class Hold:
    """A reader that stands still (SIGSTOP), and what both kernels hold meanwhile.

    For TCP it stands until the sender's kernel has asked `probes` times whether there is room;
    for the others until all has been sent and has arrived.
    """

    def __init__(self, lab, wire, kind, probes=PROBES):
        self.lab, self.wire, self.kind, self.probes = lab, wire, kind, probes
        self.closed = False
        self.writer = self.reader = None
        self.until_ns = None

    def __call__(self, receiver, start_sender):
        receiver.stop()
        if self.kind == "tcp":
            sender = self.until_closed(receiver, start_sender)
        else:
            sender = start_sender().wait()
        self.wire.drain()
        self.until_ns = time.monotonic_ns()
        receiver.cont()
        return sender

    def never(self):
        """In place of a hold, once a run is over: nobody stood still, and nothing is held."""
        nothing = sockets.Socket(None, None, "ESTABLISHED", 0, 0, None, 0)
        self.writer = self.reader = nothing
        # As if the window had closed, so that the claims look for it.
        self.closed, self.until_ns = True, time.monotonic_ns()

    def until_closed(self, receiver, start_sender):
        """Until the window is closed and nothing moves any more, or all has found room."""
        wire, before = self.wire, self.count_probes()
        sender = start_sender()
        still_ns = max(20_000_000, 4 * duration_ns(self.lab.INTERVAL))
        last = [None, 0]

        def stands_still():
            self.writer, self.reader = self.ends(receiver.port)
            if not self.writer or not self.reader:
                return False
            # All is written and acknowledged: the window never closed.
            if self.writer.state == "FIN_WAIT_2":
                return True
            if self.count_probes() - before < self.probes:
                return False
            if last[0] != (self.writer.tx, self.reader.rx):
                last[:] = (self.writer.tx, self.reader.rx), time.monotonic_ns()
            self.closed = time.monotonic_ns() - last[1] > still_ns
            return self.closed

        sockets.until(wire, stands_still, "the receiver's window closes", [sender])
        return sender

    def count_probes(self):
        """Window probes that the sending kernel has counted so far."""
        return self.wire.kernel("client").get("TcpExt.TCPWinProbe", 0)

    def ends(self, port):
        """The connection's socket at either end, or None."""
        found = []
        for host in ("client", "server"):
            every = [
                each
                for each in sockets.of(self.wire, host, "tcp", port)
                if each.state not in ("LISTEN", "SYN_RECV", "SYN_SENT")
            ]
            found.append(every[0] if every else None)
        return found

    @property
    def held_bytes(self):
        """Bytes that were written and not read, in the two kernels together."""
        return self.writer.tx + self.reader.rx


def overload(lab, wire, kind, slow=True, probes=PROBES, rcvbuf=None, **more):
    """One run with a reader that stands still, or with one that keeps up: (Run, Hold)."""
    # Else this kernel answers a thousand packets a second with ICMP, and no more.
    wire.setting("server", "ipv4/icmp_ratemask", 0)
    hold = Hold(lab, wire, kind, probes)
    run = lab.one_way(
        wire,
        kind,
        receiver_args=("--rcvbuf", rcvbuf or lab.RCVBUF) if slow else (),
        during=hold if slow else None,
        **more,
    )
    if not slow:
        hold.never()
    return run, hold


def dropped(run):
    """Datagrams that found the receiver's buffer full, as the server's kernel counted them."""
    socket = sum(each["drops"] for each in run.receiver["kernel"])
    return run.kernel["server"]["Udp.RcvbufErrors"] if run.kind == "udp" else socket


def answers(run):
    """ICMP errors that crossed the wire on the way back."""
    return [row for row in run.wire_rows if row.direction == "down" and row.class_ == "icmp"]


# The runs.


def overload_all(lab, wire, slow=True):
    """{kind: (Run, Hold)}."""
    return {kind: overload(lab, wire, kind, slow) for kind in KINDS}


@pytest.fixture(scope="module")
def wire(lab):
    """One wire for all."""
    with lab.wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def runs(lab, wire):
    """TCP, UDP and RAW, one after the other, to a reader that stands still."""
    runs = overload_all(lab, wire)
    rows = []
    for kind, (run, _) in runs.items():
        late = max((row.sent_ns - row.due_ns for row in run.sent_rows), default=None)
        rows.append(
            [
                kind.upper(),
                len(run.sent),
                len(run.killed) if kind != "tcp" else len(tcp.lost_data(run)),
                dropped(run) if kind != "tcp" else 0,
                len(run.received),
                len(run.missing),
                len(answers(run)),
                duration(late),
            ]
        )
    lab.table(
        [
            "",
            "messages\nsent",
            "lost on\nthe wire",
            "found the\nbuffer full",
            "messages\nread",
            "messages\nmissing",
            "errors sent\nback",
            "written late\nby up to",
        ],
        rows,
    )
    lab.chart(
        "arrivals",
        charts.arrivals(run for run, _ in runs.values()),
        "When each message was read. UDP and RAW: what found the buffer full is gone. TCP: all of "
        "it comes, once the reader reads.",
    )
    run, hold = runs["tcp"]
    if hold.closed:
        lab.chart(
            "window",
            window_chart(wire, run, hold),
            "The room that TCP's receiver announced. While it was 0 the sender asked, again and "
            "again, and sent nothing.",
        )
    if hold.closed and any(room == 0 for _, room in announced(wire, run)):
        lab.ladder(
            "closed",
            closed_ladder(wire, run, hold),
            "The window closes; the sending kernel asks whether there is room, each time after "
            "twice as long; and as soon as the reader has read, it is told. (A question within "
            "half a second of the last answer gets none.)",
        )
    return runs


def announced(wire, run):
    """[(ns when the client had it, bytes)]: every window that the server announced."""
    windows = capture.windows(wire.pcap_path)
    scale = 0
    found = []
    for row in run.wire_rows:
        if row.direction != "down" or row.class_ != "tcp" or row.fate != "delivered":
            continue
        if "S" in row.tcp_flags:
            scale = capture.scale(wire.pcap_path, row.id)
            found.append((row.out_ns, windows[row.id]))
        else:
            found.append((row.out_ns, windows[row.id] << scale))
    return sorted(found)


def closed_ladder(wire, run, hold):
    """From the last segment that found room to the first behind the reader's return."""
    rooms = dict(announced(wire, run))
    shut_ns = min(ns for ns, room in rooms.items() if room == 0)
    data = [row for row in run.data_rows if row.payload]
    since_ns = max(row.in_ns for row in data if row.in_ns < shut_ns)
    until_ns = min((row.in_ns for row in data if row.in_ns > hold.until_ns), default=None)
    drawn = ladder.build(run.wire_rows, since_ns=since_ns, until_ns=until_ns)
    for packet in drawn.packets:
        if packet.side == "server":
            packet.window = rooms.get(packet.arrived_ns)
    return drawn


def window_chart(wire, run, hold):
    """The announced window over the time of the run, and the probes."""
    zero = charts.start_of(run)
    spots, last = [], None
    for when, room in announced(wire, run):
        x = max(0, when - zero) / 1e6
        if last is not None:
            spots.append((x, last))
        spots.append((x, room))
        last = room
    top = max(room for _, room in spots)
    shut = f"closed until {duration(hold.until_ns - zero)} after the start"
    return chart(
        "window",
        "The window that TCP's receiver announced",
        f"The window is {spots[0][1]} bytes at first and 0 when the buffer is full; it was {shut}.",
        [Panel("TCP", shut, [Path(spots, "tcp", "the announced window")], 128)],
        Linear(0, max(x for x, _ in spots), "ms since the first message was due"),
        Linear(0, top, "bytes", want=4),
        [("tcp", "room for more, as the receiver announced it")],
    )


def closed(runs):
    """TCP's Run and Hold, with the window closed; else there is nothing to say."""
    run, hold = runs["tcp"]
    if not hold.closed:
        nothing_to_see("all found room in the buffers: turn COUNT up")
    return run, hold


def full(run):
    """A claim about what a full buffer does has nothing to say when it never was."""
    assert dropped(run) > 0, f"{run.kind.upper()}: the buffer was never full: nothing was dropped"


def while_closed(wire, run, hold):
    """(rows the client sent, rows the server sent) between the first window of 0 and the reader."""
    if any(row.fate != "delivered" for row in run.wire_rows):
        nothing_to_see("the wire lost some segments: turn LINK back")
    windows = capture.windows(wire.pcap_path)
    shut = [
        row
        for row in run.wire_rows
        if row.direction == "down" and row.class_ == "tcp" and windows.get(row.id) == 0
    ]
    assert shut, "no window of 0 was announced"
    since = shut[0].out_ns
    up = [row for row in run.data_rows if since < row.in_ns < hold.until_ns]
    down = [row for row in shut if row.in_ns < hold.until_ns]
    return up, down


# The claims.


def test_tcp_window_closes(wire, runs, figures):
    """TCP's receiver says how much room it has, down to none, and then no data is sent."""
    run, hold = closed(runs)
    up, down = while_closed(wire, run, hold)
    rooms = [room for _, room in announced(wire, run)]
    figures(
        first_window_bytes=rooms[0],
        windows_of_0=len(down),
        data_segments_while_closed=sum(bool(row.payload) for row in up),
        counted_by_the_receiving_kernel=run.kernel["server"]["TcpExt.TCPToZeroWindowAdv"],
    )
    assert rooms[0] > 0, "the window was closed from the first"
    assert run.kernel["server"]["TcpExt.TCPToZeroWindowAdv"] >= 1, "its kernel counted none"
    assert not any(row.payload for row in up), "data was sent into a closed window"


def test_tcp_probes(wire, runs, figures):
    """The sending kernel asks whether there is room now, each time after twice as long."""
    run, hold = closed(runs)
    up, down = while_closed(wire, run, hold)
    answered = [row for row in down if up and row.in_ns >= up[0].out_ns]
    skipped = run.kernel["server"]["TcpExt.TCPACKSkippedSeq"]
    times = [row.in_ns for row in up]
    waits = [later - sooner for sooner, later in zip(times, times[1:])]
    figures(
        probes=len(up),
        counted_by_the_kernel=run.kernel["client"]["TcpExt.TCPWinProbe"],
        answers=len(answered),
        left_unanswered_by_the_receiving_kernel=skipped,
        waits=", ".join(duration(ns) for ns in waits),
        timer=hold.writer.timer,
    )
    assert hold.writer.timer == "window_probe", f"the sender's timer was {hold.writer.timer}"
    # A probe is a segment that says nothing new: one byte before what is next, and no byte of it.
    assert {(row.tcp_flags, row.tcp_seq, row.payload) for row in up} == {
        ("A", up[0].tcp_seq, 0)
    }, "something else than probes crossed the wire"
    assert (
        len(up) == run.kernel["client"]["TcpExt.TCPWinProbe"] >= PROBES
    ), "the kernel counts other"
    # A probe's number is out of the window, and to such a segment the kernel sends no second ACK
    # within half a second (tcp_invalid_ratelimit).
    assert len(answered) == len(up) - skipped, "a probe was not answered with a window of 0"
    for sooner, later in zip(waits, waits[1:]):
        assert later > 1.1 * sooner, f"after {duration(sooner)} it waited {duration(later)}"
        if later < 1.4 * sooner:
            # An answer that this machine is late with puts the next probe off by as much.
            inconclusive(f"after {duration(sooner)} it waited {duration(later)}: not twice as long")


def test_tcp_write_blocks(runs, figures):
    """When both ends' buffers are full the sender's write blocks, until the reader reads."""
    run, hold = closed(runs)
    # What is written and not read stands in the two kernels, so this message was being written.
    blocked = hold.held_bytes // run.size
    sent = {row.seq: row for row in run.sent_rows}
    if blocked + 1 not in sent:
        nothing_to_see("all found room in the buffers: turn COUNT up")
    figures(
        in_the_receiver_bytes=hold.reader.rx,
        in_the_sender_bytes=hold.writer.tx,
        message_that_blocked=blocked,
        the_next_late_by_ns=sent[blocked + 1].sent_ns - sent[blocked + 1].due_ns,
    )
    assert sent[blocked].sent_ns < hold.until_ns, "the write that blocked was not yet begun"
    assert sent[blocked + 1].sent_ns >= hold.until_ns, "the next write did not wait for the reader"


def test_tcp_lost_nothing(runs, figures):
    """TCP lost nothing: every byte was read, in order, once the reader read."""
    run, hold = closed(runs)
    order = [row.seq for row in run.arrivals]
    waited = sum(row.received_ns >= hold.until_ns for row in run.arrivals)
    figures(sent=len(run.sent), read=len(order), read_late=waited)
    assert waited == len(order), "something was read while the reader stood still"
    assert not run.missing, f"TCP did not deliver {charts.listed(seqs(run.missing))}"
    assert order == sorted(set(order)), "TCP delivered out of order or twice"
    assert sum(row.bytes for row in run.arrivals) == len(run.sent) * run.size, "bytes are missing"


def test_udp_overflow(runs, figures):
    """UDP lost what its full buffer could not take: exactly as many as the kernel counted."""
    overflowed(runs["udp"][0], figures)


def test_raw_overflow(runs, figures):
    """RAW lost it, too: as many as the socket counted."""
    overflowed(runs["raw"][0], figures)


def overflowed(run, figures):
    """Lost = dropped at the buffer, and nothing on the wire; the buffer keeps what came first."""
    figures(
        sent=len(run.sent),
        lost_on_the_wire=len(run.killed),
        missing=len(run.missing),
        counted_by_the_kernel=dropped(run),
        last_one_read=max(seqs(run.received), default=None),
    )
    full(run)
    if run.killed:
        nothing_to_see("the wire lost some as well: turn LINK back")
    assert len(run.missing) == dropped(run), "the kernel counts other than what is missing"
    assert seqs(run.received) == list(range(len(run.received))), "it kept others than the first"


def test_what_the_senders_learn(runs, figures):
    """UDP's sender learns nothing. RAW's is sent an error for each, and never looks."""
    udp, raw = runs["udp"][0], runs["raw"][0]
    figures(
        back_to_UDP=sum(row.direction == "down" for row in udp.wire_rows),
        UDP_refused=udp.sender["refused"],
        back_to_RAW=len(answers(raw)),
        RAW_dropped=dropped(raw),
        InUnknownProtos=raw.kernel["server"]["Ip.InUnknownProtos"],
        RAW_refused=raw.sender["refused"],
    )
    full(udp)
    full(raw)
    assert not any(row.direction == "down" for row in udp.wire_rows), "something came back"
    assert udp.sender["refused"] == 0, "a send() of UDP's failed"
    # A send() of RAW's hands over no pending error; only a read does (test_who_asks).
    assert raw.sender["refused"] == 0, "a send() of RAW's failed"
    if not answers(raw):
        nothing_to_see("this kernel says nothing of it to RAW's sender, either")
    # For want of a socket with room the kernel takes it that nobody has this protocol.
    assert raw.kernel["server"]["Ip.InUnknownProtos"] == dropped(raw), "dropped for another reason"
    assert len(answers(raw)) == dropped(raw), "not one error for each that was dropped"


def ask(lab, wire, kind, slow=True):
    """What a client is told that asks a receiver whose buffer is full, and again when it is not.

    [(words or None, ICMP errors that came back)], twice. A receiver answers nobody, either way.
    """
    wire.new_run()
    wire.setting("server", "ipv4/icmp_ratemask", 0)
    receiver = wire.start(
        *("server", f"{kind}-receiver", "-B", SERVER, "--run", 1, "--rcvbuf", "2k"),
        label=f"{kind}-ask-receiver",
    ).ready()
    port = () if kind == "raw" else ("-p", receiver.port)
    told = []
    if slow:
        receiver.stop()
        wire.start(
            *("client", f"{kind}-sender", *port, "-c", 100, "-i", "100us", "-s", 1000),
            *("--run", 1, SERVER),
            label=f"{kind}-ask-sender",
        ).wait()
    for turn in ("full", "empty"):
        wire.drain()
        before = wire.kernel("client")["Icmp.InDestUnreachs"]
        client = wire.start(
            *("client", f"{kind}-client", *port, "-c", 1, "-W", "200ms", SERVER),
            label=f"{kind}-ask-{turn}",
        ).expect(3)
        wire.drain()
        said = client.stderr_path.read_text().splitlines()
        icmp = wire.kernel("client")["Icmp.InDestUnreachs"] - before
        told.append((said[-1].rpartition(": ")[2] if said else None, icmp))
        if turn == "full" and slow:
            receiver.cont()
            sockets.until(
                wire,
                lambda: not any(each.rx for each in sockets.of(wire, "server", kind)),
                "the receiver has read all",
            )
    receiver.terminate()
    return told


@pytest.fixture(scope="module")
def asked(lab, wire, runs):
    """{kind: what ask() returns}."""
    return {kind: ask(lab, wire, kind) for kind in ("udp", "raw")}


def test_who_asks(runs, asked, figures):
    """Who asks a full buffer hears nothing by UDP; by RAW, that nobody is there: wrong."""
    udp, raw = asked["udp"], asked["raw"]
    figures(
        UDP_full=udp[0][0] or "silence",
        UDP_with_room=udp[1][0] or "silence",
        RAW_full=raw[0][0] or "silence",
        RAW_with_room=raw[1][0] or "silence",
    )
    assert udp == [(None, 0)] * 2, "UDP told the client something"
    assert raw[1] == (None, 0), "with room in the buffer RAW told the client something"
    if dropped(runs["raw"][0]) and not answers(runs["raw"][0]):
        nothing_to_see("this kernel says nothing of it to RAW's client, either")
    assert raw[0] == (NO_PROTOCOL, 1), f"recv() said {raw[0][0]}, and {raw[0][1]} errors came"


def buffers(lab, wire, slow=True):
    """{kind: {asked: (bytes had, what it held while nobody read)}}; of TCP bytes, else messages."""
    found = {}
    for kind in KINDS:
        found[kind] = {}
        for asked in ("8k", "32k"):
            run, hold = overload(
                *(lab, wire, kind, slow),
                probes=1,
                rcvbuf=asked,
                name=f"{kind}-{asked}",
                count=600,
                interval="200us",
                size=1000,
            )
            if kind == "tcp":
                closed({"tcp": (run, hold)})
                found[kind][asked] = (None, hold.reader.rx)
            else:
                full(run)
                found[kind][asked] = (run.receiver["kernel"][0]["rcvbuf_bytes"], len(run.received))
    return found


def test_rcvbuf(lab, wire, runs, figures):
    """SO_RCVBUF moves the edge: four times the buffer holds about four times as much, no more."""
    found = buffers(lab, wire)
    for kind, sizes in found.items():
        unit = "bytes" if kind == "tcp" else "messages"
        for asked, (had, held) in sizes.items():
            if had:
                figures(**{f"{kind.upper()}_asked_{asked}_had_bytes": had})
            figures(**{f"{kind.upper()}_asked_{asked}_held_{unit}": held})
    for kind, sizes in found.items():
        (small_had, small), (large_had, large) = sizes["8k"], sizes["32k"]
        if kind != "tcp":
            # The kernel doubles what is asked for: half of it is for its own keeping of the books.
            assert (small_had, large_had) == (2 * 8192, 2 * 32768), f"{kind}: not twice as asked"
        # TCP announces a window, and by its own rules: roughly.
        least, most = (2, 8) if kind == "tcp" else (3, 5)
        assert least * small < large < most * small, f"{kind}: held {small}, and then {large}"
