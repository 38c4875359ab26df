"""The harness itself: what reads, merges, judges, draws and prints."""

import dataclasses
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import namedtuple
from pathlib import Path

import pytest

from harness import charts, counters, forge, lab, order, recording, records, run_lab, schema
from harness import screen, svg, tcp, tree, waterfall
from harness.hosts import Broken, CannotRun, Wire
from harness.oneway import Run, halted, one_way

# Counters.


def test_proc_files():
    snmp = "Ip: A B\nIp: 1 2\nUdp: InErrors\nUdp: 7\n"
    assert counters.parse("snmp", snmp) == {"Ip.A": 1, "Ip.B": 2, "Udp.InErrors": 7}
    assert counters.parse("snmp6", "Udp6InErrors   \t 3\n\n") == {"Udp6InErrors": 3}
    dev = (
        "Inter-|   Receive      |  Transmit\n face |bytes packets|bytes packets\n"
        "    lo:  9 8 7 6\n  eth0: 1 2 3 4\n"
    )
    found = counters.parse("dev", dev)
    assert found["eth0.rx_packets"] == 2 and found["eth0.tx_bytes"] == 3
    assert counters.device(found, "rx_packets") == 2


def test_difference():
    assert counters.difference({"a": 1}, {"a": 3, "b": 5}) == {"a": 2, "b": 5}


# Records.


