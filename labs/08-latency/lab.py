"""Where does the time go?"""

import statistics

import pytest

from harness import charts, ladder, tcp
from harness.lab import duration_ns, inconclusive, nothing_to_see, same, seqs
from harness.screen import duration
from harness.tree import KINDS

KNOBS = {"LINK": "delay 40ms", "SEED": 7, "COUNT": 150, "INTERVAL": "5ms", "SIZE": 200}

MARGIN = 20


# What a delay is made of. Three hosts' clocks are one clock here, so each part is exact.


def parts(run):
    """{message: (ns at the sender, ns on the wire, ns at the receiver)} of what arrived."""
    if run.kind == "tcp":
        carrier = tcp.carriers(run)
    else:
        carrier = {row.seq: row for row in run.departures if row.kind == "data"}
    return {
        row.seq: (
            carrier[row.seq].in_ns - row.sent_ns,
            carrier[row.seq].out_ns - carrier[row.seq].in_ns,
            row.received_ns - carrier[row.seq].out_ns,
        )
        for row in run.firsts
        if row.seq in carrier
    }


def middle(values):
    """The median, or None of nothing."""
    values = list(values)
    return statistics.median_low(values) if values else None


@pytest.fixture(scope="module")
def runs(lab):
    """One way, and there and back, by all three over the same link; connecting is part of it."""
    with lab.wire() as wire:
        asked = {
            kind: lab.exchange(wire, kind, count=20, interval="5ms", size=lab.SIZE)
            for kind in KINDS
        }
        pace = unhurried(lab, asked["udp"])
        ways = {kind: lab.one_way(wire, kind, interval=pace) for kind in KINDS}
    rows = []
    for kind in KINDS:
        at = [middle(part) for part in zip(*parts(ways[kind]).values())] or [None] * 3
        connect = ways[kind].sender["connect_ns"] if kind == "tcp" else None
        rows.append(
            [
                kind.upper(),
                *(duration(ns) for ns in at),
                duration(middle(ways[kind].delays().values())),
                duration(middle(asked[kind].rtts)),
                duration(connect),
            ]
        )
    lab.table(
        [
            "",
            "at the\nsender",
            "on the\nwire",
            "at the\nreceiver",
            "one way,\nin all",
            "there and\nback",
            "to connect,\nbefore that",
        ],
        rows,
    )
    lab.note("The median of each, so the parts need not add up to the last digit.")
    lab.chart(
        "delays",
        charts.delays(ways.values(), log=False),
        "How long each message took over the link as it is.",
    )
    return ways, asked


def unhurried(lab, asked):
    """An interval at which TCP's first window (10 segments) is never full, so that none waits."""
    trip = middle(asked.rtts) or 0
    return f"{max(duration_ns(lab.INTERVAL), trip // 8)}ns"


