"""The twins as a user meets them: round trips, accounts, reports, ends; and what strangers do.

TCP and UDP run on the loopback. Raw sockets need a network of one's own, so raw runs in a wire, and
so does what needs forged source addresses.
"""

import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager

import pytest

from harness import forge, records, schema, tree
from harness.forge import message
from harness.hosts import LIMIT_S
from harness.local import Loopback

FORGE = str(tree.ROOT / "tests" / "harness" / "forge.py")
KINDS = ("tcp", "udp", "udp6", "tcp6", "raw")
PORTS = ("tcp", "udp")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Place:
    """Where a kind's programs run: two ends, by the same words for loopback and wire."""

    def __init__(self, kind, runner, wire=None):
        self.kind, self.runner, self.wire = kind.rstrip("6"), runner, wire
        self.address = "10.0.0.2" if wire else "::1" if kind.endswith("6") else "127.0.0.1"

    def waits(self, role, *args, **more):
        """Starts a server or receiver, ready."""
        args = ["-B", self.address, *args]
        name = f"{self.kind}-{role}"
        if self.wire:
            return self.wire.start("server", name, *args, **more).ready()
        return self.runner.start(name, *args, **more).ready()

    def asks(self, role, to, *args, **more):
        """Starts a client or sender towards what waits."""
        name = f"{self.kind}-{role}"
        port = [] if to.port is None else ["-p", to.port]
        args = [*port, *args, self.address]
        if self.wire:
            return self.wire.start("client", name, *args, **more)
        return self.runner.start(name, *args, **more)


@pytest.fixture(name="place")
def _place(request, tmp_path, make_wire):
    """The Place for request.param, a kind."""
    if request.param == "raw":
        with make_wire() as wire:
            yield Place("raw", None, wire)
    else:
        with Loopback(tmp_path) as runner:
            yield Place(request.param, runner)


@pytest.fixture(name="loopback")
def _loopback(tmp_path):
    """Programs on the loopback."""
    with Loopback(tmp_path) as runner:
        yield runner


