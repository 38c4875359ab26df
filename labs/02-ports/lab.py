"""Who owns port 80?"""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from harness import ladder, sockets
from harness.dialogue import CLIENT, SERVER, ByHand
from harness.lab import nothing_to_see
from harness.tree import KINDS

KNOBS = {"LINK": "", "SEED": 7, "FLOWS": 3}

PORT = 7000  # the hosts are ours, so the number is free
CROWD = 32  # connections to two listeners: that all of them fall to one is 1 in 2^31
GIVE_UP_MS = 200


@dataclass
class Visit:
    """Several clients of one server, all there at once."""

    port: int = None
    clients: list = field(default_factory=list)  # getsockname() of each client
    accepted: list = field(default_factory=list)  # (getsockname(), getpeername()) of each accepted
    said: dict = field(default_factory=dict)  # {client's address: what was read as coming from it}
    table: list = None  # the server's /proc/net/KIND
    ports_on_the_wire: set = None  # destinations of what the clients sent
    rows: list = field(default_factory=list)  # the wire's, until everybody has said a word


def steps(rows, near, far):
    """A ladder of more than one connection: each packet bears the port that tells them apart.

    `near` and `far` are the words in front of it, and the row's end it is at, going up and down.
    """
    found = ladder.build(rows)
    for each in found.packets:
        words, end = near if each.row.direction == "up" else far
        each.name += f" {words} {getattr(each.row, end)}"
    return found


def word(number):
    """What a client says."""
    return f"I am number {number}"


def visit(wire, kind, clients):
    """`clients` clients, each with a socket of its own, say a word each to one server."""
    wire.new_run()
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    fd, port = server.bound(kind)
    result = Visit(port=port)
    for number in range(clients):
        own = client.connected(kind, port)
        result.clients.append(client.name(own).address)
        client.must(f"send {own} {word(number)}")
        if kind == "tcp":
            conn = server.must(f"accept {fd}").value
            names = server.name(conn).address, server.peer(conn).address
            result.accepted.append(names)
            result.said[names[1]] = server.must(f"recv {conn} 100").data.decode()
        else:
            answer = server.must(f"recv {fd} 100")
            text = answer.data[20:] if kind == "raw" else answer.data
            result.said[answer.address + ((number,) if kind == "raw" else ())] = text.decode()
    result.table = sockets.of(wire, "server", kind)
    wire.drain()
    result.rows = wire.log()
    rows = [row for row in result.rows if row.direction == "up" and row.class_ == kind]
    result.ports_on_the_wire = {row.dport for row in rows}
    client.kill()
    server.kill()
    return result


@pytest.fixture(scope="module")
def wire(lab):
    """One wire for all."""
    with lab.wire() as wire:
        yield wire
        lab.commands += sockets.commands(wire)


@pytest.fixture(scope="module")
def visits(lab, wire, seconds, copies):
    """The same visit to a TCP, a UDP and a RAW server; and the table of all that follows."""
    visits = {kind: visit(wire, kind, lab.FLOWS) for kind in KINDS}
    rows = []
    for kind, each in visits.items():
        rows.append(
            [
                kind.upper(),
                lab.FLOWS,
                len(each.table),
                None if kind == "raw" else len({row.port for row in each.table}),
                seconds[kind, ()].error or "works",
                f"{copies[kind]} of 2 sockets" if kind in copies else "its own socket",
            ]
        )
    lab.table(
        [
            "",
            "clients\nat once",
            "sockets at\nthe server",
            "ports\namong them",
            "a second bind()\nto its port",
            "a packet is\nread by",
        ],
        rows,
    )
    lab.note(
        "A port is a number in a packet. Which socket gets the packet is decided by the kernel, by "
        "looking for the socket that fits best; TCP's fit by both ends' addresses and ports."
    )
    return visits


def second_bind(wire, kind, options=(), other=None):
    """bind() (and listen()) to a port that is bound; what the second one returned."""
    server = ByHand(wire, "server")
    _, port = server.bound(kind, options=options)
    fd = server.socket(other or kind)
    for option in options:
        server.must(f"setsockopt {fd} {option} 1")
    answer = server.call(f"bind {fd} {SERVER} {port}")
    if kind == "tcp" and not other and not answer.error:
        answer = server.call(f"listen {fd} 8")
    server.kill()
    return answer


