"""How long until you know that nobody is there?"""

import errno
import os
import select
import threading
import time

import pytest

from harness import capture, counters, ladder, sockets
from harness.lab import inconclusive, nothing_to_see
from harness.recording import Recording
from harness.screen import duration

KNOBS = {"LINK": "delay 20ms", "RETRIES": 2, "WAIT": "300ms"}

SERVER = "10.0.0.2"
# Ports of the server: the firewall knows two of them, and a program may listen on any.
CLOSED, BLOCKED, REJECTED = 7001, 7002, 7003

# Of a sender that only sends: longer than a round trip from one to the next.
MESSAGES, INTERVAL_MS = 3, 250

REFUSED = os.strerror(errno.ECONNREFUSED)
TIMED_OUT = os.strerror(errno.ETIMEDOUT)
NO_PROTOCOL = os.strerror(errno.ENOPROTOOPT)


class Question:
    """One client that asks somebody, once, and what became of it."""

    def __init__(self, lab, wire, program, *args, port=None, label=None):
        self.wire, self.ended_ns = wire, None
        port_args = () if port is None else ("-p", port)
        self.record = Recording(lab, wire, label)
        self.record.path("client").unlink(missing_ok=True)
        with self.record.recorded("client"):
            self.program = wire.start(
                "client", program, *port_args, "-c", 1, "-W", lab.WAIT, *args, SERVER, label=label
            )
        self._pidfd = os.pidfd_open(self.program.pid)
        self._watch = threading.Thread(target=self._until_the_end, daemon=True)
        self._watch.start()

    def _until_the_end(self):
        """Takes the time at which the client ends: others may be waited for meanwhile."""
        select.select([self._pidfd], [], [])
        self.ended_ns = time.monotonic_ns()
        os.close(self._pidfd)

    def answered(self):
        """Waits for the client's end; itself, so that calls can be chained."""
        self._watch.join()
        self.program.expect(0, 1, 3)
        return self

    @property
    def calls(self):
        """What the client called, for a ladder."""
        return {"client": ladder.read_calls(self.record.path("client"))}

    @property
    def told(self):
        """What the client was told, in the kernel's words, or None."""
        said = self.program.stderr_path.read_text().splitlines()
        return said[-1].rpartition(": ")[2] if said else None

    @property
    def replied(self):
        """True when an answer of the server's came."""
        lines = [line for line in self.program.lines if line["event"] == "summary"]
        return bool(lines and lines[0].get("received"))


class Case:
    """What one case left: the question, the wire's rows, what both kernels counted."""

    def __init__(self, question, rows, kernel, questions=None, listening=()):
        self.question, self.rows, self.kernel = question, rows, kernel
        self.questions = questions or [question]
        # The server's sockets of this kind, before the question.
        self.sockets = listening
        # The firewall's own answers, which are in the capture and not in the log: (ns since the
        # packet that it answers, kind).
        self.firewall = []

    def packets(self, direction, flags=None, class_=None):
        """The wire's rows of one way; of TCP with these flags, or of this class."""
        return [
            row
            for row in self.rows
            if row.direction == direction
            and (flags is None or row.tcp_flags == flags)
            and (class_ is None or row.class_ == class_)
        ]

    @property
    def told(self):
        """What the program was told."""
        return self.question.told

    @property
    def back(self):
        """What crossed the wire on the way back, in words."""
        words = [row.tcp_flags or row.class_.upper() for row in self.packets("down")]
        words = [{"RA": "RST", "SA": "SYN-ACK"}.get(word, word) for word in words]
        words += [f"{kind} by the firewall" for _, kind in self.firewall]
        return ", ".join(dict.fromkeys(words)) or "nothing"

    @property
    def known_ns(self):
        """From the first packet's start until the program had ended."""
        return self.question.ended_ns - self.packets("up")[0].in_ns

    @property
    def round_trip_ns(self):
        """From the first packet's start until the client's kernel had the first answer."""
        return self.packets("down")[0].out_ns - self.packets("up")[0].in_ns