@pytest.fixture(name="many_files")
def _many_files():
    """Programs started meanwhile may have more than 1000 files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip(f"cannot run here: only {hard} files may be open (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


every_kind = pytest.mark.parametrize("place", KINDS, indirect=True)
v4_kinds = pytest.mark.parametrize("place", ("tcp", "udp", "raw"), indirect=True)


def kernel_kinds(summary):
    """What the kernel told of: {"tcp_info"} or {"drops", "rcvbuf_bytes"}."""
    return {name for each in summary["kernel"] for name in each if name != "flow"}


# Round trips and accounts.


@every_kind
def test_round_trips(place):
    """Each request is answered once; both ends say so, and the client tells of each."""
    server = place.waits("server")
    client = place.asks("client", server, "-c", 20, "-i", 0, "-s", 300).expect(0)
    replies = [line for line in client.lines if line["event"] == "reply"]
    assert [(line["flow"], line["seq"], line["bytes"]) for line in replies] == [
        (0, seq, 300) for seq in range(20)
    ]
    summary = client.summary
    assert summary["ended"] == "count"
    assert (summary["sent"], summary["received"], summary["lost"]) == (20, 20, 0)
    for odd in ("refused", "duplicates", "late", "foreign", "corrupt", "alien"):
        assert summary[odd] == 0, odd
    times = [line["rtt_ns"] for line in replies]
    assert (summary["rtt_ns"]["min"], summary["rtt_ns"]["max"]) == (min(times), max(times))
    assert summary["connect_ns"] >= 0
    wanted = {"tcp_info"} if place.kind == "tcp" else {"drops", "rcvbuf_bytes"}
    assert kernel_kinds(summary) == wanted
    told = server.terminate().expect(0).summary
    assert (told["requests"], told["replies"], told["ended"]) == (20, 20, "signal")
    assert told["connections"] == (1 if place.kind == "tcp" else 0)


@v4_kinds
def test_flows_side_by_side(place):
    """-P N: every flow asks its own count, and gets its own replies."""
    server = place.waits("server")
    summary = place.asks("client", server, "-c", 5, "-i", 0, "-P", 8, "-q").expect(0).summary
    assert (summary["sent"], summary["received"]) == (40, 40)
    assert [(flow["flow"], flow["received"]) for flow in summary["flows"]] == [
        (n, 5) for n in range(8)
    ]
    assert server.terminate().expect(0).summary["requests"] == 40


@every_kind
def test_one_way(place, tmp_path):
    """A receiver's account is what its own log says, and the log is what the sender's says."""
    logs = tmp_path / "received.csv", tmp_path / "sent.csv"
    words = ["-c", 50, "-P", 3]
    receiver = place.waits("receiver", *words, "--log", logs[0])
    sender = place.asks("sender", receiver, *words, "-i", "1ms", "-s", 200, "--log", logs[1])
    sent = sender.expect(0).summary
    summary = receiver.expect(0).summary
    assert (sent["scheduled"], sent["sent"], sent["bytes"]) == (150, 150, 150 * 200)
    account = summary["account"]
    assert (account["expected"], account["received"], account["lost"]) == (150, 150, 0)
    assert (account["duplicates"], account["reordered"]) == (0, 0)
    assert summary["run"] == sent["run"]
    assert [each["account"]["received"] for each in summary["flows"]] == [50, 50, 50]

    arrivals, sendings = (records.read(log) for log in logs)
    assert {row.verdict for row in arrivals} == {"first"}
    assert {row.verdict for row in sendings} == {"sent"}
    by_number = {(row.flow, row.seq): row for row in sendings}
    assert set(by_number) == {(flow, seq) for flow in range(3) for seq in range(50)}
    assert len(arrivals) == len(by_number)
    for row in arrivals:
        other = by_number[row.flow, row.seq]
        assert (row.due_ns, row.sent_ns, row.bytes) == (other.due_ns, other.sent_ns, 200)
        assert row.due_ns <= row.sent_ns <= row.received_ns
    for start in ("due", "sent"):
        delays = sorted(row.received_ns - getattr(row, f"{start}_ns") for row in arrivals)
        told = account[f"delay_from_{start}_ns"]
        assert (told["samples"], told["min"], told["max"]) == (150, delays[0], delays[-1])
        assert told["p50"] == delays[74]


def test_log_of_a_client(loopback, tmp_path):
    """One row for each request: its reply's time, or lost."""
    log = tmp_path / "log.csv"
    server = loopback.start("udp-server").ready()
    client = loopback.start(
        "udp-client", "-p", server.port, "-c", 5, "-i", 0, "-q", "--log", log, "127.0.0.1"
    )
    client.expect(0)
    rows = records.read(log)
    assert [(row.flow, row.seq, row.verdict) for row in rows] == [
        (0, seq, "reply") for seq in range(5)
    ]
    spread = client.summary["rtt_ns"]
    times = [row.received_ns - row.sent_ns for row in rows]
    assert (spread["min"], spread["max"]) == (min(times), max(times))


# Reports: ready lines, text, ends, exit statuses.


@pytest.mark.parametrize("role", ("server", "receiver"))
@every_kind
def test_ready_line(place, role):
    """A server says where it is: the address it was given, a port of the kernel's, its pid."""
    program = place.waits(role)
    ready = program.line("ready")
    assert ready["program"] == f"{place.kind}-{role}"
    assert ready["address"] == place.address
    if place.kind == "raw":
        assert (ready["port"], ready["protocol"]) == (None, 253)
    else:
        assert 0 < ready["port"] < 65536
        assert ready["pid"] == program.pid
    assert program.lines[0] == ready
    program.signal(signal.SIGKILL)
    program.wait()


@pytest.mark.parametrize("kind", PORTS)
@pytest.mark.parametrize("role", ("server", "receiver"))
def test_default_is_the_loopback(loopback, kind, role):
    """Who is not told an address serves this machine alone."""
    assert loopback.start(f"{kind}-{role}").line("ready")["address"] == "127.0.0.1"
    assert loopback.start(f"{kind}-{role}", "-6").line("ready")["address"] == "::1"


@pytest.mark.parametrize("kind", PORTS)
def test_port_that_is_taken(loopback, kind):
    """-p is obeyed: a second server at the first one's port fails, and says so in JSON too."""
    first = loopback.start(f"{kind}-server").ready()
    second = loopback.start(f"{kind}-server", "-p", first.port).expect(1)
    assert "in use" in second.line("error")["message"]
    assert f"127.0.0.1:{first.port}" in second.stderr()


