"""The wire, run for real: two hosts, the link between them, its orders, its log and its capture."""

import collections
import contextlib
import csv
import errno
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIRE = ROOT / "build" / "bin" / "wire"
ON = ROOT / "build" / "bin" / "on"
PATIENCE_S = 30

SEND_UDP = """
import socket, sys
family, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_DGRAM)
for i in range(count):
    s.sendto(b"x" * 100, (host, port))
"""

# Asks a UDP port and a TCP port, and says what the kernel says.
ASK = """
import errno, socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(1)
try:
    s.connect(("10.0.0.2", port))
    if kind == "udp":
        s.send(b"?")
        s.recv(10)
    print("ok")
except socket.timeout:
    print("timeout")
except OSError as e:
    print(errno.errorcode[e.errno])
"""

LISTEN_TCP = """
import socket
s = socket.socket()
s.bind(("0.0.0.0", 0))
s.listen()
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
while True:
    b = c.recv(65536)
    if not b:
        break
    c.sendall(b)
"""

ODD_FRAMES = """
import random, socket, sys
r = random.Random(int(sys.argv[1]))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
sent = refused = 0
macs = bytes.fromhex("020000000002020000000001")
types = [b"\\x08\\x00", b"\\x86\\xdd", b"\\x08\\x06", b"\\x81\\x00"]
for i in range(600):
    n = r.choice([1, 13, 14, 15, 20, 33, 34, 38, 42, 54, 60, 1514, 1515, 4000, 0])
    n = n or r.randrange(14, 1514)
    b = bytes(r.getrandbits(8) for _ in range(n))
    if r.random() < 0.8:
        b = macs + r.choice(types) + b
        b = b[:n]
    if r.random() < 0.5:
        b = b[:14] + r.choice([b"\\x45\\x00", b"\\x4f\\x00", b"\\x60\\x00", b"\\x46\\x00"]) + b[16:]
        b = b[:23] + bytes([r.choice([0, 1, 6, 17, 43, 44, 58, 60, 253])]) + b[24:]
        b = b[:n]
    try:
        s.send(b)
        sent += 1
    except OSError:
        refused += 1
print(sent, refused)
"""


def need(program):
    """The path of a program that may not be there."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def wait_until(condition, what):
    """Looks again and again until it is so; no assertion depends on how long that takes."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 50):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail(f"waited {PATIENCE_S} s in vain: {what}")


def can_run(done):
    """Skips where the wire says that this machine cannot run it."""
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().replace("\n", "; "))
    return done


class Wire:
    """A wire that takes orders."""

    def __init__(self, folder, *options, wire=WIRE, on=ON, **how):
        self.folder = folder
        self.on_path = on
        self.log_path = folder / "wire.csv"
        self.pcap_path = folder / "wire.pcapng"
        self.process = subprocess.Popen(
            [wire, "--log", self.log_path, "--pcap", self.pcap_path, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )
        line = self.process.stdout.readline()
        if line == "":
            text = self.process.stderr.read().strip().replace("\n", "; ")
            if self.process.wait() == 77:
                pytest.skip(text)
            pytest.fail(text)
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready"

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, line):
        self.tell(line)
        return self.answer()

    def on(self, host, *command):
        """The command line that runs a command on a host."""
        return [self.on_path, "--pid", str(self.ready[host]), *command]

    def run(self, host, *command, **how):
        return subprocess.run(
            self.on(host, *command), capture_output=True, text=True, check=False, **how
        )

    def python(self, host, script, *arguments, **how):
        done = self.run(host, sys.executable, "-c", script, *map(str, arguments), **how)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def send_udp(self, count, host="client", to="10.0.0.2", family="4", port=9):
        self.python(host, SEND_UDP, family, to, port, count)

    def settle(self):
        """Everything is through; returns the counters."""
        assert self.ask("drain")["event"] == "drained"
        counters = self.ask("counters")
        assert counters["event"] == "counters"
        assert counters["files_complete"] is True
        return counters

    def rows(self, **like):
        """What the log has, of those that are like this."""
        with open(self.log_path, newline="", encoding="ascii") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if all(row[k] == v for k, v in like.items())]

    def quit(self):
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                file.close()


@pytest.fixture(name="wire")
def wire_fixture(tmp_path):
    """Starts wires, each in a folder of its own, and ends them."""
    wires = []

    def start(*options, **how):
        folder = tmp_path / str(len(wires))
        folder.mkdir()
        wires.append(Wire(folder, *options, **how))
        return wires[-1]

    yield start
    for one in wires:
        one.kill()


def run_wire(*arguments, **how):
    return can_run(
        subprocess.run([WIRE, *arguments], capture_output=True, text=True, check=False, **how)
    )


def dry_run(spec, seed, count):
    done = run_wire("--link", spec, "--seed", str(seed), "--dry-run", str(count))
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(done.stdout.splitlines()))


def indices(rows, **like):
    return [
        int(row["index"])
        for row in rows
        if all(row.get(key) == value for key, value in like.items())
    ]


# Hosts