def firewall_answers(wire, cases):
    """Gives each case what the firewall answered, from the wire's capture."""
    sent, answers = {}, {}
    for packet in capture.read(wire.pcap_path):
        if packet.comment == "the firewall's answer":
            kind = {1: "ICMP", 6: "RST"}[packet.frame[capture.ETHERNET + 9]]
            answers[packet.id] = (packet.time_ns - sent[packet.id], kind)
        else:
            sent.setdefault(packet.id, packet.time_ns)
    for case in cases:
        case.firewall = [answers[row.id] for row in case.rows if row.id in answers]


class Cases:
    """Asks one case after the other, over one wire, each in a run of its own."""

    def __init__(self, lab, wire, servers=False):
        # With `servers` all is as it is not in this lab: a server everywhere, and no firewall.
        self.lab, self.wire, self.servers = lab, wire, servers

    def case(self, name, program, port=None, args=(), up="", there=(), first=None):
        """One client's question, with `there` running on the server: (program, *args) each.

        With `first` (its options) another client asks before it, whose packet the link loses.
        """
        lab, wire = self.lab, self.wire
        kind = program.partition("-")[0]
        if self.servers:
            own = () if kind == "raw" else ("-p", port)
            there = [(f"{kind}-server", "-B", SERVER, *own)]
            up = up if up.startswith("drop") else ""
        wire.up(f"{lab.LINK} {up}".strip())
        wire.new_run()
        running = [
            wire.start("server", *each, label=f"{name}-{n}-{each[0]}").ready()
            for n, each in enumerate(there)
        ]
        listening = [] if kind == "tcp" else sockets.of(wire, "server", kind)
        before = {host: wire.kernel(host) for host in wire.pids}
        questions = []
        if first:
            questions.append(
                Question(lab, wire, program, *first, port=port, label=f"{name}-{program}-1")
            )
            sockets.until(
                wire,
                lambda: wire.counters()["up"][kind]["dropped"],
                "the first client's packet is lost",
            )
        questions.append(Question(lab, wire, program, *args, port=port, label=f"{name}-{program}"))
        for question in questions:
            question.answered()
        wire.drain()
        after = {host: wire.kernel(host) for host in wire.pids}
        lab.check_speed(wire.counters())
        for program in running:
            program.terminate()
        kernel = {host: counters.difference(before[host], after[host]) for host in wire.pids}
        return Case(questions[-1], wire.log(), kernel, questions, listening)


def silent(lab, wire, servers=False):
    """Begins to ask a TCP port that stays silent; call what it returns, for the Case."""
    wire.setting("client", "ipv4/tcp_syn_retries", lab.RETRIES)
    if not servers:
        wire.up(f"{lab.LINK} block tcp:{BLOCKED}")
    else:
        there = ("tcp-server", "-B", SERVER, "-p", BLOCKED)
        wire.start("server", *there, label="silent-tcp-server").ready()
    before = {host: wire.kernel(host) for host in wire.pids}
    question = Question(lab, wire, "tcp-client", port=BLOCKED, label="silent-tcp-client")

    def end():
        question.answered()
        wire.drain()
        kernel = {host: counters.difference(before[host], wire.kernel(host)) for host in wire.pids}
        lab.check_speed(wire.counters())
        return Case(question, wire.log(), kernel)

    return end


