"""The ladder, with made-up data: what it gathers, where it puts it, and how it is drawn."""

import errno
import re
import xml.etree.ElementTree as ElementTree
from collections import namedtuple

import pytest

from harness import ladder
from harness.ladder import Call

MS = 1_000_000

Row = namedtuple(
    "Row",
    "direction class_ in_ns out_ns fate copies sport dport tcp_seq tcp_ack tcp_flags payload kind"
    " seq",
)


def segment(
    direction, flags, left_ms, arrived_ms, seq, ack=0, payload=0, fate="delivered", copies=0
):
    """A row of the wire's log, of one connection from port 5000 to port 80."""
    ports = (5000, 80) if direction == "up" else (80, 5000)
    arrived_ns = None if arrived_ms is None else round(arrived_ms * MS)
    return Row(
        direction,
        "tcp",
        round(left_ms * MS),
        arrived_ns,
        fate,
        copies,
        *ports,
        seq,
        ack,
        flags,
        payload,
        "",
        None,
    )


def state(name, before, since_ms, time_ms, side="client"):
    """A line of tcp-states."""
    here, there = ("10.0.0.1:5000", "10.0.0.2:80")
    if side == "server":
        here, there = there, here
    return {
        "since_ns": None if since_ms is None else round(since_ms * MS),
        "time_ns": round(time_ms * MS),
        "local": here,
        "remote": there,
        "before": before,
        "state": name,
    }


def call(name, called_ms, returned_ms, result=0, error=0, fd=3, address="", detail="", pid=1):
    """A recorded call."""
    called_ns, returned_ns = round(called_ms * MS), round(returned_ms * MS)
    return Call(name, pid, pid, fd, called_ns, returned_ns, result, error, address, detail)


ROWS = [
    segment("up", "S", 1000.1, 1100.2, 4294967295),
    segment("down", "SA", 1100.3, None, 700, 0, fate="dropped"),
    segment("down", "SA", 2100.3, 2200.3, 700, 0),
    segment("up", "A", 2200.4, 2300.5, 0, 701),
    segment("up", "PA", 2200.6, 2300.6, 0, 701, payload=64, copies=1),
]
STATES = {
    "client": [
        state("SYN_SENT", "CLOSED", 999, 1001),
        state("ESTABLISHED", "SYN_SENT", 2200.2, 2202.2),
        state("ESTABLISHED", "ESTABLISHED", 2202.2, 2204.2),
    ],
    "server": [
        state("SYN_RECV", "CLOSED", 1099, 1101, "server"),
        state("ESTABLISHED", "SYN_RECV", 2299, 2301, "server"),
    ],
}
CALLS = {
    "client": [
        call("socket", 999, 999.1, 3),
        call("connect", 1000, 2200.5, address="10.0.0.2:80", detail="from 10.0.0.1:5000"),
        call("send", 2200.52, 2200.55, 64),
        call("recv", 2200.7, 2300.7, -1, errno.EAGAIN),
        call("recv", 2300.8, 2401.0, 0),
        call("send", 2200.7, 2200.8, 10, fd=4),
    ],
    "server": [
        call("accept", 900, 1000, -1, errno.EAGAIN, pid=2),
        call("accept", 1000, 2300.6, 4, address="10.0.0.1:5000", pid=2),
        call("accept", 2300.6, 2400, 5, address="10.0.0.1:5001", pid=2),
        call("recv", 2300.7, 2300.8, 64, fd=4, pid=2),
        call("recv", 2300.7, 2300.8, 64, fd=5, pid=2),
    ],
}

