"""What does listen() set up?"""

import errno
import os
import signal

import pytest

from harness import counters, ladder, sockets
from harness.lab import inconclusive

KNOBS = {"LINK": "delay 10ms", "BACKLOG": 2, "CLIENTS": 8}

SERVER = "10.0.0.2"
RESET = os.strerror(errno.ECONNRESET)


class Scene:
    """A listener that accepts only when told to, clients before its door, and what was counted.

    A context manager: the listener is ended, and with it all that waits.
    """

    port = 7000

    def __init__(self, lab, wire, name, backlog, eager=False, drawn=False):
        # `eager`: the queues are as good as empty, since there is room for everybody. `drawn`: the
        # sockets' states are on the record, for a ladder.
        self.lab, self.wire, self.name, self.drawn = lab, wire, name, drawn
        self.samplers, self.states = {}, {}
        self.backlog = backlog if not eager else 1000
        self.clients, self.notes = [], {}
        Scene.port += 1
        self.port = Scene.port

    def __enter__(self):
        self.wire.new_run()
        self.before = {host: self.wire.kernel(host) for host in self.wire.pids}
        self.listener = self.wire.start(
            *("server", "tcp-backlog", "-B", SERVER, "-p", self.port, "--backlog", self.backlog),
            label=f"{self.name}-listener",
        ).ready()
        self.queue = self.listener.line("queue")
        for host in ladder.SIDES if self.drawn else ():
            self.samplers[host] = self.wire.start(
                *(host, "tcp-states", "-4", "-i", "2ms", "-p", self.port),
                label=f"{self.name}-{host}-states",
            ).ready()
        return self

    def __exit__(self, *_):
        for host, sampler in self.samplers.items():
            lines = sampler.terminate().lines
            self.states[host] = [line for line in lines if line["event"] == "state"]
        # Not asked to: a client whose connect() hangs would be at it for minutes.
        for client in self.clients:
            client.kill()
        self.listener.terminate()
        self.wire.drain()

    def client(self, flows=1):
        """Starts so many connections from one client that asks once and waits."""
        client = self.wire.start(
            *("client", "tcp-client", "-p", self.port, "-c", 1, "-W", "60s", "-P", flows, SERVER),
            label=f"{self.name}-client-{len(self.clients)}",
        )
        self.clients.append(client)
        return client

    def sockets(self, host, state=None):
        """The connections of this scene at one end."""
        every = sockets.of(self.wire, host, "tcp", self.port, state)
        return [each for each in every if each.state != "LISTEN"]

    def waiting(self):
        """How many connections wait to be accepted, as the kernel lists the listening socket."""
        listening = sockets.of(self.wire, "server", "tcp", self.port, "LISTEN")
        return listening[0].rx if listening else 0

    def until(self, true, what):
        """Waits for something, as long as the clients are there."""
        return sockets.until(self.wire, true, what, self.clients)

    def fill(self, connections):
        """So many connections, one after the other, which the kernel completes."""
        for _ in range(connections):
            there = self.waiting()
            self.client()
            self.until(lambda: self.waiting() > there, "one more connection is complete")
        self.quiet()

    def quiet(self):
        """Waits until every acknowledgement and every request is where it belongs."""
        self.until(
            lambda: all(
                each.rx for each in self.sockets("server", "ESTABLISHED") if not each.inode
            ),
            "the requests are there",
        )
        self.wire.drain()

    def accept(self):
        """Has the listener accept one connection: what it says then."""
        said = len(self.listener.lines)
        self.listener.signal(signal.SIGUSR1)
        self.until(lambda: len(self.listener.lines) > said, "the listener has said something")
        return self.listener.lines[-1]

    def counted(self, name, host="server"):
        """What a kernel counted of this since the scene began."""
        return counters.difference(self.before[host], self.wire.kernel(host)).get(name, 0)

    def rows(self, direction=None, flags=None):
        """The wire's rows of this scene's port."""
        return [
            row
            for row in self.wire.log()
            if self.port in (row.sport, row.dport)
            and (direction is None or row.direction == direction)
            and (flags is None or row.tcp_flags == flags)
        ]


class Facts:
    """What one scene left, under names."""

    def __init__(self, scene, **found):
        self.scene = scene
        self.__dict__.update(found)