def test_records(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("flow,seq,class,kind\n65537,3,udp,data\n0,,udp,\n0,4,u")
    rows = records.read(path)
    assert [(row.flow, row.seq, row.class_, row.kind) for row in rows] == [
        (65537, 3, "udp", "data"),
        (0, None, "udp", ""),
    ]
    assert records.distinct(rows) == {(1, 3)}


def test_an_empty_file_has_no_rows(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("")
    assert records.read(path) == []


@pytest.mark.parametrize(
    ("seqs", "lengths"), [(set(), []), ({5}, [1]), ({9, 3, 4}, [2, 1]), ({1, 2, 3}, [3])]
)
def test_runs_of(seqs, lengths):
    assert records.runs_of(seqs) == lengths


# Order by RFC 4737, by known answers.


@pytest.mark.parametrize(
    ("arrivals", "extents", "beaten"),
    [
        ([1, 2, 3, 5, 6, 7, 8, 4, 9, 10], {4: 4}, {4: 4}),
        ([1, 2, 3, 4, 7, 5, 6, 8, 9, 10], {5: 1, 6: 2}, {5: 1}),
        ([1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11], {4: 4, 5: 5, 6: 6}, {4: 4}),
        (
            [1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 12, 13, 11, 14, 15, 16],
            {4: 2, 5: 3, 11: 2},
            {4: 2, 11: 2},
        ),
        ([1, 10, 5], {5: 1}, {5: 1}),
        ([1, 2, 3], {}, {}),
    ],
)
def test_order(arrivals, extents, beaten):
    assert order.extents(arrivals) == extents
    assert {arrivals[at] for at in order.reordered(arrivals)} == set(extents)
    assert order.overtaken_by(arrivals) == beaten


# TCP from the wire's log.

Packet = namedtuple(
    "Packet",
    "id direction class_ in_ns out_ns fate copies reordered sport dport tcp_seq tcp_ack tcp_flags"
    " payload flow kind seq",
)


def segment(number, seq, payload, flags="A", fate="delivered", out_ns=None, direction="up", ack=0):
    ports = (1000, 2000) if direction == "up" else (2000, 1000)
    out_ns = number * 10 + 5 if out_ns is None else out_ns
    return Packet(
        number,
        direction,
        "tcp",
        number * 10,
        out_ns if fate == "delivered" else None,
        fate,
        0,
        0,
        *ports,
        seq & 0xFFFFFFFF,
        ack,
        flags,
        payload,
        None,
        "",
        None,
    )


@pytest.fixture(params=[1000, 2**32 - 150], ids=["plain", "wraps"])
def stream(request):
    """Four messages of 100 bytes; the second segment is lost and sent again with the third."""
    isn = request.param
    rows = [
        segment(1, isn, 0, "S"),
        segment(2, isn + 1, 100),
        segment(3, isn + 101, 100, fate="lost"),
        segment(4, isn + 201, 100),
        segment(5, 1, 0, direction="down", ack=isn + 101),
        segment(6, 1, 0, direction="down", ack=isn + 101),
        segment(7, isn + 101, 200, out_ns=99),
        segment(8, isn + 301, 100),
        segment(9, isn + 401, 0, "FA"),
        segment(10, isn + 401, 0, "FA"),
    ]
    run = Run("tcp", "tcp", 1, 4, 100, 7, wire_rows=rows)
    run.departures = [row for row in rows if row.direction == "up" and row.fate == "delivered"]
    return run


def test_what_tcp_sent_again(stream):
    assert [row.id for row in tcp.again(stream)] == [7, 10]


def test_which_messages_a_segment_holds(stream):
    held = {row.id: list(tcp.messages(stream, row)) for row in stream.data_rows}
    assert held[2] == [0] and held[7] == [1, 2] and held[8] == [3] and held[9] == []


def test_what_was_lost_is_healed(stream):
    assert [row.id for row in tcp.lost_data(stream)] == [3]
    assert tcp.healed(stream) == {3: 69}
    stream.wire_rows.remove(stream.wire_rows[6])
    assert tcp.healed(stream) == {}


def test_the_story_of_a_segment(stream):
    """The SYN, the lost one, what came ahead of its bytes, the ACK of that, and what healed it."""
    lost, healing = stream.wire_rows[2], stream.wire_rows[6]
    assert [row.id for row in tcp.story(stream, lost)] == [1, 3, 4, 5, 7, 8]
    # Late, not lost: what overtook it is what arrived before its own bytes did.
    stream.wire_rows[2] = late = lost._replace(fate="delivered", out_ns=60)
    stream.departures.append(late)
    assert [row.id for row in tcp.story(stream, late)] == [1, 3, 4, 5, 7]
    assert tcp.story(stream, stream.wire_rows[7]) is None, "it was never sent again"
    stream.wire_rows[6] = healing._replace(fate="lost", out_ns=None)
    assert tcp.story(stream, late) is None, "what was sent again was lost, too"


def test_who_brought_a_message(stream):
    assert {seq: row.id for seq, row in tcp.carriers(stream).items()} == {0: 2, 1: 7, 2: 4, 3: 8}


def test_duplicate_acks(stream):
    assert list(tcp.duplicate_acks(stream).values()) == [1]


# The waterfall.


def strangers(kind):
    """For one_way's `during`: the receiver stands while the sender sends; then others send, too."""

    def during(receiver, start_sender):
        wire = receiver.wire
        receiver.stop()
        sender = start_sender().wait()
        wire.drain()
        receiver.cont()
        wire.up(f"block {kind}:9" if kind == "udp" else "")
        garbage, foreign = b"garbage".hex(), forge.message(kind=forge.DATA, run=999).hex()
        port = receiver.port or 0
        for to, what in ((port, garbage), (port, foreign), (port + 1, garbage), (9, garbage)):
            wire.start(
                "client",
                sys.executable,
                *(forge.__file__, kind, "10.0.0.2", to, what, what),
                json_lines=False,
            ).expect(0)
        return sender

    return during


@pytest.fixture(scope="module")
def rough(tmp_path_factory):
    """A UDP and a raw run in which as many lines as can be are not 0."""
    found = {}
    try:
        with Wire(tmp_path_factory.mktemp("rough"), seed=3) as wire:
            for kind in ("udp", "raw"):
                wire.up(f"loss 5% duplicate 5% corrupt 10% drop {kind}:20-25 rate 9mbit limit 30")
                found[kind] = one_way(
                    wire,
                    kind,
                    count=900,
                    interval="200us",
                    size=300,
                    receiver_args=("--rcvbuf", "64k"),
                    during=strangers(kind),
                )
    except CannotRun as reason:
        pytest.skip(lab.CANNOT_RUN_PREFIX + str(reason))
    return found


LINES = {
    "refused by send()": False,
    "dropped before the wire": False,
    "sent by others": True,
    "lost": True,
    "found the queue full": True,
    "dropped by order": True,
    "blocked": "udp",
    "not taken by the host": False,
    "copies": True,
    "IP header wrong": False,
    "no such port": "udp",
    "nobody listens": False,
    "checksum wrong": "udp",
    "length wrong": False,
    "buffer overflow": True,
    "not of this run": True,
    "corrupt (CRC)": "raw",
    "no message of ours": True,
    "duplicates": True,
    "too late": False,
}


@pytest.mark.parametrize("kind", ["udp", "raw"])
def test_the_waterfall_closes_in_rough_weather(rough, kind):
    rows = waterfall.waterfall(rough[kind])
    assert waterfall.first_open(rows) is None, waterfall.text(rows)
    absent = {"udp": {"nobody listens"}, "raw": {"no such port", "checksum wrong", "length wrong"}}[
        kind
    ]
    lines = {row.what: row.count for row in rows if isinstance(row, waterfall.Line)}
    assert set(lines) == set(LINES) - absent
    for what, count in lines.items():
        if LINES[what] in (True, kind):
            assert count > 0, f"this test should have made some: {what}\n{waterfall.text(rows)}"


@pytest.mark.parametrize("kind", ["udp", "raw"])
def test_a_line_left_out_opens_the_waterfall(rough, kind):
    rows = waterfall.waterfall(rough[kind])
    tried = 0
    for row in rows:
        if isinstance(row, waterfall.Line) and row.count:
            rest = [other for other in rows if other is not row]
            opened = waterfall.first_open(rest)
            # It opens at the very total that the line stands above.
            below = rows[rows.index(row) :]
            assert opened is next(each for each in below if isinstance(each, waterfall.Total))
            assert "but the lines above leave" in waterfall.text(rest)
            tried += 1
    assert tried >= 9


def test_a_false_count_of_the_kernels_opens_the_waterfall(make_wire):
    """UDP's errors have a sum, too; where none is spoilt, none makes up for another."""
    with make_wire() as wire:
        run = one_way(
            wire, "udp", 300, "20us", 1000, receiver_args=("--rcvbuf", "8k"), during=halted
        )
    assert waterfall.first_open(waterfall.waterfall(run)) is None
    for name in ("Udp.RcvbufErrors", "Udp.InCsumErrors", "Udp.NoPorts"):
        for more in (1, -1):
            false = {**run.kernel["server"], name: run.kernel["server"][name] + more}
            other = dataclasses.replace(run, kernel={**run.kernel, "server": false})
            assert waterfall.first_open(waterfall.waterfall(other)) is not None, (name, more)


@pytest.mark.parametrize("kind", ["udp", "raw"])
def test_a_false_total_opens_the_waterfall(rough, kind):
    rows = waterfall.waterfall(rough[kind])
    for at, row in enumerate(rows):
        if isinstance(row, waterfall.Total):
            false = [*rows[:at], row._replace(count=row.count + 1), *rows[at + 1 :]]
            assert waterfall.first_open(false) is not None


def test_the_waterfall_closes_over_ipv6(make_wire):
    with make_wire("loss 10% duplicate 10% corrupt 10%") as wire:
        run = one_way(wire, "udp", 200, "200us", family="6")
    rows = waterfall.waterfall(run)
    assert waterfall.first_open(rows) is None, waterfall.text(rows)
    bad = next(row for row in rows if row.what == "checksum wrong")
    assert bad.count > 0 and bad.source.startswith("server: Udp6")


def test_tcp_and_fragments_have_no_waterfall():
    with pytest.raises(ValueError):
        waterfall.waterfall(Run("tcp", "tcp", 1, 1, 100, 7))
    with pytest.raises(ValueError, match="fragments"):
        waterfall.waterfall(Run("udp", "udp", 1, 1, 4000, 7))


# Hosts and programs.


def test_usage_and_status(make_wire):
    with make_wire() as wire:
        program = wire.start("client", "sh", "-c", "exit 5", json_lines=False)
        with pytest.raises(Broken, match="status 5"):
            program.expect(0)
        assert set(program.usage) == {
            "cpu_user_ns",
            "cpu_system_ns",
            "voluntary_switches",
            "involuntary_switches",
        }


def test_a_line_that_breaks_the_schema(make_wire):
    with make_wire() as wire:
        program = wire.start("client", "sh", "-c", 'echo \'{"event":"ready"}\'', label="liar")
        with pytest.raises(Broken, match="liar: .*lacks"):
            program.line("ready")


def test_no_ready_line(make_wire):
    with make_wire() as wire:
        program = wire.start("client", "sh", "-c", "echo no such thing >&2; exit 1", label="mute")
        with pytest.raises(Broken, match="mute: .*\n.*no such thing"):
            program.ready()


def test_a_bad_order_is_told(make_wire):
    with make_wire() as wire:
        with pytest.raises(Broken, match="nonsense"):
            wire.link("nonsense")
        wire.drain()


def test_each_host_has_counters_of_its_own(make_wire):
    with make_wire() as wire:
        before = {host: wire.kernel(host) for host in wire.pids}
        run = one_way(wire, "udp", count=20, interval="1ms")
        after = {host: wire.kernel(host) for host in wire.pids}
    sent = counters.difference(before["client"], after["client"])["Udp.OutDatagrams"]
    read = counters.difference(before["server"], after["server"])["Udp.InDatagrams"]
    assert (sent, read) == (20, 20) and not run.missing
    used = run.sender["usage"]
    # It slept before each message but the first, so it was switched away as often.
    assert used["voluntary_switches"] >= 19
    assert used["cpu_user_ns"] + used["cpu_system_ns"] > 0


def test_a_halted_program_stands_still(make_wire):
    with make_wire() as wire:
        run = one_way(
            wire, "udp", 300, "20us", 1000, receiver_args=("--rcvbuf", "8k"), during=halted
        )
    drops = sum(each["drops"] for each in run.receiver["kernel"])
    assert drops == len(run.missing) == run.kernel["server"]["Udp.RcvbufErrors"] > 0


def test_a_setting_of_one_host(make_wire):
    with make_wire() as wire:
        wire.setting("client", "ipv4/tcp_retries2", 5)
        assert wire.setting("client", "ipv4/tcp_retries2") == "5"
        assert wire.setting("server", "ipv4/tcp_retries2") != "5"


def test_a_wire_that_ends_badly(make_wire):
    """A log that was cut short is not taken for the truth."""
    with pytest.raises(Broken, match="status -9"):
        with make_wire() as wire:
            pid = (
                Path(f"/proc/{wire.pids['client']}/stat").read_text().rpartition(")")[2].split()[1]
            )
            os.kill(int(pid), signal.SIGKILL)


def test_a_wire_whose_disk_is_full(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    wire = Wire(tmp_path, capture=False)
    wire.argv[wire.argv.index("--log") + 1] = "/dev/full"
    try:
        with pytest.raises(Broken):
            with wire:
                with pytest.raises(Broken, match="disk"):
                    wire.counters()
    except CannotRun as reason:
        pytest.skip(str(reason))


def test_nothing_is_left_behind(make_wire):
    with make_wire() as wire:
        program = wire.start("server", "sleep", "1000", json_lines=False)
        pids = [*wire.pids.values(), program.pid, program.inner_pid()]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# Drawing.

SVG = "{http://www.w3.org/2000/svg}"


def made_up(kind, count=30, lost=(), late=(), twice=()):
    """A run as it might have been."""
    sent = namedtuple("Sent", "flow seq due_ns sent_ns bytes verdict")
    came = namedtuple("Came", "flow seq due_ns sent_ns received_ns bytes verdict")
    run = Run(kind, kind, 1, count, 100, 7)
    for seq in range(count):
        at = 10**9 + seq * 10**6
        run.sent_rows.append(sent(0, seq, at, at, 100, "sent"))
        if seq in lost:
            continue
        then = at + (9 if seq in late else 5) * 10**6
        run.arrivals.append(came(0, seq, at, at, then, 100, "first"))
        if seq in twice:
            run.arrivals.append(came(0, seq, at, at, then + 1, 100, "duplicate"))
    run.arrivals.sort(key=lambda row: row.received_ns)
    return run


@pytest.mark.parametrize("draw", [charts.arrivals, charts.delays, charts.distribution])
def test_a_chart_is_whole(draw):
    runs = [
        made_up("tcp"),
        made_up("udp", lost={3, 7, 29}, late={10}, twice={12}),
        made_up("raw", lost=range(30)),
    ]
    text = draw(runs)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and not re.search(r"\b(nan|inf)\b", text)
    label = root.get("aria-labelledby").split()
    known = {each.get("id"): each for each in root.iter() if each.get("id")}
    assert "lost: 3, 7, 29" in known[label[1]].text
    assert "prefers-color-scheme:dark" in text


def test_every_point_has_a_title():
    run = made_up("udp", lost={3}, late={10}, twice={12})
    root = ElementTree.fromstring(charts.arrivals([run]))
    titles = [each.text for each in root.iter(SVG + "title")][1:]
    assert len(titles) == 29 + 1 + 1
    assert any("message 3: sent" in title and "never received" in title for title in titles)
    assert any("message 12: a second copy" in title for title in titles)
    assert any("message 10: overtaken" in title for title in titles)


def test_shapes_differ_and_not_just_colours():
    assert len(set(svg.SHAPES.values())) >= len(svg.SHAPES) - 1


def test_thinning_keeps_what_is_out_of_the_ordinary():
    points = [svg.Point(n, n, "lost" if n % 1000 == 0 else "first", "") for n in range(10_000)]
    kept, out = svg.thin(points, most=500)
    assert sum(point.style == "lost" for point in kept) == 10
    assert sum(point.style == "first" for point in kept) == 500 and out == 10_000 - 510


@pytest.mark.parametrize(
    "axis", [svg.Linear(0, 7, ""), svg.Linear(3, 3, ""), svg.Log(0.02, 900, "")]
)
def test_axes(axis):
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12 and ticks == sorted(ticks)
    assert all(-1e-9 <= axis.share(tick) <= 1 + 1e-9 for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1200, "1200"), (0.05, "0.05"), (2.5, "2.5"), (10.0, "10")]
)
def test_nice(value, text):
    assert svg.nice(value) == text


# Printing.


def printed(encoding="utf-8", colour=False):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    return screen.Screen(out, colour), lambda: raw.getvalue().decode(encoding)


CLAIM = {
    "sentence": "UDP missed exactly what the wire lost. " * 4,
    "outcome": "holds",
    "figures": {"lost_on_the_wire": 19, "delay_ns": 10_500_000, "numbers": list(range(40))},
    "reason": None,
}


@pytest.mark.parametrize("outcome", screen.MARKS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_claim(outcome, encoding):
    out, text = printed(encoding)
    out.claim({**CLAIM, "outcome": outcome, "reason": "because – of this"})
    lines = text().splitlines()
    assert max(map(len, lines)) <= 100
    assert "lost on the wire 19; delay 10.5 ms" in text() and "and 30 more" in " ".join(
        text().split()
    )
    assert ("✓" in text()) == (outcome == "holds" and encoding == "utf-8")
    assert ("because" in text()) == (outcome != "holds")


def test_a_table():
    out, text = printed()
    out.table(["", "messages\nsent", "lost"], [["TCP", 400, None], ["UDP", 4, "12.5 ms"]])
    assert text().splitlines() == [
        "       messages",
        "           sent     lost",
        "  TCP       400        –",
        "  UDP         4  12.5 ms",
    ]


def test_colour_only_where_it_is_wanted(monkeypatch):
    out, text = printed(colour=True)
    out.line("title", "1")
    assert text() == "\x1b[1mtitle\x1b[0m\n"
    out, text = printed()
    out.line("title", "1")
    assert text() == "title\n"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen.Screen(Terminal()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen.Screen(Terminal()).colour


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "a clean cable"),
        ("delay 20ms loss 5%", "each packet takes 20 ms; 5 % are lost, at random"),
        (
            "delay 20ms 5ms distribution normal",
            "each packet takes 20 ms, give or take 5 ms (normal)",
        ),
        ("delay 5ms reorder 25% gap 5", "5 % are sent"),
        ("duplicate 2% corrupt 1%", "2 % arrive twice; 1 % have one bit flipped"),
        ("rate 1mbit limit 10", "1 mbit a second; room for 10 packets"),
        ("drop data:3,7-9", "data segment 3 and 7 to 9 is dropped"),
        (
            "loss gemodel 1% 25%",
            "losses come in bursts (one begins with 1 % a packet, ends with 25 %)",
        ),
    ],
)
def test_a_link_in_words(spec, words):
    assert words in screen.link_words(spec)


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (950, "950 ns"), (12_340, "12.3 us"), (1.5e9, "1.50 s"), (None, "–")],
)
def test_durations(ns, text):
    assert screen.duration(ns) == text


