"""Does first sent mean first received?"""

import pytest

from harness import charts, ladder, order, tcp, waterfall
from harness.lab import inconclusive, nothing_to_see, same, seqs
from harness.screen import duration
from harness.tree import KINDS

KNOBS = {
    "LINK": "delay 10ms reorder 4% duplicate 3%",
    "SEED": 7,
    "COUNT": 400,
    "INTERVAL": "4ms",
    "SIZE": 200,
}

# The account goes no further with n-reordering.
N_MAX = 100


@pytest.fixture(scope="module")
def runs(lab):
    """TCP, UDP and RAW, one after the other, send the same messages over the same link."""
    with lab.wire() as wire:
        runs = {kind: lab.one_way(wire, kind) for kind in KINDS}
    rows = []
    for kind, run in runs.items():
        data = [row for row in run.departures if row.class_ == kind and row.payload != 0]
        rows.append(
            [
                kind.upper(),
                len(run.sent),
                sum(row.reordered for row in data),
                sum(row.copies for row in data),
                len(run.received),
                run.account["reordered"],
                run.account["duplicates"],
                len(in_vain(run)) if kind == "tcp" else None,
            ]
        )
    lab.table(
        [
            "",
            "messages\nsent",
            "overtaken\non the wire",
            "copied\non the wire",
            "messages\narrived",
            "out of order\nfor the program",
            "twice\nfor the program",
            "sent again\nin vain",
        ],
        rows,
    )
    lab.chart(
        "arrivals",
        charts.arrivals(runs.values()),
        "Every message by its number and the time at which it arrived. A triangle was overtaken; a "
        "square came a second time.",
    )
    lab.chart(
        "delays",
        charts.delays(runs.values(), log=False),
        "Who is sent ahead saves its delay. TCP's program gains nothing by it: that message waits "
        "in the kernel until those before it are there.",
    )
    for kind in ("udp", "raw"):
        lab.waterfalls[kind.upper()] = waterfall.text(waterfall.waterfall(runs[kind]))
    return runs


def departed(run):
    """Message numbers in the order in which the wire let them out to the server."""
    return [row.seq for row in run.departures if row.kind == "data" and row.class_ == run.kind]


def in_vain(run):
    """TCP segments that arrived with nothing but bytes that were there already, copies included."""
    have, found = set(), []
    for row in run.departures:
        if row.class_ != "tcp" or not row.payload:
            continue
        start, end = tcp.byte_range(run, row)
        news = set(range(start, end)) - have
        have |= news
        found += [row] * (row.copies + (not news))
    return [row for row in found if row.id in {again.id for again in tcp.again(run)}]


def test_tcp_is_in_order(runs, figures):
    """TCP's program got every message once and in order, whatever became of its segments."""
    run = runs["tcp"]
    data = [row for row in run.departures if row.class_ == "tcp" and row.payload]
    disorder = sum(row.reordered for row in data)
    copies = sum(row.copies for row in data)
    figures(segments_overtaken=disorder, segments_copied=copies, messages=len(run.arrivals))
    if not disorder + copies:
        nothing_to_see("no segment was overtaken or copied: turn LINK up")
    assert [row.seq for row in run.arrivals] == seqs(run.sent), "out of order, or twice"


def disorder_is_the_wires(run, figures):
    """The receiver's account of order, against the wire's log by RFC 4737."""
    left, came = departed(run), [row.seq for row in run.firsts]
    mine = {left[n] for n in order.reordered(left)}
    if not mine:
        nothing_to_see("no packet was overtaken: turn LINK's reorder up")
    extents, beaten = order.extents(left), order.overtaken_by(left)
    account = run.account["order"]
    # How many are n-reordered, for every n that the wire made: none may be missing.
    most = min(N_MAX, max(beaten.values(), default=0))
    wanted = {n: sum(each >= n for each in beaten.values()) for n in range(1, most + 1)}
    theirs = {came[n] for n in order.reordered(came)}
    figures(
        overtaken_on_the_wire=len(mine),
        overtaken_says_the_account=run.account["reordered"],
        greatest_extent=max(extents.values()),
        n_reordered=[f"{n}: {count}" for n, count in wanted.items()],
        numbers=sorted(mine),
    )
    assert mine == {row.seq for row in run.departures if row.kind == "data" and row.reordered}
    same(theirs, mine, "out of order at the receiver", "overtaken on the wire")
    assert came == left, "the receiver read them in another order than they left the wire in"
    assert run.account["reordered"] == len(mine), "the account counts others"
    assert account["extent"]["max"] == max(extents.values()), "the account's extent is another"
    mean = sum(extents.values()) / len(extents)
    assert abs(account["extent"]["mean"] - mean) < 1e-9 * mean, "the account's mean is another"
    told = {each["n"]: each["count"] for each in account["n_reordered"]}
    assert told == wanted, f"n-reordered: the account says {told}, the wire's log {wanted}"


def test_udp_is_as_the_wire_was(runs, figures):
    """UDP's program got them in exactly the order in which they left the wire."""
    disorder_is_the_wires(runs["udp"], figures)


def test_raw_is_as_the_wire_was(runs, figures):
    """So did RAW's."""
    disorder_is_the_wires(runs["raw"], figures)


def test_one_early_makes_several_late(runs, figures):
    """One packet that is early makes several late: those it overtook are what RFC 4737 counts, and
    not the early one itself."""
    run = runs["udp"]
    rows = [row for row in run.departures if row.kind == "data"]
    place = {row.seq: n for n, row in enumerate(rows)}
    early, overtaken = set(), set()
    for row in rows:
        behind = {seq for seq in range(row.seq) if place.get(seq, -1) > place[row.seq]}
        if behind:
            early.add(row.seq)
            overtaken |= behind
    if not early:
        nothing_to_see("no packet overtook another: turn LINK's reorder up")
    came = [row.seq for row in run.firsts]
    counted = {came[n] for n in order.reordered(came)}
    figures(early=len(early), counted_as_reordered=len(counted))
    same(counted, overtaken, "counted as reordered", "overtaken by an early one")
    assert not counted & early, "an early one was counted, too"