TEXT = """\
       ms    client, port 5000 │                                              │ server, port 80
    0.000     connect() called │                                              │
    0.000                      │                                              │ accept() waits
    0.100             SYN_SENT ├── SYN, 0 bytes ──────╮                       │
                               │   seq 0 (4294967295) ╰──────╮                │
                               │                             ╰──────╮         │
                               │                                    ╰───────╮ │
  100.200                      │                                            ╰▶│ SYN_RECV
  100.300                      │                    ╭───── SYN-ACK, 0 bytes ──┤
                               │                 ╭──╯ seq 0 (700) ack 1 (0)   │
   ⋮ 1000                      ⋮                ✗╯         dropped, as told   ⋮
                               │                                              │
 1100.300                      │                    ╭───── SYN-ACK, 0 bytes ──┤
                               │              ╭─────╯ seq 0 (700) ack 1 (0)   │
                               │        ╭─────╯                               │
                               │ ╭──────╯                                     │
 1200.300          ESTABLISHED │◀╯                                            │
 1200.400                      ├── ACK, 0 bytes ─────────╮                    │
 1200.500        connect() = 0 │   seq 1 (0) ack 1 (701) ╰─╮                  │
 1200.520          send() = 64 │                           ╰──╮               │
 1200.600                      ├── ACK, 64 bytes (twice) ╮    ╰──╮            │
 1200.700        recv() called │   seq 1 (0) ack 1 (701) ╰──╮    ╰─╮          │
                               │                            ╰───╮  ╰──╮       │
                               │                                ╰───╮ ╰──╮    │
                               │                                    ╰───╮╰──╮ │
 1300.500                      │                                        ╰───┼▶│ ESTABLISHED
 1300.600                      │                                            ╰▶│
 1300.600                      │                                              │ accept() = a socket
 1300.700                      │                                              │ recv() = 64
                               │                                              │
                               │                                              │
                               │                                              │
 1401.000     recv() = 0 (end) │                                              │
"""


@pytest.fixture
def made():
    """The ladder of all that."""
    return ladder.build(ROWS, STATES, CALLS, 5000, 80)


def test_numbers(made):
    """Relative numbers count from each side's SYN, over the end of the 32 bits as well."""
    assert [(p.relative_seq, p.relative_ack) for p in made.packets] == [
        (0, None),
        (0, 1),
        (0, 1),
        (1, 1),
        (1, 1),
    ]
    assert made.packets[0].numbers == "seq 0 (4294967295)"
    assert made.packets[3].numbers == "seq 1 (0) ack 1 (701)"
    assert made.packets[1].reason == "dropped, as told"
    assert made.packets[4].head == "ACK, 64 bytes (twice)"


def test_a_connection_without_its_beginning():
    """Where the SYN was not seen, numbers count from the first one that was."""
    rows = [segment("up", "A", 1, 2, 500, 900, 10), segment("down", "A", 3, 4, 900, 510)]
    first, second = ladder.build(rows, client_port=5000, server_port=80).packets
    assert (first.relative_seq, first.relative_ack) == (0, None)
    assert (second.relative_seq, second.relative_ack) == (0, 10)


def test_only_this_connection(made):
    """Other sockets' calls and other connections are left out; repeated waits are one."""
    shown = [(side, each.call, each.fd) for side, each in made.calls]
    assert ("client", "send", 4) not in shown and ("server", "recv", 5) not in shown
    accepts = [each for side, each in made.calls if each.call == "accept"]
    assert [(each.called_ns, each.result) for each in accepts] == [(900 * MS, 4)]
    reads = [each for side, each in made.calls if side == "client" and each.call == "recv"]
    assert [(each.called_ns, each.returned_ns) for each in reads] == [
        (round(2200.7 * MS), 2401 * MS)
    ]
    assert not ladder.build(ROWS, STATES, CALLS, 5001, 80).packets


def test_states_lie_with_their_packets(made):
    """A state is drawn at the packet that explains it, or else where it was seen."""
    assert made.of("client") == ["SYN_SENT", "ESTABLISHED"]
    placed = [(each.name, each.at_ns) for each in made.states]
    assert placed == [
        ("SYN_SENT", round(1000.1 * MS)),
        ("ESTABLISHED", round(2200.3 * MS)),
        ("SYN_RECV", round(1100.2 * MS)),
        ("ESTABLISHED", round(2300.5 * MS)),
    ]
    alone = ladder.build(
        ROWS, {"client": [state("CLOSE_WAIT", "ESTABLISHED", 2250, 2252)]}, {}, 5000, 80
    )
    assert [(each.at_ns, each.packet) for each in alone.states] == [(2252 * MS, None)]


