"""One command line for all programs: what it takes, and the one line for what it does not."""

import re
import subprocess

import pytest

from harness import schema, tree

ROLES = ("client", "server", "sender", "receiver")
PROGRAMS = [(kind, role) for kind in tree.KINDS for role in ROLES]

# What each role takes, by the long names; ports and families belong to protocols that have them.
COMMON = {"bind", "json", "quiet", "help", "version"}
ASKS = COMMON | {"count", "interval", "size", "wait", "flows", "log", "run"}
TAKES = {
    "client": ASKS,
    "sender": ASKS,
    "server": COMMON | {"rcvbuf"},
    "receiver": COMMON | {"count", "wait", "flows", "log", "run", "rcvbuf"},
}
WITH_PORTS = {"port", "ipv4", "ipv6"}

# Values that are not allowed: (option, its value). Each message must name option, value, allowed.
BAD_VALUES = {
    "count": ["", "x", "-1", "1.5", "1e3", "0x10", " 1", "1 ", "99999999999999999999"],
    "interval": ["", "x", "-1ms", "1 ms", "ms", "nan", "inf", "0x1", "1ms5", "25h", "5parsecs"],
    "size": ["", "47", "65508", "64k", "-64", "1.5k", "1kk", "x", "99999999999999999999"],
    "wait": ["", "-1", "soon", "1.2.3s", "25h"],
    "flows": ["", "0", "-1", "1025", "x", "1k"],
    "run": ["", "0", "65536", "-1", "x"],
    "rcvbuf": ["", "0", "-1", "x", "2g"],
    "port": ["", "-1", "65536", "x", "80x", "http"],
}
SHORT = {"count": "c", "interval": "i", "size": "s", "wait": "W", "flows": "P", "port": "p"}


