"""A sender on one host and a receiver on the other, or a client and a server: one run of them, and
everything that is known of it.
"""

import os
import signal
from dataclasses import dataclass, field

from harness import counters, records
from harness.records import distinct

SERVER_ADDRESS = {"4": "10.0.0.2", "6": "fd00::2"}


@dataclass
class Run:
    """One run, from both ends and from the wire. Sets hold (flow, seq).

    `wire_rows` stand as the packets entered the wire, `departures` as they left it for the server.
    """

    name: str
    kind: str
    number: int
    count: int
    size: int
    seed: int
    family: str = "4"
    sender: dict = None
    receiver: dict = None
    sent_rows: list = field(default_factory=list)
    arrivals: list = field(default_factory=list)
    wire_rows: list = field(default_factory=list)
    departures: list = field(default_factory=list)
    wire: dict = None
    kernel: dict = field(default_factory=dict)
    usage: dict = field(default_factory=dict)
    commands: list = field(default_factory=list)

    # What the programs say.

    @property
    def account(self):
        """The receiver's account, all flows together."""
        return self.receiver["account"]

    @property
    def sent(self):
        """Messages that the sender's own log says it sent."""
        return distinct(row for row in self.sent_rows if row.verdict == "sent")

    @property
    def received(self):
        """Messages of which the receiver's log has a first copy."""
        return distinct(row for row in self.arrivals if row.verdict == "first")

    @property
    def missing(self):
        """Sent and never received: both ends' logs merged."""
        return self.sent - self.received

    @property
    def firsts(self):
        """The receiver's rows of first copies, in order of arrival."""
        return [row for row in self.arrivals if row.verdict == "first"]

    # What the wire says.

    @property
    def data_rows(self):
        """The wire's rows of this kind from client to server."""
        return [row for row in self.wire_rows if row.direction == "up" and row.class_ == self.kind]

    @property
    def message_rows(self):
        """The wire's rows that begin with a message of ours."""
        return [row for row in self.data_rows if row.kind == "data"]

    @property
    def killed(self):
        """Messages that entered the wire and were not let out: whatever the reason."""
        return distinct(row for row in self.message_rows if row.fate != "delivered")

    @property
    def too_slow(self):
        """Packets that a host's TAP dropped because the wire was late: then nothing is known."""
        return self.wire["client_tx_dropped"] + self.wire["server_tx_dropped"]

    # Times, in ns.

    def delays(self, since="sent"):
        """{(flow, seq): ns} from sent (or due) until received, for first copies."""
        return {
            (row.flow & 0xFFFF, row.seq): row.received_ns - getattr(row, since + "_ns")
            for row in self.firsts
        }

    def residues(self):
        """{(flow, seq): ns}: the share of each delay that is this machine's and not the link's.

        Received - sent, less the time between in and out on the wire. For datagrams.
        """
        on_wire = {
            (row.flow & 0xFFFF, row.seq): row.out_ns - row.in_ns
            for row in self.message_rows
            if row.fate == "delivered"
        }
        return {key: ns - on_wire[key] for key, ns in self.delays().items() if key in on_wire}

    @property
    def retransmits(self):
        """Segments that the sending kernel says it sent again (TCP)."""
        return self.kernel["client"].get("Tcp.RetransSegs", 0)


