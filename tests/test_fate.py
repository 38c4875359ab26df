"""The wire's fates, by `wire --dry-run`: no network, so these run anywhere.

Each fate is held against tests/harness/fate_oracle.py, written from the description alone.
"""

import csv
import io
import subprocess

import pytest

from harness.fate_oracle import CLASSES, DIRECTIONS, Oracle, bits_of
from harness.tree import program

HEADER = "direction,class,index,fate,copies,corrupted,ahead,delay_ns"
SPECS = [
    "",
    "delay 20ms",
    "loss 5%",
    "loss 0.1%",
    "loss 99.9",
    "delay 20ms 5ms",
    "delay 3ms 5ms distribution normal loss 10%",
    "delay 1.5s 1us duplicate 10% corrupt 20%",
    "loss gemodel 10%",
    "loss gemodel 5% 30%",
    "loss gemodel 5% 30% 80% 1%",
    "delay 10ms reorder 25%",
    "delay 10ms 3ms reorder 50% gap 4 loss 10%",
    "drop udp:3,5-7 drop raw:1 loss 20%",
    "block icmp drop icmp:2 loss gemodel 50% 50% duplicate 50%",
]


def wire(*arguments):
    return subprocess.run(
        [program("wire"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def dry_run(count, *arguments):
    """The fates as {(direction, class): [row, ...]}."""
    done = wire("--dry-run", str(count), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == HEADER
    fates = {}
    for row in csv.DictReader(io.StringIO(done.stdout)):
        fates.setdefault((row["direction"], row["class"]), []).append(row)
    return fates


def results(rows, field="fate"):
    return [row[field] for row in rows]


def test_generator_is_splitmix64():
    """The oracle's sequence from 0 is the one that SplitMix64 is published with."""
    assert [bits_of(0, index) for index in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("spec", SPECS)
def test_fates_are_the_oracles(spec, seed):
    """Both generators agree on every field of every fate of every class, to the bit."""
    fates = dry_run(60, "--link", spec, "--seed", str(seed))
    assert list(fates) == [(direction, name) for direction in DIRECTIONS for name in CLASSES]
    assert {len(rows) for rows in fates.values()} == {60}
    for (direction, name), rows in fates.items():
        oracle = Oracle(spec, seed, direction)
        for index, row in enumerate(rows):
            fate, copies, corrupted, ahead, delay_ns = oracle.fate(name, index)
            assert row == {
                "direction": direction,
                "class": name,
                "index": str(index),
                "fate": fate,
                "copies": str(copies),
                "corrupted": str(corrupted),
                "ahead": str(ahead),
                "delay_ns": "" if delay_ns is None else str(delay_ns),
            }


def test_same_seed_same_fates():
    """The same seed twice gives the same bytes; another seed gives others."""
    arguments = ("--link", "delay 10ms 5ms loss 20% duplicate 5%", "--dry-run", "500")
    first = wire(*arguments, "--seed", "7").stdout
    assert first == wire(*arguments, "--seed", "7").stdout
    assert first != wire(*arguments, "--seed", "8").stdout


def test_longer_run_begins_alike():
    """The first N fates do not depend on how many are asked for."""
    short = dry_run(10, "--link", "loss gemodel 10% 20%", "--seed", "3")
    for key, rows in dry_run(200, "--link", "loss gemodel 10% 20%", "--seed", "3").items():
        assert rows[:10] == short[key]


def test_settings_do_not_shift_each_other():
    """What is lost stays lost, whatever else the link does."""
    plain = dry_run(2000, "--link", "loss 10%", "--seed", "5")
    mixed = dry_run(
        2000,
        "--link",
        "duplicate 30% delay 5ms 1ms reorder 10% corrupt 20% loss 10% rate 1mbit limit 3",
        "--seed",
        "5",
    )
    for key, rows in plain.items():
        assert results(rows) == results(mixed[key])


def test_directions_are_apart():
    """--up and --down change their own direction only, and --link is both with the same draws."""
    both = dry_run(500, "--link", "loss 30%", "--seed", "5")
    up = dry_run(500, "--up", "loss 30%", "--seed", "5")
    down = dry_run(500, "--down", "loss 30%", "--seed", "5")
    for name in CLASSES:
        assert up["up", name] == both["up", name]
        assert down["down", name] == both["down", name]
        assert set(results(up["down", name])) == {"delivered"}
        assert set(results(down["up", name])) == {"delivered"}
        assert results(both["up", name]) != results(both["down", name])


def test_each_class_has_its_own_fates():
    """No two of the fourteen lists are alike."""
    lists = [tuple(results(rows)) for rows in dry_run(200, "--link", "loss 50%").values()]
    assert len(set(lists)) == len(lists) == 14


WORDS = "delay, loss, duplicate, corrupt, reorder, rate, limit, drop, block, reject, allow"
TIME = "a time with its unit (ns, us, ms or s), up to 3600s"
ERRORS = {
    "fog 5%": f"link: 'fog' is not one of {WORDS}",
    "delay 20": f"delay: '20' is not {TIME}",
    "delay": f"delay: a value is missing: wanted {TIME}",
    "delay 20ms 5ms distribution flat": "distribution: 'flat' is not uniform or normal",
    "loss 5% loss 6%": "loss: said twice, once is allowed",
    "duplicate 101%": "duplicate: '101%' is not a percentage, 0% to 100%",
    "reorder 5%": "reorder: there is no delay to overtake: it is allowed with delay T, T above 0",
    "rate 10": "rate: '10' is not a rate with its unit (bit, kbit, mbit, gbit; bytes: bps, kbps, "
    "...), 8bit to 1tbit",
    "limit 0": "limit: '0' is not a whole number, 1 to 1000000000 of packets",
    "drop data:0": "drop: 'data:0' is not CLASS:N[,N-M...], N from 1, CLASS one of syn, synack, "
    "ack, data, fin, rst, tcp, udp, icmp, raw",
    "block icmp:8": "block: 'icmp:8' is not tcp, udp, icmp or raw, or a port of the server's: "
    "tcp:PORT or udp:PORT",
}


@pytest.mark.parametrize("option", ["--link", "--up", "--down"])
@pytest.mark.parametrize("spec", ERRORS)
def test_bad_spec(spec, option):
    """One line names the option, the word, the value and what is allowed; exit 2."""
    done = wire(option, spec, "--dry-run", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"wire: {option}: {ERRORS[spec]}\n"


@pytest.mark.parametrize("count", ["0", "-1", "many", ""])
def test_bad_count(count):
    """So for the number of fates."""
    done = wire("--dry-run", count)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("wire: --dry-run") and done.stderr.count("\n") == 1


def test_full_disk():
    """Output that cannot be written is an error, not silence."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [program("wire"), "--dry-run", "10000"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