def ask_all(lab, wire, servers=False):
    """Every case that needs no long patience: {name: Case}."""
    ask = Cases(lab, wire, servers).case
    elsewhere = [("raw-server", "-B", "127.0.0.1")]
    udp_mute = [("udp-receiver", "-B", SERVER, "-p", CLOSED, "--run", 1)]
    raw_mute = [("raw-receiver", "-B", SERVER, "--run", 1)]
    several = ("-c", MESSAGES, "-i", f"{INTERVAL_MS}ms")
    first = ("-W", "1s")
    cases = {
        "tcp closed": ask("tcp-closed", "tcp-client", CLOSED),
        "udp closed": ask("udp-closed", "udp-client", CLOSED),
        "udp unconnected": ask("udp-unconnected", "udp-unconnected", CLOSED),
        "udp sends": ask("udp-sends", "udp-sender", CLOSED, args=several),
        "udp blocked": ask("udp-blocked", "udp-client", BLOCKED, up=f"block udp:{BLOCKED}"),
        "udp mute": ask("udp-mute", "udp-client", CLOSED, there=udp_mute),
        "udp two": ask("udp-two", "udp-client", CLOSED, up="drop udp:1", first=first),
        "raw closed": ask("raw-closed", "raw-client"),
        "raw sends": ask("raw-sends", "raw-sender", args=several),
        "raw blocked": ask("raw-blocked", "raw-client", up="block raw"),
        "raw mute": ask("raw-mute", "raw-client", there=raw_mute),
        "raw two": ask("raw-two", "raw-client", up="drop raw:1", first=first),
        "raw elsewhere": ask("raw-elsewhere", "raw-client", there=elsewhere),
        "tcp rejected": ask("tcp-rejected", "tcp-client", REJECTED, up=f"reject tcp:{REJECTED}"),
        "udp rejected": ask("udp-rejected", "udp-client", REJECTED, up=f"reject udp:{REJECTED}"),
        "raw rejected": ask("raw-rejected", "raw-client", up="reject raw"),
    }
    firewall_answers(wire, cases.values())
    return cases


# The runs. Silence is long: it is waited for on a wire of its own while all else is asked.

ROWS = {
    "tcp closed": "TCP, no such port",
    "tcp rejected": "TCP, a firewall that answers",
    "tcp blocked": "TCP, a firewall that drops",
    "udp closed": "UDP, no such port",
    "udp unconnected": "UDP without connect()",
    "udp rejected": "UDP, a firewall that answers",
    "udp blocked": "UDP, a firewall that drops",
    "raw closed": "RAW, nobody",
    "raw rejected": "RAW, a firewall that answers",
    "raw blocked": "RAW, a firewall that drops",
}


@pytest.fixture(scope="module")
def cases(lab):
    """{name: Case}: everything that is asked in this lab."""
    with lab.wire(name="silent") as quiet, lab.wire() as wire:
        end = silent(lab, quiet)
        cases = ask_all(lab, wire)
        cases["tcp blocked"] = end()
        lab.commands += sockets.commands(quiet) + sockets.commands(wire)
    rows = []
    for name, words in ROWS.items():
        case = cases[name]
        known = duration(case.known_ns) if case.told else f"never (waited {lab.WAIT})"
        rows.append([words, case.back, case.told or "nothing", known])
    lab.table(["", "what came back", "what the program was told", "after"], rows)
    for name in ("tcp closed", "tcp blocked", "udp closed", "udp unconnected"):
        words = f"{ROWS[name]}. The program was told: {cases[name].told or 'nothing'}."
        steps = ladder.build(cases[name].rows, calls=cases[name].question.calls)
        lab.ladder(name.replace(" ", "-"), steps, words)
    return cases


# The claims.


def test_tcp_refused(cases, figures):
    """A TCP port that nobody has: a reset comes back, and connect() fails after one round trip."""
    case = cases["tcp closed"]
    up, down = case.packets("up"), case.packets("down")
    figures(
        crossed=[row.tcp_flags for row in case.rows],
        round_trip_ns=case.round_trip_ns,
        known_after_ns=case.known_ns,
        resets_by_the_server=case.kernel["server"]["Tcp.OutRsts"],
    )
    assert [row.tcp_flags for row in up] == ["S"], "the client sent other than one SYN"
    assert [row.tcp_flags for row in down] == ["RA"], "the server sent other than one reset"
    # A reset that acknowledges no SYN of ours is ignored: anybody could have sent it.
    assert down[0].tcp_ack == (up[0].tcp_seq + 1) % 2**32, "the reset answers another SYN"
    assert case.kernel["server"]["Tcp.OutRsts"] == 1, "the server's kernel counts other"
    assert case.kernel["client"]["Tcp.AttemptFails"] == 1, "the client's kernel counts other"
    assert case.told == REFUSED, f"connect() said {case.told}"
    assert case.known_ns >= case.round_trip_ns, "it was known before the answer was there"