def snapshot(scene, **more):
    """The sockets of both ends, the queue and the counters, at one moment."""
    return Facts(
        scene,
        **more,
        client=scene.sockets("client"),
        server=scene.sockets("server"),
        waiting=scene.waiting(),
        rows=scene.rows(),
        overflows=scene.counted("TcpExt.ListenOverflows"),
        drops=scene.counted("TcpExt.ListenDrops"),
        cookies=scene.counted("TcpExt.SyncookiesSent"),
        cookies_back=scene.counted("TcpExt.SyncookiesRecv"),
        half_open_full=scene.counted("TcpExt.TCPReqQFullDrop"),
    )


def in_state(sockets_, state):
    """Those of a snapshot's sockets that are in a state."""
    return [each for each in sockets_ if each.state == state]


def shaken(facts):
    """The clients' ports in the order in which their handshakes ended at the server."""
    rows = [row for row in facts.rows if row.direction == "up" and row.fate == "delivered"]
    return list(dict.fromkeys(row.sport for row in rows if row.tcp_flags == "A"))


# The scenes. `eager` takes away what each is about: there is room for all, nobody has to wait.


def before_accept(lab, wire, eager=False):
    """Connections that nobody accepts, and then accepts one after the other."""
    with Scene(lab, wire, "complete", lab.BACKLOG, eager) as scene:
        scene.fill(lab.BACKLOG)
        said = [scene.accept() for _ in range(lab.BACKLOG if eager else 0)]
        facts = snapshot(scene)
        facts.said = said + [scene.accept() for _ in range(lab.BACKLOG)]
        facts.after = snapshot(scene)
        return facts


def full_queue(lab, wire, eager=False):
    """The queue of complete connections is full, one more client comes, then one is accepted."""
    with Scene(lab, wire, "full", lab.BACKLOG, eager, drawn=True) as scene:
        scene.fill(lab.BACKLOG + 1)
        known = {each.port for each in scene.sockets("client")}
        late = scene.client()
        scene.until(lambda: len(scene.rows("up", "S")) > len(known), "one more client has come")
        wire.drain()
        facts = snapshot(scene, asked=len(known) + 1)
        facts.port = next(each.port for each in facts.client if each.port not in known)
        scene.accept()
        scene.until(lambda: not scene.sockets("client", "SYN_SENT"), "the late client is in")
        wire.drain()
        facts.after = snapshot(scene)
        facts.connect_ns = late.terminate().summary["connect_ns"]
        return facts


def full_at_the_end(lab, wire, abort, eager=False):
    """Room for one, and two whose handshakes run side by side: the second finds no room."""
    wire.setting("server", "ipv4/tcp_abort_on_overflow", int(abort))
    name = "abort" if abort else "too-late"
    with Scene(lab, wire, name, lab.BACKLOG, eager, drawn=True) as scene:
        scene.fill(lab.BACKLOG)
        before = scene.rows()
        # So that both have asked before the first of them is answered.
        wire.down("delay 100ms")
        both = scene.client(2)
        known = {row.sport for row in before}
        scene.until(lambda: len({row.sport for row in scene.rows("up")} - known) == 2, "two came")
        wire.drain()
        facts = snapshot(scene, asked=lab.BACKLOG + 2)
        ports = shaken(facts)
        if len(ports) < lab.BACKLOG + 2:
            inconclusive("this machine is too slow: one came when the other was in already")
        facts.port = ports[-1]
        wire.down(lab.LINK)
        for _ in range(lab.BACKLOG + 1):
            scene.accept()
        if any(row.tcp_flags.startswith("R") for row in facts.rows):
            scene.until(lambda: both.stderr_path.stat().st_size, "the client has noticed")
        else:
            scene.until(lambda: not scene.sockets("server", "SYN_RECV"), "the last one is in")
            scene.quiet()
        facts.after = snapshot(scene)
        said = both.stderr_path.read_text().splitlines()
        facts.told = said[-1].rpartition(": ")[2] if said else None
    wire.setting("server", "ipv4/tcp_abort_on_overflow", 0)
    return facts


def half_open(lab, wire, cookies, eager=False):
    """More clients than the half-open queue holds; of their SYN-ACKs only the last arrives."""
    wire.setting("server", "ipv4/tcp_syncookies", int(cookies))
    wire.down(f"{lab.LINK} drop synack:1-{lab.CLIENTS - 1}".strip())
    with Scene(lab, wire, "cookies" if cookies else "no-cookies", lab.BACKLOG, eager) as scene:
        scene.client(lab.CLIENTS)
        scene.until(lambda: len(scene.rows("up", "S")) >= lab.CLIENTS, "all clients have come")
        wire.drain()
        facts = snapshot(scene, asked=lab.CLIENTS)
    wire.setting("server", "ipv4/tcp_syncookies", 1)
    wire.down(lab.LINK)
    if len([row for row in facts.rows if row.tcp_flags == "S"]) > lab.CLIENTS:
        inconclusive("this machine is too slow: a client asked again before all had asked")
    return facts


