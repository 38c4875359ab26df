"""What does a program hold when it holds a socket?"""

import os
import re
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from harness import sockets
from harness.dialogue import SERVER, ByHand, Dialogue
from harness.recording import Recording
from harness.tree import KINDS

KNOBS = {"LINK": "delay 1ms", "SEED": 7}

LINE, PREFIXED = "hello", "server-hello"

PICTURES = {
    "tcp": "TCP: a connection is made, two lines cross, one is answered, and both ends close it.",
    "udp": "UDP: the same lines, one datagram each. Nothing goes ahead of them, and no packet "
    "tells the server that the client is gone.",
}


@dataclass
class Talk:
    """One client's visit to one server, looked at from outside between its steps."""

    kind: str
    heard: str = None  # by the client, after LINE
    printed: list = field(default_factory=list)  # by the server
    before: dict = None  # the server's descriptors that are sockets: {fd: inode}
    during: dict = None
    table: list = None  # /proc/net/KIND while the client is there
    alone: list = None  # the same before it came
    packets: dict = field(default_factory=dict)  # {step: the wire's rows of that step}
    unheard: list = None  # what the client was told after PREFIXED
    port: int = None  # the server's
    over_ns: int = None  # when the first client was gone
    next_heard: str = None  # by a second client


def descriptors(program):
    """{descriptor: inode} of a program's sockets: what /proc/PID/fd says."""
    folder = f"/proc/{program.inner_pid()}/fd"
    found = {}
    for name in os.listdir(folder):
        match = re.match(r"socket:\[([0-9]+)\]$", os.readlink(f"{folder}/{name}"))
        if match:
            found[int(name)] = int(match.group(1))
    return found


def talk(wire, kind, record=None):
    """A server, a client that says LINE, PREFIXED and Q, and a second client after it.

    With a Recording that has begun, what the server and the first client call is recorded.
    """
    result = Talk(kind)
    seen = 0

    def step(name):
        nonlocal seen
        wire.drain()
        rows = wire.log()
        result.packets[name], seen = rows[seen:], len(rows)

    def start(side, *words, label):
        with record.recorded(side) if record else nullcontext():
            return Dialogue(wire, side, *words, label=label)

    if record is None:
        wire.new_run()
    where = [SERVER] if kind == "raw" else [0, SERVER]
    server = start("server", f"{kind}-talk_server", *where, label=f"{kind}-server")
    port = [] if kind == "raw" else [server.hear().split()[-1]]
    if kind == "raw":
        server.hear()
    result.before, result.alone = descriptors(server), sockets.of(wire, "server", kind)

    client = start("client", f"{kind}-talk_client", SERVER, *port, label=f"{kind}-client")
    client.say(LINE)
    result.heard = client.hear()
    result.printed.append(server.hear())
    result.during, result.table = descriptors(server), sockets.of(wire, "server", kind)
    step("line")
    client.say(PREFIXED)
    result.printed.append(server.hear())
    step("prefixed")
    client.say("Q")
    client.expect(0)
    result.unheard = client.unheard
    if kind == "tcp":
        result.printed.append(server.hear())
        wire.until_closed()
    step("Q")
    result.port, result.over_ns = int(port[0]) if port else None, time.monotonic_ns()

    again = start("client", f"{kind}-talk_client", SERVER, *port, label=f"{kind}-second")
    again.say(LINE)
    result.next_heard = again.hear()
    again.say("Q")
    again.expect(0)
    server.kill()
    return result


@pytest.fixture(scope="module")
def wire(lab):
    """One wire for all."""
    with lab.wire() as wire:
        yield wire
        lab.commands += sockets.commands(wire)


@pytest.fixture(scope="module")
def talks(lab, wire):
    """TCP, UDP and RAW, one after the other."""
    talks = {}
    for kind in KINDS:
        record = Recording(lab, wire, kind)
        with record:
            talks[kind] = talk(wire, kind, record)
        if kind in PICTURES:
            draw(lab, record, talks[kind])
    lab.table(
        [
            "",
            "you type",
            "server\nprints",
            "you get",
            "server's sockets\nbefore you came",
            "while you\nare there",
            "packets that\ncarry lines",
            "packets after\nyour Q",
        ],
        [
            [
                kind.upper(),
                LINE,
                each.printed[0],
                each.heard,
                len(each.before),
                len(each.during),
                len(lines_of(each, "line", "up")) + len(lines_of(each, "line", "down")),
                len(each.packets["Q"]),
            ]
            for kind, each in talks.items()
        ],
    )
    lab.note(
        "A socket is a number in the program and an object in the kernel. TCP makes a second "
        "object for each client; UDP and RAW have one for everybody."
    )
    return talks


def draw(lab, record, each):
    """The first client's whole visit; the second one's is left out."""
    ports = ()
    if each.kind == "tcp":
        ports = next(row.sport for row in record.rows if row.direction == "up"), each.port
    lab.ladder(each.kind, record.ladder(*ports, until_ns=each.over_ns), PICTURES[each.kind])


def lines_of(each, step, direction):
    """The packets of a step that carry bytes of the program's."""
    rows = [row for row in each.packets[step] if row.class_ == each.kind]
    return [row for row in rows if row.direction == direction and row.payload]


# The claims.