@every_kind
def test_text_for_people(place):
    """Without -J: a line for each reply and a summary, in words."""
    server = place.waits("server")
    client = place.asks("client", server, "-c", 3, "-i", 0, json_lines=False).expect(0)
    assert sum(" bytes from " in line for line in client.text) == 3
    assert any("3 sent, 3 received, 0 lost" in line for line in client.text)
    quiet = place.asks("client", server, "-c", 3, "-i", 0, "-q", json_lines=False).expect(0)
    assert not any(" bytes from " in line for line in quiet.text)
    receiver = place.waits("receiver", "-c", 3)
    sender = place.asks("sender", receiver, "-c", 3, "-i", 0, json_lines=False).expect(0)
    assert any("3 scheduled, 3 sent" in line for line in sender.text)
    receiver.expect(0)
    server.terminate().expect(0)


@pytest.mark.parametrize("number", SIGNALS)
@v4_kinds
def test_signal_prints_what_there_is(place, number):
    """Ctrl-C and SIGTERM end each program with its summary."""
    server = place.waits("server")
    client = place.asks("client", server, "-c", 0, "-i", "1ms")
    client.line("reply")
    client.signal(number)
    client.expect(0, 3)
    assert client.summary["ended"] == "signal"
    assert client.summary["received"] >= 1
    server.signal(number)
    told = server.expect(0).summary
    assert told["ended"] == "signal"
    assert told["replies"] >= client.summary["received"]

    receiver = place.waits("receiver")
    place.asks("sender", receiver, "-c", 10, "-i", 0).expect(0)
    if place.kind == "tcp":
        assert receiver.expect(0).summary["ended"] == "closed"
        receiver = place.waits("receiver")
    if place.wire:
        place.wire.drain()  # what was sent is with the receiver's host, read or not
    receiver.signal(number)
    summary = receiver.expect(0).summary
    assert summary["ended"] == "signal"
    assert summary["account"]["received"] == (0 if place.kind == "tcp" else 10)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("kind", PORTS)
def test_signal_ends_a_sender(loopback, kind, number):
    """A sender without end is stopped, and says how many it sent."""
    with listener(kind) as sock:
        port = sock.getsockname()[1]
        sender = loopback.start(f"{kind}-sender", "-p", port, "-c", 0, "-i", "1ms", "127.0.0.1")
        if kind == "tcp":
            conn = sock.accept()[0]
            assert conn.recv(1)
        else:
            assert sock.recv(65536)
        sender.signal(number)
        summary = sender.expect(0, 3).summary
        if kind == "tcp":
            conn.close()
    assert summary["ended"] == "signal"
    assert 1 <= summary["sent"] <= summary["scheduled"]


@contextmanager
def listener(kind, address="127.0.0.1"):
    """A socket of ours that waits, at a port of the kernel's choice."""
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, type_) as sock:
        sock.settimeout(LIMIT_S)
        sock.bind((address, 0))
        if kind == "tcp":
            sock.listen()
        yield sock


@contextmanager
def nobody(kind):
    """A port where nobody is: taken, so that no other program gets it, and closed to strangers."""
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, type_) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == "udp":
            # A connected socket takes nothing but what its peer sends: all else is refused.
            sock.connect(sock.getsockname())
        yield sock.getsockname()[1]


@pytest.mark.parametrize("role", ("client", "sender"))
def test_tcp_nobody_there(loopback, role):
    """A connection that is refused: exit 1, one line, the same in JSON, and the summary."""
    with nobody("tcp") as port:
        program = loopback.start(f"tcp-{role}", "-p", port, "127.0.0.1").expect(1)
    assert "refused" in program.line("error")["message"]
    assert program.summary["sent"] == 0 and program.summary["connect_ns"] is None
    assert len(program.text) == 2
    assert len(program.stderr().splitlines()) == 1


def test_udp_nobody_there(loopback):
    """UDP learns it from an ICMP error, one message late: lost, or refused by send(); exit 3."""
    with nobody("udp") as port:
        client = loopback.start("udp-client", "-p", port, "-c", 4, "-i", 0, "127.0.0.1").expect(3)
        sender = loopback.start("udp-sender", "-p", port, "-c", 40, "-i", "1ms", "127.0.0.1")
        sent = sender.expect(3).summary
    summary = client.summary
    assert summary["received"] == 0
    assert summary["sent"] + summary["refused"] == summary["scheduled"] == 4
    assert summary["lost"] == summary["sent"] >= 1
    assert sent["sent"] + sent["refused"] == sent["scheduled"] == 40
    assert sent["refused"] >= 1