def capped(lab, wire, eager=False):
    """What the kernel makes of a listen(1000) where somaxconn is less."""
    usual = wire.setting("server", "core/somaxconn")
    wire.setting("server", "core/somaxconn", 4096 if eager else lab.BACKLOG)
    with Scene(lab, wire, "capped", 1000) as scene:
        queue = scene.queue
    wire.setting("server", "core/somaxconn", usual)
    return queue


def datagrams(lab, wire, kind, eager=False):
    """A server that stands still while all clients ask, and then goes on."""
    wire.new_run()
    server = wire.start("server", f"{kind}-server", "-B", SERVER, label=f"{kind}-server").ready()
    if not eager:
        server.stop()
    port = () if kind == "raw" else ("-p", server.port)
    client = wire.start(
        *("client", f"{kind}-client", *port, "-c", 1, "-W", "60s", "-P", lab.CLIENTS, SERVER),
        label=f"{kind}-client",
    )
    sockets.until(
        wire,
        lambda: sum(row.direction == "up" for row in wire.log()) >= lab.CLIENTS,
        "all clients have asked",
    )
    wire.drain()
    facts = Facts(None, server=sockets.of(wire, "server", kind), rows=wire.log())
    if not eager:
        server.cont()
    facts.answered = client.expect(0).summary["received"]
    server.terminate()
    return facts


def play(lab, wire, eager=False):
    """Every scene: {name: Facts}."""
    return {
        "complete": before_accept(lab, wire, eager),
        "full": full_queue(lab, wire, eager),
        "too late": full_at_the_end(lab, wire, False, eager),
        "abort": full_at_the_end(lab, wire, True, eager),
        "cookies": half_open(lab, wire, True, eager),
        "no cookies": half_open(lab, wire, False, eager),
        "udp": datagrams(lab, wire, "udp", eager),
        "raw": datagrams(lab, wire, "raw", eager),
        "capped": capped(lab, wire, eager),
    }


ROWS = {
    "complete": "TCP, room for all",
    "full": "TCP, the complete queue is full",
    "too late": "  the same, at the last step",
    "abort": "  ... and abort_on_overflow",
    "cookies": "TCP, the half-open queue is full",
    "no cookies": "  the same without cookies",
}


@pytest.fixture(scope="module")
def scenes(lab):
    """{name: Facts} of this run."""
    with lab.wire() as wire:
        scenes = play(lab, wire)
        lab.commands += sockets.commands(wire)
    rows = []
    for name, words in ROWS.items():
        facts = scenes[name]
        rows.append(
            [
                words,
                len(facts.client) if name == "complete" else facts.asked,
                len(in_state(facts.client, "ESTABLISHED")),
                len(in_state(facts.server, "SYN_RECV")),
                facts.waiting,
                sum(each.rx > 0 for each in facts.server),
                facts.overflows,
                facts.cookies,
            ]
        )
    for kind in ("udp", "raw"):
        unread = sum(row.fate == "delivered" for row in scenes[kind].rows)
        rows.append([kind.upper(), lab.CLIENTS, None, None, None, unread, None, None])
    lab.table(
        [
            "",
            "clients\ncame",
            "think they\nare in",
            "half-\nopen",
            "complete",
            "requests\nunread",
            "Listen\nOverflows",
            "Syncookies\nSent",
        ],
        rows,
    )
    for name, title in (
        ("full", "A client that found the queue of complete connections full"),
        ("too late", "A handshake whose last step found it full (the way back takes 100 ms here)"),
        ("abort", "The same with tcp_abort_on_overflow"),
    ):
        facts = scenes[name]
        rows = facts.after.rows
        ports = {"client_port": facts.port, "server_port": facts.scene.port}
        # Up to the last packet, and to the next look at the states.
        last_ns = max((row.out_ns or row.in_ns for row in rows), default=0) + 10_000_000
        steps = ladder.build(rows, facts.scene.states, **ports, until_ns=last_ns)
        lab.ladder(name.replace(" ", "-"), steps, title + ".", shown=name == "too late")
    return scenes


# The claims.