def noise(run, *asked):
    """What this machine adds by itself, in ns, to all but the quickest quarter.

    To a delay: what is not the wire's part of it; to a round trip: what the fastest did without.
    """

    def quarter(values):
        values = sorted(values)
        return values[len(values) // 4] if values else 0

    added = [quarter(sender + receiver for sender, _, receiver in parts(run).values())]
    added += [quarter(done.rtts) - min(done.rtts) for done in asked if done.rtts]
    return max(added)


def must_stand_out(floor, delay_ns):
    """A claim about times needs a delay well above the machine's noise."""
    if delay_ns < 1_000_000:
        nothing_to_see("the link has no delay to speak of: turn LINK up")
    if floor * MARGIN > delay_ns:
        inconclusive(
            f"this machine adds {duration(floor)} by itself,"
            f" and what is to be seen takes {duration(delay_ns)}"
        )


def link_ns(rows, direction, kind):
    """What the link takes in one direction in the middle, by the wire's log."""
    return middle(
        row.out_ns - row.in_ns
        for row in rows
        if row.direction == direction and row.class_ == kind and row.fate == "delivered"
    )


def test_no_difference(runs, figures):
    """Over a clean link TCP, UDP and RAW are equally fast: all take what the link takes."""
    ways, asked = runs
    link = link_ns(ways["udp"].wire_rows, "up", "udp")
    floor = noise(ways["udp"], *asked.values())
    must_stand_out(floor, link)
    # The fastest of each: whatever else this machine does can only add to a time.
    way = {kind: min(ways[kind].delays().values()) for kind in KINDS}
    trip = {kind: min(asked[kind].rtts) for kind in KINDS}
    apart = max(way.values()) - min(way.values())
    apart_trip = max(trip.values()) - min(trip.values())
    figures(
        apart_one_way_ns=apart,
        apart_there_and_back_ns=apart_trip,
        the_link_takes_ns=link,
        this_machine_adds_ns=floor,
    )
    if any(run.missing for run in ways.values()):
        nothing_to_see("messages were lost, and the middle of the rest says little")
    # What must_stand_out() asks of the machine is a twentieth, too.
    assert apart < link / MARGIN, "one way, they differ by over a twentieth of the link's delay"
    assert apart_trip < link / MARGIN, "there and back, they differ by more than that"


def test_the_price_of_connecting(runs, figures):
    """TCP pays one round trip before the first byte, in three packets; UDP and RAW pay nothing."""
    ways, _ = runs
    before = {}
    for kind, run in ways.items():
        rows = [row for row in run.wire_rows if row.class_ == kind]
        first = next(n for n, row in enumerate(rows) if row.payload or row.kind == "data")
        before[kind] = rows[:first]
    syn = next(row for row in before["tcp"] if row.tcp_flags == "S")
    data = next(row for row in ways["tcp"].data_rows if row.payload)
    trip = link_ns(ways["tcp"].wire_rows, "up", "tcp") + link_ns(
        ways["tcp"].wire_rows, "down", "tcp"
    )
    figures(
        packets_before_TCPs_first_byte=len(before["tcp"]),
        before_UDPs=len(before["udp"]),
        before_RAWs=len(before["raw"]),
        first_byte_after_the_SYN_ns=data.in_ns - syn.in_ns,
        round_trip_on_the_wire_ns=trip,
    )
    flags = {row.tcp_flags for row in before["tcp"]}
    assert {"S", "SA"} <= flags, f"TCP's first packets were {sorted(flags)}"
    answer = next(row for row in before["tcp"] if row.tcp_flags == "SA" and row.out_ns)
    assert data.in_ns > answer.out_ns, "TCP's first byte did not wait for the SYN-ACK"
    assert ways["tcp"].sender["connect_ns"] >= answer.out_ns - answer.in_ns + syn.out_ns - syn.in_ns
    assert not before["udp"] and not before["raw"], "something went ahead of UDP's or RAW's data"


def test_half_a_round_trip_is_no_latency(lab, figures):
    """Half a round trip is not the way there: here the way there is a quarter of the way back."""
    with lab.wire(link="", name="lopsided") as wire:
        wire.up("delay 40ms")
        wire.down("delay 160ms")
        way = lab.one_way(wire, "udp", count=50, interval="2ms", name="lopsided-way")
        trip = lab.exchange(wire, "udp", count=8, interval="5ms", name="lopsided-ask")
    must_stand_out(noise(way, trip), 40_000_000)
    one, both = min(way.delays().values()), min(trip.rtts)
    figures(one_way_ns=one, there_and_back_ns=both, half_of_that_ns=both // 2)
    assert both >= 200_000_000, "a round trip was shorter than the link"
    assert one < both / 4, "the way there was no shorter than half the round trip"


# Head-of-line blocking: one packet in the middle is dropped.


@pytest.fixture(scope="module")
def one_lost(lab):
    """Each kind of socket loses its packet 100 (data segment, datagram)."""
    nth = lab.COUNT // 2
    found = {}
    with lab.wire(name="one-lost") as wire:
        pace = unhurried(lab, lab.exchange(wire, "udp", count=3, name="one-lost-pace"))
        for kind in KINDS:
            drop = f"drop {'data' if kind == 'tcp' else kind}:{nth}"
            wire.up(f"{lab.LINK} {drop}")
            found[kind] = lab.one_way(wire, kind, interval=pace, name=f"one-lost-{kind}")
    lab.chart(
        "one-lost",
        charts.delays(
            found.values(),
            "The delay of every message when one packet is lost",
            "one-lost",
            held={"tcp": held_up(found["tcp"])},
            log=False,
        ),
        "One packet is dropped. UDP and RAW lack that message, and no other is late. TCP lacks "
        "none, and every message behind it waits.",
    )
    return found


def held_up(run):
    """{message: ns} that waited in the kernel for one before it: there, but not to be read."""
    carrier = tcp.carriers(run)
    found, ready = {}, 0
    for seq in sorted(carrier):
        ready = max(ready, carrier[seq].out_ns)
        if ready > carrier[seq].out_ns:
            found[seq] = ready - carrier[seq].out_ns
    return found


def test_one_loss_holds_up_tcp(one_lost, figures):
    """One lost segment held up every message behind it in TCP: there, but not to be read."""
    run = one_lost["tcp"]
    held, carrier = held_up(run), tcp.carriers(run)
    lost = tcp.lost_data(run)
    if not lost or not held:
        nothing_to_see("nothing came behind a lost segment")
    gone = min(seq for row in lost for seq in tcp.messages(run, row))
    received = {row.seq: row.received_ns for row in run.firsts}
    ready = 0
    for seq in sorted(carrier):
        ready = max(ready, carrier[seq].out_ns)
        assert received[seq] >= ready, f"message {seq} was read ahead of one before it"
    figures(
        lost_segments=len(lost),
        messages_held_up=len(held),
        from_message=min(held),
        to_message=max(held),
        longest_ns=max(held.values()),
    )
    assert min(held) > gone, "a message ahead of the lost one was held up"
    # Nobody can know of the loss before the next segment and its ACK have crossed.
    trip = 2 * min(row.out_ns - row.in_ns for row in run.departures)
    assert max(held.values()) >= trip * 0.9 or trip < 1_000_000, "held for less than a round trip"


def test_one_loss_holds_up_nobody_else(one_lost, figures):
    """In UDP and RAW it held up none: that message is missing, and the others came as ever."""
    held = held_up(one_lost["tcp"])
    if not held:
        nothing_to_see("TCP held up nothing: turn LINK's delay up")
    # The first five behind the lost one waited longest: even the quickest of them.
    in_tcp = min(held[seq] for seq in sorted(held)[:5])
    must_stand_out(max(noise(one_lost["udp"]), noise(one_lost["raw"])), in_tcp)
    figures(waited_in_TCP_ns=in_tcp)
    for kind in ("udp", "raw"):
        run = one_lost[kind]
        name = kind.upper()
        waited = {seq: at_receiver for seq, (_, _, at_receiver) in parts(run).items()}
        # The quickest of all that TCP held up: a receiver that got no CPU for a while delays some.
        best = min((waited[seq] for seq in held if seq in waited), default=None)
        figures(**{f"in_{name}_ns": best, f"{name}_missing": seqs(run.missing)})
        same(run.missing, run.killed, f"{name} lacks", "lost on the wire")
        order = [row.seq for row in run.firsts]
        left = [row.seq for row in run.departures if row.kind == "data"]
        assert order == left, f"{name} did not read them in the order of their arrival"
        assert best < in_tcp / 4, f"{name}'s messages behind the lost one waited, too"


# Nagle and delayed ACK: a request in two writes, and then a read.


@pytest.fixture(scope="module")
def halves(lab):
    """The same request in two writes with Nagle's algorithm, in two without, and in one."""
    with lab.wire(link="delay 10ms", name="halves") as wire:
        program = "tcp-write_write_read"
        settings = {"count": 15, "interval": "1ms", "size": 200}
        found = {
            "two": lab.exchange(wire, "tcp", program=program, name="two-writes", **settings),
            "nodelay": lab.exchange(
                wire,
                "tcp",
                program=program,
                name="two-writes-nodelay",
                args=("--nodelay",),
                **settings,
            ),
            "one": lab.exchange(wire, "tcp", name="one-write", **settings),
        }
    rows = found["two"].wire_rows
    starts = [row.in_ns for row in rows if row.kind == "request"]
    ends = [row.in_ns for row in rows if row.kind == "reply"]
    lab.ladder(
        "two-writes",
        ladder.build(rows, since_ns=min(starts, default=None), until_ns=(ends[1:2] or [None])[0]),
        "A request in two writes, twice. The second half waits for the ACK of the first. A new "
        "connection's first ACK comes at once; the next is delayed by the server.",
    )
    return found


def second_halves(done):
    """For each request: did its last bytes enter the wire only behind an ACK of its first?"""
    up = [row for row in done.wire_rows if row.direction == "up" and row.payload]
    acks = [
        row
        for row in done.wire_rows
        if row.direction == "down" and row.fate == "delivered" and "A" in row.tcp_flags
    ]
    waited = []
    for first, second in zip(up, up[1:]):
        if first.kind != "request" and first.payload != 48:
            continue
        if second.tcp_seq != first.tcp_seq + first.payload or second.kind == "request":
            continue
        end = (first.tcp_seq + first.payload) & 0xFFFFFFFF
        waited.append(any(ack.tcp_ack == end and ack.out_ns <= second.in_ns for ack in acks))
    return waited


def test_write_write_read(halves, figures):
    """Write, write, read: Nagle holds the second write back until the first is acknowledged, and
    the server delays just that. TCP_NODELAY ends it, and so does one write instead of two."""
    waited = {name: second_halves(done) for name, done in halves.items()}
    delayed = {name: done.kernel["server"]["TcpExt.DelayedACKs"] for name, done in halves.items()}
    figures(
        two_writes_ns=middle(halves["two"].rtts),
        with_nodelay_ns=middle(halves["nodelay"].rtts),
        in_one_write_ns=middle(halves["one"].rtts),
        waited_for_an_ACK=f"{sum(waited['two'])} of {len(waited['two'])}",
        waited_with_nodelay=f"{sum(waited['nodelay'])} of {len(waited['nodelay'])}",
        ACKs_that_the_server_delayed=delayed["two"],
        with_nodelay=delayed["nodelay"],
    )
    assert len(waited["two"]) >= 10 and all(waited["two"]), "a second half did not wait"
    assert len(waited["nodelay"]) >= 10 and not any(waited["nodelay"]), "a second half waited"
    assert delayed["two"] > delayed["nodelay"], "the server delayed no ACK"
    assert not waited["one"], "one write went out in two segments"
    # The link takes 10 ms, never less: two round trips are 40 ms at least on the busiest machine.
    assert min(halves["two"].rtts) >= 40_000_000, "and yet it cost less than a round trip more"


# A queue in front of a slow link.

SLOW = "rate 1mbit"
FRAME_BYTES = {"tcp": 14 + 20 + 32, "udp": 14 + 20 + 8, "raw": 14 + 20}


@pytest.fixture(scope="module")
def queues(lab):
    """Twice what the link can carry, with room for all to wait, and with room for ten."""
    found = {}
    with lab.wire(link="", name="queue") as wire:
        for room in (1000, 10):
            for kind in KINDS:
                found[kind, room] = lab.one_way(
                    wire,
                    kind,
                    link=f"{SLOW} limit {room}",
                    count=250,
                    interval="1ms",
                    size=200,
                    name=f"room-{room}-{kind}",
                )
    for room, words in (
        (
            1000,
            "Room for all: nothing is lost, and each message waits for all those before it.",
        ),
        (
            10,
            "Room for ten: UDP and RAW lose what finds it full. TCP sends that again.",
        ),
    ):
        lab.chart(
            f"queue-{room}",
            charts.delays(
                [found[kind, room] for kind in KINDS],
                f"Twice what the link can carry, room for {room}",
                f"queue-{room}",
                log=False,
            ),
            words,
        )
    return found


def test_a_long_queue(queues, figures):
    """A link that is too slow, with a long queue, loses nothing: each message waits for all before
    it, and the delay grows and grows, for every kind of socket."""
    for kind in KINDS:
        run = queues[kind, 1000]
        delay = [ns for _, ns in sorted(run.delays().items())]
        figures(**{f"{kind.upper()}_first_ns": delay[0], f"{kind.upper()}_last_ns": delay[-1]})
        assert not run.missing, f"{kind.upper()} lost {seqs(run.missing)}"
        if kind != "tcp":
            # By the wire's log: this is the queue, and nothing else.
            delay = [wire for _, (_, wire, _) in sorted(parts(run).items())]
        quarter = len(delay) // 4
        sums = [sum(delay[n * quarter : (n + 1) * quarter]) for n in range(4)]
        grew = sums == sorted(sums) and sums[3] > 3 * sums[0]
        # What the machine halts, wire or sender, lets the queue run empty meanwhile.
        halt_ns = max(run.wire["late_max_ns"], run.sender["sent_late_ns"]["max"])
        if not grew and halt_ns > max(delay) / 10:
            inconclusive(f"this machine is too busy: it halted for {duration(halt_ns)}")
        assert grew, f"{kind.upper()}'s delay did not grow, or not by much"


def test_a_short_queue(queues, figures):
    """A short queue turns delay into loss: none waits for more than ten packets, and what finds no
    room is gone. TCP sends that again, and lacks nothing."""
    for kind in ("udp", "raw"):
        run = queues[kind, 10]
        full = {(0, row.seq) for row in run.message_rows if row.fate == "queue"}
        each_ns = (FRAME_BYTES[kind] + run.size) * 8 * 1000
        most = max(row.out_ns - row.in_ns for row in run.departures if row.kind == "data")
        figures(**{f"{kind.upper()}_lost": len(full), f"{kind.upper()}_waited_at_most_ns": most})
        assert full, f"{kind.upper()}: no packet found the queue full"
        same(run.missing, full, f"{kind.upper()} lacks", "found the queue full")
        assert (
            most <= 11 * each_ns + run.wire["late_max_ns"]
        ), "one waited for more than ten packets"
    run = queues["tcp", 10]
    full = sum(row.fate == "queue" for row in run.data_rows)
    figures(
        TCP_segments_lost=full,
        TCP_sent_again=run.retransmits,
        TCP_messages_missing=len(run.missing),
    )
    assert not run.missing, f"TCP lost {seqs(run.missing)}"
    assert run.retransmits >= (full > 0), "TCP's kernel did not send again"