def run(kind, role, *args):
    """Runs a program that is to end at once."""
    return subprocess.run(
        [tree.program(f"{kind}-{role}"), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def required(kind, role):
    """What a command line of this program cannot do without."""
    if role in ("server", "receiver"):
        return []
    return ["127.0.0.1"] if kind == "raw" else ["-p", "9", "127.0.0.1"]


def usage_error(kind, role, *args):
    """Runs it twice, as text and with -J; the one line, which both must say."""
    done = run(kind, role, *args)
    assert done.returncode == 2, (args, done)
    assert done.stdout == "", args
    assert len(done.stderr.splitlines()) == 1, (args, done.stderr)
    prefix = f"{kind}-{role}: "
    assert done.stderr.startswith(prefix), args
    done_json = run(kind, role, "-J", *args)
    assert done_json.returncode == 2, args
    assert done_json.stderr == done.stderr, args
    (line,) = done_json.stdout.splitlines()
    said = schema.line(line)
    assert said["event"] == "error", args
    assert said["program"] == f"{kind}-{role}"
    message = said["message"][len(prefix) * said["message"].startswith(prefix) :]
    assert prefix + message + "\n" == done.stderr, args
    return message


@pytest.mark.parametrize("kind, role", PROGRAMS)
def test_takes_the_same_options_as_its_twins(kind, role):
    """--help lists what the role takes, and ports and families where the protocol has them."""
    done = run(kind, role, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    listed = set(re.findall(r"--([a-z0-9]+)", done.stdout))
    assert listed == TAKES[role] | (WITH_PORTS if kind != "raw" else set())
    assert ("HOST" in done.stdout) == (role in ("client", "sender"))
    assert f"usage: {kind}-{role} " in done.stdout


@pytest.mark.parametrize("kind, role", PROGRAMS)
def test_version(kind, role):
    """--version names the program and its version."""
    done = run(kind, role, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{kind}-{role} \(socklab\) [0-9.]+\n", done.stdout)


@pytest.mark.parametrize("kind, role", PROGRAMS)
def test_bad_values(kind, role):
    """A value that is not allowed: one line that names option, value and what is; exit 2."""
    taken = TAKES[role] | (WITH_PORTS if kind != "raw" else set())
    tried = 0
    for option in sorted(taken & set(BAD_VALUES)):
        for value in BAD_VALUES[option]:
            letter = SHORT.get(option)
            words = [f"--{option}={value}"] if tried % 2 or not letter else [f"-{letter}", value]
            message = usage_error(kind, role, *words, *required(kind, role))
            assert f"--{option}" in message, (words, message)
            assert f"'{value}'" in message, (words, message)
            assert "allowed is " in message, (words, message)
            tried += 1
    assert tried or role == "server"


@pytest.mark.parametrize("kind, role", PROGRAMS)
def test_what_is_no_option(kind, role):
    """Options that it has not, values that are missing, words too many: one line, exit 2."""
    assert "--colour" in usage_error(kind, role, "--colour")
    assert "-Z" in usage_error(kind, role, "-Z")
    assert "-B" in usage_error(kind, role, *required(kind, role), "-B")
    assert "'extra'" in usage_error(kind, role, *required(kind, role), "extra")
    if "count" not in TAKES[role]:
        assert "-c" in usage_error(kind, role, "-c", "5")
    if kind == "raw":
        assert "-p" in usage_error(kind, role, "-p", "5", *required(kind, role))


@pytest.mark.parametrize("kind, role", [each for each in PROGRAMS if each[0] != "raw"])
def test_families_exclude_each_other(kind, role):
    """-4 and -6 at once cannot be meant."""
    message = usage_error(kind, role, "-4", "-6", *required(kind, role))
    assert "-4 and -6" in message
    assert "allowed is " in message


@pytest.mark.parametrize(
    "kind, role", [each for each in PROGRAMS if each[1] in ("client", "sender")]
)
def test_host(kind, role):
    """The host is needed, and must be one: its line names it and what is allowed."""
    port = [] if kind == "raw" else ["-p", "9"]
    assert usage_error(kind, role, *port).startswith("HOST: missing")
    message = usage_error(kind, role, *port, "no host at all")
    assert "'no host at all'" in message
    assert "allowed is " in message
    if kind != "raw":
        assert "'::1'" in usage_error(kind, role, *port, "-4", "::1")
        assert "'127.0.0.1'" in usage_error(kind, role, *port, "-6", "127.0.0.1")
        assert "-p (--port): missing" in usage_error(kind, role, "127.0.0.1")


@pytest.mark.parametrize("kind, role", [each for each in PROGRAMS if "log" in TAKES[each[1]]])
def test_log_that_cannot_be_written(kind, role, tmp_path):
    """A log in a folder that does not exist: option, value, what is allowed."""
    path = str(tmp_path / "nowhere" / "log.csv")
    message = usage_error(kind, role, "--log", path, *required(kind, role))
    assert message.startswith(f"--log '{path}': ")
    assert "allowed is " in message


# A raw client's socket comes before its address, and needs privileges: others stand in for it.
@pytest.mark.parametrize(
    "kind, role",
    [each for each in PROGRAMS if each[0] != "raw" or each[1] in ("server", "receiver")],
)
def test_bind_to_what_is_no_address(kind, role):
    """-B that is nobody's address is a usage error that names it."""
    message = usage_error(kind, role, "-B", "no address at all", *required(kind, role))
    assert "'no address at all'" in message
    assert "allowed is " in message


def test_units():
    """Times and sizes with their units are taken, by programs that then go on to the next step."""
    for words in (
        ["-i", "10ms", "-W", "1.5s", "-s", "1k"],
        ["-i", "200us", "-W", "0", "-s", "48"],
        ["--interval=0", "--wait=2min", "--size=65507"],
    ):
        message = usage_error("udp", "client", *words, "-p", "9", "no host at all")
        assert "'no host at all'" in message


def test_a_word_is_shown_as_it_was_given():
    """Quotes, backslashes and control characters in a value do not break the JSON."""
    for value in ('"', "\\", "a\nb", "\x01", "\x7f", "ä"):
        done = run("udp", "client", "-J", "-c", value, "-p", "9", "127.0.0.1")
        assert done.returncode == 2
        lines = done.stdout.split("\n")
        assert len(lines) == 2 and lines[1] == ""
        assert schema.line(lines[0])["event"] == "error"