# Knobs.


def test_knobs():
    defaults = {"LINK": "loss 5%", "COUNT": 400}
    assert lab.read_knobs(defaults, {"COUNT": "500"}) == {"LINK": "loss 5%", "COUNT": 500}
    assert lab.read_knobs(defaults, {"LINK": ""})["LINK"] == ""
    for name, text in (("COUNT", "x"), ("COUNT", "-5"), ("COUNT", "5"), ("SEED", "1")):
        with pytest.raises(lab.BadKnob, match=f"{name}=.*{text}"):
            lab.read_knobs(defaults, {name: text})


def test_makes_own_command_line_only():
    flags = "w -j2 --jobserver-auth=3,4 -- LINK=loss\\ 20% SEED=3 CC=clang N=6"
    assert run_lab.from_make({"MAKEFLAGS": flags}) == {"LINK": "loss 20%", "SEED": "3"}
    assert run_lab.from_make({"COUNT": "9", "MAKEFLAGS": "w"}) == {}
    odd = r"-- LINK=it's\ \"odd\"\ \\\ $$ SEED=3"
    assert run_lab.from_make({"MAKEFLAGS": odd}) == {"LINK": 'it\'s "odd" \\ $', "SEED": "3"}


def test_a_run_that_would_take_minutes():
    defaults = {"COUNT": 400, "INTERVAL": "4ms"}
    assert lab.read_knobs(defaults, {"INTERVAL": "75ms"})["INTERVAL"] == "75ms"
    for given in ({"INTERVAL": "76ms"}, {"COUNT": "20000"}):
        with pytest.raises(lab.BadKnob, match="COUNT=.* INTERVAL=.* allowed are 30 s"):
            lab.read_knobs(defaults, given)