def test_a_line_comes_back(talks, figures):
    """A line typed comes back with "server-" in front, and the wire carried it there and back."""
    for kind, each in talks.items():
        up = [row.payload for row in lines_of(each, "line", "up")]
        down = [row.payload for row in lines_of(each, "line", "down")]
        figures(**{f"{kind.upper()}_bytes_there": up, f"{kind.upper()}_back": down})
        assert each.printed[0] == LINE, f"{kind}: the server printed {each.printed[0]!r}"
        assert each.heard == "server-" + LINE, f"{kind}: the client got {each.heard!r}"
        assert sum(up) >= len(LINE) + 1 and sum(down) >= len(LINE) + 8, f"{kind}: not on the wire"


def test_a_prefixed_line_is_not_answered(talks, figures):
    """A line that bears the prefix is not answered: else two servers would never stop."""
    for kind, each in talks.items():
        there, back = lines_of(each, "prefixed", "up"), lines_of(each, "prefixed", "down")
        figures(**{f"{kind.upper()}_packets_there": len(there), f"{kind.upper()}_back": len(back)})
        assert each.printed[1] == PREFIXED, f"{kind}: the server printed {each.printed[1]!r}"
        assert there and not back, f"{kind}: {len(back)} packets with an answer came back"
        assert not each.unheard, f"{kind}: the client was told {each.unheard}"


def test_a_socket_is_a_descriptor(talks, figures):
    """The server's socket is a number in /proc/PID/fd, as a file is; the kernel lists it too."""
    for kind, each in talks.items():
        assert len(each.before) == 1, f"{kind}: the server holds {len(each.before)} sockets"
        (fd, inode), *_ = each.before.items()
        known = [row.inode for row in each.alone]
        figures(**{f"{kind.upper()}_descriptor": fd, f"{kind.upper()}_inode": inode})
        assert fd > 2, "0, 1 and 2 were taken: stdin, stdout and stderr"
        assert inode in known, f"{kind}: /proc/net/{kind} knows {known}"


def test_listening_and_connected_are_two(talks, figures):
    """TCP: the socket that listens goes on listening; the client's is a second one."""
    each = talks["tcp"]
    states = {row.inode: row.state for row in each.table}
    held = {fd: states.get(inode) for fd, inode in sorted(each.during.items())}
    figures(**{f"descriptor_{fd}": state for fd, state in held.items()})
    assert sorted(held.values(), key=str) == ["ESTABLISHED", "LISTEN"], f"the server holds {held}"
    assert set(each.before) < set(each.during), "the one that listens is gone"


def test_one_for_everybody(talks, figures):
    """UDP and RAW: one socket before, the same one with a client. Nobody is connected to it."""
    for kind in ("udp", "raw"):
        each = talks[kind]
        figures(**{f"{kind.upper()}_sockets": len(each.during)})
        assert each.during == each.before, f"{kind}: the server's sockets are others"
        remote = [row.remote for row in each.table if row.inode in each.during.values()]
        assert remote == [("0.0.0.0", 0)], f"{kind}: it is connected to {remote}"


def test_a_read_of_0(talks, figures):
    """TCP: after Q the server's read returned 0: a FIN had come. UDP and RAW: not one packet."""
    tcp = talks["tcp"]
    fins = [row.direction for row in tcp.packets["Q"] if "F" in row.tcp_flags]
    after = {kind: len(talks[kind].packets["Q"]) for kind in KINDS}
    figures(TCP_packets=after["tcp"], FIN_of=fins, UDP_packets=after["udp"], RAW=after["raw"])
    assert re.search("read of 0", tcp.printed[-1]), f"the server printed {tcp.printed[-1]!r}"
    assert fins[:1] == ["up"], "no FIN came from the client"
    assert not after["udp"] and not after["raw"], "UDP or RAW said something at the end"


def test_the_server_stays(talks, figures):
    """The first client's end is not the server's: a second one is served."""
    for kind, each in talks.items():
        figures(**{kind.upper(): each.next_heard})
        assert each.next_heard == "server-" + LINE, f"{kind}: the second got {each.next_heard!r}"


def served_by_cat(wire, kind, program="cat"):
    """What a client gets back from `cat`, run with a socket as its stdin and its stdout."""
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    listening, port = server.bound(kind)
    fd = client.connected(kind, port)
    if kind == "tcp":
        conn = server.must(f"accept {listening}").value
    else:
        conn = listening
        peer = client.name(fd).address
        server.must(f"connect {conn} {peer[0]} {peer[1]}")
    server.begin(f"run {conn} {program}")
    client.must(f"send {fd} {LINE}")
    client.must(f"setsockopt {fd} SO_RCVTIMEO 10000")
    answer = client.call(f"recv {fd} 100")
    if kind == "tcp":
        client.must(f"shutdown {fd}")
        status = server.returned(f"run {conn} {program}").value
    else:
        status = None
    for each in (server, client):
        each.kill()
    return answer, status


@pytest.fixture(scope="module")
def cats(wire):
    """`cat` as a server, over each kind of socket."""
    return {kind: served_by_cat(wire, kind) for kind in KINDS}


def test_read_and_written_like_a_file(cats, figures):
    """`cat`, which knows no sockets, serves on one: it reads and writes it as it would a file."""
    for kind, (answer, _) in cats.items():
        figures(**{f"{kind.upper()}_sent": len(LINE), f"{kind.upper()}_back": answer.value})
        assert answer.data is not None, f"{kind}: nothing came back: {answer}"
        # RAW: `cat` read the IP header and wrote it back as any other bytes; and we read ours.
        headers = 40 if kind == "raw" else 0
        assert answer.data[headers:] == LINE.encode(), f"{kind}: {answer.data!r} came back"
    assert cats["tcp"][1] == 0, "cat did not see the end of its input when the client was done"