def one_way(
    wire,
    kind,
    count,
    interval="5ms",
    size=200,
    flows=1,
    seed=None,
    wait="60s",
    name=None,
    family="4",
    sender_args=(),
    receiver_args=(),
    during=None,
):
    """Sends `count` messages a flow from client to server; returns the Run, with every log read.

    The receiver ends by its count or its connection's end, or else is told to (SIGTERM) once the
    wire is empty; what waits to be read it reads first. So no machine is slow enough to make a
    message late. `during(receiver, start_sender)` may take over what happens in between; it has to
    return the sender.
    """
    name = name or kind
    number = wire.new_run(seed)
    run = Run(name, kind, number, count, size, seed, family)
    sent_log = wire.folder / f"{name}-sent.csv"
    received_log = wire.folder / f"{name}-received.csv"
    before = {host: wire.kernel(host) for host in wire.pids}

    ip = () if kind == "raw" else (f"-{family}",)
    flow_args = ("-P", flows) if flows > 1 else ()
    receiver = wire.start(
        "server",
        f"{kind}-receiver",
        *("-B", SERVER_ADDRESS[family], *ip, "-c", count, "-W", wait, *flow_args),
        *("--log", received_log, *receiver_args),
        label=f"{name}-receiver",
    ).ready()
    port = () if kind == "raw" else ("-p", receiver.port)

    def start_sender():
        return wire.start(
            "client",
            f"{kind}-sender",
            *(*ip, *port, "-c", count, "-i", interval, "-s", size, *flow_args),
            *("-W", wait, "--run", number, "--log", sent_log, *sender_args, SERVER_ADDRESS[family]),
            label=f"{name}-sender",
        )

    if during:
        sender = during(receiver, start_sender)
    else:
        sender = start_sender()
    sender.expect(0, 3)
    wire.drain()
    if kind != "tcp":
        receiver.terminate()
    else:
        receiver.expect(0, 3)
        wire.until_closed()
    receiver.expect(0, 3)
    wire.drain()

    run.sender, run.receiver = dict(sender.summary), dict(receiver.summary)
    run.sender["usage"], run.receiver["usage"] = sender.usage, receiver.usage
    run.commands = _commands(receiver, sender)
    run.wire = wire.counters()
    rows = [row for row in records.read(wire.log_path) if row.run == number]
    run.wire_rows = records.as_entered(rows)
    run.departures = [row for row in rows if row.direction == "up" and row.fate == "delivered"]
    run.kernel = {host: counters.difference(before[host], wire.kernel(host)) for host in wire.pids}
    run.sent_rows, run.arrivals = records.read(sent_log), records.read(received_log)
    return run


@dataclass
class Exchange:
    """A client's run against a server."""

    name: str
    kind: str
    client: dict
    server: dict
    rows: list
    wire_rows: list
    wire: dict
    kernel: dict
    commands: list

    @property
    def rtts(self):
        """Round-trip times in ns of the requests that were answered, in order of the requests."""
        return [row.received_ns - row.sent_ns for row in self.rows if row.verdict == "reply"]


def exchange(
    wire, kind, count, interval="10ms", size=100, wait=None, name=None, program=None, args=()
):
    """A client asks `count` times and a server answers; returns the Exchange.

    `program` may be another than the kind's client, if it takes its options.
    """
    name = name or f"{kind}-ask"
    wait = wait or ("10s" if kind == "tcp" else "1s")
    number = wire.new_run()
    log = wire.folder / f"{name}.csv"
    before = {host: wire.kernel(host) for host in wire.pids}
    server = wire.start("server", f"{kind}-server", "-B", "10.0.0.2", label=f"{name}-server")
    port = () if kind == "raw" else ("-p", server.ready().port)
    server.ready()
    client = wire.start(
        "client",
        program or f"{kind}-client",
        *(*port, "-c", count, "-i", interval, "-s", size, "-W", wait, "-q"),
        *("--run", number, "--log", log, *args, "10.0.0.2"),
        label=f"{name}-client",
    )
    client.expect(0, 3)
    wire.drain()
    server.terminate().expect(0)
    if kind == "tcp":
        wire.until_closed()
    wire.drain()
    return Exchange(
        name,
        kind,
        client.summary,
        server.summary,
        records.read(log),
        wire.log(number),
        wire.counters(),
        {host: counters.difference(before[host], wire.kernel(host)) for host in wire.pids},
        _commands(server, client),
    )


def _commands(*programs):
    return [
        " ".join(map(str, ("on", each.host, os.path.basename(each.argv[0]), *each.argv[1:])))
        for each in programs
    ]


def halted(receiver, start_sender):
    """For `during`: the receiver stands still while the sender sends, and then goes on."""
    receiver.stop()
    sender = start_sender().wait()
    receiver.wire.drain()
    receiver.signal(signal.SIGCONT)
    return sender