def test_copies(runs, figures):
    """UDP's and RAW's programs got exactly those messages twice that the wire had copied."""
    for kind in ("udp", "raw"):
        run = runs[kind]
        copied = {
            (row.flow & 0xFFFF, row.seq)
            for row in run.message_rows
            if row.fate == "delivered" and row.copies
        }
        twice = {(row.flow, row.seq) for row in run.arrivals if row.verdict == "duplicate"}
        if not copied:
            nothing_to_see(f"no packet of {kind.upper()} was copied: turn LINK's duplicate up")
        figures(**{f"{kind.upper()}_copied": len(copied), f"{kind.upper()}_twice": len(twice)})
        same(twice, copied, f"{kind.upper()} had twice", "copied on the wire")
        assert run.account["duplicates"] == len(copied), "the account counts others"


def test_nothing_is_lost(runs, figures):
    """Out of order is not lost, and twice is not twice as many: the books close to the message."""
    for kind in ("udp", "raw"):
        run = runs[kind]
        rows = waterfall.waterfall(run)
        open_at = waterfall.first_open(rows)
        figures(
            **{f"{kind.upper()}_sent": len(run.sent), f"{kind.upper()}_distinct": rows[-1].count}
        )
        assert open_at is None, f"{kind.upper()} does not add up:\n{waterfall.text(rows)}"
        same(run.missing, run.killed, f"{kind.upper()} lacks", "lost on the wire")


# Three duplicate ACKs. Here one segment in thirty comes late, and the others are sent ahead of it:
# by two places or by five. The rate spaces them out, so that nothing but the delay decides by how
# many. The way back is so long that TCP's clock (a quarter of the round trip, RFC 8985) has no
# say, and only the number of duplicate ACKs decides.

SPACE_NS = 1_900_000
SEGMENT_BITS = 8 * (14 + 20 + 32 + 200)


@pytest.fixture(scope="module")
def patience(lab):
    """A wire whose way back takes 160 ms, for TCP alone."""
    with lab.wire(link="", name="patience") as wire:
        wire.down("delay 160ms")
        yield wire


def late_by(lab, wire, places, name):
    """A TCP run in which late segments are overtaken by so many: (run, {segment: by how many})."""
    late = f"delay {places * SPACE_NS + SPACE_NS // 2}ns reorder 97%"
    rate = f"rate {SEGMENT_BITS * 10**9 // SPACE_NS}bit"

    def warm_up_first(_, start_sender):
        sender = start_sender()
        # Until 80 segments, a round trip's worth, may be on their way: then each message leaves
        # at once, in a segment of its own.
        wire.until_window("client", 90, sender)
        wire.up(f"{late} {rate}")
        return sender

    wire.up("")
    run = lab.one_way(
        wire, "tcp", count=800, interval="2ms", size=200, name=name, during=warm_up_first
    )
    again = {row.id for row in tcp.again(run)}
    rows = [row for row in run.departures if row.payload and row.id not in again]
    return run, order.overtaken_by([row.id for row in rows])


def test_two_duplicate_acks_are_forgiven(lab, patience, figures):
    """A segment that comes two places late makes two duplicate ACKs, and TCP waits for a third."""
    run, beaten = late_by(lab, patience, 2, "two")
    most = max(beaten.values(), default=0)
    figures(late_segments=len(beaten), places_at_most=most, sent_again=run.retransmits)
    if not beaten:
        nothing_to_see("no segment came late with this SEED")
    assert most <= 2, f"a segment came {most} places late"
    late_ns = run.wire["late_max_ns"]
    if run.retransmits and late_ns > 10_000_000:
        inconclusive(f"this machine is too busy: the wire was {duration(late_ns)} late")
    assert run.retransmits == 0, "TCP sent again what was only late"


def test_three_duplicate_acks_are_not(lab, patience, figures):
    """One that comes five places late makes more than three: TCP sends it again, in vain."""
    # Whoever is a little late first teaches Linux patience, and from then on only time decides. A
    # sender that this machine halts can make it so: then once more.
    for attempt in ("five", "five-again", "five-at-last"):
        run, beaten = late_by(lab, patience, 5, attempt)
        if not beaten:
            nothing_to_see("no segment came late with this SEED")
        first = beaten[min(beaten)]
        if first >= 3:
            break
    else:
        inconclusive(f"this machine is too busy: the first was only {first} places late")
    vain = in_vain(run)
    late = next(row for row in run.departures if row.id == min(beaten))
    rows = tcp.story(run, late)
    if rows:
        lab.ladder(
            "late",
            ladder.build(rows, since_ns=late.in_ns),
            "A segment that is only late. Those that overtake it are answered with the same ACK as "
            "before; the third makes TCP send it again, in vain. (What else was under way is left "
            "out.)",
        )
    acks = max(tcp.duplicate_acks(run).values(), default=0)
    told = run.kernel["client"]["TcpExt.TCPDSACKRecv"]
    figures(
        late_segments=len(beaten),
        places_at_most=max(beaten.values()),
        duplicate_acks_at_most=acks,
        sent_again=run.retransmits,
        arrived_in_vain=len(vain),
        receiver_told_the_sender=told,
    )
    assert run.retransmits > 0, "TCP did not send again"
    assert len(vain) == run.retransmits, "not all of it was in vain"
    assert told == len(vain), "the receiver's DSACKs do not say so"