@v4_kinds
def test_missing_messages_are_exit_3(place):
    """A receiver that was told of more than came: waits, then says which share is lost."""
    receiver = place.waits("receiver", "-c", 10, "-W", "1s")
    place.asks("sender", receiver, "-c", 6, "-i", 0).expect(0)
    summary = receiver.expect(3).summary
    assert summary["ended"] == ("closed" if place.kind == "tcp" else "wait")
    account = summary["account"]
    assert (account["expected"], account["received"], account["lost"]) == (10, 6, 4)
    assert account["waiting_time_ns"] == 10**9


@v4_kinds
def test_server_that_dies(place):
    """kill -9 in the midst: the client ends by itself, with a summary, and exit 3 or 1."""
    server = place.waits("server")
    client = place.asks("client", server, "-c", 50, "-i", "5ms", "-W", "20ms")
    client.line("reply")
    server.signal(signal.SIGKILL)
    client.expect(1, 3)
    assert client.summary["lost"] + client.summary["refused"] >= 1
    assert client.summary["received"] >= 1


# Where output cannot go.


@pytest.mark.parametrize("json_lines", (True, False))
@pytest.mark.parametrize("role", ("client", "server", "sender", "receiver"))
def test_full_disk_for_stdout(role, json_lines):
    """A report that could not be written is a failure: exit 1, and stderr says why."""
    argv = [tree.program(f"udp-{role}")] + (["-J"] if json_lines else [])
    with listener("udp") as sock, open("/dev/full", "wb") as full:
        if role in ("client", "sender"):
            argv += ["-c", "2", "-i", "0", "-W", "10ms"]
            argv += ["-p", str(sock.getsockname()[1]), "127.0.0.1"]
        done = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize("role", ("client", "sender"))
def test_full_disk_for_the_log(loopback, role):
    """So is a log that could not be: the line names the file."""
    with listener("udp") as sock:
        port = sock.getsockname()[1]
        words = ["-c", 20, "-i", 0, "-W", 0, "--log", "/dev/full", "-p", port, "127.0.0.1"]
        program = loopback.start(f"udp-{role}", *words).expect(1)
    assert "--log '/dev/full'" in program.line("error")["message"]


def test_full_disk_for_a_receivers_log(loopback):
    """At its end as well."""
    receiver = loopback.start("udp-receiver", "-c", 200, "--log", "/dev/full").ready()
    loopback.start("udp-sender", "-c", 200, "-i", 0, "-p", receiver.port, "127.0.0.1").expect(0)
    assert "--log '/dev/full'" in receiver.expect(1).line("error")["message"]


def test_name_that_nobody_has(loopback):
    """A name that cannot be resolved: exit 2, named, in JSON too."""
    client = loopback.start("tcp-client", "-p", 9, "-4", "::1").expect(2)
    assert "'::1'" in client.line("error")["message"]
    assert len(client.text) == 1


# Strangers, garbage, silence.

REQUEST = message(forge.REQUEST, seq=5, length=80)
GARBAGE = {
    # name: (bytes, what a server counts it as)
    "text": (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n" + b"\r\n" * 20, "alien"),
    "zeros": (bytes(200), "alien"),
    "ones": (b"\xff" * 200, "alien"),
    "magic": (message(magic=0x534C4143), "alien"),
    "version": (message(version=2), "alien"),
    "a kind that is none": (message(kind=0), "alien"),
    "another kind": (message(kind=4), "alien"),
    "not zero": (message(zero=1), "alien"),
    "flipped": (forge.flipped(REQUEST), "corrupt"),
    "flipped number": (forge.flipped(REQUEST, 8 * 25), "corrupt"),
    "a reply": (message(forge.REPLY), "foreign"),
    "data": (message(forge.DATA), "foreign"),
}
# A datagram has an end of its own, which can contradict the length inside.
DATAGRAMS = {
    "nothing": (b"", "alien"),
    "a byte": (b"S", "alien"),
    "half a header": (REQUEST[:24], "alien"),
    "cut short": (REQUEST[:-1], "corrupt"),
    "too long": (REQUEST + b"\0", "corrupt"),
    "a header that claims more": (message(claims=65507), "corrupt"),
    "a header that claims 4 GB": (message(claims=2**32 - 1), "corrupt"),
    "the longest": (b"S" * 65507, "alien"),
}


def counts(things):
    """How many of each verdict there are: {"alien": 8, ...}."""
    verdicts = [verdict for _, verdict in things.values()]
    return {verdict: verdicts.count(verdict) for verdict in ("alien", "corrupt", "foreign")}


def odd_counts(summary):
    """The same, as a summary has it."""
    return {name: summary[name] for name in ("alien", "corrupt", "foreign")}


def ask(sock, data=REQUEST):
    """Sends a request and returns its reply."""
    sock.sendall(data)
    reply = b""
    while len(reply) < len(data):
        more = sock.recv(65536)
        assert more, "the server closed a good connection"
        reply += more
    return reply


def connect(port, kind="tcp"):
    """A client's socket of ours."""
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, type_)
    sock.settimeout(LIMIT_S)
    sock.connect(("127.0.0.1", port))
    return sock


