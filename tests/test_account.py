"""The program `account`, on known answers, against the oracle, and with traces that are wrong."""

import random
import subprocess

import oracle
import pytest
from harness import schema, tree

MS = 1_000_000


def run(*args, text=None):
    """The program's end: (exit status, stdout, stderr)."""
    done = subprocess.run(
        [tree.program("account"), *map(str, args)], input=text, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def judge(text, *args):
    """(exit status, summary) of a trace, which obeys the schema."""
    status, out, errors = run("-J", *args, "-", text=text)
    assert errors == "" and out.count("\n") == 1
    return status, schema.line(out)


def trace(rows, header="seq,sent_ns,received_ns"):
    lines = [",".join("" if v is None else str(v) for v in row) for row in rows]
    return "\n".join([header] * bool(header) + lines) + "\n"


def in_order(seqs):
    """A trace of messages sent every 20 ms that arrive every 10 ms in this order."""
    return trace((seq, seq * 20 * MS, 1000 * MS + i * 10 * MS) for i, seq in enumerate(seqs))


def order_of(*seqs):
    return judge(in_order(seqs))[1]["account"]["order"]


def counts(order):
    return [each["count"] for each in order["n_reordered"]]


# Known answers (the RFCs' own examples)


def test_one_late_message():
    times = dict(zip([1, 2, 3, 5, 6, 7, 8, 4, 9, 10], [68, 88, 108, 148, 168, 188, 208, 210, 228]))
    times[10] = 248
    rows = [(s, (s - 1) * 20 * MS, at * MS, 100) for s, at in times.items()]
    _, summary = judge(trace(rows, "seq,sent_ns,received_ns,bytes"))
    account, order = summary["account"], summary["account"]["order"]
    assert account["reordered"] == 1
    assert order["extent"] == {"mean": 4, "max": 4}
    assert order["late_time_ns"] == {"mean": 62 * MS, "max": 62 * MS}
    assert order["byte_offset"] == {"mean": 400, "max": 400}
    assert order["free_runs"] == {"count": 1, "mean": 7, "max": 7}
    assert counts(order) == [1, 1, 1, 1]
    assert account["jitter_ns"]["rfc3550"] == 9309082.03125


def test_known_orders():
    order = order_of(1, 2, 3, 4, 7, 5, 6, 8, 9, 10)
    assert order["extent"] == {"mean": 1.5, "max": 2}
    assert order["free_runs"] == {"count": 2, "mean": 2.5, "max": 5}
    assert counts(order) == [1]
    order = order_of(1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11)
    assert order["extent"] == {"mean": 5, "max": 6}
    assert counts(order) == [1, 1, 1, 1]
    order = order_of(1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 12, 13, 11, 14, 15, 16)
    assert order["extent"] == {"mean": pytest.approx(7 / 3), "max": 3}
    assert order["gaps"] == {"count": 1, "mean": 7, "max": 7}
    assert order["free_runs"] == {"count": 3, "mean": pytest.approx(10 / 3), "max": 5}
    assert counts(order) == [2, 2]
    order = order_of(1, 10, 5)
    assert order["extent"] == {"mean": 1, "max": 1}


def test_duplicates():
    account = judge(in_order([1, 1, 1, 2, 3, 3, 3, 4]))[1]["account"]
    assert (account["received"], account["duplicates"], account["lost"]) == (4, 4, 0)
    assert (account["duplicate_fraction"], account["replicated_rate"]) == (1.0, 0.5)


def test_reorder_density():
    text = in_order([1, 4, 2, 5, 3, 6, 7, 8])
    density = judge(text, "--threshold", 4)[1]["account"]["order"]["density"]
    assert density["threshold"] == 4
    assert {v["displacement"]: v["fraction"] for v in density["values"]} == {
        -2: 0.125,
        -1: 0.125,
        0: 0.5,
        1: 0.125,
        2: 0.125,
    }


def arrive(n, lost=(), twice=()):
    return trace(
        (s, s * MS, s * MS + 5 * MS)
        for s in range(n)
        if s not in lost
        for _ in range(1 + (s in twice))
    )


def test_as_many_doubled_as_dropped():
    """A hundred dropped and a hundred doubled are not `0 lost`."""
    text = arrive(5000, lost=range(7, 5000, 50), twice=range(31, 5000, 50))
    status, summary = judge(text, "-c", 5000)
    account = summary["account"]
    assert status == 3
    assert (account["lost"], account["duplicates"]) == (100, 100)
    delay = account["delay_from_sent_ns"]
    assert delay["p90"] == 5 * MS and delay["p99"] is None and delay["censored"]


def test_the_tail_is_lost_too():
    status, summary = judge(arrive(5000, lost=range(4900, 5000)), "-c", 5000)
    assert (status, summary["account"]["lost"]) == (3, 100)
    assert summary["account"]["bursts"]["lengths"] == [{"length": 100, "count": 1}]


def test_sixty_of_six_thousand_late():
    rows = [(s, s * MS, (s + 50 * (s % 100 == 13)) * MS + MS) for s in range(6000)]
    status, summary = judge(trace(rows), "-c", 6000)
    account = summary["account"]
    assert (status, account["reordered"], account["lost"]) == (0, 60, 0)
    assert account["delay_from_sent_ns"]["samples"] == 6000


# Against the oracle

COLUMNS = "flow,seq,due_ns,sent_ns,received_ns,bytes"


def fates(rng, n):
    """Which of n messages are lost, in one of several manners."""
    manner = rng.choice(["none", "random", "bursts", "head", "tail", "all"])
    if manner == "random":
        return {s for s in range(n) if rng.random() < 0.2}
    if manner == "bursts":
        lost, bad = set(), False
        for s in range(n):
            bad = rng.random() < (0.7 if bad else 0.1)
            lost |= {s} if bad else set()
        return lost
    cut = rng.randint(0, n)
    return {"none": set(), "head": set(range(cut)), "tail": set(range(cut, n))}.get(
        manner, set(range(n))
    )


def random_flow(rng, flow, n, batch):
    """Rows of one flow, in the order of the file."""
    rows, lost = [], fates(rng, n)
    interval = rng.choice([0, 1, 7, 1000])
    spread = rng.choice([0, 1, 3, 10, 50]) * max(interval, 1)
    # Now and then two clocks: far apart, or so that some delays come out below zero.
    offset = rng.choice(batch["offsets"])
    for s in range(n):
        seq, due = batch["first"] + s, s * interval
        sent = due + rng.choice([0, 0, 5])
        due = rng.choice(batch["due"]) and due
        copies = 1 + rng.choice([0, 0, 0, 1, 3]) * batch["copies"]
        if s in lost:
            if batch["lists_all"]:
                rows.append((flow, seq, due, sent, None, 0))
            continue
        for _ in range(copies):
            delay = 100 + rng.randint(0, spread) + rng.choice([0] * 9 + [4 * spread])
            rows.append((flow, seq, due, sent, sent + offset + delay, rng.choice(batch["sizes"])))
    if not rows and batch["lists_all"]:
        rows.append((flow, batch["first"], 0, 0, None, 0))
    if rng.random() < 0.5:
        rng.shuffle(rows)
    else:
        rows.sort(key=lambda row: (row[4] is None, row[4] or 0))
    return rows


def flow_of(rows, batch):
    """The same for the oracle."""
    numbers = [row[1] for row in rows]
    expected = batch["count"]
    if batch["lists_all"]:
        expected = max(numbers) - min(numbers) + 1
    first = min(numbers) if batch["lists_all"] else batch["first"]
    arrived = [row for row in rows if row[4] is not None]
    arrivals = [
        oracle.Arrival(row[1] - first, row[3], row[4], row[2] if row[2] != "" else None, row[5])
        for row in sorted(arrived, key=lambda row: row[4])
    ]
    for a in arrivals:
        a.size = a.size or None
    return oracle.Flow(arrivals, expected, batch["wait"], batch["two_clocks"])


BATCHES = {
    "plain": {},
    "listed": {"lists_all": True, "first": 5},
    "not told": {"count": None},
    "waiting": {"wait": 120},
    "waiting, listed": {"wait": 150, "lists_all": True},
    "waiting, not told": {"wait": 103, "count": None},
    "first is 1": {"first": 1, "threshold": 1},
    "aliens": {"count": 20, "wait": 1000},
    "two clocks": {"two_clocks": True, "wait": 50, "offsets": [-(10**17), 10**17, 0]},
    "clocks apart": {"offsets": [0, -110]},
    "no due times": {"due": [""]},
    "some due times": {"due": ["", True, True, True]},
    "some sizes": {"sizes": [0, 48, 48, 48, 48, 48]},
    "no copies": {"copies": 0, "threshold": 3},
    "narrow density": {"threshold": 2},
    "wide density": {"threshold": 60},
}
PLAIN = {
    "count": 60,
    "first": 0,
    "wait": None,
    "threshold": 8,
    "two_clocks": False,
    "lists_all": False,
    "offsets": [0],
    "due": [True],
    "sizes": [48, 100, 1400],
    "copies": 1,
    "flows": 100,
}


def options_of(batch):
    args = ["--threshold", batch["threshold"]]
    if not batch["lists_all"]:
        args += ["--first", batch["first"]]
        args += ["-c", batch["count"]] if batch["count"] else []
    args += ["-W", f"{batch['wait']}ns"] if batch["wait"] is not None else []
    return args + ["--two-clocks"] * batch["two_clocks"]


@pytest.mark.parametrize("name", BATCHES)
def test_agrees_with_the_oracle(name):
    """Every figure of at least 63 random flows, and of their sum, in 16 kinds: over 1000 cases."""
    rng = random.Random(name)
    batch = {**PLAIN, **BATCHES[name]}
    rows, flows = [], []
    for number in range(batch["flows"]):
        n = rng.choice([1, 2, 3, 10, 30, 40, 50, 60])
        mine = random_flow(rng, number, n, batch)
        if mine:
            rows += mine
            flows.append((number, flow_of(mine, batch)))
    if not batch["lists_all"] and batch["count"] is None:
        # Only a receiver's log leaves out what it does not know of; its verdicts are not looked at.
        text = trace([(*row, "first") for row in rows], COLUMNS + ",verdict")
    else:
        text = trace(rows, COLUMNS)
    status, summary = judge(text, *options_of(batch))
    accounts = [oracle.account([flow], batch["threshold"]) for _, flow in flows]
    assert [each["flow"] for each in summary["flows"]] == [number for number, _ in flows]
    for each, wanted in zip(summary["flows"], accounts):
        assert oracle.differences(each["account"], wanted, f"flow {each['flow']}") == []
    wanted = oracle.account([flow for _, flow in flows], batch["threshold"])
    assert oracle.differences(summary["account"], wanted, "sum") == []
    # And there was something to agree on.
    assert len(flows) >= 63 and wanted["reordered"] > 100 and wanted["received"] > 500
    assert summary["alien"] == sum(len(flow.alien) for _, flow in flows)
    assert status == (3 if any(account["lost"] for account in accounts) else 0)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_on_permutations(seed):
    """Long ones, shuffled from hardly to wholly, with nothing else the matter."""
    rng = random.Random(seed)
    n, reach = 300, [2, 20, 150, 1000][seed]
    seqs = sorted(range(n), key=lambda s: s + rng.uniform(0, reach))
    rows = [(s, 3 * s, 1000 + 5 * i, 64) for i, s in enumerate(seqs)]
    flow = oracle.Flow([oracle.Arrival(s, at, to, None, b) for s, at, to, b in rows], n)
    _, summary = judge(trace(rows, "seq,sent_ns,received_ns,bytes"))
    assert oracle.differences(summary["account"], oracle.account([flow])) == []


# Traces as they come


def test_without_a_first_line_and_from_a_file(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xef\xbb\xbf3,10,20\r\n\r\n4,11,\r\n5,12,25")
    status, out, _ = run("-J", path)
    account = schema.line(out)["account"]
    assert status == 3
    assert (account["expected"], account["received"], account["lost"]) == (3, 2, 1)


def test_columns_by_name_and_others_passed_over():
    text = "note,received_ns,seq,sent_ns\nx,20,0,10\ny,,1,11\n"
    account = judge(text)[1]["account"]
    assert (account["lost"], account["delay_from_sent_ns"]["min"]) == (1, 10)


def test_a_receivers_log_does_not_know_what_was_lost():
    header = "flow,seq,due_ns,sent_ns,received_ns,bytes,verdict"
    rows = [(0, 1, 0, 0, 9, 48, "first"), (0, 1, 0, 0, 9, 48, "duplicate")]
    status, summary = judge(trace(rows, header))
    account = summary["account"]
    assert (status, account["lost"], account["expected"]) == (0, None, None)
    assert "count was not told" in account["delay_from_sent_ns"]["reason"]
    status, summary = judge(trace(rows, header), "-c", 3)
    assert (status, summary["account"]["lost"], summary["account"]["duplicates"]) == (3, 2, 1)
    # A log of nothing at all, of three messages that were sent.
    status, summary = judge(header + "\n", "-c", 3)
    assert (status, summary["account"]["lost"]) == (3, 3)


def test_text_for_people():
    _, out, _ = run("-c", 11, "-W", "1s", "-", text=in_order([0, 1, 2, 4, 3, 5, 6, 7, 9, 10]))
    lines = out.splitlines()
    assert "11 expected, 10 received, 1 lost (9.09 %), 0 duplicates, 0 late" in lines[0]
    (reordered,) = [n for n, line in enumerate(lines) if "reordered (" in line]
    assert "extent mean 1 max 1" in lines[reordered] and "1: 1" in lines[reordered + 1]
    assert "max lost ms" in out and "RFC 3550" in out and "null" not in out and "nan" not in out


def test_flows_as_text_and_the_sum_alone():
    text = trace([(0, 0, 1, 2), (7, 0, 1, 2)], "flow,seq,sent_ns,received_ns")
    assert run("-", text=text)[1].count("\nflow ") == 2
    assert "flow 7" not in run("-q", "-", text=text)[1]
    assert judge(text, "-q")[1]["flows"] == []


def test_a_million_messages_last_first():
    """The order that is worst for whoever looks back: a square would take hours."""
    n = 1_000_000
    text = "".join(f"{n - 1 - i},{i},{i + n}\n" for i in range(n))
    status, summary = judge(text, "-q")
    account = summary["account"]
    assert (status, account["received"], account["reordered"]) == (0, n, n - 1)
    assert account["order"]["extent"]["max"] == n - 1


BAD = {
    "number": ("seq,sent_ns,received_ns\n0,1,2\n1,2,3x\n", ":3: received_ns '3x'"),
    "negative seq": ("0,1,2\n-1,2,3\n", ":2: seq '-1'"),
    "huge time": ("0,99999999999999999999,2\n", ":1: sent_ns '99999999999999999999'"),
    "fields": ("0,1,2\n0,1\n", ":2: 2 fields"),
    "more fields": ("0,1,2\n" + "1," * 99 + "\n", ":2: 64 and more fields"),
    "column missing": ("seq,sent_ns\n0,1\n", ":1: columns"),
    "column twice": ("seq,seq,sent_ns,received_ns\n", ":1: column 'seq'"),
    "sent unknown": ("0,,2\n", ":1: sent_ns ''"),
    "verdict": ("seq,sent_ns,received_ns,verdict\n0,1,2,good\n", ":2: verdict 'good'"),
    "flow": ("flow,seq,sent_ns,received_ns\n4294967296,0,1,2\n", ":2: flow '4294967296'"),
    "bytes": ("bytes,seq,sent_ns,received_ns\nx,0,1,2\n", ":2: bytes 'x'"),
    "control bytes": ("0,1,2\n\x1b[31m,1,2\n", ":2: seq '?[31m'"),
    "NUL": ("0,1,2\n0,1,\0\n", ":2: line"),
    "empty": ("", "empty"),
    "span": ("0,1,2\n10000000000,1,2\n", "-c says how many"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named(name):
    text, wanted = BAD[name]
    status, out, errors = run("-", text=text)
    assert (status, out) == (2, "")
    assert errors.count("\n") == 1 and wanted in errors and "allowed" in errors
    status, out, _ = run("-J", "-", text=text)
    assert status == 2
    assert wanted in schema.line(out)["message"] and schema.line(out)["event"] == "error"


@pytest.mark.parametrize(
    "args, wanted",
    [
        (["-c", "0", "-"], "-c '0'"),
        (["-c", "1x", "-"], "-c '1x'"),
        (["-c", str(2**27 + 1), "-"], "-c '134217729'"),
        (["-W", "soon", "-"], "-W 'soon'"),
        (["--threshold", "0", "-"], "--threshold '0'"),
        (["--first", "-1", "-"], "--first '-1'"),
        (["--nonsense", "-"], "--nonsense"),
        (["-c"], "-c"),
        ([], "FILE"),
        (["-", "-"], "one argument too many"),
        (["/nonexistent/trace.csv"], "/nonexistent/trace.csv"),
    ],
)
def test_a_bad_option_is_named(args, wanted):
    status, out, errors = run(*args, text="0,1,2\n")
    assert (status, out, errors.count("\n")) == (2, "", 1)
    assert wanted in errors and ("allowed" in errors or "--help" in errors)


def test_forged_numbers_are_alien():
    numbers = [0, 1, 10**12, 2**63, 2**64 - 1]
    status, summary = judge(trace((s, 1, 2) for s in numbers), "-c", 2)
    assert (status, summary["alien"], summary["account"]["received"]) == (0, 3, 2)


def test_help_and_version():
    assert run("--help")[0] == 0 and "received_ns" in run("--help")[1]
    assert run("--version")[:2] == (0, "account (socklab) 1.0\n")


def test_what_cannot_be_written_is_a_failure():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [tree.program("account"), "-"],
            input="0,1,2\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1 and "stdout" in done.stderr