@pytest.fixture(scope="module")
def seconds(wire):
    """A second bind(), for each kind and with each option."""
    options = ((), ("SO_REUSEADDR",), ("SO_REUSEPORT",))
    return {(kind, each): second_bind(wire, kind, each) for kind in KINDS for each in options}


def copies_of_one(wire, kind, listeners=2):
    """How many of so many sockets at one address read one and the same packet."""
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    fd, port = server.bound(kind, options=["SO_REUSEADDR"])
    fds = [fd]
    for _ in range(listeners - 1):
        fds.append(server.bound(kind, port if kind != "raw" else 0, options=["SO_REUSEADDR"])[0])
    own = client.socket(kind)
    client.must(f"sendto {own} {SERVER} {port} one packet")
    sockets.until(wire, lambda: sockets.unread(wire, "server", kind), "the packet is there")
    answers = [server.call(f"recv {fd} 100 MSG_DONTWAIT") for fd in fds]
    for each in (server, client):
        each.kill()
    return sum(answer.value > 0 for answer in answers)


@pytest.fixture(scope="module")
def copies(wire):
    """One packet, two sockets that could have it."""
    return {kind: copies_of_one(wire, kind) for kind in ("udp", "raw")}


# The claims.


def test_many_sockets_one_port(visits, figures):
    """TCP: every accepted socket has the listener's port. accept() gives no new one."""
    each = visits["tcp"]
    states = Counter(row.state for row in each.table)
    ports = {row.port for row in each.table} | {own[1] for own, _ in each.accepted}
    figures(listening=states["LISTEN"], established=states["ESTABLISHED"], ports=ports)
    assert states == {"LISTEN": 1, "ESTABLISHED": len(each.clients)}, f"the states are {states}"
    assert ports == {each.port}, f"the server's sockets have the ports {sorted(ports)}"
    assert each.ports_on_the_wire == {each.port}, "the clients' packets went to other ports"


def test_told_apart_by_four(visits, figures):
    """Both ends' addresses and ports tell them apart: each read what its own client wrote."""
    each = visits["tcp"]
    if len(each.clients) < 2:
        nothing_to_see("with one client there is nothing to tell apart: turn FLOWS up")
    four = {(row.local, row.remote) for row in each.table if row.state == "ESTABLISHED"}
    figures(local={row.port for row in each.table}, remote={peer[1] for peer in each.clients})
    assert four == {((SERVER, each.port), own) for own in each.clients}, f"the kernel lists {four}"
    assert set(each.accepted) == four, "getsockname() and getpeername() say otherwise"
    assert len({own[1] for own in each.clients}) == len(each.clients), "two clients are alike"
    wanted = {own: word(n) for n, own in enumerate(each.clients)}
    assert each.said == wanted, f"somebody read what another wrote: {each.said}"


def test_udp_one_for_all(visits, figures):
    """UDP: one socket serves all clients; each datagram tells whose it is."""
    each = visits["udp"]
    figures(sockets=len(each.table), clients=[own[1] for own in each.clients])
    assert len(each.table) == 1, f"the server has {len(each.table)} sockets"
    assert each.table[0].remote == ("0.0.0.0", 0), "it is connected to one of them"
    wanted = {own: word(n) for n, own in enumerate(each.clients)}
    assert each.said == wanted, f"the senders were {sorted(each.said)}"


def test_raw_has_no_ports(visits, figures):
    """RAW: no ports at all. A client is an address; two programs of one host are not told apart."""
    each = visits["raw"]
    senders = {address[:2] for address in each.said}
    figures(sockets=len(each.table), ports_on_the_wire=len(each.ports_on_the_wire - {None}))
    assert each.ports_on_the_wire == {None}, "the packets bear ports"
    assert senders == {(CLIENT, 0)}, f"the senders were {sorted(senders)}"
    assert len(each.table) == 1, f"the server has {len(each.table)} sockets"


def test_a_second_bind_fails(seconds, figures):
    """A second bind() to a port in use fails: EADDRINUSE. RAW has no port that could be in use."""
    figures(**{kind.upper(): seconds[kind, ()].error or "works" for kind in KINDS})
    for kind in ("tcp", "udp"):
        answer = seconds[kind, ()]
        assert answer.error == "EADDRINUSE", f"{kind}: {answer}"
    assert not seconds["raw", ()].error, f"raw: {seconds['raw', ()]}"