def test_complete_before_accept(scenes, figures):
    """Connections are complete before accept(): three packets, both ends up, data taken in."""
    facts = scenes["complete"]
    figures(
        connections=len(facts.client),
        established_at_the_client=len(in_state(facts.client, "ESTABLISHED")),
        and_at_the_server=len(in_state(facts.server, "ESTABLISHED")),
        not_accepted=facts.waiting,
        taken_in_for_nobody_bytes=sum(each.rx for each in facts.server),
    )
    assert {each.state for each in facts.client} == {"ESTABLISHED"}, "a client is not connected"
    assert {each.state for each in facts.server} == {"ESTABLISHED"}, "the server's end is not up"
    assert facts.waiting == len(facts.server) == len(facts.client), "some do not wait"
    # What no program holds has no inode.
    assert not any(each.inode for each in facts.server), "a program holds one already"
    assert all(each.rx for each in facts.server), "the kernel did not take the data in"
    for each in facts.client:
        flags = [row.tcp_flags for row in facts.rows if each.port in (row.sport, row.dport)]
        assert flags[:3] == ["S", "SA", "A"], f"the handshake was {flags[:3]}"


def test_accept(scenes, figures):
    """accept() takes the oldest out of the queue, and sends nothing."""
    facts = scenes["complete"]
    accepted = [line["port"] for line in facts.said]
    sent = len(facts.after.rows) - len(facts.rows)
    figures(
        handshakes_ended=shaken(facts),
        accepted=accepted,
        packets_sent=sent,
        then_waiting=facts.after.waiting,
    )
    assert facts.waiting == len(accepted), "not all waited to be accepted"
    assert accepted == shaken(facts), "not in the order in which they were complete"
    assert all(each.inode for each in facts.after.server), "one is held by nobody"
    assert facts.after.waiting == 0 and sent == 0, "accept() left some, or sent something"


def test_full(lab, scenes, figures):
    """A backlog of N has room for N + 1. The next one's SYN is dropped: no answer, no trace."""
    facts = scenes["full"]
    figures(
        backlog=lab.BACKLOG,
        complete=facts.waiting,
        ListenOverflows=facts.overflows,
        ListenDrops=facts.drops,
    )
    mine = [row for row in facts.rows if facts.port in (row.sport, row.dport)]
    assert facts.waiting == lab.BACKLOG + 1, "the queue holds other than one more"
    assert {row.tcp_flags for row in mine} == {"S"}, "the SYN was answered"
    assert {row.fate for row in mine} == {"delivered"}, "it was the wire that lost it"
    state = next(each.state for each in facts.client if each.port == facts.port)
    assert state == "SYN_SENT", f"the client is in {state}"
    assert facts.port not in {each.remote_port for each in facts.server}, "the server knows of it"
    assert facts.overflows == facts.drops == len(mine), "the kernel counts other than one a SYN"


def test_late(scenes, figures):
    """Its connect() hangs until the SYN is sent again, a second later, and finds room."""
    facts = scenes["full"]
    rows = [row for row in facts.after.rows if row.sport == facts.port]
    syns = [row for row in rows if row.tcp_flags == "S"]
    figures(
        SYNs=len(syns),
        connect_took_ns=facts.connect_ns,
        from_first_to_last_SYN_ns=syns[-1].in_ns - syns[0].in_ns,
    )
    assert len(syns) >= 2, "the first SYN was good enough"
    assert facts.connect_ns >= syns[-1].in_ns - syns[0].in_ns, "connect() did not wait for it"
    late = [each for each in facts.after.server if each.remote_port == facts.port]
    assert [each.state for each in late] == ["ESTABLISHED"], "it never got in"


def test_somaxconn(lab, scenes, figures):
    """listen(1000) where net.core.somaxconn is less: the lesser counts, and nobody says so."""
    queue = scenes["capped"]
    figures(asked=queue["asked"], somaxconn=lab.BACKLOG, had=queue["backlog"])
    assert queue["asked"] == 1000
    assert queue["backlog"] == lab.BACKLOG, "the backlog is not somaxconn"
    own = scenes["full"].scene.queue
    assert own["backlog"] == own["asked"] == lab.BACKLOG, "the lesser backlog was not kept"


def test_full_at_the_last_step(scenes, figures):
    """Full when the handshake's last ACK comes: the client is connected, the server is not."""
    facts = scenes["too late"]
    client = [each.state for each in facts.client if each.port == facts.port]
    server = [each.state for each in facts.server if each.remote_port == facts.port]
    figures(
        client=", ".join(client),
        server=", ".join(server) or "nothing",
        ListenOverflows=facts.overflows,
        unacknowledged_bytes=sum(each.tx for each in facts.client if each.port == facts.port),
    )
    assert client == ["ESTABLISHED"], f"the client is in {client}"
    assert server == ["SYN_RECV"], f"the server is in {server}"
    assert facts.overflows >= 1, "the server's kernel counted none"
    assert not any(row.tcp_flags.startswith("R") for row in facts.rows), "somebody was reset"
    # What it wrote was not acknowledged, is sent again, and brings it in when there is room.
    late = [each for each in facts.after.server if each.remote_port == facts.port]
    assert [(each.state, each.rx > 0) for each in late] == [("ESTABLISHED", True)], "never got in"