def test_ping_takes_the_delay_twice(tmp_path):
    """A delay of 50 ms each way makes a round trip of 100 ms, in ping's eyes and in the log's."""
    ping = need("ping")
    log = tmp_path / "log.csv"
    done = run_wire(
        "--link", "delay 50ms", "--log", log, "--", ping, "-c", "2", "-i", "0.2", "server"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    times = [float(t) for t in re.findall(r"time=([0-9.]+)", done.stdout)]
    assert len(times) == 2 and min(times) >= 100
    with open(log, newline="", encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    assert [row["direction"] for row in rows] == ["up", "down", "up", "down"]
    assert all(int(row["out_ns"]) - int(row["in_ns"]) >= 50_000_000 for row in rows)


def test_nothing_crosses_an_idle_wire(wire):
    """Nothing is on the wire but what a program sent: no discovery, no multicast report."""
    ping = need("ping")
    w = wire()
    for family in "-4", "-6":
        done = w.run("client", ping, family, "-c", "4", "-i", "0.3", "server")
        assert done.returncode == 0, done.stdout + done.stderr
    done = w.run("server", ping, "-6", "-c", "1", "client")
    assert done.returncode == 0, done.stdout + done.stderr
    w.settle()
    rows = w.rows()
    assert {row["class"] for row in rows} == {"icmp"}
    assert len(rows) == 18


def test_an_idle_wire_sleeps(wire):
    """With nothing to do, it is not scheduled at all; a look each 10 ms would be 50 switches."""
    w = wire("--link", "delay 10ms")

    def switches():
        text = pathlib.Path(f"/proc/{w.process.pid}/status").read_text(encoding="ascii")
        return sum(int(n) for n in re.findall(r"voluntary_ctxt_switches:\s+(\d+)", text))

    w.settle()
    before = switches()
    threading.Event().wait(0.5)
    assert switches() - before <= 3


def test_names_resolve_to_ipv4_first(wire):
    w = wire()
    script = (
        "import socket\n"
        "for name in ('client', 'server'):\n"
        "    found = socket.getaddrinfo(name, 9, type=socket.SOCK_DGRAM)\n"
        "    print(*[f[4][0] for f in found])\n"
    )
    assert w.python("client", script) == "10.0.0.1 fd00::1\n10.0.0.2 fd00::2"
    assert w.python("server", "import socket; print(socket.gethostname())") == "server"
    assert w.python("client", "import socket; print(socket.gethostname())") == "client"


def test_what_is_pinned(wire):
    w = wire()
    settings = {
        "ipv4/tcp_congestion_control": "reno",
        "ipv4/tcp_no_metrics_save": "1",
        "ipv4/icmp_ratelimit": "0",
        "ipv6/icmp/ratelimit": "0",
    }
    if os.path.exists("/proc/sys/net/ipv4/tcp_syn_linear_timeouts"):
        settings["ipv4/tcp_syn_linear_timeouts"] = "0"
    for host in "client", "server":
        for name, value in settings.items():
            done = w.run(host, "cat", "/proc/sys/net/" + name)
            assert (name, done.stdout.strip()) == (name, value)


def test_the_hosts_see_themselves_only(wire):
    """A fresh /proc: PID 1 and 2 are the holders. The caller stays himself, in his own folder."""
    w = wire()
    script = (
        "import os\n"
        "print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:2])\n"
        "print(open('/proc/1/comm').read().strip(), open('/proc/2/comm').read().strip())\n"
        "print(os.getuid(), os.getgid(), os.getcwd())\n"
        "print(sorted(os.listdir('/proc/sys/net/ipv4/conf')))\n"
    )
    lines = w.python("client", script, cwd=ROOT).splitlines()
    assert lines[0] == "[1, 2]"
    assert lines[1] == "wire-server wire-client"
    assert lines[2] == f"{os.getuid()} {os.getgid()} {ROOT}"
    assert lines[3] == "['all', 'default', 'eth0', 'lo']"


def test_on_inside_and_its_status(wire):
    """`on server` from a shell on client; the status is the command's."""
    done = run_wire("--", "sh", "-c", "on server hostname; hostname; on server sh -c 'exit 9'")
    assert (done.stdout, done.returncode) == ("server\nclient\n", 9), done.stderr
    w = wire()
    assert w.run("client", "sh", "-c", "exit 7").returncode == 7
    assert w.run("client", "sh", "-c", "kill -TERM $$").returncode == 143
    assert w.run("client", "/nonexistent").returncode == 127
    assert w.run("client", "/").returncode == 126
    assert w.run("server", "cat", input="through\n").stdout == "through\n"
    bad = subprocess.run([ON, "--pid", "x", "true"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and "--pid x" in bad.stderr
    outside = subprocess.run([ON, "server", "true"], capture_output=True, text=True, check=False)
    assert outside.returncode == 1 and "not inside a wire" in outside.stderr


def test_on_passes_signals_and_dies_with_its_child(wire):
    w = wire()
    on = subprocess.Popen(
        w.on("client", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do read x; done"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert on.stdout.readline() == b"up\n"
    on.terminate()
    on.stdin.write(b"\n")
    on.stdin.close()
    on.stdout.close()
    assert on.wait(PATIENCE_S) == 5


@pytest.mark.parametrize(
    "script,status", [("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137), ("exit 0", 0)]
)
def test_exit_status_is_the_commands(script, status):
    assert run_wire("--", "sh", "-c", script).returncode == status


def test_a_command_that_is_not_there():
    assert run_wire("--", "/nonexistent").returncode == 127
    assert run_wire("--", "/").returncode == 126


# Fates


def test_same_seed_same_losses(wire):
    """The same seed loses the same packets of each class, whatever else crosses."""
    ping = need("ping")
    lost = []
    for i, seed in enumerate(("5", "5", "6")):
        w = wire("--link", "loss 30%", "--seed", seed)
        if i == 1:
            # Of another class: must not shift a draw.
            w.run("client", ping, "-c", "7", "-i", "0.01", "-W", "0.1", "server")
        w.send_udp(60)
        if i != 1:
            w.run("client", ping, "-c", "7", "-i", "0.01", "-W", "0.1", "server")
        w.settle()
        rows = w.rows(direction="up")
        lost.append({c: indices(rows, **{"class": c, "fate": "lost"}) for c in ("udp", "icmp")})
        assert lost[-1]["udp"] == indices(
            dry_run("loss 30%", seed, 60), direction="up", **{"class": "udp", "fate": "lost"}
        )
    assert lost[0] == lost[1]
    assert lost[0]["udp"] and lost[0] != lost[2]


def test_dry_run_agrees_with_a_real_run(wire):
    """Each fate of --dry-run is what then happens, and no delay is shorter."""
    spec = "delay 2ms 1ms distribution normal loss gemodel 10% 40% duplicate 20% corrupt 20%"
    w = wire("--link", spec, "--seed", "11")
    w.send_udp(200)
    w.settle()
    told = {
        int(row["index"]): row
        for row in dry_run(spec, 11, 200)
        if row["direction"] == "up" and row["class"] == "udp"
    }
    rows = w.rows(direction="up", **{"class": "udp"})
    assert len(rows) == 200
    for row in rows:
        fate = told[int(row["index"])]
        for field in "fate", "copies", "corrupted":
            assert (field, row[field]) == (field, fate[field]), row
        if row["fate"] == "delivered":
            assert int(row["out_ns"]) - int(row["in_ns"]) >= int(fate["delay_ns"])
    assert {row["fate"] for row in rows} == {"delivered", "lost"}


def test_drop_takes_exactly_the_packets_that_it_names(wire):
    w = wire("--up", "drop udp:3,5-6")
    w.send_udp(8)
    w.settle()
    assert indices(w.rows(direction="up", fate="dropped")) == [2, 4, 5]
    assert indices(w.rows(direction="up", fate="delivered")) == [0, 1, 3, 6, 7]


def test_drop_of_the_first_syn_is_repaired_by_tcp(wire):
    w = wire("--up", "drop syn:1")
    with subprocess.Popen(
        w.on("server", sys.executable, "-c", LISTEN_TCP), stdout=subprocess.PIPE, text=True
    ) as server:
        port = server.stdout.readline().strip()
        script = (
            "import socket, sys\n"
            "s = socket.create_connection(('10.0.0.2', int(sys.argv[1])))\n"
            "s.sendall(b'hello'); print(s.recv(10).decode())\n"
        )
        assert w.python("client", script, port) == "hello"
    w.settle()
    syns = w.rows(direction="up", tcp_flags="S")
    assert [row["fate"] for row in syns] == ["dropped", "delivered"]
    assert syns[0]["tcp_seq"] == syns[1]["tcp_seq"]
    assert [
        row["payload"] for row in w.rows(direction="up") if row["payload"] not in ("", "0")
    ] == ["5"]


def test_firewall(wire):
    """block is silence, reject is an answer, allow lets one port pass."""
    w = wire()
    assert w.python("client", ASK, "udp", 7) == "ECONNREFUSED"
    w.ask("link block udp:7 block tcp:7")
    assert w.python("client", ASK, "udp", 7) == "timeout"
    assert w.python("client", ASK, "tcp", 7) == "timeout"
    assert w.python("client", ASK, "udp", 8) == "ECONNREFUSED"
    w.settle()
    w.ask("run")
    w.ask("link reject udp:7 reject tcp:7 reject icmp")
    assert w.python("client", ASK, "udp", 7) == "ECONNREFUSED"
    assert w.python("client", ASK, "tcp", 7) == "ECONNREFUSED"
    counters = w.settle()
    # Rejected at the wire: none reached the server, and the answers are no packets of their own.
    assert counters["up"]["udp"]["blocked"] == counters["up"]["udp"]["entered"] == 1
    assert counters["up"]["tcp"]["blocked"] == counters["up"]["tcp"]["entered"] == 1
    assert all(entry["entered"] == 0 for entry in counters["down"].values())
    done = w.run("client", need("ping"), "-c", "1", "-W", "5", "server")
    assert done.returncode == 1 and "Unreachable" in done.stdout
    w.ask("link allow udp:9")
    w.ask("run")
    w.send_udp(3, port=9)
    w.send_udp(3, port=10)
    counters = w.settle()
    assert counters["up"]["udp"]["delivered"] == 3
    assert counters["up"]["udp"]["blocked"] == 3


def test_a_limit_fills_and_a_rate_serialises(wire):
    w = wire("--up", "rate 1mbit limit 5")
    w.send_udp(40)
    counters = w.settle()["up"]["udp"]
    assert counters["queue"] > 0
    assert counters["queue"] + counters["delivered"] == 40
    rows = w.rows(direction="up", fate="delivered")
    # 142 bytes at 1 Mbit/s take 1.136 ms each.
    assert all(int(row["out_ns"]) - int(row["in_ns"]) >= 1_136_000 for row in rows)


def test_reorder_is_by_the_book(wire):
    """The log's `reordered` is RFC 4737's, counted again from the order in which packets left."""
    w = wire("--up", "delay 20ms reorder 30%", "--seed", "3")
    w.send_udp(100)
    counters = w.settle()
    next_exp = 0
    for row in w.rows(direction="up"):
        index = int(row["index"])
        assert (row["reordered"] == "1") == (index < next_exp)
        next_exp = max(next_exp, index + 1)
    flagged = len(w.rows(direction="up", reordered="1"))
    assert counters["up"]["udp"]["reordered"] == flagged > 0


# Orders


def test_a_change_of_link_counts_from_then_on(wire):
    w = wire("--seed", "4")
    w.send_udp(5)
    changed = w.ask("up loss 100%")
    assert (changed["event"], changed["up"], changed["down"]) == ("link", "loss 100%", "")
    w.send_udp(5)
    assert w.ask("link")["up"] == ""
    w.send_udp(5)
    w.settle()
    fates = [row["fate"] for row in w.rows(direction="up")]
    assert fates == ["delivered"] * 5 + ["lost"] * 5 + ["delivered"] * 5
    assert indices(w.rows(direction="up")) == list(range(15))


def test_a_change_leaves_what_is_on_its_way_alone(wire):
    w = wire("--up", "delay 300ms")
    w.send_udp(3)
    w.ask("up")
    w.send_udp(1)
    w.settle()
    rows = w.rows(direction="up")
    assert all(
        int(row["out_ns"]) - int(row["in_ns"]) >= 300_000_000
        for row in rows
        if int(row["index"]) < 3
    )
    assert len(rows) == 4


def test_a_run_begins_at_the_start(wire):
    """The indices, the counters and the fates begin anew, with another seed where one is given."""
    w = wire("--link", "loss 30%", "--seed", "5")
    w.send_udp(40)
    w.settle()
    again = w.ask("run")
    assert (again["event"], again["run"], again["seed"]) == ("run", 2, 5)
    w.send_udp(40)
    w.settle()
    assert w.ask("run 6")["seed"] == 6
    w.send_udp(40)
    counters = w.settle()
    assert counters["run"] == 3 and counters["up"]["udp"]["entered"] == 40
    lost = [indices(w.rows(run=run, direction="up", fate="lost")) for run in "123"]
    assert lost[0] == lost[1] != lost[2]
    assert lost[2] == indices(
        dry_run("loss 30%", 6, 40), direction="up", fate="lost", **{"class": "udp"}
    )


def test_bad_orders_are_answered_and_nothing_else_happens(wire):
    w = wire("--link", "delay 1ms")
    for order in (
        "fly",
        "run x",
        "run -1",
        "link delay",
        "up loss 200%",
        "counters now",
        "link loss 5x",
        "run 1 2",
        "down drop nothing:3",
        '"',
        "\\",
        "link \x01",
        "é",
    ):
        answer = w.ask(order)
        assert answer["event"] == "error" and answer["message"], order
    # Empty lines are not answered; a line without an end is none.
    w.tell("")
    w.tell("   ")
    assert w.ask("counters")["event"] == "counters"
    w.tell("x" * 200_000)
    assert w.answer()["event"] == "error"
    assert w.ask("run")["run"] == 2
    assert w.quit() == 0


def test_answers_come_in_order_across_a_drain(wire):
    w = wire("--up", "delay 200ms")
    w.send_udp(2)
    w.tell("counters\ndrain\ncounters\nrun")
    first, drained, second, run = (w.answer() for _ in range(4))
    assert first["up"]["udp"]["entered"] == 2 and first["in_flight"] == 2
    assert drained["event"] == "drained"
    assert second["up"]["udp"]["delivered"] == 2 and second["in_flight"] == 0
    assert run["event"] == "run"


# Records


def test_counters_agree_with_the_log(wire):
    w = wire("--link", "delay 1ms loss 20% duplicate 20% corrupt 10%", "--seed", "2")
    w.send_udp(100)
    w.send_udp(50, family="6", to="fd00::2")
    w.send_udp(30, host="server", to="10.0.0.1")
    counters = w.settle()
    rows = w.rows()
    for direction in "up", "down":
        for name, told in counters[direction].items():
            mine = [row for row in rows if (row["direction"], row["class"]) == (direction, name)]
            seen = collections.Counter(row["fate"] for row in mine)
            for fate in "delivered", "lost", "queue", "dropped", "blocked", "failed":
                assert (direction, name, fate, told[fate]) == (direction, name, fate, seen[fate])
            assert told["entered"] == len(mine)
            for field in "copies", "corrupted", "reordered":
                assert told[field] == sum(int(row[field]) for row in mine), (direction, name, field)
    assert counters["up"]["udp"]["entered"] == 150
    assert counters["client_tx_dropped"] == counters["server_tx_dropped"] == 0
    assert len({row["id"] for row in rows}) == len(rows)


def read_pcapng(path):
    """Yields (interface, time_ns, bytes, options) of each packet; checks every length."""
    data = path.read_bytes()
    at = 0
    resolutions = []
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0 and struct.unpack_from("<I", data, at + length - 4)[0] == length
        body = data[at + 8 : at + length - 4]
        at += length
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body)[:4] == (0x1A2B3C4D, 1, 0, -1)
            continue
        fixed = 8 if kind == 1 else 20 + (struct.unpack_from("<I", body, 12)[0] + 3) // 4 * 4
        options = {}
        rest = body[fixed:]
        while rest:
            code, size = struct.unpack_from("<HH", rest)
            if code == 0:
                break
            options[code] = rest[4 : 4 + size]
            rest = rest[4 + (size + 3) // 4 * 4 :]
        if kind == 1:
            assert body[:2] == b"\x01\x00"
            resolutions.append(options[9])
        else:
            assert kind == 6
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert captured == original and resolutions[interface] == b"\x09"
            yield interface, high << 32 | low, body[20 : 20 + captured], options


def test_the_capture_agrees_with_the_log(wire):
    """Each packet is where it came in, with what became of it, and where it left, each time."""
    w = wire("--link", "delay 3ms loss 30% duplicate 30% corrupt 30%", "--seed", "8")
    w.send_udp(60)
    w.send_udp(60, host="server", to="fd00::1", family="6")
    w.settle()
    ends = {"up": (0, 1), "down": (1, 0)}
    packets = collections.defaultdict(list)
    for interface, time_ns, data, options in read_pcapng(w.pcap_path):
        packets[struct.unpack("<Q", options[5])[0]].append((interface, time_ns, data, options))
    rows = w.rows()
    assert {int(row["id"]) for row in rows} == set(packets)
    seen = set()
    for row in rows:
        source, target = ends[row["direction"]]
        seen.add((row["fate"], row["copies"], row["corrupted"]))
        first, *others = packets[int(row["id"])]
        assert first[0] == source and len(first[2]) == int(row["length"])
        comment = first[3].get(1, b"").decode()
        if row["fate"] == "lost":
            draw, limit = map(float, re.fullmatch(r"lost: draw (\S+) < (\S+)", comment).groups())
            assert draw < limit == 0.3
            assert not others
            continue
        assert len(others) == 1 + int(row["copies"])
        assert ("duplicated" in comment) == (row["copies"] == "1")
        assert ("corrupted" in comment) == (row["corrupted"] == "1")
        for interface, time_ns, data, _ in others:
            assert interface == target
            assert time_ns - first[1] == int(row["out_ns"]) - int(row["in_ns"])
            flipped = sum(bin(a ^ b).count("1") for a, b in zip(data, first[2]))
            assert flipped == int(row["corrupted"]) and len(data) == len(first[2])
    assert {"lost", "delivered"} == {fate for fate, _, _ in seen} and len(seen) == 5


def test_tshark_reads_the_capture(wire):
    tshark = need("tshark")
    w = wire("--link", "loss 30% duplicate 20%", "--seed", "8")
    w.send_udp(40)
    w.settle()
    done = subprocess.run(
        [tshark, "-r", w.pcap_path, "-V"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "root" not in line]
    assert complaints == []
    assert "Malformed" not in done.stdout
    assert len(re.findall(r"lost: draw \S+ < 0.3", done.stdout)) >= len(w.rows(fate="lost"))


def test_what_a_full_tap_drops_is_counted(wire):
    """While the wire stands still its TAPs fill; each packet that one drops is in its count."""
    text = (ROOT / "common" / "wire" / "host.h").read_text(encoding="utf-8")
    held = int(re.search(r"HOST_TAP_FRAMES = (\d+)", text).group(1))
    # Lost to the last: so nothing answers, and the way down stays empty.
    w = wire("--up", "loss 100%")
    os.kill(w.process.pid, signal.SIGSTOP)
    # A signal is sent, not yet heard; a child that stands still is reported.
    assert os.WIFSTOPPED(os.waitpid(w.process.pid, os.WUNTRACED)[1])
    sent = held + 3000
    try:
        w.send_udp(sent)
    finally:
        os.kill(w.process.pid, signal.SIGCONT)
    counters = w.settle()
    entered = counters["up"]["udp"]["entered"]
    assert entered >= held
    assert counters["client_tx_dropped"] == sent - entered > 0
    assert counters["server_tx_dropped"] == 0


def test_ipv6(wire):
    w = wire("--link", "delay 5ms")
    w.send_udp(3, family="6", to="fd00::2")
    w.settle()
    rows = w.rows(direction="up")
    assert [row["class"] for row in rows] == ["udp"] * 3
    assert {row["dport"] for row in rows} == {"9"} and {row["payload"] for row in rows} == {"100"}


def test_fragments_are_seen_as_such(wire):
    w = wire()
    script = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(bytes(4000), ('10.0.0.2', 9))\n"
    )
    w.python("client", script)
    w.settle()
    rows = w.rows(direction="up")
    assert [row["class"] for row in rows] == ["udp", "frag", "frag"]
    assert [row["frag_offset"] for row in rows] == ["0", "1480", "2960"]
    assert len({row["ip_id"] for row in rows}) == 1


def test_arp_is_there_when_asked_for(wire):
    w = wire("--arp")
    w.send_udp(1)
    w.send_udp(1, family="6", to="fd00::2")
    w.settle()
    rows = w.rows(direction="up")
    classes = [row["class"] for row in rows if row["class"] in ("arp", "udp")]
    assert classes[0] == "arp" and classes.count("udp") == 2 and classes.count("arp") >= 2
    assert "arp" in {row["class"] for row in w.rows(direction="down")}


def test_odd_frames_do_no_harm(wire):
    """Any bytes of any length from either host: each is counted, and the wire goes on."""
    w = wire(
        "--link", "delay 1ms 1ms duplicate 20% corrupt 50% reject udp drop tcp:1-9", "--seed", "1"
    )
    sent = {}
    for host, seed in (("client", 1), ("server", 2)):
        sent[host] = int(w.python(host, ODD_FRAMES, seed).split()[0])
    counters = w.settle()
    up = sum(entry["entered"] for entry in counters["up"].values())
    down = sum(entry["entered"] for entry in counters["down"].values())
    # A host may answer what it understands of them.
    assert up >= sent["client"] > 300 and down >= sent["server"] > 300
    assert len(w.rows()) == up + down
    assert len(list(read_pcapng(w.pcap_path))) >= up + down
    w.ask("link")
    w.ask("run")
    w.send_udp(2)
    assert w.settle()["up"]["udp"]["delivered"] == 2
    if shutil.which("tshark"):
        done = subprocess.run(
            [shutil.which("tshark"), "-r", w.pcap_path],
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        assert done.returncode == 0, done.stderr


def test_a_device_that_is_down_or_gone(wire):
    """What a host does not take is `failed`; a device that is deleted is a cable unplugged."""
    ip = need("ip")
    w = wire()
    w.run("server", ip, "link", "set", "eth0", "down")
    w.send_udp(3)
    counters = w.settle()["up"]["udp"]
    assert (counters["entered"], counters["delivered"], counters["failed"]) == (3, 0, 3)
    assert [row["fate"] for row in w.rows()] == ["failed"] * 3
    w.run("server", ip, "link", "delete", "eth0")
    w.send_udp(3)
    w.run("client", ip, "link", "delete", "eth0")
    assert w.ask("counters")["server_tx_dropped"] is None
    assert w.quit() == 0


# Ends


def relatives(namespaces):
    """The processes that live in one of these network namespaces."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in namespaces:
                    found.append(int(entry))
    return found


def hosts_of(ready):
    return {os.stat(f"/proc/{ready[host]}/ns/net").st_ino for host in ("client", "server")}


def assert_nothing_left(namespaces, ready):
    wait_until(lambda: relatives(namespaces) == [], "processes of the hosts to end")
    for host in "client", "server":
        assert not os.path.exists(f"/proc/{ready[host]}/ns/net") or (
            os.stat(f"/proc/{ready[host]}/ns/net").st_ino not in namespaces
        )


@contextlib.contextmanager
def sleepers(w):
    """A program on each host, one of them with a child of its own."""
    script = "trap '' TERM INT HUP; sleep 1000 & echo up; wait"
    programs = [
        subprocess.Popen(w.on(host, "sh", "-c", script), stdout=subprocess.PIPE)
        for host in ("client", "server")
    ]
    for program in programs:
        assert program.stdout.readline() == b"up\n"
    yield programs
    for program in programs:
        program.kill()
        program.wait()
        program.stdout.close()


@pytest.mark.parametrize("end", ["kill", "term", "stdin", "quit"])
def test_the_end_of_the_wire_is_the_end_of_all(wire, end):
    w = wire("--link", "delay 5s")
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    namespaces = hosts_of(w.ready)
    with sleepers(w):
        w.send_udp(10)
        assert len(relatives(namespaces)) >= 6
        if end == "kill":
            w.process.kill()
        elif end == "term":
            w.process.terminate()
        elif end == "stdin":
            w.process.stdin.close()
        else:
            w.tell("quit")
        status = w.process.wait(PATIENCE_S)
        assert status == {"kill": -9, "term": 143, "stdin": 0, "quit": 0}[end]
        assert_nothing_left(namespaces, w.ready)
    assert pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
    if end != "kill":
        assert w.log_path.read_text(encoding="ascii").startswith("run,id,direction")


def test_the_end_of_its_parent_is_the_end_of_the_wire(tmp_path):
    """The parent is killed while others hold the wire's stdin open."""
    script = (
        "import subprocess, sys\n" "w = subprocess.Popen([sys.argv[1]], stdin=0)\n" "w.wait()\n"
    )
    read, write = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", script, WIRE],
        stdin=read,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    os.close(read)
    line = parent.stdout.readline()
    if not line:
        os.close(write)
        pytest.skip(parent.stderr.read().decode().strip())
    ready = json.loads(line)
    namespaces = hosts_of(ready)
    parent.kill()
    parent.wait()
    assert_nothing_left(namespaces, ready)
    # The wire held the other ends of these: with it gone, they are closed.
    assert parent.stdout.read() == b""
    os.close(write)
    parent.stdout.close()
    parent.stderr.close()


def branded(brand):
    """The processes that were started with these letters in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if brand in pathlib.Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
    return found


def keepers(namespaces):
    """The processes, but for this one, that hold one of these namespaces by a descriptor."""
    links = {f"net:[{number}]" for number in namespaces}
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{entry}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{entry}/fd/{fd}") in links:
                            found.append(int(entry))
    return found


def devices(namespace):
    """The network devices there; None where nobody lets us look."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{namespace}", "cat", "/proc/self/net/dev"],
        pass_fds=[namespace],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"(?m)^ *(\S+):", done.stdout)
    return set(found) if done.returncode == 0 else None


@pytest.mark.parametrize("end", ["kill", "parent"])
def test_a_killed_wire_takes_its_command_along(tmp_path, end):
    """With a command as without: kill -9 of it, or of its parent, leaves nothing behind."""
    brand = f"killed-in-{tmp_path}"
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    # Deaf to all signals that can be ignored, with children of its own on both hosts.
    command = (
        "trap '' TERM INT HUP; sleep 1000 & on server sleep 1000 & "
        "readlink /proc/self/ns/net; on server readlink /proc/self/ns/net; wait"
    )
    script = (
        "import subprocess, sys\n"
        "w = subprocess.Popen(sys.argv[1:])\n"
        "print(w.pid, flush=True)\n"
        "w.wait()\n"
    )
    run_wire("--", "true")
    parent = subprocess.Popen(
        [sys.executable, "-c", script, WIRE, "--link", "delay 5s", "--", "sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "WIRE_TEST": brand},
        text=True,
    )
    # The wire's PID and its command's lines come in any order.
    said = [parent.stdout.readline() for _ in range(3)]
    pids = [int(line) for line in said if line.strip().isdigit()]
    namespaces = {int(n) for n in re.findall(r"net:\[(\d+)\]", "".join(said))}
    assert len(pids) == 1 and len(namespaces) == 2, said
    # Both `sleep`, the shell, and a holder on each host.
    wait_until(lambda: len(relatives(namespaces)) >= 5, "the command's children to be there")
    assert len(branded(brand.encode())) >= 4
    with contextlib.ExitStack() as stack:
        # Nothing that a broken wire leaves behind outlives the test.
        stack.callback(lambda: [os.kill(pid, signal.SIGKILL) for pid in branded(brand.encode())])
        # To look into them afterwards; what is in there dies with the wire all the same.
        kept = []
        if shutil.which("nsenter"):
            for number in sorted(namespaces):
                kept.append(os.open(f"/proc/{relatives({number})[0]}/ns/net", os.O_RDONLY))
                stack.callback(os.close, kept[-1])
        kept = [fd for fd in kept if devices(fd) is not None]
        assert all(devices(fd) == {"lo", "eth0"} for fd in kept)
        if end == "kill":
            os.kill(pids[0], signal.SIGKILL)
            parent.wait(PATIENCE_S)
        else:
            parent.kill()
            parent.wait()
        # All that came of it held this pipe: with the last of them it is closed.
        assert select.select([parent.stdout], [], [], PATIENCE_S)[0], "something lives on"
        assert parent.stdout.read() == ""
        parent.stdout.close()
        wait_until(lambda: branded(brand.encode()) == [], "all that the wire started to end")
        wait_until(lambda: relatives(namespaces) == [], "processes of the hosts to end")
        wait_until(lambda: keepers(namespaces) == [], "the last hold on their namespaces to go")
        wait_until(lambda: all(devices(fd) == {"lo"} for fd in kept), "the TAPs to go")
    assert pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts


def test_a_killed_program_leaves_nothing_and_the_wire_goes_on(wire):
    w = wire()
    namespaces = hosts_of(w.ready)
    with sleepers(w) as programs:
        for program in programs:
            program.kill()
            program.wait()
        # The shell died with `on`; its orphan was adopted by PID 1, and ends when it ends.
        wait_until(lambda: len(relatives(namespaces)) <= 4, "the programs to end")
        assert w.ask("counters")["event"] == "counters"
    assert w.quit() == 0
    assert_nothing_left(namespaces, w.ready)


def test_orphans_are_reaped(wire):
    w = wire()
    w.run("client", "sh", "-c", "for i in 1 2 3; do (true &) ; done")
    namespaces = hosts_of(w.ready)
    wait_until(lambda: len(relatives(namespaces)) == 2, "orphans to be reaped")


def test_a_holder_that_is_killed_ends_the_wire(wire):
    w = wire()
    os.kill(w.ready["client"], signal.SIGKILL)
    assert w.process.wait(PATIENCE_S) == 1
    assert "client is gone" in w.process.stderr.read()


def test_a_signal_goes_to_the_command(tmp_path):
    """TERM to the wire lets the command end in order, and the log is whole."""
    log = tmp_path / "log.csv"
    command = "trap 'echo bye; exit 3' TERM; echo up; while :; do read x; done"
    with subprocess.Popen(
        [WIRE, "--log", log, "--", "sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout.readline() != "up\n":
            pytest.skip(process.stderr.read())
        process.terminate()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.read() == "bye\n"
        assert process.wait(PATIENCE_S) == 3
    assert log.read_text(encoding="ascii").startswith("run,id,direction")


def test_a_command_that_ignores_signals_is_ended(tmp_path):
    command = "trap '' TERM; echo up; while :; do sleep 100; done"
    with subprocess.Popen(
        [WIRE, "--", "sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        if process.stdout.readline() != "up\n":
            pytest.skip(process.stderr.read())
        process.terminate()
        assert process.wait(PATIENCE_S) == 143


# The terminal


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, *command):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="/dev/null")
            os.execvp(command[0], command)

    def read_until(self, pattern):
        """Reads on until the pattern appears in what is new."""
        begin = len(self.text)
        for _ in range(PATIENCE_S * 10):
            found = re.search(pattern, self.text[begin:])
            if found:
                return found
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError as error:
                    assert error.errno == errno.EIO
                    break
        pytest.fail(f"no {pattern!r} in {self.text[begin:]!r}")

    def type(self, text, pattern):
        os.write(self.fd, text.encode())
        return self.read_until(pattern)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def test_a_shell_has_job_control_and_gives_the_terminal_back(tmp_path):
    with shell_in(tmp_path) as terminal:
        terminal.type(f'"{WIRE}" -- bash --norc -i\n', r"\r\n(.*\n)*\$ ")
        assert "job control" not in terminal.text
        terminal.type("echo $-$((40 + 2)) $(hostname)\n", r"\r\n[a-zA-Z]*m[a-zA-Z]*42 client")
        # Ctrl-C ends the program in front, not the shell and not the wire.
        terminal.type("sh -c 'echo re; echo ady; exec sleep 1000'\n", r"\nady")
        terminal.type("\x03", r"\$ ")
        terminal.type("echo still $((1 + 1))\n", r"still 2")
        terminal.type("exit 5\n", r"exit")
        terminal.type("echo back $? $((2 + 1)); hostname\n", r"back 5 3")
        assert "client" not in terminal.type("hostname; echo en''d\n", r"(?s).*\nend").group(0)


# Where it cannot run


def in_a_namespace(script):
    """Runs a shell script with a user and a mount namespace of its own."""
    unshare = need("unshare")
    done = subprocess.run([unshare, "-Urm", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("unshare -Urm does not work here")
    return subprocess.run(
        [unshare, "-Urm", "sh", "-c", script, "sh", WIRE],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def assert_says_why_and_what_helps(done, reason, *commands):
    assert done.returncode == 77, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert reason in lines[0] and any(command in lines[1] for command in commands)


def test_no_tun_device():
    hidden = "mount -t tmpfs none /dev/net && "
    helps = "sudo modprobe tun", "docker run --device /dev/net/tun"
    done = in_a_namespace(hidden + 'exec "$1" -- true')
    assert_says_why_and_what_helps(done, "there is no /dev/net/tun", *helps)
    done = in_a_namespace(hidden + 'exec "$1" --check')
    assert done.returncode == 77
    assert re.search(r"(?m)^missing +/dev/net/tun: there is no /dev/net/tun", done.stdout)
    assert re.search(r"(?m)^ok +a fresh /proc", done.stdout)


def test_no_user_namespaces():
    setpriv = need("setpriv")
    done = in_a_namespace(
        "echo 0 >/proc/sys/user/max_user_namespaces && "
        f'exec {setpriv} --bounding-set -all --inh-caps -all "$1" -- true'
    )
    assert_says_why_and_what_helps(
        done, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces"
    )


def test_no_fresh_proc():
    """Parts of /proc are hidden, as a container does it: the kernel then allows no other one."""
    done = in_a_namespace(
        "mount -t tmpfs none /proc/sys && "
        'exec unshare -U --map-user=1000 --map-group=1000 "$1" -- true'
    )
    if "map-user" in done.stderr:
        pytest.skip("this unshare has no --map-user")
    assert_says_why_and_what_helps(done, "a fresh /proc", "systempaths=unconfined")


def test_check_on_a_machine_that_can(wire):
    wire()
    done = run_wire("--check")
    assert done.returncode == 0
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())


def test_without_privilege():
    """As another user, who is nobody here: the same hosts, and he stays himself."""
    if os.geteuid() != 0:
        pytest.skip("we are unprivileged: all other tests show it")
    if stat.S_IMODE(os.stat("/dev/net/tun").st_mode) & 0o006 != 0o006:
        pytest.skip("/dev/net/tun is not open to all")
    # pytest's own folders are closed to others.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wire-test-"))
    try:
        folder.chmod(0o777)
        for program in WIRE, ON:
            shutil.copy(program, folder)
        w = Wire(
            folder,
            "--link",
            "loss 30%",
            "--seed",
            "5",
            wire=folder / "wire",
            on=folder / "on",
            user=65534,
            group=65534,
            extra_groups=[],
            cwd=folder,
        )
        try:

            def run(host, *command):
                done = subprocess.run(
                    w.on(host, *command),
                    capture_output=True,
                    text=True,
                    check=False,
                    user=65534,
                    group=65534,
                    extra_groups=[],
                    cwd=folder,
                )
                assert done.returncode == 0, done.stderr
                return done.stdout

            assert run("client", "id", "-u").strip() == "65534"
            assert run("server", "hostname").strip() == "server"
            caps = run("client", "grep", "CapAmb", "/proc/self/status").split()[1]
            assert int(caps, 16) & (1 << 12 | 1 << 13 | 1 << 21) == 1 << 12 | 1 << 13 | 1 << 21
            run(
                "client",
                "/usr/bin/env",
                "sh",
                "-c",
                "exec 3<>/dev/null; for i in 1 2 3; do echo; done >/dev/null",
            )
            w.settle()
            assert w.rows() == []
            if shutil.which("ping"):
                w.ask("link")
                assert "1 received" in run("client", shutil.which("ping"), "-c", "1", "server")
                assert "1 received" in run(
                    "server", shutil.which("ping"), "-6", "-c", "1", "client"
                )
            assert os.stat(w.log_path).st_uid == 65534
            assert w.quit() == 0
        finally:
            w.kill()
    finally:
        shutil.rmtree(folder)


# Orders that meet the end of something


def answers_to(text):
    """What a wire answers to orders from a file, where each line is there at once."""
    with tempfile.TemporaryFile("w+") as file:
        file.write(text)
        file.seek(0)
        done = run_wire(stdin=file, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["event"] for line in done.stdout.splitlines()][1:]


def test_one_drain_behind_another():
    assert answers_to("drain\ndrain\ncounters\n") == ["drained", "drained", "counters"]


def test_the_last_order_needs_no_newline():
    assert answers_to("run\ncounters") == ["run", "counters"]


def test_the_end_of_stdin_counts_in_a_drain(wire):
    w = wire("--link", "delay 600s")
    w.send_udp(1)
    w.tell("drain")
    assert w.quit() == 0


def test_a_drain_ends_under_traffic_that_does_not(wire):
    """It waits for what was sent before it, and for the answers; not for ever."""
    w = wire("--link", "delay 10ms")
    script = SEND_UDP.replace("for i in range(count):", "print(flush=True)\nwhile True:")
    script = script.replace("port))", "port)); select.select([], [], [], 0.001)")
    command = [sys.executable, "-c", "import select\n" + script, "4", "10.0.0.2", "9", "1"]
    with subprocess.Popen(w.on("client", *command), stdout=subprocess.PIPE) as sender:
        assert sender.stdout.readline() == b"\n"
        wait_until(lambda: w.ask("counters")["in_flight"] > 0, "packets on their way")
        before = w.ask("counters")["up"]["udp"]["entered"]
        w.tell("drain\ncounters")
        assert select.select([w.process.stdout], [], [], PATIENCE_S)[0], "no answer"
        assert w.answer()["event"] == "drained"
        counters = w.answer()
        assert counters["up"]["udp"]["delivered"] >= before
        sender.kill()


@pytest.mark.parametrize("end", ["parent", "term"])
def test_a_wire_whose_answers_nobody_reads_ends(tmp_path, end):
    """Its stdout is full; the end of its parent, or a signal, is seen all the same."""
    script = (
        "import subprocess, sys\n"
        "w = subprocess.Popen([sys.argv[1]], stdin=0, stdout=int(sys.argv[2]))\n"
        "print(w.pid, flush=True)\n"
        "w.wait()\n"
    )
    run_wire("--", "true")
    orders, tell = os.pipe()
    full, answers = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", script, WIRE, str(answers)],
        stdin=orders,
        stdout=subprocess.PIPE,
        pass_fds=[answers],
        cwd=tmp_path,
    ) as parent:
        pid = int(parent.stdout.readline())
        os.close(orders)
        os.write(tell, b"counters\n" * 1000)
        waiting = threading.Event()
        begin = b""
        while not begin.endswith(b"\n"):
            begin += os.read(full, 1)
        # No more than this fits; the wire has come to a stand when the pipe takes nothing more.
        wait_until(lambda: not select.select([], [answers], [], 0)[1], "a full pipe")
        waiting.wait(0.1)
        os.close(answers)
        pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        if end == "parent":
            parent.kill()
        else:
            os.kill(pid, signal.SIGTERM)
        if pidfd is not None:
            assert select.select([pidfd], [], [], PATIENCE_S)[0], "it lives on"
            os.close(pidfd)
    os.close(tell)
    os.close(full)


def test_answers_to_a_pipe_that_does_not_block_are_whole():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen([WIRE], stdin=subprocess.PIPE, stdout=write, text=True) as process:
        os.close(write)
        process.stdin.write("counters\n" * 200)
        process.stdin.flush()
        with open(read, encoding="ascii") as answers:
            events = [json.loads(answers.readline())["event"] for _ in range(201)]
        assert events == ["ready"] + ["counters"] * 200
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def test_nobody_to_answer_is_a_failure():
    read, write = os.pipe()
    os.close(read)
    done = run_wire_into(write)
    assert done.returncode == 1 and "stdout" in done.stderr


def run_wire_into(fd):
    """A wire whose stdout is this descriptor, which is closed here."""
    with subprocess.Popen(
        [WIRE], stdin=subprocess.PIPE, stdout=fd, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(fd)
        assert select.select([process.stderr], [], [], PATIENCE_S)[0], "it lives on"
        text = process.stderr.read()
        return subprocess.CompletedProcess([WIRE], process.wait(PATIENCE_S), "", text)


# What it inherits


def test_a_child_that_is_not_its_own_does_not_end_it():
    """bash becomes the wire by exec(), and its background job is then the wire's child."""
    bash = need("bash")
    script = 'read x <&3 & exec "$1" -- sh -c "echo >&4; exec 3<&- 4>&-; on server true; exit 4"'
    read, write = os.pipe()
    command = [bash, "-c", f"exec 3<&{read} 4>&{write}; {script}", bash, WIRE]
    done = subprocess.run(command, pass_fds=[read, write], capture_output=True, check=False)
    os.close(read)
    os.close(write)
    assert done.returncode in (4, 77), done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_not_the_logs(tmp_path, closed):
    log = tmp_path / "log.csv"
    run_wire("--", "true")
    script = f'(echo counters; echo fly) | "$1" --log "$2" {closed}'
    subprocess.run(["sh", "-c", script, "sh", WIRE, log], capture_output=True, check=False)
    text = log.read_text(encoding="ascii")
    assert text.count("\n") == 1 and text.startswith("run,id,direction")


def test_signals_that_are_ignored_stay_so():
    """As under nohup: neither the wire nor its command hears HUP."""
    script = "trap '' HUP INT QUIT; exec \"$1\" -- sh -c 'kill -HUP $$; echo up; read x; exit 3'"
    with subprocess.Popen(
        ["sh", "-c", script, "sh", WIRE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout.readline() == "":
            run_wire("--", "true")
        for number in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
            process.send_signal(number)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 3


def test_the_command_has_the_signals_that_the_wire_had():
    run_wire("--", "true")
    script = "import signal; print(signal.getsignal(13), signal.getsignal(17))"
    ignore = "import os, signal, sys; signal.signal(13, {0}); signal.signal(17, {0}); "
    for action in "signal.SIG_IGN", "signal.SIG_DFL":
        command = ["grep", "SigIgn", "/proc/self/status"]
        start = ignore.format(action) + "os.execv(sys.argv[1], sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", start, WIRE, "--", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        ignored = int(done.stdout.split()[1], 16)
        told = [bool(ignored >> (n - 1) & 1) for n in (13, 17)]
        assert told == [action == "signal.SIG_IGN"] * 2, script


def test_quit_signal_leaves_a_whole_log(wire):
    w = wire()
    w.send_udp(3)
    w.process.send_signal(signal.SIGQUIT)
    assert w.process.wait(PATIENCE_S) == 131
    assert len(w.rows(direction="up")) == 3


def test_a_shortage_is_no_lack_of_rights():
    """Too few descriptors: said as it is, with no advice that would not help."""
    run_wire("--", "true")
    for limit in range(4, 10):
        done = subprocess.run(
            ["sh", "-c", f'ulimit -n {limit}; exec "$1" -- true', "sh", WIRE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            assert done.returncode == 1 and "Too many open files" in done.stderr, (limit, done)
            assert "this helps" not in done.stderr


def test_a_log_is_kept_where_the_wire_cannot_run(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("precious", encoding="ascii")
    done = in_a_namespace(
        f'mount -t tmpfs none /dev/net && exec "$1" --log {log} --pcap {log}.pcap -- true'
    )
    assert done.returncode == 77 and log.read_text(encoding="ascii") == "precious"
    run_wire("--log", log, "--", "true")
    assert log.read_text(encoding="ascii").startswith("run,id") and "prec" not in log.read_text()


def test_log_and_capture_are_two_files(tmp_path):
    log = tmp_path / "log.csv"
    done = run_wire("--log", log, "--pcap", tmp_path / "." / "log.csv", "--", "true")
    assert done.returncode == 2 and "--pcap" in done.stderr and "--log" in done.stderr
    assert run_wire("--log", "/dev/null", "--pcap", "/dev/null", "--", "true").returncode == 0


def test_what_does_not_arrive_is_not_reordered(wire):
    """A packet that the host did not take has no place in the order, and the capture says so."""
    ip = need("ip")
    w = wire("--up", "delay 2s")
    w.send_udp(1)
    w.ask("up delay 2s reorder 100%")
    w.run("server", ip, "link", "set", "eth0", "down")
    w.send_udp(1)
    w.run("server", ip, "link", "set", "eth0", "up")
    counters = w.settle()["up"]["udp"]
    assert (counters["failed"], counters["delivered"], counters["reordered"]) == (1, 1, 0)
    comments = [options.get(1, b"") for _, _, _, options in read_pcapng(w.pcap_path)]
    assert [c.split(b":")[0] for c in comments if c.startswith(b"failed")] == [b"failed"]


# Into a host


def test_on_enters_hosts_only():
    """Any other process is the machine's, and so would be what runs there."""
    for pid in os.getpid(), 1:
        done = subprocess.run(
            [ON, "--pid", str(pid), "hostname"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and done.stdout == ""
        assert f"--pid {pid}" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_directory_out_of_reach_is_said(wire):
    w = wire()
    done = w.run("client", "pwd", cwd=f"/proc/{w.process.pid}")
    assert done.stdout == "/\n" and f"/proc/{w.process.pid} is out of reach" in done.stderr
    assert w.run("client", "pwd", cwd=w.folder).stderr == ""


def test_what_is_mounted_later_shows(tmp_path):
    (tmp_path / "later").mkdir()
    done = in_a_namespace(
        f"mount -t tmpfs none {tmp_path} && mount --make-shared {tmp_path} && "
        f"mkdir {tmp_path}/later && mkfifo {tmp_path}/orders && "
        f'{{ "$1" <{tmp_path}/orders >{tmp_path}/answers & exec 3>{tmp_path}/orders; }} && '
        f"while ! grep -q ready {tmp_path}/answers; do kill -0 $! || exit 77; done; "
        f"mount -t tmpfs none {tmp_path}/later && echo seen >{tmp_path}/later/file && "
        f"pid=$(sed 's/.*client\\\":\\([0-9]*\\),.*/\\1/' {tmp_path}/answers) && "
        f'"${{1%wire}}on" --pid $pid cat {tmp_path}/later/file; status=$?; '
        "exec 3>&-; wait $!; exit $status"
    )
    if done.returncode == 77:
        pytest.skip("the wire does not run in a namespace of namespaces here")
    assert done.stdout == "seen\n", done.stderr


def test_a_killed_on_takes_a_program_with_rights_of_its_own_along(wire):
    """exec() of a program with capabilities unties it from its parent; a watcher ends it."""
    ping = need("ping")
    w = wire()
    namespaces = hosts_of(w.ready)
    with subprocess.Popen(w.on("client", ping, "server"), stdout=subprocess.PIPE) as on:
        assert on.stdout.readline()
        assert len(relatives(namespaces)) > 3
        on.kill()
        # Its stdout stays open: a broken pipe would end it as well.
        wait_until(lambda: len(relatives(namespaces)) == 2, "ping to end with `on`")


# Job control


@contextlib.contextmanager
def shell_in(tmp_path):
    """An interactive bash, as one sits before."""
    bash = need("bash")
    run_wire("--", "true")
    terminal = Terminal(bash, "--norc", "-i")
    try:
        terminal.read_until(r"\$ ")
        terminal.type(f"cd {tmp_path}\n", r"\$ ")
        yield terminal
    finally:
        terminal.close()


def test_in_the_background_it_leaves_the_terminal_alone(tmp_path):
    """Stopped, and gone on with by `bg`, it ends without taking the terminal from the shell."""
    with shell_in(tmp_path) as terminal:
        command = "sh -c 'echo u''p; read x <go; exit 6'"
        terminal.type("mkfifo go\n", r"\$ ")
        terminal.type(f'"{WIRE}" -- {command}\n', r"\nup\r\n")
        terminal.type("\x1a", r"Stopped(.|\n)*\$ ")
        pid = terminal.type("jobs -p\n", r"\n([0-9]+)\r\n(.|\n)*\$ ").group(1)
        terminal.type("bg\n", r"&(.|\n)*\$ ")
        terminal.type("echo go >go\n", r"\$ ")
        # Not by `wait`: there bash would take the terminal back.
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the wire to end")
        terminal.type("echo still $((40 + 2))\n", r"still 42")
        terminal.type(f"\"{WIRE}\" -- true & wait $!; echo back''ground $?\n", r"background 0")
        terminal.type("echo again $((40 + 3))\n", r"again 43")


def test_a_script_that_runs_it_is_stopped_as_one(tmp_path):
    """Ctrl-Z stops the wire, its command and the script around it; `fg` goes on with all."""
    with shell_in(tmp_path) as terminal:
        terminal.type("mkfifo go\n", r"\$ ")
        command = f"\"{WIRE}\" -- sh -c \"echo u''p; read x <go\"; echo do''ne $?"
        terminal.type(f"sh -c '{command}'\n".replace("''", '""').replace("'", "'"), r"\nup\r\n")
        terminal.type("\x1a", r"Stopped(.|\n)*\$ ")
        terminal.type("(echo go >go) & fg\n", r"\ndone 0")
        terminal.type("echo still $((40 + 2))\n", r"still 42")


def test_a_pipeline_with_a_pager_has_the_terminal(tmp_path):
    """What stands behind it in a pipeline may read the terminal while the command runs."""
    with shell_in(tmp_path) as terminal:
        terminal.type("mkfifo go\n", r"\$ ")
        reader = "sh -c 'read a; echo u''p; read x </dev/tty; echo >go; cat; echo rea''d $x'"
        command = "sh -c 'echo begin; read y <go; echo e''nd'"
        terminal.type(f'"{WIRE}" -- {command} | {reader}\n', r"\nup\r\n")
        terminal.type("word\n", r"\nend\r\nread word")
        terminal.type("echo still $((40 + 2))\n", r"still 42")


def test_an_interrupt_is_the_commands(tmp_path):
    """Ctrl-C reaches both; the wire leaves it to the command, which goes on here."""
    with shell_in(tmp_path) as terminal:
        command = 'trap "echo cau""ght" INT; echo u""p; read x; read x; exit 7'
        terminal.type(f"\"{WIRE}\" -- bash -c '{command}'\n", r"\nup\r\n")
        terminal.type("\x03", r"\^C(.|\n)*caught")
        terminal.type("one\ntwo\n", r"\$ ")
        terminal.type("echo status $?\n", r"status 7")


def test_a_shell_that_is_killed_leaves_the_terminal(tmp_path):
    with shell_in(tmp_path) as terminal:
        terminal.type(f'sh -c \'"{WIRE}" -- bash --norc -i; read x; echo rea""d $x\'\n', r"\$ $")
        terminal.type("echo $((40 + 2))\n", r"\n42\r\n")
        terminal.type("kill -9 $$\n", r"Killed|\n")
        terminal.type("word\n", r"read word")
        terminal.type("echo still $((40 + 3))\n", r"still 43")


# The command line


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--link", "loss 200%"], ["--link", "loss", "200%"]),
        (["--link", "delay"], ["--link", "delay"]),
        (["--up", "fly 3"], ["--up", "fly"]),
        (["--down", "reorder 5%"], ["--down", "reorder", "delay"]),
        (["--seed", "x"], ["--seed x"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--seed", "18446744073709551616"], ["--seed", "18446744073709551615"]),
        (["--dry-run", "0"], ["--dry-run 0", "at least 1"]),
        (["--dry-run", "5", "--", "true"], ["--dry-run", "no command"]),
        (["--log", "/nonexistent/x"], ["--log", "/nonexistent/x"]),
        (["--pcap", "/"], ["--pcap", "/"]),
        (["--seed"], ["--seed", "needs a value"]),
        (["--fly"], ["--fly", "no such option"]),
        (["-x"], ["-x", "no such option"]),
        (["--arp", "-xh"], ["-x:", "no such option"]),
        (["--arp=1"], ["--arp=1", "takes no value"]),
        (["--link", "delay 1ms", "--link", ""], ["--link", "twice"]),
    ],
)
def test_bad_options_are_one_clear_line(arguments, words):
    done = run_wire(*arguments, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def test_it_refuses_rights_that_its_user_has_not():
    """A copy that is set-user-ID root would run anyone's commands with root's rights."""
    if os.geteuid() != 0:
        pytest.skip("only root can make such a copy")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wire-test-"))
    try:
        folder.chmod(0o755)
        shutil.copy(WIRE, folder)
        (folder / "wire").chmod(0o4755)
        done = subprocess.run(
            [folder / "wire", "--", "true"],
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
        )
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip("set-user-ID means nothing here")
        assert done.returncode == 1 and "more rights than its user" in done.stderr
    finally:
        shutil.rmtree(folder)


def test_help_and_version():
    assert "--dry-run" in run_wire("--help").stdout
    assert run_wire("--version").stdout.startswith("wire ")
    done = subprocess.run([ON, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage: on" in done.stdout


def test_a_full_disk_is_said(tmp_path):
    """A log that cannot be written does not stop the wire, and is not hidden."""
    done = run_wire("--log", "/dev/full", "--", "true", cwd=tmp_path)
    assert done.returncode == 1
    assert "--log /dev/full" in done.stderr and "No space left" in done.stderr