@pytest.mark.parametrize(("text", "ns"), [("5ms", 5_000_000), ("1.5s", 1_500_000_000), ("2", 2e9)])
def test_durations_are_read(text, ns):
    assert lab.duration_ns(text) == ns


# Whole labs, made up.

LAB = '''"""Does a made-up lab work?"""

import pytest

from harness.lab import inconclusive, nothing_to_see

KNOBS = {"SEED": 7, "COUNT": 40}


@pytest.fixture(scope="module")
def broken(lab):
    raise RuntimeError("the run itself failed")


def test_holds(lab, figures):
    """This one holds."""
    lab.table(["", "n"], [["TCP", lab.COUNT]])
    figures(seen=lab.COUNT, delay_ns=1500)


FAILS


def test_cannot_tell():
    """This one cannot tell."""
    inconclusive("the machine is too slow")


def test_nothing():
    """This one has nothing to see."""
    nothing_to_see("nothing was lost")
'''

FAILS = '''
def test_fails(figures):
    """This one does not hold."""
    figures(got=3)
    assert 3 == 4, "three is not four"


def test_broken(broken):
    """This one cannot even be tried."""
'''


@pytest.fixture
def made_up_lab(tmp_path):
    """Runs a lab.py of this text as `make run-lab 9` would; returns the finished process."""

    def run(text, *arguments, number=9, **environment):
        folder = tmp_path / "labs" / "09-made-up"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lab.py").write_text(text)
        own = {
            "SOCKLAB_LABS": str(tmp_path / "labs"),
            "SOCKLAB_OUT": str(tmp_path / "out"),
            "PYTHONPATH": str(tree.ROOT / "tests"),
            "PYTHONIOENCODING": "utf-8",
            "MAKEFLAGS": "",
        }
        return subprocess.run(
            [sys.executable, "-m", "harness.run_lab", str(number), *arguments],
            env={**os.environ, **own, **environment},
            cwd=tree.ROOT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


def test_a_lab_that_holds(made_up_lab, tmp_path):
    done = made_up_lab(LAB.replace("FAILS", ""), "COUNT=50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Lab 09: Does a made-up lab work?" in done.stdout
    assert "✓ This one holds." in done.stdout and "seen 50; delay 1.50 us" in done.stdout
    assert "inconclusive: the machine is too slow" in done.stdout
    assert "not tried: nothing was lost" in done.stdout
    assert "3 claims: 1 hold, 1 inconclusive, 1 not tried." in done.stdout
    assert "TCP  50" in done.stdout
    page = (tmp_path / "out" / "09-made-up" / "index.html").read_text()
    assert "This one holds." in page and "COUNT=50" in page


def test_a_lab_that_does_not_hold(made_up_lab, tmp_path):
    done = made_up_lab(LAB.replace("FAILS", FAILS))
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "✗ This one does not hold. got 3 does not hold: three is not four" in words
    assert "could not be tried: " in words and "the run itself failed" in words
    assert "Traceback" not in done.stdout and "lab.py:" not in done.stdout
    report = json.loads((tmp_path / "out" / "09-made-up" / "report.json").read_text())
    schema.check(report, "lab_report")
    outcomes = {claim["id"]: claim["outcome"] for claim in report["claims"]}
    assert outcomes == {
        "holds": "holds",
        "fails": "fails",
        "broken": "error",
        "cannot-tell": "inconclusive",
        "nothing": "skipped",
    }
    traces = (tmp_path / "out" / "09-made-up" / "tracebacks.txt").read_text()
    assert "assert 3 == 4" in traces
    assert "assert 3 == 4" in made_up_lab(LAB.replace("FAILS", FAILS), "-v").stdout


def test_a_lab_that_is_interrupted(made_up_lab, tmp_path):
    """What was not tried is not said to hold: not by the status, not on the page."""
    cut = FAILS.replace('assert 3 == 4, "three is not four"', "raise KeyboardInterrupt")
    done = made_up_lab(LAB.replace("FAILS", cut))
    assert done.returncode == run_lab.INTERRUPTED, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "09-made-up" / "report.json").read_text())
    outcomes = {claim["id"]: claim["outcome"] for claim in report["claims"]}
    assert outcomes.pop("holds") == "holds"
    assert len(outcomes) == 4 and set(outcomes.values()) == {"error"}
    assert "Traceback" not in done.stderr


