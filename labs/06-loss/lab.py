"""Who notices when a packet disappears?"""

import re

import pytest

from harness import charts, ladder, tcp, waterfall
from harness.lab import duration_ns, nothing_to_see, same, seqs
from harness.oneway import halted
from harness.records import runs_of
from harness.screen import duration
from harness.tree import KINDS

KNOBS = {"LINK": "delay 10ms loss 5%", "SEED": 7, "COUNT": 400, "INTERVAL": "4ms", "SIZE": 200}


# The runs. Each is made once, when the first claim asks for it.


@pytest.fixture(scope="module")
def runs(lab):
    """TCP, UDP and RAW, one after the other, send the same messages over the same link."""
    with lab.wire() as wire:
        runs = {kind: lab.one_way(wire, kind) for kind in KINDS}
    rows = []
    for kind, run in runs.items():
        delay = sorted(run.delays().values()) or [None]
        rows.append(
            [
                kind.upper(),
                len(run.sent),
                len(tcp.lost_data(run) if kind == "tcp" else run.killed),
                len(tcp.again(run)) if kind == "tcp" else None,
                len(run.received),
                len(run.missing),
                duration(delay[(len(delay) - 1) // 2]),
                duration(delay[-1]),
            ]
        )
    lab.table(
        [
            "",
            "messages\nsent",
            "packets lost\non the wire",
            "sent again\nby the kernel",
            "messages\narrived",
            "messages\nmissing",
            "half of them\nwithin",
            "the slowest\nafter",
        ],
        rows,
    )
    lab.chart(
        "arrivals",
        charts.arrivals(runs.values()),
        "Every message by its number and the time at which it arrived. A gap in TCP's line is time "
        "that the program waited; a cross in UDP's or RAW's is a message that never came.",
    )
    lab.chart(
        "delays",
        charts.delays(runs.values()),
        "How long each message took. UDP and RAW: it comes at once or never. TCP: it comes always, "
        "but those behind a lost one wait with it.",
    )
    lab.chart(
        "distribution",
        charts.distribution(runs.values()),
        "UDP and RAW never reach 100 %. TCP does, and pays in time.",
    )
    for kind in ("udp", "raw"):
        lab.waterfalls[kind.upper()] = waterfall.text(waterfall.waterfall(runs[kind]))
    draw_a_loss(lab, runs["tcp"])
    return runs


def draw_a_loss(lab, run):
    """A ladder of the one of the first losses of which there is most to tell."""
    stories = ((row, tcp.story(run, row)) for row in tcp.lost_data(run)[:20])
    row, rows = max(stories, key=lambda each: len(each[1] or []), default=(None, None))
    if rows:
        lab.ladder(
            "lost",
            ladder.build(rows, since_ns=row.in_ns),
            "One of TCP's segments is lost, and sent again. Each that arrives before that is "
            "answered with the same ACK as before: by this the kernel knows, unless its timer is "
            "first. (What else was under way is left out.)",
        )


@pytest.fixture(scope="module")
def clean_wire(lab):
    """A second wire without losses, for what needs no chance."""
    with lab.wire(link="", name="second") as wire:
        yield wire


@pytest.fixture(scope="module")
def bursty(lab, clean_wire):
    """Four thousand datagrams under random loss, and again under bursts at the same rate."""
    found = re.search(r"\bloss ([0-9.]+)%", lab.LINK)
    percent = min(float(found.group(1)), 40.0) if found else 5.0
    percent = percent or 5.0
    # In the bad state everything is lost, and it lasts four packets on average (r = 25 %), so
    # that p / (p + r) has to be the rate.
    begin = 25 * percent / (100 - percent)
    spent = {"alone": f"loss {percent:g}%", "bursty": f"loss gemodel {begin:.6f}% 25%"}
    runs = {}
    for name, link in spent.items():
        runs[name] = lab.one_way(
            clean_wire,
            "udp",
            link=link,
            count=4000,
            interval="200us",
            size=64,
            name=name,
            receiver_args=("--rcvbuf", "1M"),
        )
    return runs


# The claims.


def not_empty(lost):
    """A claim about what was lost has nothing to say when nothing was."""
    if not lost:
        nothing_to_see("nothing was lost: turn LINK up")


def test_udp_missed_what_the_wire_lost(runs, figures):
    """UDP missed exactly the messages that the wire lost: the same numbers, no more, no less."""
    run = runs["udp"]
    not_empty(run.killed)
    figures(lost_on_the_wire=len(run.killed), missing=len(run.missing), numbers=seqs(run.missing))
    same(run.missing, run.killed, "the receiver lacks", "lost on the wire")


def test_raw_missed_what_the_wire_lost(runs, figures):
    """RAW missed exactly the messages that the wire lost, too."""
    run = runs["raw"]
    not_empty(run.killed)
    figures(lost_on_the_wire=len(run.killed), missing=len(run.missing), numbers=seqs(run.missing))
    same(run.missing, run.killed, "the receiver lacks", "lost on the wire")


def test_tcp_delivered_everything(runs, figures):
    """TCP delivered every byte, in order, none twice."""
    run = runs["tcp"]
    order = [row.seq for row in run.arrivals]
    figures(sent=len(run.sent), arrived=len(order), lost_on_the_wire=len(tcp.lost_data(run)))
    assert not run.missing, f"TCP did not deliver {seqs(run.missing)}"
    assert order == sorted(set(order)), "TCP delivered out of order or twice"
    assert sum(row.bytes for row in run.arrivals) == len(run.sent) * run.size, "bytes are missing"


def test_the_kernel_sent_again(runs, figures):
    """TCP's kernel sent all lost bytes again, and counted each segment: the wire saw as many."""
    run = runs["tcp"]
    lost = tcp.lost_data(run)
    not_empty(lost)
    seen = tcp.again(run)
    figures(
        lost_segments=len(lost),
        seen_again_on_the_wire=len(seen),
        counted_by_the_kernel=run.retransmits,
    )
    assert set(tcp.healed(run)) == {row.id for row in lost}, "some lost bytes never came again"
    assert len(seen) == run.retransmits, "the kernel counts other than the wire saw"


def test_nobody_told_the_senders(runs, figures):
    """Nothing told UDP's and RAW's sender: no packet came back, and no send() failed."""
    not_empty(runs["udp"].killed | runs["raw"].killed)
    back = {
        kind: [row for row in runs[kind].wire_rows if row.direction == "down"] for kind in KINDS
    }
    refused = {kind: runs[kind].sender["refused"] for kind in KINDS}
    figures(
        packets_back_to_UDP=len(back["udp"]),
        to_RAW=len(back["raw"]),
        to_TCP=len(back["tcp"]),
    )
    assert not back["udp"] and not back["raw"], "something came back"
    assert not refused["udp"] and not refused["raw"], "a send() failed"
    assert back["tcp"], "TCP lives by what comes back, and nothing did"


def test_tcp_paid_in_time(runs, figures):
    """TCP paid in time: each message in a lost segment came at least one round trip late."""
    run = runs["tcp"]
    again = {row.id for row in tcp.again(run)}
    hit = {
        seq for row in tcp.lost_data(run) if row.id not in again for seq in tcp.messages(run, row)
    }
    not_empty(hit)
    one_way = min(row.out_ns - row.in_ns for row in run.data_rows if row.fate == "delivered")
    back = min(
        row.out_ns - row.in_ns
        for row in run.wire_rows
        if row.direction == "down" and row.fate == "delivered"
    )
    delay = {seq: ns for (_, seq), ns in run.delays().items()}
    soonest = min(delay[seq] for seq in hit)
    figures(
        round_trip_on_the_wire_ns=one_way + back,
        soonest_of_the_lost_ns=soonest,
        slowest_of_all_ns=max(delay.values()),
        slowest_of_UDP_ns=max(runs["udp"].delays().values(), default=None),
    )
    assert soonest >= one_way + back + one_way, (
        f"a message in a lost segment came after {duration(soonest)}: sooner than the loss could "
        "be noticed and the segment sent again"
    )


def test_the_books_close(runs, figures):
    """Every datagram is accounted for, from the sender's schedule to the receiver's account."""
    for kind in ("udp", "raw"):
        rows = waterfall.waterfall(runs[kind])
        open_at = waterfall.first_open(rows)
        figures(
            **{
                f"{kind.upper()}_scheduled": rows[0].count,
                f"{kind.upper()}_distinct": rows[-1].count,
            }
        )
        assert open_at is None, f"{kind.upper()} does not add up:\n{waterfall.text(rows)}"


def test_same_seed_same_losses(lab, runs, figures):
    """The same seed a second time, eight times as fast: the same message numbers are lost."""
    hurry = f"{max(50, duration_ns(lab.INTERVAL) // 8000)}us"
    with lab.wire(name="again") as wire:
        run = lab.one_way(wire, "udp", interval=hurry, name="udp-again")
    not_empty(runs["udp"].killed)
    figures(first_time=len(runs["udp"].missing), second_time=len(run.missing))
    same(run.missing, runs["udp"].missing, "the second time lost", "the first time lost")


def test_bursts(bursty, figures):
    """At the same rate, losses can come alone or in bursts: the rate does not tell them apart."""
    mean = {}
    for name, run in bursty.items():
        lengths = runs_of(seqs(run.killed))
        account = run.account["bursts"]
        not_empty(lengths)
        mean[name] = sum(lengths) / len(lengths)
        figures(
            **{
                f"{name}_lost": len(run.killed),
                f"{name}_bursts": len(lengths),
                f"{name}_longest": max(lengths),
            }
        )
        same(run.missing, run.killed, "the receiver lacks", "lost on the wire")
        assert account["count"] == len(
            lengths
        ), "the account counts other bursts than the wire made"
        assert account["max"] == max(lengths), "the account's longest burst is not the wire's"
    assert mean["bursty"] > 1.5 * mean["alone"], "the bursts are no longer than chance makes them"
    alone, bursts = (len(bursty[name].killed) for name in ("alone", "bursty"))
    apart = abs(alone - bursts)
    # What comes in bursts of four is a sum of few: the variance of the one count is up to seven
    # times what it is about, and of the other as much as that. Three standard deviations.
    assert apart <= 3 * (8 * (alone + bursts) / 2) ** 0.5, "the two rates are not the same"
    if apart > 0.25 * max(alone, bursts):
        nothing_to_see("by chance the two rates differ by a quarter: take another SEED")


def test_the_tail(lab, clean_wire, figures):
    """A receiver cannot miss the tail: the last ten were lost, and it saw numbers without a gap."""
    count = lab.COUNT
    run = lab.one_way(
        clean_wire,
        "udp",
        link=f"drop udp:{count - 9}-{count}",
        interval="1ms",
        name="tail",
        receiver_args=("-c", 0),
    )
    numbers = seqs(run.received)
    figures(
        the_receiver_alone_says_lost=run.account["lost"],
        last_number_seen=numbers[-1],
        sent=len(run.sent),
        missing=len(run.missing),
    )
    assert numbers == list(range(count - 10)), "there was a gap that the receiver could have seen"
    assert not run.account["lost"], "the receiver claims to know what it cannot know"
    same(run.missing, run.killed, "both ends together miss", "lost on the wire")
    assert seqs(run.missing) == list(range(count - 10, count)), "it was not the tail that was lost"


def test_udp_overflow(lab, clean_wire, figures):
    """A halted UDP receiver loses what its buffer cannot hold: not the wire, the kernel did it."""
    overflow(lab, clean_wire, figures, "udp")


def test_raw_overflow(lab, clean_wire, figures):
    """A halted RAW receiver loses it too: here the socket's own count tells."""
    overflow(lab, clean_wire, figures, "raw")


def overflow(lab, wire, figures, kind):
    """Halts the receiver, sends without a pause, lets it go on."""
    run = lab.one_way(
        wire,
        kind,
        link="",
        count=1000,
        interval="20us",
        size=1000,
        name=f"{kind}-overflow",
        receiver_args=("--rcvbuf", "64k"),
        during=halted,
    )
    socket = sum(each["drops"] for each in run.receiver["kernel"])
    kernel = run.kernel["server"]["Udp.RcvbufErrors"] if kind == "udp" else socket
    figures(
        sent=len(run.sent),
        lost_on_the_wire=len(run.killed),
        missing=len(run.missing),
        counted_by_the_socket=socket,
        buffer_bytes=run.receiver["kernel"][0]["rcvbuf_bytes"],
    )
    not_empty(run.missing)
    assert not run.killed, "the wire lost something as well"
    assert len(run.missing) == socket == kernel, "the kernel counts other than what is missing"
    # The buffer keeps what came first and drops what finds it full.
    assert min(seqs(run.missing)) > 0, "the first message found the buffer full"
