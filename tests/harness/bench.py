"""`make bench`: how fast the programs and the wire are, side by side with tools that others wrote.

Machines differ and neighbours disturb, so a figure alone says little: each of ours is taken in turn
with its yardstick, several times in one run, and what counts is the median of the ratios. Nothing
here passes or fails; the goals are printed beside the figures.
"""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path("build/bin")
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SIZE = 64
COUNT = 100_000
results = []


def median(values):
    return statistics.median(values) if values else None


def show(title, rows):
    """rows: (what, ours, yardstick, ratio, goal); prints and keeps them."""
    print(f"\n{title}")
    width = max(len(row[0]) for row in rows)
    for what, ours, yardstick, ratio, goal in rows:
        line = f"  {what:<{width}}  {ours:<38}"
        if yardstick:
            line += f"  {yardstick}"
        if ratio is not None:
            line += f"  ratio {ratio:.2f}"
        if goal:
            line += f"  (goal: {goal})"
        print(line.rstrip(), flush=True)
        results.append(
            {"group": title, "what": what, "ours": ours, "yardstick": yardstick, "ratio": ratio}
        )


def pin(command, cpu):
    """The command on one CPU; None leaves it to the kernel."""
    return ["taskset", "-c", str(cpu), *map(str, command)] if cpu is not None else command


class Running:
    """A program that has said its first line; ended by its own pid."""

    def __init__(self, command, **more):
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True, **more
        )
        self.first = self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.rest = self.process.communicate()[0]

    def ready(self):
        return json.loads(self.first)


def free_port(kind):
    """A port that nobody has: for tools that do not take 0."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Round trips on the loopback, both ends on one CPU: elsewhere an idle core takes its time to wake.


def round_trips(kind, cpu):
    with Running(pin([BIN / f"{kind}-server", "-J"], cpu)) as server:
        port = server.ready()["port"]
        command = [BIN / f"{kind}-client", "-J", "-q", "-i", "0", "-c", COUNT, "-s", SIZE]
        command += ["-p", port] if port else []
        done = subprocess.run(
            [str(word) for word in pin(command + ["127.0.0.1"], cpu)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    rtt = json.loads(done.stdout.splitlines()[-1])["rtt_ns"]
    return 1e9 / rtt["mean"], rtt["p50"], rtt["p99"]


def sockperf(kind, cpu):
    port = free_port(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    tcp = ["--tcp"] if kind == "tcp" else []
    where = ["-i", "127.0.0.1", "-p", port, *tcp]
    server = subprocess.Popen(
        [str(word) for word in pin(["stdbuf", "-oL", "sockperf", "server", *where], cpu)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in server.stdout:
            if "to terminate" in line or "block on socket" in line:
                break
        done = subprocess.run(
            [str(word) for word in pin(["sockperf", "ping-pong", *where], cpu)]
            + ["-m", str(SIZE), "-t", "1", "--full-rtt"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout
    finally:
        server.kill()
        server.communicate()
    ran = re.search(r"\[Valid Duration\] RunTime=([\d.]+) sec;.*ReceivedMessages=(\d+)", done)
    p50 = re.search(r"percentile 50.000 =\s+([\d.]+)", done)
    p99 = re.search(r"percentile 99.000 =\s+([\d.]+)", done)
    if not (ran and p50 and p99):
        return None
    return int(ran[2]) / float(ran[1]), float(p50[1]) * 1e3, float(p99[1]) * 1e3


def bench_round_trips(cpu):
    rows, theirs = [], {}
    ours = {kind: [] for kind in kinds()}
    ratios = {"tcp": [], "udp": []}
    for _ in range(ROUNDS):
        for kind in ours:
            mine = round_trips(kind, cpu)
            ours[kind].append(mine)
            if kind in ratios and shutil.which("sockperf"):
                other = sockperf(kind, cpu)
                if other:
                    theirs.setdefault(kind, []).append(other)
                    ratios[kind].append(mine[0] / other[0])
    for kind, runs in ours.items():
        other = theirs.get(kind)
        rows.append(
            (
                f"{kind} round trips/s",
                "{:8.0f}   p50 {:6.2f} us  p99 {:6.2f} us".format(
                    median([r[0] for r in runs]),
                    median([r[1] for r in runs]) / 1e3,
                    median([r[2] for r in runs]) / 1e3,
                ),
                other
                and "sockperf {:8.0f}   p50 {:6.2f} us  p99 {:6.2f} us".format(
                    median([r[0] for r in other]),
                    median([r[1] for r in other]) / 1e3,
                    median([r[2] for r in other]) / 1e3,
                ),
                median(ratios.get(kind, [])),
                "0.9" if kind in ratios else None,
            )
        )
    show(f"Round trips, {SIZE} bytes, loopback, both ends on one CPU", rows)


# Messages a second, one way.


def messages(kind, size):
    """Messages a second that a receiver took in from a sender that goes as fast as it can."""
    with Running([BIN / f"{kind}-receiver", "-J", "-W", "200ms"]) as receiver:
        port = receiver.ready()["port"]
        command = [BIN / f"{kind}-sender", "-J", "-i", "0", "-c", COUNT, "-s", size]
        command += ["-p", port] if port else []
        begin = time.monotonic_ns()
        subprocess.run(
            [str(word) for word in command + ["127.0.0.1"]], stdout=subprocess.PIPE, check=True
        )
        spent = time.monotonic_ns() - begin
    account = json.loads(receiver.rest.splitlines()[-1])["account"]
    return account["received"] * 1e9 / spent


def iperf3(kind, size):
    port = free_port(socket.SOCK_STREAM)
    server = subprocess.Popen(
        ["stdbuf", "-oL", "iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in server.stdout:
            if "listening" in line:
                break
        command = ["iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-l", str(size)]
        command += ["-u", "-b", "0"] if kind == "udp" else ["-N"]
        done = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        )
    finally:
        server.kill()
        server.communicate()
    end = done["end"]
    if kind == "udp":
        sum_ = end["sum"]
        return (sum_["packets"] - sum_["lost_packets"]) / sum_["seconds"]
    return end["sum_received"]["bits_per_second"] / 8 / size


def bench_messages():
    size, rows = 1400, []
    for kind in kinds():
        ours, theirs, ratios = [], [], []
        for _ in range(ROUNDS):
            ours.append(messages(kind, size))
            if kind != "raw" and shutil.which("iperf3"):
                theirs.append(iperf3(kind, size))
                ratios.append(ours[-1] / theirs[-1])
        rows.append(
            (
                f"{kind} messages/s",
                f"{median(ours):8.0f}",
                theirs and f"iperf3 {median(theirs):8.0f}",
                median(ratios),
                None,
            )
        )
    show(f"Messages that arrive, {size} bytes, one way, loopback, each with its CRC", rows)


# The wire.


def received_packets(pid):
    """Frames that a host's eth0 has taken in so far."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        if line.strip().startswith("eth0:"):
            return int(line.split(":")[1].split()[1])
    raise RuntimeError("the host has no eth0")