@pytest.mark.parametrize(
    ("name", "flags", "direction", "side"),
    [
        ("FIN_WAIT_1", "FA", "up", "client"),
        ("FIN_WAIT_2", "A", "down", "client"),
        ("TIME_WAIT", "FA", "down", "client"),
        ("CLOSING", "FA", "down", "client"),
        ("CLOSE_WAIT", "FA", "up", "server"),
        ("LAST_ACK", "FA", "down", "server"),
        ("CLOSED", "RA", "up", "server"),
        ("CLOSED", "A", "up", "server"),
    ],
)
def test_what_explains_a_state(name, flags, direction, side):
    """Each state has its packet, leaving or arriving."""
    leaves = (direction == "up") == (side == "client")
    rows = [segment(direction, flags, 10, 20, 1, 1)]
    lines = {side: [state(name, "ESTABLISHED", 9 if leaves else 19, 11 if leaves else 21, side)]}
    (found,) = ladder.build(rows, lines, {}, 5000, 80).states
    assert found.packet is not None and found.at_ns == (10 if leaves else 20) * MS


def test_text(made):
    """The drawing, letter for letter, and in plain ASCII too."""
    drawn = ladder.text(made)
    assert drawn + "\n" == TEXT, drawn
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 100
    plain = ladder.text(made, utf8=False)
    assert plain.isascii() and len(plain.splitlines()) == len(lines)
    assert [len(line) for line in plain.splitlines()] == [len(line) for line in lines]
    assert plain.splitlines()[3] == (
        "    0.100             SYN_SENT +-- SYN, 0 bytes ------.                       |"
    )


def test_text_in_order(made):
    """What stands lower happened later, on both sides."""
    words = re.findall(
        r"connect\(\) (?:called|= 0)|send\(\) = 64|recv\(\) (?:called|= 64|= 0 \(end\))|"
        r"SYN_SENT|SYN_RECV|ESTABLISHED|accept\(\) = a socket",
        ladder.text(made),
    )
    assert words == [
        "connect() called",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "connect() = 0",
        "send() = 64",
        "recv() called",
        "ESTABLISHED",
        "accept() = a socket",
        "recv() = 64",
        "recv() = 0 (end)",
    ]


def test_what_a_call_returned_has_room():
    """The result of a call is told even where its name has no room; the page has both."""
    call = Call("connect", 1, 1, 3, 1000, 2000, -1, errno.ECONNREFUSED, "10.0.0.2:9", "")
    steps = ladder.build([], calls={"client": [call]})
    assert re.search(r" (connect\(\) )?= ECONNREFUSED │", ladder.text(steps))


def test_a_window_is_said_where_it_is_the_point():
    steps = ladder.build([segment("down", "A", 0, 2, 1, 1), segment("up", "A", 5, 7, 1, 1, 9)])
    steps.packets[0].window = 0
    assert [each.head for each in steps.packets] == ["ACK, 0 bytes, window 0", "ACK, 9 bytes"]
    assert "ACK, 0 bytes, window 0" in ladder.text(steps)
    assert "ACK, 0 bytes, window 0" in ladder.svg(steps, "steps", "Steps")


def test_many_at_once():
    """A burst and segments that cross stay within the columns, and every one arrives."""
    rows = [segment("up", "A", 10 + n / 100, 30 + n / 100, 1 + n, 1, 1) for n in range(12)]
    rows += [segment("down", "FA", 12 + n, 32 + n, 1, 1) for n in range(5)]
    rows += [segment("up", "FA", 14, None, 20, 1, fate="lost")]
    drawn = ladder.text(ladder.build(rows, client_port=5000, server_port=80))
    assert max(map(len, drawn.splitlines())) <= 100
    assert drawn.count("▶") == 12 and drawn.count("◀") == 5 and drawn.count("✗") == 1
    assert "lost by chance" in drawn


def test_nothing():
    """A run in which nothing was sent is an empty ladder, not an error."""
    empty = ladder.build([], {}, {}, None, None)
    assert len(ladder.text(empty).splitlines()) == 1
    ElementTree.fromstring(ladder.svg(empty, "empty", "Nothing"))