def test_tcp_silent(lab, cases, figures):
    """A silent TCP port: the same SYN again, each wait twice as long as the last, then the end."""
    case = cases["tcp blocked"]
    syns = case.packets("up")
    times = [row.in_ns for row in syns] + [case.question.ended_ns]
    waits = [later - sooner for sooner, later in zip(times, times[1:])]
    figures(
        SYNs=len(syns),
        sent_again_by_the_kernel=case.kernel["client"]["TcpExt.TCPSynRetrans"],
        waits=", ".join(duration(ns) for ns in waits),
        given_up_after_ns=case.known_ns,
    )
    assert not case.packets("down"), "something came back"
    assert len(syns) == lab.RETRIES + 1, "not one SYN and its repetitions"
    assert {(row.tcp_flags, row.tcp_seq) for row in syns} == {
        ("S", syns[0].tcp_seq)
    }, "not the same"
    assert case.kernel["client"]["TcpExt.TCPSynRetrans"] == lab.RETRIES, "the kernel counts other"
    for sooner, later in zip(waits, waits[1:]):
        assert later > 1.5 * sooner, f"after {duration(sooner)} it waited {duration(later)}"
    assert case.told == TIMED_OUT, f"connect() said {case.told}"


def unreachable(case, counter):
    """One packet went up, one ICMP error came back, and the server's kernel counted why."""
    assert [row.class_ for row in case.packets("down")] == ["icmp"], "other than one ICMP came back"
    assert case.kernel["client"]["Icmp.InDestUnreachs"] == 1, "the client's kernel got no error"
    assert case.kernel["server"][counter] == 1, f"the server's {counter} is not 1"


def test_udp_connected(cases, figures):
    """A connected UDP socket is told: ICMP says port unreachable, and recv() ECONNREFUSED."""
    case = cases["udp closed"]
    figures(
        NoPorts=case.kernel["server"]["Udp.NoPorts"],
        round_trip_ns=case.round_trip_ns,
        known_after_ns=case.known_ns,
    )
    unreachable(case, "Udp.NoPorts")
    assert case.told == REFUSED, f"recv() said {case.told}"
    assert case.known_ns >= case.round_trip_ns, "it was known before the answer was there"


def test_udp_unconnected(cases, figures):
    """An unconnected one never is: the same ICMP reached its host while it waited, in vain."""
    case = cases["udp unconnected"]
    figures(
        ICMP_at_the_host=case.kernel["client"]["Icmp.InDestUnreachs"],
        round_trip_ns=case.round_trip_ns,
        waited_ns=case.known_ns,
    )
    unreachable(case, "Udp.NoPorts")
    if case.round_trip_ns > case.known_ns:
        nothing_to_see("the client did not wait a round trip: turn WAIT up")
    assert case.told is None, f"it was told {case.told}"


def test_raw_nobody(cases, figures):
    """RAW has no ports, so it is the protocol that is unreachable: recv() says ENOPROTOOPT."""
    case = cases["raw closed"]
    figures(
        InUnknownProtos=case.kernel["server"]["Ip.InUnknownProtos"],
        round_trip_ns=case.round_trip_ns,
        known_after_ns=case.known_ns,
    )
    unreachable(case, "Ip.InUnknownProtos")
    assert case.told == NO_PROTOCOL, f"recv() said {case.told}"


def test_raw_elsewhere(cases, figures):
    """That does not mean that no program is there: one listens, at another address of the host."""
    case = cases["raw elsewhere"]
    figures(listens_at=sorted({each.local[0] for each in case.sockets}), told=case.told)
    assert [each.local[0] for each in case.sockets] == ["127.0.0.1"], "nobody listens elsewhere"
    unreachable(case, "Ip.InUnknownProtos")
    assert case.told == NO_PROTOCOL, f"recv() said {case.told}"


def test_mute(cases, figures):
    """Nor does silence mean so: a program that took the question in looks like a firewall."""
    for kind in ("udp", "raw"):
        case, blocked = cases[f"{kind} mute"], cases[f"{kind} blocked"]
        figures(
            **{
                f"{kind}_packets_that_reached_the_server": len(case.packets("up")),
                f"{kind}_blocked": len(blocked.packets("up")),
            }
        )
        assert [row.fate for row in case.packets("up")] == ["delivered"], "it did not arrive"
        assert case.sockets, "nobody listens"
        for each in (case, blocked):
            assert not each.packets("down"), f"{kind}: something came back"
            assert each.told is None, f"{kind}: it was told {each.told}"
        assert case.kernel["server"]["Ip.InDelivers"] == 1, "the server's kernel did not take it in"
        assert blocked.kernel["server"]["Ip.InReceives"] == 0, "it passed the firewall"