def test_a_lab_that_is_under_way(made_up_lab, tmp_path):
    """One run at a time: a second would empty the folder that the first writes to."""
    text = LAB.replace("FAILS", "")
    assert made_up_lab(text).returncode == 0
    page = tmp_path / "out" / "09-made-up" / "index.html"
    before = page.stat().st_mtime_ns
    fd = os.open(page.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = made_up_lab(text)
    assert (done.returncode, done.stdout) == (1, "")
    assert "under way" in done.stderr and len(done.stderr.splitlines()) == 1
    assert page.stat().st_mtime_ns == before
    os.close(fd)
    assert made_up_lab(text).returncode == 0
    assert page.stat().st_mtime_ns > before


def test_somebody_elses_options_for_pytest(made_up_lab):
    done = made_up_lab(LAB.replace("FAILS", ""), PYTEST_ADDOPTS="-q --no-such-option")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_checkout_in_a_folder_with_blanks(tmp_path):
    """LD_PRELOAD knows no way to write a blank: the library has another name then."""
    library = tmp_path / "my course: sockets" / "calls.so"
    library.parent.mkdir()
    library.write_text("it")
    other = recording.preloadable(library)
    assert not set(" :") & set(other) and Path(other).read_text() == "it"
    assert recording.preloadable(Path("/plain/calls.so")) == "/plain/calls.so"


def test_a_lab_for_an_ascii_terminal(made_up_lab):
    done = made_up_lab(LAB.replace("FAILS", FAILS), PYTHONIOENCODING="ascii")
    assert "[ok] This one holds." in done.stdout and "[NO]" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "number", "words"),
    [
        (["COUNT=x"], 9, "COUNT='x': allowed is"),
        (["COUTN=50"], 9, "COUTN"),
        ([], 77, "there is no lab 77"),
        ([], "six", "which lab?"),
        (["8"], 9, "which lab?"),
    ],
)
def test_usage(made_up_lab, arguments, number, words):
    done = made_up_lab(LAB.replace("FAILS", ""), *arguments, number=number)
    assert done.returncode == 2 and not done.stdout
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_lab_that_does_not_load(made_up_lab):
    done = made_up_lab('"""Does it load?"""\n\nimport no_such_module\n')
    assert done.returncode == 1 and "no_such_module" in done.stdout