def test_cut_off(made):
    """until_ns leaves out what begins later, and the end of what then still lasts."""
    cut = ladder.build(ROWS, STATES, CALLS, 5000, 80, until_ns=round(2200.65 * MS))
    assert len(cut.packets) == 5
    drawn = ladder.text(cut)
    assert "recv() = 0" not in drawn and "ESTABLISHED" in drawn
    assert drawn.count("ESTABLISHED") == 2, "what arrives last has its state"


def test_begins_later(made):
    """since_ns leaves out what was over, keeps what still goes on, and counts from there."""
    since_ns = round(2250 * MS)
    late = ladder.build(ROWS, STATES, CALLS, 5000, 80, since_ns=since_ns)
    assert not late.packets and late.zero_ns == since_ns
    assert [(each.side, each.name) for each in late.states] == [
        ("client", "ESTABLISHED"),
        ("server", "SYN_RECV"),
        ("server", "ESTABLISHED"),
    ]
    assert [call.call for _, call in late.calls] == ["recv", "accept", "recv"]
    assert "    0.000          ESTABLISHED " in ladder.text(late)


def test_datagrams():
    """UDP and raw packets have names instead of numbers."""
    row = ROWS[0]._replace(class_="udp", tcp_seq=None, tcp_ack=None, tcp_flags="", payload=64)
    (packet,) = ladder.build([row._replace(kind="request", seq=0)]).packets
    assert (packet.head, packet.numbers) == ("UDP request 0, 64 bytes", "")


def test_svg(made):
    """The SVG is whole, follows light and dark, and says everything in words as well."""
    drawn = ladder.svg(made, "one", "Who & what")
    root = ElementTree.fromstring(drawn)
    name = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img" and root.find(f"{name}title").text == "Who & what"
    ids = root.get("aria-labelledby").split()
    assert ids == [root.find(f"{name}title").get("id"), root.find(f"{name}desc").get("id")]
    assert "prefers-color-scheme:dark" in drawn
    words = root.find(f"{name}desc").text
    for part in (
        "client sends SYN, 0 bytes",
        "dropped, as told",
        "socket is SYN_RECV",
        "connect() = 0",
    ):
        assert part in words, part
    titles = [each.text for each in root.iter(f"{name}title")]
    assert sum(title.startswith(("SYN", "ACK")) for title in titles) >= 5
    assert any("not yet at" in title for title in titles), "a state tells both its samples"
    # Arrows slant downwards: nothing arrives before it left.
    for arrow in root.iter(f"{name}path"):
        if arrow.get("class") == "arrow":
            x, y, end_x, end_y = map(float, re.findall(r"-?[0-9.]+", arrow.get("d")))
            assert end_y > y and x != end_x
    # The axis is cut where nothing happens for a second.
    assert "⋮ 1000 ms" in drawn


def test_svg_keeps_its_place(made):
    """Every text stands on the paper."""
    root = ElementTree.fromstring(ladder.svg(made, "one", "title"))
    left, _, width, height = map(float, root.get("viewBox").split())
    for each in root.iter("{http://www.w3.org/2000/svg}text"):
        if each.get("transform") is None:
            assert left <= float(each.get("x")) <= left + width
            assert 0 <= float(each.get("y")) <= height


def test_read_calls(tmp_path):
    """What calls.so writes is read; a line that was cut short is not."""
    path = tmp_path / "calls.csv"
    path.write_text(
        "accept,7,8,3,20,30,4,0,10.0.0.1:5000,\nsocket,7,7,3,10,11,3,0,,AF_INET SOCK_STREAM 0\nclo"
    )
    first, second = ladder.read_calls(path)
    assert (first.call, first.detail) == ("socket", "AF_INET SOCK_STREAM 0")
    assert (second.tid, second.result, ladder.port_of(second.address)) == (8, 4, 5000)
    assert ladder.read_calls(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "port"),
    [("10.0.0.1:80", 80), ("[fd00::1]:80", 80), ("10.0.0.1", None), ("[::]", None), ("", None)],
)
def test_port_of(text, port):
    """The port is behind the last colon, unless that belongs to the address."""
    assert ladder.port_of(text) == port