def reset(sock):
    """Closes a connection with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send_forged(wire, kind, port, payloads, source=None):
    """Sends these bytes, each as a packet, from client to server; in another's name if told."""
    argv = [sys.executable, FORGE, kind, "server", port, *(data.hex() for data in payloads)]
    if source:
        argv = ["env", f"FORGE_FROM={source}", *argv]
    wire.start("client", *argv, json_lines=False).expect(0)


def test_reply_is_the_request(loopback):
    """A reply has its request's bytes, but for kind and CRC, and is never longer."""
    for kind in PORTS:
        server = loopback.start(f"{kind}-server").ready()
        with connect(server.port, kind) as sock:
            for length in (48, 49, 1000, 9000):
                request = message(forge.REQUEST, seq=length, run=77, index=3, length=length)
                reply = ask(sock, request)
                assert len(reply) == len(request)
                wanted = message(forge.REPLY, seq=length, run=77, index=3, length=length)
                assert reply[:20] == wanted[:20] and reply[24:48] == wanted[24:48]


def test_garbage_at_a_udp_server(loopback):
    """Each odd datagram is counted as what it is, none is answered; the next client is served."""
    things = {**GARBAGE, **DATAGRAMS}
    server = loopback.start("udp-server", "--rcvbuf", "1M").ready()
    with connect(server.port, "udp") as sock:
        for data, _ in things.values():
            sock.send(data)
        # In order: this one's reply is the first thing that comes back.
        assert forge.kind_and_seq(ask(sock)) == (forge.REPLY, 5)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    summary = server.terminate().expect(0).summary
    assert odd_counts(summary) == counts(things)
    assert (summary["requests"], summary["replies"]) == (1, 1)


def test_garbage_at_a_raw_server(make_wire):
    """The same for packets without ports."""
    things = {**GARBAGE, **DATAGRAMS}
    del things["the longest"]
    with make_wire() as wire:
        server = wire.start("server", "raw-server", "-B", "10.0.0.2").ready()
        send_forged(wire, "raw", 0, [data for data, _ in things.values()] + [REQUEST])
        # The packets are read in order, so whoever is answered now comes behind them.
        wire.start("client", "raw-client", "-c", 1, "server").expect(0)
        summary = server.terminate().expect(0).summary
        down = wire.counters()["down"]["raw"]["entered"]
    assert odd_counts(summary) == counts(things)
    assert (summary["requests"], summary["replies"]) == (2, 2)
    assert down == 2


def test_garbage_at_a_tcp_server(loopback):
    """What begins no message ends its connection, and no other; what is but damaged is skipped."""
    server = loopback.start("tcp-server").ready()
    closed = 0
    for data, verdict in GARBAGE.values():
        with connect(server.port) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            try:
                assert sock.recv(1) == b""
            except ConnectionResetError:
                pass  # it closed with our bytes unread
            closed += 1
    with connect(server.port) as sock:
        for data, verdict in GARBAGE.values():
            if verdict != "alien":
                sock.sendall(data)
        assert forge.kind_and_seq(ask(sock)) == (forge.REPLY, 5)
    with connect(server.port) as sock:
        sock.sendall(REQUEST[:-1])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    summary = server.terminate().expect(0).summary
    expected = counts(GARBAGE)
    assert summary["alien"] == expected["alien"]
    assert summary["corrupt"] == 2 * expected["corrupt"] + 1
    assert summary["foreign"] == 2 * expected["foreign"]
    assert (summary["requests"], summary["connections"]) == (1, closed + 2)