def test_a_machine_that_cannot(made_up_lab, tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    wire = bin_folder / "wire"
    wire.write_text(
        "#!/bin/sh\necho 'wire: no tun here' >&2\necho 'try: modprobe tun' >&2\nexit 77\n"
    )
    wire.chmod(0o755)
    text = """\"\"\"Can it run?\"\"\"

KNOBS = {"COUNT": 40}


def test_a_wire(lab):
    \"\"\"There is a wire.\"\"\"
    with lab.wire():
        pass
"""
    done = made_up_lab(text, SOCKLAB_BIN=str(bin_folder))
    assert done.returncode == 77, done.stdout + done.stderr
    assert "no tun here" in done.stdout and "modprobe tun" in done.stdout


def test_junit_has_the_figures(made_up_lab, tmp_path):
    made_up_lab(LAB.replace("FAILS", FAILS))
    report = tmp_path / "junit.xml"
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", tree.ROOT / ".pytest.ini", "--rootdir", tree.ROOT),
            *("-p", "harness.plugin", f"--junitxml={report}"),
            tmp_path / "labs" / "09-made-up" / "lab.py",
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(tree.ROOT / "tests"),
            "SOCKLAB_OUT": str(tmp_path / "out"),
        },
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    root = ElementTree.parse(report).getroot()
    cases = {case.get("name"): case for case in root.iter("testcase")}
    figures = {each.get("name"): each.get("value") for each in cases["test_holds"].iter("property")}
    assert figures == {"seen": "40", "delay_ns": "1500"}
    skipped = cases["test_cannot_tell"].find("skipped").get("message")
    assert skipped == "inconclusive: the machine is too slow"