def test_abort_on_overflow(scenes, figures):
    """With tcp_abort_on_overflow that client is reset, and told so with its first read."""
    facts = scenes["abort"]
    resets = [row for row in facts.rows if row.tcp_flags.startswith("R")]
    figures(
        resets=len(resets),
        told=facts.told,
        ListenOverflows=facts.overflows,
        reset_without_it=sum(row.tcp_flags.startswith("R") for row in scenes["too late"].rows),
    )
    assert resets, "nobody was reset"
    assert {row.dport for row in resets} == {facts.port}, "another one was reset"
    assert facts.overflows >= 1, "the server's kernel counted none"
    assert facts.told == RESET, f"the client was told {facts.told}"
    assert facts.port not in {each.remote_port for each in facts.server}, "the server knows of it"


def test_cookies(lab, scenes, figures):
    """The half-open queue full: each further SYN gets a cookie for an answer, and no place."""
    facts = scenes["cookies"]
    half, answers = in_state(facts.server, "SYN_RECV"), syn_acks(facts)
    figures(
        backlog=lab.BACKLOG,
        SYNs=facts.asked,
        SYN_ACKs=len(answers),
        half_open=len(half),
        SyncookiesSent=facts.cookies,
    )
    assert lab.BACKLOG <= len(half) <= lab.BACKLOG + 1, "the queue holds other than its backlog"
    assert len(answers) == facts.asked, "a SYN was not answered"
    assert facts.cookies == facts.asked - len(half), "the kernel counts other cookies"
    assert facts.overflows == 0, "it was the other queue that was full"


def test_cookie_comes_back(scenes, figures):
    """A cookie that comes back is a connection: nothing of it was kept in between."""
    facts = scenes["cookies"]
    through = [row for row in syn_acks(facts) if row.fate == "delivered"]
    figures(
        SYN_ACKs_lost=len(syn_acks(facts)) - len(through),
        SyncookiesRecv=facts.cookies_back,
        complete=facts.waiting,
    )
    assert len(through) == 1, "not just one SYN-ACK passed the wire"
    assert facts.cookies_back >= 1, "no cookie came back"
    up = [each.remote_port for each in in_state(facts.server, "ESTABLISHED")]
    assert up == [through[0].dport], "another one is connected"
    assert facts.waiting == 1, "it does not wait to be accepted"


def test_no_cookies(scenes, figures):
    """Without cookies such a SYN is dropped: no answer to anybody who comes while it is full."""
    facts = scenes["no cookies"]
    half = in_state(facts.server, "SYN_RECV")
    figures(
        SYNs=facts.asked,
        SYN_ACKs=len(syn_acks(facts)),
        half_open=len(half),
        TCPReqQFullDrop=facts.half_open_full,
        SyncookiesSent=facts.cookies,
    )
    assert len(half) < facts.asked, "there was room for all"
    assert {row.dport for row in syn_acks(facts)} == {each.remote_port for each in half}
    assert len(syn_acks(facts)) == len(half), "another SYN was answered, too"
    assert facts.half_open_full == facts.asked - len(half), "the kernel counts other drops"
    assert facts.cookies == 0, "cookies were sent"
    assert not in_state(facts.server, "ESTABLISHED"), "somebody got in"


def syn_acks(facts):
    """The wire's rows of SYN-ACKs."""
    return [row for row in facts.rows if row.tcp_flags == "SA"]


def test_udp_and_raw(lab, scenes, figures):
    """UDP and RAW set up nothing: one socket, one buffer, in which all who asked wait."""
    for kind in ("udp", "raw"):
        facts = scenes[kind]
        waiting = sum(each.rx for each in facts.server)
        figures(
            **{
                f"{kind.upper()}_sockets": len(facts.server),
                f"{kind.upper()}_in_its_buffer_bytes": waiting,
                f"{kind.upper()}_answered": facts.answered,
            }
        )
        assert len(facts.server) == 1, f"{kind}: the server has other than one socket"
        assert waiting > 0, f"{kind}: nothing waits to be read"
        assert not [row for row in facts.rows if row.direction == "down"], f"{kind}: answered yet"
        assert facts.answered == lab.CLIENTS, f"{kind}: not all were answered"
