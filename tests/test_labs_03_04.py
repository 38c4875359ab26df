"""Labs 03 and 04: each claim fails when what it is about is taken away."""

import importlib.util
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness import ladder, tree
from harness.hosts import CannotRun, Wire
from harness.lab import CANNOT_RUN_PREFIX
from harness.recording import Recording


def load(folder):
    """A lab.py as a module, whose claims are functions."""
    spec = importlib.util.spec_from_file_location(
        "lab_" + folder[:2], tree.LABS / folder / "lab.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


handshake, goodbye = load("03-handshake"), load("04-goodbye")


class StandIn:
    """What a Recording needs of a Lab."""

    LINK = "delay 100ms"

    def __init__(self):
        self.commands = []

    def check_speed(self, counters):
        """This machine has to be quick enough."""
        assert counters["client_tx_dropped"] + counters["server_tx_dropped"] == 0


LAB = StandIn()


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    """A wire such as the labs have."""
    try:
        with Wire(tmp_path_factory.mktemp("labs"), link=LAB.LINK) as wire:
            yield wire
    except CannotRun as reason:
        pytest.skip(CANNOT_RUN_PREFIX + str(reason))


@pytest.fixture(scope="module")
def asked(wire):
    """Lab 03's exchanges."""
    return {kind: handshake.ask(LAB, wire, kind) for kind in tree.KINDS}


@pytest.fixture(scope="module")
def ended(wire):
    """Lab 04's, which close."""
    return {kind: goodbye.ask(LAB, wire, kind, name=f"end-{kind}") for kind in tree.KINDS}


def figures(**_):
    """In place of the fixture."""


def fails(claim, *arguments):
    """Asserts that a claim does not hold of these results."""
    with pytest.raises(AssertionError):
        claim(*arguments, figures)


def holds(claim, *arguments):
    """Asserts that it does, so that it is seen to fail for the right reason."""
    claim(*arguments, figures)


def doctored(run, **changes):
    """The run with some of what is known of it replaced."""
    found = object.__new__(type(run))
    found.__dict__.update(run.__dict__)
    found.__dict__.update(changes)
    return found


def with_rows(run, change):
    """The run with `change(row)` in each row's place."""
    return doctored(run, rows=[change(row) for row in run.rows])


def without_state(run, state, side):
    """The run with a sampler that never saw this state."""
    record = doctored(run.record, gaps_ns={side: 0})
    record.states = dict(record.states)
    record.states[side] = [
        line for line in record.states[side] if state not in (line["state"], line["before"])
    ]
    return doctored(run, record=record)


def other_ladders(run, name="ladder"):
    """The run with a ladder that is empty, that lacks its last packet, and that has another ack."""
    packets = getattr(run, name)().packets
    changed = [replace(each, ack=(each.ack or 0) + 1) for each in packets]
    for drawn in ([], packets[:-1], changed):
        yield doctored(run, **{name: lambda drawn=drawn: ladder.Ladder(drawn)})


# Lab 03.


def test_three_packets(wire, asked):
    """A handshake of which the link loses the first SYN has four; UDP has none."""
    claim = handshake.test_three_packets
    holds(claim, asked["tcp"])
    fails(claim, asked["udp"])
    fails(claim, handshake.ask(LAB, wire, "tcp", f"{LAB.LINK} drop syn:1", "four"))
    for other in other_ladders(asked["tcp"]):
        fails(claim, other)
    wire.link(LAB.LINK)


def test_numbers(asked):
    """Numbers that are not the other's plus one."""
    claim, tcp = handshake.test_each_side_picks_a_number, asked["tcp"]
    holds(claim, tcp)
    for flags in ("SA", "A"):
        fails(
            claim,
            with_rows(
                tcp,
                lambda row: (
                    row._replace(tcp_ack=row.tcp_ack - 1) if row.tcp_flags == flags else row
                ),
            ),
        )


def test_states(asked):
    """A socket that is whole at once."""
    claim, tcp = handshake.test_states, asked["tcp"]
    holds(claim, tcp)
    fails(claim, without_state(tcp, "SYN_SENT", "client"))
    fails(claim, without_state(tcp, "SYN_RECV", "server"))


def test_a_round_trip(asked):
    """A connect() that returns as UDP's does; an accept() that returns with it."""
    claim, tcp = handshake.test_connect_takes_a_round_trip, asked["tcp"]
    holds(claim, tcp)
    quick = tcp.connect._replace(returned_ns=tcp.connect.called_ns + 20_000)
    fails(claim, doctored(tcp, connect=quick))
    early = [
        call._replace(returned_ns=tcp.connect.returned_ns) if call.call == "accept" else call
        for call in tcp.server
    ]
    fails(claim, doctored(tcp, server=early))


def test_the_kernel_does_it(wire):
    """A program that is in accept() when the connection comes."""
    record = Recording(LAB, wire, "early")
    with record:
        server, client = record.by_hand("server"), record.by_hand("client")
        listener, port = server.bound("tcp")
        server.begin(f"accept {listener}")
        fd = client.connected("tcp", port)
        client_port = client.name(fd).port
        client.must(f"send {fd} hello")
        assert server.returned().value > 0
        wire.drain()
    fails(handshake.test_the_kernel_does_it, (record, client_port, port))


def test_a_port_of_its_own(wire, asked):
    """A client that calls bind() itself."""
    claim = handshake.test_connect_chooses_a_port
    holds(claim, asked, wire)
    bind = asked["tcp"].connect._replace(call="bind")
    fails(claim, {**asked, "tcp": doctored(asked["tcp"], client=[bind])}, wire)
    fails(claim, {**asked, "raw": asked["udp"]}, wire)


def test_a_connect_that_sends(asked):
    """TCP in UDP's place, and in RAW's."""
    claim = handshake.test_udp_and_raw_send_nothing
    holds(claim, asked)
    fails(claim, {**asked, "udp": asked["tcp"]})
    fails(claim, {**asked, "raw": asked["tcp"]})


def test_nothing_lost(asked):
    """A handshake of which nothing was lost."""
    run = {name: asked["tcp"] for name in ("syn", "synack", "ack")}
    fails(handshake.test_a_lost_syn, run)
    fails(handshake.test_a_lost_synack, run)
    fails(handshake.test_a_lost_ack, run)


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark(wire, asked):
    """A ladder of other packets than were there."""
    claim = handshake.test_tshark_sees_the_same
    holds(claim, asked, wire)
    other = with_rows(asked["tcp"], lambda row: row._replace(tcp_seq=row.tcp_seq + 1))
    fails(claim, {"tcp": other}, wire)
    for other in other_ladders(asked["tcp"]):
        fails(claim, {"tcp": other}, wire)


# Lab 04.


@pytest.fixture(scope="module")
def later(wire):
    """The server closes later; nothing is sent."""
    with goodbye.Hands(LAB, wire, "later") as hands:
        hands.client.must(f"close {hands.fd}")
        hands.record.until("client", "FIN_WAIT_2", hands.client_port)
        hands.server.must(f"recv {hands.conn} 100")
        hands.server.must(f"close {hands.conn}")
        wire.drain()
    return hands.goodbye()


def test_three_or_four(ended, later):
    """Each in the other's place."""
    holds(goodbye.test_three_segments, ended["tcp"])
    holds(goodbye.test_four_segments, later)
    for other in other_ladders(ended["tcp"], "ending"):
        fails(goodbye.test_three_segments, other)
    for other in other_ladders(later, "ending"):
        fails(goodbye.test_four_segments, other)
    holds(goodbye.test_five_states, later)
    fails(goodbye.test_four_segments, ended["tcp"])
    seen = doctored(ended["tcp"].record, gaps_ns={"client": 0})
    fails(goodbye.test_five_states, doctored(ended["tcp"], record=seen))
    at_once = doctored(later)
    at_once.calls = lambda side, name=None: [
        call._replace(called_ns=later.segments[0].out_ns) for call in later.calls(side, name)
    ]
    fails(goodbye.test_three_segments, at_once)
    for state, side in (("FIN_WAIT_2", "client"), ("CLOSE_WAIT", "server"), ("LAST_ACK", "server")):
        fails(goodbye.test_five_states, without_state(later, state, side))


def test_who_closes_first(ended, later):
    """The client closed first in both."""
    fails(goodbye.test_who_closes_first_waits, ended["tcp"], later)


def test_restart(wire, later):
    """A server that did not close first has its port back at once."""
    with goodbye.Hands(LAB, wire, "client-first") as hands:
        hands.client.must(f"close {hands.fd}")
        hands.server.must(f"recv {hands.conn} 100")
        hands.server.must(f"close {hands.conn}")
        hands.record.until("client", "TIME_WAIT", hands.client_port)
        wire.drain()
        hands.server.must(f"close {hands.listener}")
        fd = hands.server.socket("tcp")
        plain = hands.server.call(f"bind {fd} 10.0.0.2 {hands.port}").error
    run = hands.goodbye()
    run.plain, run.reuse = plain, SimpleNamespace(value=0, error=None)
    assert plain is None
    fails(goodbye.test_restart, run)


def test_data_ahead_of_the_end(wire):
    """A server that reads before the end comes, and one from which some is kept."""
    with goodbye.Hands(LAB, wire, "reads-first") as hands:
        read = []
        for text in ("onetw", "othre", "e"):
            hands.client.must(f"send {hands.fd} {text}")
            read.append(hands.server.must(f"recv {hands.conn} 5").data)
        hands.client.must(f"close {hands.fd}")
        read.append(hands.server.must(f"recv {hands.conn} 5").data)
        hands.record.until("server", "CLOSE_WAIT", hands.port, hands.client_port)
        wire.drain()
    run = hands.goodbye()
    run.read = read
    fails(goodbye.test_the_end_stands_behind_the_data, run)


def test_a_whole_close(wire):
    """close() in place of shutdown(): the answer meets nobody."""
    with goodbye.Hands(LAB, wire, "whole") as hands:
        hands.client.must(f"send {hands.fd} question")
        hands.client.must(f"close {hands.fd}")
        hands.refused = hands.client.call(f"send {hands.fd} more")
        hands.record.until("client", "FIN_WAIT_2", hands.client_port)
        hands.asked = hands.server.must(f"recv {hands.conn} 100").data
        hands.ended = hands.server.must(f"recv {hands.conn} 100").value
        hands.server.must(f"send {hands.conn} answer")
        answer = hands.client.call(f"recv {hands.fd} 100")
        hands.answer, hands.last = answer.data, answer.value
        hands.server.must(f"close {hands.conn}")
        wire.drain()
    run = hands.goodbye()
    run.hands = hands
    fails(goodbye.test_half_close, run)


def test_no_leak(wire):
    """A server that does not forget."""
    with goodbye.Hands(LAB, wire, "no-leak") as hands:
        hands.client.must(f"close {hands.fd}")
        hands.server.must(f"recv {hands.conn} 100")
        hands.server.must(f"close {hands.conn}")
        wire.until_closed()
    run = hands.goodbye()
    run.ports, run.forgotten = [hands.client_port], []
    fails(goodbye.test_leak, run)


def test_no_reset(wire, later):
    """A client that has read everything, and one that has not set SO_LINGER."""
    with goodbye.Hands(LAB, wire, "read") as hands:
        hands.server.must(f"send {hands.conn} unread")
        hands.client.must(f"recv {hands.fd} 100")
        hands.client.must(f"close {hands.fd}")
        wire.drain()
        told = hands.server.call(f"recv {hands.conn} 100").error
    run = hands.goodbye()
    run.told = told
    assert told is None
    fails(goodbye.test_unread, run)
    fails(goodbye.test_linger, run)


def test_no_lost_fin(ended):
    """A FIN that arrived."""
    fails(goodbye.test_lost_fin, ended["tcp"])


def test_a_close_that_sends(ended):
    """TCP in UDP's place, and in RAW's; and a TCP that tells nobody."""
    claim = goodbye.test_udp_tells_nobody
    holds(claim, ended)
    fails(claim, {**ended, "udp": ended["tcp"]})
    fails(claim, {**ended, "raw": ended["tcp"]})
    fails(claim, {**ended, "tcp": ended["udp"]})