class Cable:
    """Two hosts and what connects them: the wire, or the bare loop."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        first = self.process.stdout.readline()
        if not first:
            self.process.wait()
            raise SystemExit(self.process.returncode)
        ready = json.loads(first)
        self.client, self.server = ready["client"], ready["server"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def order(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def on(self, host, *command):
        return [BIN / "on", "--pid", getattr(self, host), *command]


def flood(cable, seconds=1.0):
    """Small frames a second that cross from client to server while a sender floods."""
    receiver = Running(cable.on("server", BIN / "udp-receiver", "-J", "-B", "10.0.0.2"))
    with receiver:
        # It takes nothing in: its buffer overflows, and the host's receive path is all that works.
        child = Path(f"/proc/{receiver.process.pid}/task/{receiver.process.pid}/children")
        pid = int(child.read_text().split()[0])
        os.kill(pid, signal.SIGSTOP)
        port = receiver.ready()["port"]
        sender = subprocess.Popen(
            [
                str(word)
                for word in cable.on(
                    "client", BIN / "udp-sender", "-J", "-i", "0", "-c", "0", "-s", "48"
                )
                + ["-p", port, "10.0.0.2"]
            ],
            stdout=subprocess.PIPE,
        )
        first = received_packets(cable.server)
        while received_packets(cable.server) < first + 1000:
            pass
        first, begin = received_packets(cable.server), time.monotonic()
        while time.monotonic() < begin + seconds:
            os.sched_yield()
        last, end = received_packets(cable.server), time.monotonic()
        sender.terminate()
        sender.communicate()
        os.kill(pid, signal.SIGCONT)
    return (last - first) / (end - begin)


def lateness(folder, name):
    """How late the wire delivers at 10 000 packets a second, from its own log: p50, p99 in ns."""
    log = Path(folder) / f"{name}.csv"
    with Cable(BIN / "wire", "--link", "delay 5ms", "--log", log) as cable:
        receiver = Running(cable.on("server", BIN / "udp-receiver", "-J", "-B", "10.0.0.2"))
        with receiver:
            command = cable.on("client", BIN / "udp-sender", "-i", "100us", "-c", 10000)
            command += ["-p", receiver.ready()["port"], "10.0.0.2"]
            subprocess.run(
                [str(word) for word in command], stdout=subprocess.PIPE, check=True, text=True
            )
            cable.order("drain")
    late = []
    with open(log) as rows:
        columns = rows.readline().strip().split(",")
        came, went = columns.index("in_ns"), columns.index("out_ns")
        for row in rows:
            cells = row.split(",")
            if cells[went]:
                late.append(int(cells[went]) - int(cells[came]) - 5_000_000)
    late.sort()
    return late[(len(late) - 1) // 2], late[len(late) * 99 // 100]


def sleeper():
    done = subprocess.run(
        ["build/bench/bare", "sleeper", "100", "10000"], stdout=subprocess.PIPE, text=True
    )
    got = json.loads(done.stdout)
    return got["p50_ns"], got["p99_ns"]


def bench_wire():
    rates, bares, ratios, late, bare_late = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            with Cable("build/bench/bare", "cable") as cable:
                bares.append(flood(cable))
            with Cable(BIN / "wire") as cable:
                rates.append(flood(cable))
            ratios.append(rates[-1] / bares[-1])
            bare_late.append(sleeper())
            late.append(lateness(folder, turn))
        with Cable(BIN / "wire", "--link", "delay 1s") as cable:
            held = flood(cable, seconds=3.0)
            cable.order("drain")
            counters = cable.order("counters")
    up = counters["up"]["udp"]
    # Of what came in. The flood is more than any cable takes: what a TAP drops of it is no loss.
    gone = up["entered"] - up["delivered"]
    show(
        "The wire",
        [
            (
                "frames/s, one way, small",
                f"{median(rates):8.0f}",
                f"bare read-write loop {median(bares):8.0f}",
                median(ratios),
                "0.7",
            ),
            (
                "lateness at 10 000/s",
                "p50 {:5.1f} us  p99 {:5.1f} us".format(
                    median([x[0] for x in late]) / 1e3, median([x[1] for x in late]) / 1e3
                ),
                "bare sleeper p50 {:5.1f} us  p99 {:5.1f} us".format(
                    median([x[0] for x in bare_late]) / 1e3,
                    median([x[1] for x in bare_late]) / 1e3,
                ),
                None,
                "p99 within 50 us: {:+.1f} us".format(
                    median([x[1] - y[1] for x, y in zip(late, bare_late)]) / 1e3
                ),
            ),
            (
                "1 s of delay",
                f"{held:8.0f} frames/s, {gone} of {up['entered']} that entered lost",
                None,
                None,
                "none lost",
            ),
        ],
    )


def bench_added_delay():
    """A round trip through the wire, next to ping's through the same wire."""
    ours, pings = [], []
    with Cable(BIN / "wire") as cable:
        for _ in range(ROUNDS):
            with Running(cable.on("server", BIN / "raw-server", "-J", "-B", "10.0.0.2")):
                command = cable.on("client", BIN / "raw-client", "-J", "-q", "-i", "10ms")
                done = subprocess.run(
                    [str(word) for word in command + ["-c", 100, "-s", SIZE, "10.0.0.2"]],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                ours.append(json.loads(done.stdout.splitlines()[-1])["rtt_ns"]["p50"] / 1e3)
            if shutil.which("ping"):
                command = cable.on("client", "ping", "-n", "-i", "0.01", "-c", "100", "10.0.0.2")
                done = subprocess.run(
                    [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True
                )
                times = [float(t) * 1e3 for t in re.findall(r"time=([\d.]+) ms", done.stdout)]
                pings.append(median(times))
    show(
        "A round trip through the wire, no impairment",
        [
            (
                "raw client and server, p50",
                f"{median(ours):6.1f} us",
                pings and f"ping {median(pings):6.1f} us",
                pings and median(ours) / median(pings),
                None,
            )
        ],
    )


def kinds():
    """Raw sockets on the loopback want a privilege that an ordinary user has not."""
    return ("tcp", "udp", "raw") if os.geteuid() == 0 else ("tcp", "udp")


def main():
    print(f"Medians of {ROUNDS} alternating runs; a tool that is not installed is left out.")
    cpu = min(os.sched_getaffinity(0)) if shutil.which("taskset") else None
    bench_round_trips(cpu)
    bench_messages()
    bench_wire()
    bench_added_delay()
    folder = Path("build/reports")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nKept in {folder / 'bench.json'}")


if __name__ == "__main__":
    sys.exit(main())