def test_alien_ends_its_connection(loopback):
    """The server itself closes: a stranger need not."""
    server = loopback.start("tcp-server").ready()
    with connect(server.port) as sock:
        sock.sendall(bytes(48))
        assert sock.recv(1) == b""
    assert server.terminate().expect(0).summary["alien"] == 1


def test_requests_in_pieces(loopback):
    """A stream has no borders: a request byte by byte, and several at once, are the same."""
    server = loopback.start("tcp-server").ready()
    with connect(server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(REQUEST) - 1):
            sock.send(REQUEST[n : n + 1])
        sock.send(REQUEST[-1:])
        reply = b""
        while len(reply) < len(REQUEST):
            reply += sock.recv(65536)
        assert forge.kind_and_seq(reply) == (forge.REPLY, 5)
        requests = [message(forge.REQUEST, seq=n, length=48 + n) for n in range(20)]
        replies = ask(sock, b"".join(requests))
        at = 0
        for n, request in enumerate(requests):
            assert forge.kind_and_seq(replies[at:]) == (forge.REPLY, n)
            at += len(request)
    assert server.terminate().expect(0).summary["requests"] == 21


def test_silence_half_open_and_resets(loopback):
    """Clients that say nothing, half a message, or vanish, hold up nobody and are counted."""
    server = loopback.start("tcp-server").ready()
    at_first = server.fds()
    silent = [connect(server.port) for _ in range(20)]
    half = [connect(server.port) for _ in range(20)]
    for sock in half:
        sock.sendall(REQUEST[:50])
    for _ in range(10):
        sock = connect(server.port)
        ask(sock)
        reset(sock)
    client = loopback.start("tcp-client", "-p", server.port, "-c", 10, "-i", 0, "127.0.0.1")
    client.expect(0)
    # It counts a connection before it lets go of its fd: 40 are left, and those it began with.
    server.until_fds(at_first + 40)
    for sock in half:
        sock.close()
    server.until_fds(at_first + 20)
    summary = server.terminate().expect(0).summary
    for sock in silent:
        sock.close()
    assert (summary["requests"], summary["replies"]) == (20, 20)
    assert summary["connections"] == 51
    assert (summary["resets"], summary["corrupt"], summary["alien"]) == (10, 20, 0)


def test_server_out_of_fds(loopback):
    """With no fd left, those who are in are served, the others wait until some leave."""
    server = loopback.start("tcp-server").ready()
    first = connect(server.port)
    ask(first)
    limit = server.fds() + 4
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
    crowd = [connect(server.port) for _ in range(30)]
    for sock in crowd:
        sock.sendall(REQUEST)
    # Those whose turn it is are answered; nobody else holds an fd of the server.
    for sock in crowd[:4]:
        assert len(sock.recv(65536)) == len(REQUEST)
    assert server.fds() == limit
    ask(first)
    for sock in crowd:
        sock.close()
    with connect(server.port) as sock:
        assert forge.kind_and_seq(ask(sock)) == (forge.REPLY, 5)
    ask(first)
    first.close()
    summary = server.terminate().expect(0).summary
    assert summary["connections"] == 32
    assert summary["requests"] <= 34


@pytest.mark.parametrize("kind", PORTS)
def test_a_thousand_clients_at_once(loopback, many_files, kind):
    """1000 flows side by side, each a socket: every request is answered."""
    server = loopback.start(f"{kind}-server", "--rcvbuf", "8M").ready()
    words = ["-p", server.port, "-P", 1000, "-c", 2, "-i", "100ms", "-W", "60s", "-q", "127.0.0.1"]
    client = loopback.start(f"{kind}-client", *words)
    summary = client.wait().summary
    told = server.terminate().expect(0).summary
    if kind == "tcp":
        assert client.status == 0
        assert (summary["sent"], summary["received"]) == (2000, 2000)
        assert told["connections"] == 1000
    else:
        # What the server's buffer could not hold is lost, and known to be.
        drops = sum(each["drops"] for each in told["kernel"])
        assert summary["received"] == summary["sent"] - drops
    assert told["requests"] == told["replies"] == summary["received"]