def test_whose_error(cases, figures):
    """Whose error is it? UDP's ports tell; RAW has none, and who was not meant is told, too."""
    udp, raw = cases["udp two"], cases["raw two"]
    for kind, case in (("UDP", udp), ("RAW", raw)):
        first, second = case.questions
        figures(**{f"{kind}_lost": first.told or "not told", f"{kind}_answered": second.told})
        fates = [row.fate for row in case.packets("up")]
        assert fates == ["dropped", "delivered"], f"{kind}: the link did {fates}"
        assert len(case.packets("down", class_="icmp")) == 1, f"{kind}: not one ICMP came back"
        if first.told is None and first.ended_ns < case.packets("down")[0].out_ns:
            inconclusive("this machine is too slow: the first client ended before the error came")
    assert [each.told for each in udp.questions] == [None, REFUSED], "UDP told others"
    assert [each.told for each in raw.questions] == [NO_PROTOCOL] * 2, "RAW told others"


def test_who_only_sends(cases, figures):
    """Who only sends: UDP's next send() fails with the error of an earlier; RAW's never does."""
    for kind in ("udp", "raw"):
        case = cases[f"{kind} sends"]
        summary = case.question.program.summary
        errors = case.packets("down", class_="icmp")
        figures(
            **{
                f"{kind}_scheduled": summary["scheduled"],
                f"{kind}_ICMP_back": len(errors),
                f"{kind}_refused": summary["refused"],
            }
        )
        assert (
            len(errors) == len(case.packets("up")) == summary["sent"]
        ), f"{kind}: not all answered"
        if case.round_trip_ns > 0.8e6 * INTERVAL_MS:
            nothing_to_see("the round trip is as long as the time between two messages")
        if kind == "udp":
            assert 1 <= summary["refused"] <= MESSAGES // 2, "send() did not hand over the errors"
        else:
            assert summary["refused"] == 0, "send() handed over an error"


def test_block(cases, figures):
    """A firewall that drops is silence: nothing comes back, for any of the three."""
    for kind in ("tcp", "udp", "raw"):
        case = cases[f"{kind} blocked"]
        figures(**{f"{kind.upper()}_waited_ns": case.known_ns})
        assert {row.fate for row in case.packets("up")} == {"blocked"}, f"{kind}: not blocked"
        assert not case.packets("down") and not case.firewall, f"{kind}: something came back"
        received = counters.device(case.kernel["server"], "rx_packets")
        assert received == 0, f"{kind}: {received} packets reached the server"
        assert case.told == (TIMED_OUT if kind == "tcp" else None), f"{kind}: told {case.told}"


def test_reject(cases, figures):
    """A firewall that answers says what the host would say, only sooner: nothing got there."""
    for kind, answer, told in (
        ("tcp", "RST", REFUSED),
        ("udp", "ICMP", REFUSED),
        ("raw", "ICMP", NO_PROTOCOL),
    ):
        case, nobody = cases[f"{kind} rejected"], cases[f"{kind} closed"]
        kinds = [kind for _, kind in case.firewall]
        figures(
            **{
                f"{kind.upper()}_firewall_ns": case.firewall[0][0] if case.firewall else None,
                f"{kind.upper()}_host_ns": nobody.round_trip_ns,
            }
        )
        assert {row.fate for row in case.packets("up")} == {"blocked"}, f"{kind}: not blocked"
        assert kinds == [answer], f"{kind}: the firewall answered {kinds}"
        received = counters.device(case.kernel["server"], "rx_packets")
        assert received == 0, f"{kind}: {received} packets reached the server"
        assert case.told == told == nobody.told, f"{kind}: told {case.told}, {nobody.told}"
        assert case.firewall[0][0] < nobody.round_trip_ns, f"{kind}: no sooner than the host"
