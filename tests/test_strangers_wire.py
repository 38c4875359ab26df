"""Programs that know nothing of the wire are used across it, and agree with its log."""

import csv
import hashlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import threading

import pytest

WIRE = pathlib.Path(__file__).resolve().parent.parent / "build" / "bin" / "wire"
ON = WIRE.with_name("on")
PATIENCE_S = 60


def need(program):
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


class Hosts:
    """A wire, programs on its hosts, and its log."""

    def __init__(self, folder, *options):
        self.log_path = folder / "wire.csv"
        self.pcap_path = folder / "wire.pcapng"
        self.children = []
        self.wire = self.keep(
            subprocess.Popen(
                [WIRE, "--log", self.log_path, "--pcap", self.pcap_path, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        line = self.wire.stdout.readline()
        if not line:
            self.wire.wait()
            assert self.wire.returncode == 77, self.wire.stderr.read()
            pytest.skip(self.wire.stderr.read().strip().replace("\n", "; "))
        self.ready = json.loads(line)

    def keep(self, child):
        self.children.append(child)
        return child

    def command(self, host, *command):
        return [ON, "--pid", str(self.ready[host]), *command]

    def start(self, host, *command, **how):
        """Starts a program and waits for nothing."""
        return self.keep(
            subprocess.Popen(self.command(host, *command), stdin=subprocess.DEVNULL, **how)
        )

    def run(self, host, *command, **how):
        return subprocess.run(
            self.command(host, *command),
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
            **how,
        )

    def listening(self, host, port):
        """Waits until something listens on a TCP port, as the kernel tells."""
        pattern = re.compile(rf":{port:04X} 0+:0000 0A ")
        for _ in range(PATIENCE_S * 50):
            for table in "tcp", "tcp6":
                if pattern.search(self.run(host, "cat", f"/proc/net/{table}").stdout.decode()):
                    return
            threading.Event().wait(0.02)
        pytest.fail(f"nothing listens on port {port} of {host}")

    def settle(self):
        self.wire.stdin.write("drain\ncounters\n")
        self.wire.stdin.flush()
        self.wire.stdout.readline()
        return json.loads(self.wire.stdout.readline())

    def rows(self, **like):
        with open(self.log_path, newline="", encoding="ascii") as file:
            return [
                row for row in csv.DictReader(file) if all(row[k] == v for k, v in like.items())
            ]

    def end(self):
        for child in self.children:
            child.kill()
            child.wait()
            for file in (child.stdin, child.stdout, child.stderr):
                if file is not None and not file.closed:
                    file.close()


@pytest.fixture(name="hosts")
def hosts_fixture(tmp_path):
    made = []

    def make(*options):
        made.append(Hosts(tmp_path, *options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_ping_counts_what_the_log_delivered(hosts):
    """ping's received, lost and duplicates are the log's."""
    ping = need("ping")
    h = hosts("--link", "delay 5ms loss 15% duplicate 15%", "--seed", "12")
    done = h.run("client", ping, "-c", "20", "-i", "0.2", "-W", "1", "10.0.0.2", text=True)
    h.settle()
    up = h.rows(direction="up")
    down = h.rows(direction="down")
    assert len(up) == 20
    # A request that was doubled is answered twice.
    assert len(down) == sum(1 + int(row["copies"]) for row in up if row["fate"] == "delivered")
    replies = sum(1 + int(row["copies"]) for row in down if row["fate"] == "delivered")
    received = int(re.search(r"(\d+) received", done.stdout).group(1))
    found = re.search(r"\+(\d+) duplicates", done.stdout)
    duplicates = int(found.group(1)) if found else 0
    # ping leaves when it has its last first copy; a copy of that may come behind it.
    assert received + duplicates in (replies, replies - 1, replies - 2, replies - 3)
    assert 0 < received < 20


@pytest.mark.parametrize("program", ["nc", "socat"])
def test_a_file_arrives_whole_over_a_bad_link(hosts, tmp_path, program):
    """TCP repairs what the wire breaks, whoever uses it."""
    path = need(program)
    h = hosts("--link", "delay 2ms 1ms loss 3% duplicate 3% reorder 5% corrupt 1%", "--seed", "21")
    data = random.Random(1).randbytes(200_000)
    source = tmp_path / "in"
    source.write_bytes(data)
    target = tmp_path / "out"
    if program == "nc":
        listen = ["sh", "-c", f"exec {path} -l -p 5000 >{target}"]
        if "OpenBSD" in subprocess.run([path, "-h"], capture_output=True, text=True).stderr:
            listen = ["sh", "-c", f"exec {path} -l 5000 >{target}"]
        send = ["sh", "-c", f"exec {path} -N 10.0.0.2 5000 <{source}"]
    else:
        listen = [path, "-u", "TCP-LISTEN:5000", f"CREATE:{target}"]
        send = [path, "-u", f"OPEN:{source}", "TCP:10.0.0.2:5000"]
    server = h.start("server", *listen)
    h.listening("server", 5000)
    done = h.run("client", *send, text=True)
    assert done.returncode == 0, done.stderr
    assert server.wait(PATIENCE_S) == 0
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    h.settle()
    fates = {row["fate"] for row in h.rows(direction="up")}
    assert fates == {"delivered", "lost"}
    payload = sum(int(row["payload"]) for row in h.rows(direction="up") if row["payload"])
    assert payload > len(data)


def iperf3(hosts, *options):
    """Runs iperf3 across the wire; returns what the client says."""
    path = need("iperf3")
    server = hosts.start("server", path, "-s", "-1", stdout=subprocess.DEVNULL)
    hosts.listening("server", 5201)
    done = hosts.run("client", path, "-c", "10.0.0.2", "-J", *options, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == 0, report.get("error")
    server.wait(PATIENCE_S)
    hosts.settle()
    return report


def test_iperf3_sees_the_rate(hosts):
    """20 Mbit/s on the cable are 18.5 to 20 in a TCP stream's payload."""
    h = hosts("--up", "rate 20mbit")
    report = iperf3(h, "-t", "3")
    assert 18.5e6 <= report["end"]["sum_received"]["bits_per_second"] <= 20e6
    rows = [row for row in h.rows(direction="up", fate="delivered") if row["payload"] == "1448"]
    first, last = int(rows[0]["out_ns"]), int(rows[-1]["out_ns"])
    assert 1514 * 8 * (len(rows) - 1) / (last - first) * 1e3 <= 20.1


def test_iperf3_udp_misses_what_the_wire_lost(hosts):
    """Its losses are the log's, but for the tail, which it cannot see."""
    h = hosts("--up", "loss gemodel 5% 50%", "--seed", "5")
    report = iperf3(h, "-u", "-b", "4M", "-l", "1000", "-t", "2")
    mine = [row for row in h.rows(direction="up", **{"class": "udp"}) if row["payload"] == "1000"]
    while mine and mine[-1]["fate"] == "lost":
        mine.pop()
    lost = sum(row["fate"] == "lost" for row in mine)
    assert report["end"]["sum"]["lost_packets"] == lost > 0


def test_tcpdump_sees_what_the_wire_delivered(hosts, tmp_path):
    tcpdump = need("tcpdump")
    fates = ["--up", "loss 30%", "--seed", "3"]
    told = subprocess.run([WIRE, *fates, "--dry-run", "10"], capture_output=True, text=True)
    expected = len(re.findall(r"(?m)^up,udp,\d+,delivered", told.stdout))
    h = hosts(*fates)
    with open(tmp_path / "host.pcap", "wb") as capture:
        dump = h.start(
            "server",
            *(tcpdump, "-i", "eth0", "-c", str(expected), "-w", "-", "udp"),
            stdout=capture,
            stderr=subprocess.PIPE,
        )
    told = ""
    while "listening on eth0" not in told:
        line = dump.stderr.readline().decode()
        assert line, told
        told += line
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i >/dev/udp/10.0.0.2/9; done"
    assert h.run("client", need("bash"), "-c", script).returncode in (0, 1)
    h.settle()
    # It ends by itself when it has seen as many.
    assert dump.wait(PATIENCE_S) == 0
    told = dump.stderr.read().decode()
    delivered = len(h.rows(direction="up", fate="delivered"))
    captured = int(re.search(r"(\d+) packets captured", told).group(1))
    assert captured == expected == delivered < len(h.rows(direction="up")) == 10


def test_tshark_agrees_with_the_log(hosts):
    """The capture of a TCP transfer, and the fates in its comments, as tshark counts them."""
    tshark = need("tshark")
    socat = need("socat")
    h = hosts("--link", "delay 1ms loss 5% duplicate 5%", "--seed", "4")
    h.start("server", socat, "-u", "TCP-LISTEN:5000", "OPEN:/dev/null")
    h.listening("server", 5000)
    h.run("client", "sh", "-c", f"head -c 100000 /dev/zero | {socat} -u - TCP:10.0.0.2:5000")
    h.settle()
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]
    done = subprocess.run(
        [tshark, "-r", h.pcap_path, *fields], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = h.rows()
    copies = sum(1 + int(row["copies"]) for row in rows if row["fate"] == "delivered")
    lines = done.stdout.splitlines()
    assert len(lines) == len(rows) + copies
    assert sum("lost: draw" in line for line in lines) == len(h.rows(fate="lost")) > 0
    assert {line.split("\t")[0] for line in lines} == {"client", "server"}