@pytest.mark.parametrize("tool", ("nc", "socat"))
@pytest.mark.parametrize("kind", PORTS)
def test_strangers_tools(loopback, kind, tool):
    """nc and socat at a server's door: counted as alien, and the next client is served."""
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not here: `make doctor` says how to get it")
    server = loopback.start(f"{kind}-server").ready()
    port = str(server.port)
    if tool == "nc":
        argv = ["nc", "-N", "127.0.0.1", port] if kind == "tcp" else ["nc", "-u", "-w", "1"]
        argv += ["127.0.0.1", port] if kind == "udp" else []
    else:
        argv = ["socat", "-", f"{kind.upper()}4:127.0.0.1:{port}"]
    text = b"hello? is this an echo server that answers everybody who comes along?\n"
    done = subprocess.run(argv, input=text, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.stdout == b""
    client = loopback.start(f"{kind}-client", "-p", port, "-c", 3, "-i", 0, "127.0.0.1").expect(0)
    assert client.summary["received"] == 3
    summary = server.terminate().expect(0).summary
    assert (summary["alien"], summary["requests"]) == (1, 3)


def test_odd_replies_at_a_client(loopback):
    """A client takes the reply that it asked for, once; what else comes is counted."""
    with listener("udp") as sock:
        words = ["-p", sock.getsockname()[1], "-c", 3, "-i", 0, "-W", "20s", "127.0.0.1"]
        client = loopback.start("udp-client", "--run", 8, *words)
        for seq in range(3):
            request, address = sock.recvfrom(65536)
            assert forge.kind_and_seq(request) == (forge.REQUEST, seq)
            reply = forge.reply_to(request)
            # Not ours, damaged, another run's, no reply; to what was never asked, or not then.
            odd = [b"?", forge.flipped(reply), forge.reply_to(request, run=9), request]
            odd += [message(forge.REPLY, seq=at, run=8) for at in (seq + 1, seq)]
            for data in [*odd, reply, reply]:
                sock.sendto(data, address)
        summary = client.expect(0).summary
    assert (summary["sent"], summary["received"], summary["lost"]) == (3, 3, 0)
    # The last reply's copy comes when the client has what it asked for.
    assert summary["duplicates"] == 2
    assert odd_counts(summary) == {"alien": 9, "corrupt": 3, "foreign": 6}


# Echo loops.


def test_no_echo_loop_between_udp_servers(make_wire):
    """A request forged in another echo server's name brings it a reply, which ends there."""
    with make_wire() as wire:
        one = wire.start("server", "udp-server", "-B", "10.0.0.2").ready()
        other = wire.start("client", "udp-server", "-B", "10.0.0.1").ready()
        send_forged(wire, "udp", one.port, [REQUEST], source=f"10.0.0.1:{other.port}")
        # A server reads in order: once these are answered, all that came before was read.
        wire.start("client", "udp-client", "-p", one.port, "-c", 1, "10.0.0.2").expect(0)
        wire.start("server", "udp-client", "-p", other.port, "-c", 1, "10.0.0.1").expect(0)
        wire.drain()
        counters = wire.counters()
        ends = [program.terminate().expect(0).summary for program in (one, other)]
    assert [(end["requests"], end["replies"], end["foreign"]) for end in ends] == [
        (2, 2, 0),
        (1, 1, 1),
    ]
    assert (counters["up"]["udp"]["entered"], counters["down"]["udp"]["entered"]) == (3, 3)


def test_no_echo_loop_between_raw_servers(make_wire):
    """Nor between raw ones, which get a copy of whatever reaches their host."""
    with make_wire() as wire:
        one = wire.start("server", "raw-server", "-B", "10.0.0.2").ready()
        other = wire.start("client", "raw-server", "-B", "10.0.0.1").ready()
        wire.start("client", "raw-client", "-c", 5, "-i", 0, "10.0.0.2").expect(0)
        wire.start("server", "raw-client", "-c", 1, "10.0.0.1").expect(0)
        wire.start("client", "raw-client", "-c", 1, "10.0.0.2").expect(0)
        wire.drain()
        counters = wire.counters()
        ends = [program.terminate().expect(0).summary for program in (one, other)]
    assert [(end["requests"], end["replies"]) for end in ends] == [(6, 6), (1, 1)]
    # The last reply may lie unread when the other one is ended.
    assert ends[0]["foreign"] == 1
    assert ends[1]["foreign"] in (5, 6)
    assert (counters["up"]["raw"]["entered"], counters["down"]["raw"]["entered"]) == (7, 7)


# Receivers.

ARRIVALS = [0, 1, 1, 3, 2]


def forged_flow():
    """Data that a receiver of -c 4 -P 2 is to count, and odd things that it is to set aside."""
    good = [message(forge.DATA, seq=seq, run=9) for seq in ARRIVALS]
    good += [message(forge.DATA, seq=seq, run=9, index=1) for seq in range(4)]
    foreign = [
        message(forge.DATA, run=10),
        message(forge.REQUEST, run=9),
        message(forge.REPLY, run=9),
    ]
    alien = [message(forge.DATA, seq=4, run=9), message(forge.DATA, seq=2**63, run=9)]
    alien += [message(forge.DATA, seq=0, run=9, index=2)]
    corrupt = [forge.flipped(message(forge.DATA, seq=2, run=9))]
    return good[:1] + foreign + alien + corrupt + good[1:]


def check_forged(summary):
    """What the account of forged_flow() must be."""
    assert summary["run"] == 9
    assert (summary["foreign"], summary["alien"], summary["corrupt"]) == (3, 3, 1)
    account, (first, second) = summary["account"], summary["flows"]
    assert (account["expected"], account["received"], account["lost"]) == (8, 8, 0)
    assert (account["duplicates"], account["reordered"]) == (1, 1)
    assert (first["account"]["duplicates"], first["account"]["reordered"]) == (1, 1)
    assert (second["account"]["duplicates"], second["account"]["reordered"]) == (0, 0)
    # Clock id 0 is nobody's: a delay between two clocks is not known.
    assert account["delay_from_sent_ns"]["p50"] is None
    assert account["delay_from_sent_ns"]["reason"]


def test_forged_flow_at_a_udp_receiver(loopback, tmp_path):
    """First copies, duplicates and order by the numbers; what is not of this run is set aside."""
    log = tmp_path / "log.csv"
    receiver = loopback.start("udp-receiver", "-c", 4, "-P", 2, "-W", "1s", "--log", log).ready()
    with connect(receiver.port, "udp") as sock:
        for data in forged_flow():
            sock.send(data)
    check_forged(receiver.expect(0).summary)
    rows = [(row.flow, row.seq, row.verdict) for row in records.read(log)]
    verdicts = ["first", "first", "duplicate", "first", "first"]
    assert rows[:5] == [(0, seq, verdict) for seq, verdict in zip(ARRIVALS, verdicts)]
    assert rows[5:] == [(1, seq, "first") for seq in range(4)]


def test_forged_flow_at_a_tcp_receiver(loopback):
    """The same over two connections, beside one of garbage and one that is reset."""
    receiver = loopback.start("tcp-receiver", "-c", 4, "-P", 2, "-W", "1s").ready()
    stranger, vanishing = connect(receiver.port), connect(receiver.port)
    reset(vanishing)
    with connect(receiver.port) as one, connect(receiver.port) as two:
        messages = forged_flow()
        one.sendall(b"".join(messages[:-4]))
        two.sendall(b"".join(messages[-4:]))
    stranger.close()
    check_forged(receiver.expect(0).summary)


def test_forged_flow_at_a_raw_receiver(make_wire):
    """And packet by packet."""
    with make_wire() as wire:
        words = ["-B", "10.0.0.2", "-c", 4, "-P", 2, "-W", "1s"]
        receiver = wire.start("server", "raw-receiver", *words).ready()
        send_forged(wire, "raw", 0, forged_flow())
        check_forged(receiver.expect(0).summary)


def test_chosen_run(loopback):
    """--run N: a receiver takes that run alone, whoever comes first."""
    receiver = loopback.start("udp-receiver", "-c", 3, "-W", "1s", "--run", 500).ready()
    words = ["-c", 3, "-i", 0, "-p", receiver.port, "127.0.0.1"]
    loopback.start("udp-sender", "--run", 499, *words).expect(0)
    loopback.start("udp-sender", "--run", 500, *words).expect(0)
    summary = receiver.expect(0).summary
    assert (summary["run"], summary["foreign"]) == (500, 3)
    assert summary["account"]["received"] == 3


def test_every_line_is_held_to_the_schema():
    """The schema refuses what is not said so: else it would prove nothing."""
    good = '{"event":"error","program":"p","message":"m"}'
    assert schema.line(good)["event"] == "error"
    for bad in (good[:-1], good.replace('"m"', "NaN"), good.replace('"m"', "1"), "text"):
        with pytest.raises(schema.Invalid):
            schema.line(bad)