# The pieces that a student meets without running anything.


def test_every_lab_says_what_it_is():
    for number, folder in lab.find().items():
        question, knobs = lab.describe(folder)
        assert question.endswith("?"), folder
        assert set(knobs) <= set(lab.READ), folder
        assert number == int(folder.name[:2])
        guide = (folder / "README.md").read_text().splitlines()
        assert guide[0] == f"# {question}"


def test_every_claim_is_a_sentence():
    for folder in lab.find().values():
        source = (folder / "lab.py").read_text()
        claims = re.findall(r'^def (test_\w+)\(.*?\):\n    """(.*?)"""', source, re.M | re.S)
        assert len(claims) == len(re.findall(r"^def test_", source, re.M)), folder
        for name, sentence in claims:
            assert sentence.endswith("."), name


def test_a_silent_drop_is_inconclusive():
    loss = lab.find()[6]
    counts = {"client_tx_dropped": 0, "server_tx_dropped": 0}
    lab.Lab(loss, {}).check_speed(counts)
    with pytest.raises(pytest.skip.Exception, match="inconclusive: .*too slow: 3 packets"):
        lab.Lab(loss, {}).check_speed({**counts, "server_tx_dropped": 3})


def test_same_says_which():
    lab.same({(0, 1)}, {(0, 1)}, "lost", "dropped")
    with pytest.raises(AssertionError, match="lost 3, but not so: dropped"):
        lab.same({(0, 1), (0, 3)}, {(0, 1)}, "lost", "dropped")
