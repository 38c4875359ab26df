"""The diff is the lesson: twins differ in what their protocols make them do, and no more."""

import difflib
import re

import pytest

from harness import c_source, tree

ROLES = ("client", "server", "sender", "receiver")
KINDS = tree.KINDS
TALK = {"talk_client.c", "talk_server.c"}  # held to the same rules by test_talk.py
MAIN_LINES = {"tcp": 60, "udp": 60, "raw": 80}

# How many changed lines of code there may be, gone and come together. A change that needs more
# belongs elsewhere (tcp/stream.c, raw/packet.c, common/), or its reason belongs beside the number.
BUDGET = {
    ("tcp", "udp", "client"): 52,
    ("udp", "raw", "client"): 22,
    # A socket and a thread for each connection, which a datagram socket does not have.
    ("tcp", "udp", "server"): 150,
    ("udp", "raw", "server"): 25,
    ("tcp", "udp", "sender"): 45,
    ("udp", "raw", "sender"): 15,
    ("tcp", "udp", "receiver"): 140,
    ("udp", "raw", "receiver"): 25,
}

SOCKET_CALLS = (
    "socket socketpair bind connect listen accept accept4 send sendto sendmsg sendmmsg "
    "recv recvfrom recvmsg recvmmsg setsockopt getsockopt shutdown getsockname getpeername"
).split()
SOCKET_CALL = re.compile(rf"\b({'|'.join(SOCKET_CALLS)})\s*\(")


def source(kind, role):
    """The text of one twin."""
    return (tree.ROOT / kind / f"{role}.c").read_text()


def neutral(line):
    """A line of code without the names of its kind: tcp_kernel and udp_kernel are one word."""
    return re.sub(r"\b(tcp|udp|raw)(?=[_/])", "kind", line)


def changed(old, new):
    """How many lines of code are gone and come between two sources."""
    before, after = ([neutral(line) for line in c_source.code_lines(text)] for text in (old, new))
    diff = difflib.unified_diff(before, after, n=0, lineterm="")
    return sum(line[0] in "+-" and line[:3] not in ("+++", "---") for line in diff)


def c_files(*folders):
    """Every C file right in these folders."""
    return [path for folder in folders for path in sorted((tree.ROOT / folder).glob("*.[ch]"))]


@pytest.mark.parametrize("role", ROLES)
def test_step_headings_are_equal(role):
    """The three twins of a role go the same steps, letter for letter, in the same order."""
    steps = {kind: c_source.steps(source(kind, role)) for kind in KINDS}
    assert len(steps["tcp"]) >= 4
    numbers = [int(re.match("Step ([0-9]+)", step).group(1)) for step in steps["tcp"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert steps["udp"] == steps["tcp"]
    assert steps["raw"] == steps["tcp"]


@pytest.mark.parametrize("old, new, role", BUDGET)
def test_diff_stays_in_its_budget(old, new, role):
    """From one twin to the next no more lines of code change than is written down."""
    assert changed(source(old, role), source(new, role)) <= BUDGET[old, new, role]


@pytest.mark.parametrize("old, new, role", BUDGET)
def test_budget_is_tight(old, new, role):
    """A budget that nobody needs is lowered: else the diff can grow unseen."""
    assert changed(source(old, role), source(new, role)) >= 0.8 * BUDGET[old, new, role] - 5


def test_same_name_means_twin():
    """A file name that two kinds share is a twin's, or kernel.c; and every twin is there."""
    names = {kind: {path.name for path in (tree.ROOT / kind).glob("*.c")} for kind in KINDS}
    twins = {f"{role}.c" for role in ROLES}
    for kind in KINDS:
        assert twins <= names[kind]
        for other in KINDS:
            if other != kind:
                assert names[kind] & names[other] <= twins | TALK | {"kernel.c"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_socket_calls_stand_in_the_program(kind, role):
    """A program makes its socket itself, where a student sees it, and checks it on the spot."""
    code = c_source.without_comments(source(kind, role))
    assert re.search(r"= socket\(", code)
    assert re.search(r"if \(fd < 0\)\s+err\(1, ", code)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_main_fits_on_a_page(kind, role):
    """main() is no longer than 60 lines, 80 in raw."""
    lines = c_source.function_lines(source(kind, role), "main")
    assert 0 < lines <= MAIN_LINES[kind]


@pytest.mark.parametrize("path", c_files("common"), ids=lambda path: path.name)
def test_common_makes_no_socket_call(path):
    """What is common to all kinds of socket neither makes nor uses one."""
    code = c_source.without_comments(path.read_text())
    assert not re.search(r"\bSOCK_[A-Z]+\b", code)
    assert not re.search(r"\bIPPROTO_[A-Z]+\b", code)
    assert not SOCKET_CALL.search(code)


@pytest.mark.parametrize(
    "path", c_files("common", *KINDS), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_no_transport_layer(path):
    """No table of functions and no struct stands between a program and its socket calls."""
    code = c_source.without_comments(path.read_text())
    assert not re.search(r"\bstruct (transport|protocol|socket_ops|ops)\b", code)
    assert not re.search(r"\(\s*\*\s*\w+(\[\w*\])?\s*\)\s*\(", code), "a pointer to a function"
    calls = "|".join(SOCKET_CALLS)
    assert not re.search(rf"[=,{{(]\s*&?({calls})\s*[,;}})]", code), "a socket call as a value"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_no_branch_on_the_protocol(kind, role):
    """A twin knows its own kind alone."""
    code = c_source.without_comments(source(kind, role))
    types = {"tcp": "SOCK_STREAM", "udp": "SOCK_DGRAM", "raw": "SOCK_RAW"}
    assert set(re.findall(r"\bSOCK_(?:STREAM|DGRAM|RAW)\b", code)) == {types[kind]}
    for other in KINDS:
        if other != kind:
            assert not re.search(rf'#include "{other}/', code)


def test_step_rule_sees_a_wrong_heading():
    """The extraction itself: text up to the first full stop, in order, over line ends."""
    text = "/* Step 1: make a socket. More. */\nx;\n\t/* Step 2: take\n an address. */\n"
    text += "/* Step 3: x. */"
    assert c_source.steps(text) == [
        "Step 1: make a socket.",
        "Step 2: take an address.",
        "Step 3: x.",
    ]


def test_budget_rule_sees_code_only():
    """Comments, blank lines and the kind's own name are no change; code is."""
    old = 'a();\n/* why */\ntcp_kernel(fd);\n#include "tcp/kernel.h"\n'
    new = 'a(); /* why not */\n\nudp_kernel(fd);\n#include "udp/kernel.h"\n'
    assert changed(old, new) == 0
    assert changed(old, new + "b();\n") == 1
    assert changed('f("/* a */");', 'f("/* b */");') == 2
