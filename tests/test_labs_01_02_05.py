"""Labs 01, 02 and 05: each claim fails when what it is about is taken away; each guide works."""

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness import tree
from harness.dialogue import ByHand

FOLDERS = ("01-echo", "02-ports", "05-boundaries")


def load(folder):
    """A lab.py as a module, whose claims are functions."""
    spec = importlib.util.spec_from_file_location(
        "lab_" + folder[:2], tree.LABS / folder / "lab.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def ignored(**_):
    """In place of the fixture `figures`."""


def fails(claim, *arguments):
    """Asserts that a claim does not hold of these results."""
    with pytest.raises(AssertionError):
        claim(*arguments, ignored)


def holds(claim, *arguments):
    """Asserts that it does, so that it can be seen to fail for the right reason."""
    claim(*arguments, ignored)


# Lab 01.


@pytest.fixture(scope="module")
def echo():
    """Lab 01's module."""
    return load("01-echo")


def altered(folder, name, old, new):
    """A program of ours with one thing changed, built into `folder` among links to the others."""
    for path in tree.BIN.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    source = folder / "altered.c"
    kind, role = name.split("-")
    text = (tree.ROOT / kind / f"{role}.c").read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    (folder / name).unlink()
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run(
        [*compiler, "-std=c11", "-D_GNU_SOURCE", "-o", str(folder / name), str(source)], check=True
    )


@pytest.mark.parametrize(
    "old, new, claim",
    [
        ('answer[7 + LINE] = "server-"', 'answer[7 + LINE] = "sorver-"', "test_a_line_comes_back"),
        ('"server-", 7) == 0', '"server-", 7) > 9', "test_a_prefixed_line_is_not_answered"),
    ],
)
def test_echo_is_the_servers_work(make_wire, monkeypatch, tmp_path, echo, old, new, claim):
    """A server with another prefix, and one that answers everything: the claim about it fails."""
    programs = tmp_path / "bin"
    programs.mkdir()
    altered(programs, "udp-talk_server", old, new)
    monkeypatch.setattr(tree, "BIN", programs)
    # The client of this server would wait for the right answer: ours asks by hand.
    monkeypatch.setattr(echo, "LINE", "hello")
    with make_wire() as wire:
        each = echo.Talk("udp")
        wire.new_run()
        server = echo.Dialogue(wire, "server", "udp-talk_server", 0, echo.SERVER)
        port = server.hear().split()[-1]
        client = ByHand(wire, "client")
        fd = client.connected("udp", port)
        for step, line in (("line", echo.LINE), ("prefixed", echo.PREFIXED)):
            client.must(f"send {fd} {line}")
            each.printed.append(line)
            client.must(f"setsockopt {fd} SO_RCVTIMEO 300")
            answer = client.call(f"recv {fd} 100")
            if step == "line":
                each.heard = answer.data.decode()
            wire.drain()
            before = sum(len(rows) for rows in each.packets.values())
            each.packets[step] = wire.log()[before:]
        each.unheard = []
    fails(getattr(echo, claim), {"udp": each})


def test_echo_claims_of_tcp_and_udp(make_wire, echo):
    """What is claimed of TCP does not hold of UDP, and the other way round."""
    with make_wire("delay 1ms") as wire:
        talks = {kind: echo.talk(wire, kind) for kind in tree.KINDS}
    swapped = {"tcp": talks["udp"], "udp": talks["tcp"], "raw": talks["raw"]}
    for claim in (
        echo.test_listening_and_connected_are_two,
        echo.test_one_for_everybody,
        echo.test_a_read_of_0,
    ):
        holds(claim, talks)
        fails(claim, swapped)
    talks["udp"].alone = []
    fails(echo.test_a_socket_is_a_descriptor, talks)
    talks["udp"].next_heard = None
    fails(echo.test_the_server_stays, talks)


def test_echo_by_another_program(make_wire, echo):
    """`cat` gives back what it was given; a program that does not is no server of echoes."""
    with make_wire() as wire:
        answers = {"tcp": echo.served_by_cat(wire, "tcp", "echo other")}
    fails(echo.test_read_and_written_like_a_file, answers)


# Lab 02.


@pytest.fixture(scope="module")
def ports():
    """Lab 02's module."""
    return load("02-ports")


def test_ports_claims_of_tcp_and_udp(make_wire, ports):
    """Each kind's claim about its sockets and ports fails of another kind."""
    with make_wire() as wire:
        visits = {kind: ports.visit(wire, kind, 2) for kind in tree.KINDS}
    for claim, kind, other in (
        (ports.test_many_sockets_one_port, "tcp", "udp"),
        (ports.test_told_apart_by_four, "tcp", "udp"),
        (ports.test_udp_one_for_all, "udp", "tcp"),
        (ports.test_raw_has_no_ports, "raw", "udp"),
    ):
        holds(claim, visits)
        fails(claim, {**visits, kind: visits[other]})


def test_ports_second_bind(make_wire, ports):
    """With SO_REUSEPORT the second bind() works; without any option SO_REUSEADDR's does not."""
    kinds, options = ("tcp", "udp"), ((), ("SO_REUSEADDR",), ("SO_REUSEPORT",))
    with make_wire() as wire:
        made = {
            (kind, each): ports.second_bind(wire, kind, each) for kind in kinds for each in options
        }
    made["raw", ()] = made["udp", ("SO_REUSEPORT",)]
    holds(ports.test_a_second_bind_fails, made)
    holds(ports.test_reuse, made)
    fails(ports.test_a_second_bind_fails, {**made, ("udp", ()): made["udp", ("SO_REUSEPORT",)]})
    fails(ports.test_reuse, {**made, ("udp", ("SO_REUSEADDR",)): made["udp", ()]})


def test_ports_restart(make_wire, ports):
    """When the client closes first, nothing is left at the server to stand in the way."""
    with make_wire() as wire:
        found = ports.restart(wire, (), False), ports.restart(wire, ["SO_REUSEADDR"], False)
    assert not found[0][0].error
    fails(ports.test_reuseaddr_is_for_the_restart, found)


def test_ports_shared(make_wire, ports):
    """One listener shares with nobody; one raw socket gets the only copy."""
    with make_wire() as wire:
        fails(ports.test_reuseport_shares, ports.shares(wire, 1))
        copies = {kind: ports.copies_of_one(wire, kind, 1) for kind in ("udp", "raw")}
    fails(ports.test_who_reads_a_packet, copies)


def test_ports_of_one_protocol(make_wire, ports):
    """TCP's port twice is one port."""
    with make_wire() as wire:
        fails(ports.test_two_ports_of_one_number, ports.both_ports(wire, "tcp"))


def test_ports_without_a_firewall(make_wire, ports):
    """Without the rule the other port is open, too."""
    with make_wire() as wire:
        fails(ports.test_a_firewall_for_one_port, ports.firewall(wire, rule=False))


# Lab 05.


@pytest.fixture(scope="module")
def boundaries():
    """Lab 05's module."""
    return load("05-boundaries")


def test_boundaries_reads(make_wire, boundaries):
    """A reader that keeps up reads as often as was written; a large buffer cuts nothing."""
    with make_wire("delay 5ms") as wire:
        at_once = {"tcp": boundaries.many_writes(wire, "tcp", read_at_once=True)}
        large = {kind: boundaries.one_write(wire, kind, 10000) for kind in tree.KINDS}
        full = {kind: boundaries.empty_write(wire, kind, "x") for kind in tree.KINDS}
        data, row = boundaries.raw_header(wire)
    fails(boundaries.test_ten_writes_one_read, None, at_once)
    fails(boundaries.test_ten_writes_ten_reads, {"udp": large["udp"], "raw": large["raw"]})
    fails(boundaries.test_one_write_many_reads, large)
    fails(boundaries.test_a_datagram_is_whole_or_cut, large)
    fails(boundaries.test_an_empty_datagram_is_real, full)
    holds(boundaries.test_raw_shows_the_ip_header, (data, row))
    # What a UDP socket would show: the payload alone.
    fails(boundaries.test_raw_shows_the_ip_header, (data[boundaries.HEADER :] * 5, row))


def test_boundaries_small_reads(make_wire, boundaries):
    """With too little room no datagram is whole, fragments or not."""
    with make_wire() as wire:
        small = {kind: boundaries.one_write(wire, kind, 1000) for kind in ("udp", "raw")}
    fails(boundaries.test_a_large_read_gets_it_whole, small)


def test_boundaries_framing(make_wire, boundaries):
    """Short messages: nobody is caught. Long ones: without framing they are not whole."""
    knobs = SimpleNamespace(COUNT=20, BYTES=6000)
    with make_wire("delay 2ms rate 10mbit") as wire:
        short = boundaries.asked(wire, "tcp-unframed", 20, 100)
        long = boundaries.asked(wire, "tcp-unframed", 20, 6000)
    holds(boundaries.test_why_nobody_noticed, short)
    fails(boundaries.test_one_read_per_message_is_caught, knobs, short)
    holds(boundaries.test_one_read_per_message_is_caught, knobs, long)
    fails(boundaries.test_framing_mends_it, knobs, long)
    fails(boundaries.test_why_nobody_noticed, long)


# The pages.


@pytest.mark.parametrize(
    "folder, pictures",
    [
        ("01-echo", {"tcp", "udp"}),
        ("02-ports", {"one-port", "firewall"}),
        ("05-boundaries", {"tcp", "udp"}),
    ],
)
def test_page_shows_what_ran(make_wire, tmp_path, folder, pictures):
    """Each run leaves its ladders, with packets in them, and the commands of both hosts."""
    with make_wire():
        pass  # where no wire can be made, this is skipped
    environment = {key: value for key, value in os.environ.items() if "SOCKLAB_KNOB" not in key}
    environment.update(SOCKLAB_OUT=str(tmp_path), PYTHONPATH=str(tree.ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, "-m", "harness.run_lab", folder[:2].lstrip("0")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads((tmp_path / folder / "report.json").read_text())
    if "too slow" in done.stdout:
        pytest.skip("this machine is too slow to be drawn")
    assert {chart["file"] for chart in report["charts"]} == {f"{name}.svg" for name in pictures}
    for name in pictures:
        drawn = (tmp_path / folder / f"{name}.txt").read_text()
        assert "▶" in drawn and ("SYN" in drawn or " bytes " in drawn), f"{name}: {drawn}"
    for host in ("client", "server"):
        ran = [line for line in report["commands"] if line.startswith(f"on {host} ")]
        assert [line for line in ran if "tcp-states" not in line], f"nothing ran on the {host}"
        assert all("# typed: " in line for line in ran if " by_hand" in line), ran
    page = (tmp_path / folder / "index.html").read_text()
    assert "What ran on the two hosts" in page and "What it looks like" in page