def test_reuse(seconds, figures):
    """SO_REUSEADDR gives no TCP port away while somebody listens, but UDP's; SO_REUSEPORT both."""
    for (kind, options), answer in seconds.items():
        if options and kind != "raw":
            figures(**{f"{kind.upper()}_{options[0]}": answer.error or "works"})
    assert seconds["tcp", ("SO_REUSEADDR",)].error == "EADDRINUSE", "two listen at one port"
    assert not seconds["udp", ("SO_REUSEADDR",)].error, "UDP's port was not given away"
    for kind in ("tcp", "udp"):
        assert not seconds[kind, ("SO_REUSEPORT",)].error, f"{kind}: SO_REUSEPORT changed nothing"


def restart(wire, options=(), server_closes_first=True):
    """What bind() returns at a server's restart, and the state that its old connection is in.

    The server sets the options in both of its lives, as programs do.
    """
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    fd, port = server.bound("tcp", options=options)
    own = client.connected("tcp", port)
    conn = server.must(f"accept {fd}").value
    # Whoever closes first keeps the connection, in TIME_WAIT.
    order = [(server, conn), (client, own)]
    for who, which in order if server_closes_first else reversed(order):
        who.must(f"close {which}")
        wire.drain()
    server.must(f"close {fd}")
    wire.until_closed()
    states = [row.state for row in sockets.of(wire, "server", port=port)]
    fd = server.socket("tcp")
    for option in options:
        server.must(f"setsockopt {fd} {option} 1")
    answer = server.call(f"bind {fd} {SERVER} {port}")
    client.kill()
    server.kill()
    return answer, states


@pytest.fixture(scope="module")
def restarted(wire):
    """A server that closed first, and restarts: without the option, and with it."""
    return restart(wire), restart(wire, ["SO_REUSEADDR"])


def test_reuseaddr_is_for_the_restart(restarted, figures):
    """A connection in TIME_WAIT holds the port against a restart; SO_REUSEADDR lets it in."""
    (without, state), (with_it, same_state) = restarted
    figures(
        old_connection=state,
        bind=without.error or "works",
        bind_with_SO_REUSEADDR=with_it.error or "works",
    )
    assert state == same_state == ["TIME_WAIT"], f"of the old connections there is {state}"
    assert without.error == "EADDRINUSE", f"without the option: {without}"
    assert not with_it.error, f"with it: {with_it}"


def shares(wire, listeners, connections=CROWD):
    """How many of the connections fell to each of the listeners at one port."""
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    fd, port = server.bound("tcp", options=["SO_REUSEPORT"])
    for _ in range(listeners - 1):
        server.bound("tcp", port, options=["SO_REUSEPORT"])
    for _ in range(connections):
        client.connected("tcp", port)

    def queues():
        return [row.rx for row in sockets.of(wire, "server", port=port, state="LISTEN")]

    sockets.until(wire, lambda: sum(queues()) == connections, "every connection is complete")
    found = queues()
    client.kill()
    server.kill()
    return found


@pytest.fixture(scope="module")
def shared(wire):
    """Two listeners at one port."""
    return shares(wire, 2)


def test_reuseport_shares(shared, figures):
    """Two listeners with SO_REUSEPORT share the port: each connection falls to one of them."""
    figures(connections=CROWD, in_each_queue=shared)
    assert len(shared) == 2, f"{len(shared)} sockets listen"
    assert sum(shared) == CROWD and all(shared), f"the queues hold {shared}"


def both_ports(wire, other="udp"):
    """TCP PORT and UDP PORT at once: what each read of "to KIND"."""
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    listening, _ = server.bound("tcp", PORT)
    fd = server.socket(other)
    second = server.call(f"bind {fd} {SERVER} {PORT}")
    read = {}
    if not second.error:
        for kind in ("tcp", "udp"):
            own = client.connected(kind, PORT)
            client.must(f"send {own} to {kind}")
        conn = server.must(f"accept {listening}").value
        read = {
            "tcp": server.must(f"recv {conn} 100").data.decode(),
            "udp": server.must(f"recv {fd} 100").data.decode(),
        }
    client.kill()
    server.kill()
    return second, read


@pytest.fixture(scope="module")
def both(wire):
    """TCP and UDP at the same number."""
    return both_ports(wire)


def test_two_ports_of_one_number(both, figures):
    """TCP 7000 and UDP 7000 are two ports: both are bound, and each gets its own."""
    second, read = both
    figures(TCP_read=read.get("tcp"), UDP_read=read.get("udp"))
    assert not second.error, f"the second bind: {second}"
    assert read == {"tcp": "to tcp", "udp": "to udp"}, f"they read {read}"


def test_who_reads_a_packet(copies, figures):
    """Two sockets that fit: a datagram goes to one of them, a raw packet to both, a copy each."""
    figures(UDP_readers=copies["udp"], RAW_readers=copies["raw"])
    assert copies["udp"] == 1, f"{copies['udp']} of 2 UDP sockets read it"
    assert copies["raw"] == 2, f"{copies['raw']} of 2 raw sockets read it"


@dataclass
class Walled:
    """What got through a firewall that lets one destination port through."""

    echoed: bytes = None  # over the accepted connection, there and back
    closed: object = None  # connect() to another port
    blocked: set = None  # destination ports of the packets that died at the firewall
    passed: set = None  # of those that passed
    rows: list = field(default_factory=list)  # the wire's, all of them


def firewall(wire, rule=True):
    """A conversation at one port, an attempt at another, `allow tcp:PORT` on the wire both ways."""
    server, client = ByHand(wire, "server"), ByHand(wire, "client")
    (fd, port), (_, other) = server.bound("tcp"), server.bound("tcp")
    before = wire.specs
    wire.new_run()
    if rule:
        wire.up(f"{before[0]} allow tcp:{port}".strip())
        wire.down(f"{before[1]} allow tcp:{port}".strip())
    result = Walled()
    own = client.connected("tcp", port)
    conn = server.must(f"accept {fd}").value
    client.must(f"send {own} there")
    server.must(f"recv {conn} 100")
    server.must(f"send {conn} and back")
    result.echoed = client.must(f"recv {own} 100").data
    late = client.socket("tcp")
    client.must(f"setsockopt {late} SO_SNDTIMEO {GIVE_UP_MS}")
    result.closed = client.call(f"connect {late} {SERVER} {other}")
    wire.drain()
    result.rows = wire.log()
    up = [row for row in result.rows if row.direction == "up" and row.class_ == "tcp"]
    result.blocked = {row.dport for row in up if row.fate == "blocked"}
    result.passed = {row.dport for row in up if row.fate == "delivered"}
    result.ports = {"accepted": port, "other": other}
    client.kill()
    server.kill()
    wire.up(before[0])
    wire.down(before[1])
    return result


@pytest.fixture(scope="module")
def walled(lab):
    """On a wire of its own, for its link changes; and what is drawn, for its delay.

    Where packets take no time there is no telling from a picture how they crossed; and a SYN that
    LINK loses is none that the firewall stops.
    """
    with lab.wire(link="delay 2ms", name="firewall") as wire:
        two = visit(wire, "tcp", min(2, lab.FLOWS))
        walled = firewall(wire)
        lab.commands += sockets.commands(wire)
    pair = steps(two.rows, ("from", "sport"), ("to", "dport"))
    pair.ends["server"] = f"server, port {two.port}"
    lab.ladder(
        "one-port",
        pair,
        "TCP: the clients of one server. Its port is the same for all of them; theirs are not.",
    )
    lab.ladder(
        "firewall",
        steps(walled.rows, ("to", "dport"), ("from", "sport")),
        f"A firewall that passes port {walled.ports['accepted']} only: accept() made a socket, and "
        f"no port. What goes to port {walled.ports['other']} dies on the way.",
    )
    return walled


def test_a_firewall_for_one_port(walled, figures):
    """A firewall that passes one destination port passes the accepted connection: same port."""
    open_, other = walled.ports["accepted"], walled.ports["other"]
    figures(
        open=open_,
        passed=walled.passed,
        blocked=walled.blocked,
        connect_elsewhere=walled.closed.error or "works",
    )
    assert walled.echoed == b"and back", f"the client read {walled.echoed}"
    assert walled.passed == {open_}, f"packets to {sorted(walled.passed)} passed"
    assert walled.blocked == {other}, f"packets to {sorted(walled.blocked)} were blocked"
    assert walled.closed.error == "EINPROGRESS", f"connect() to another port: {walled.closed}"
