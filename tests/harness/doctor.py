"""`make doctor`: what this machine has and lacks, each with the one command that helps.

Runs with any python3 and its standard library alone. Exit: 0 all that is needed is here, 77
something needed is missing or the labs cannot run here. What is optional changes neither.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CANNOT_RUN = 77

# How each family of distributions installs, and what it calls a package where Debian does not.
INSTALL = {
    "debian": "apt install",
    "fedora": "dnf install",
    "suse": "zypper install",
    "arch": "pacman -S",
}
ELSEWHERE = {
    "libc6-dev": {"fedora": "glibc-devel", "suse": "glibc-devel", "arch": "glibc"},
    "python3": {"arch": "python"},
    "python3-pytest": {"arch": "python-pytest"},
    "libasan8": {"fedora": "libasan libubsan", "suse": "libasan8", "arch": "gcc-libs"},
    "clang-format": {"fedora": "clang-tools-extra", "suse": "clang-tools", "arch": "clang"},
    "clang-tidy": {"fedora": "clang-tools-extra", "suse": "clang-tools", "arch": "clang"},
    "black": {"suse": "python3-black", "arch": "python-black"},
    "flake8": {"fedora": "python3-flake8", "suse": "python3-flake8"},
    "iproute2": {"fedora": "iproute"},
    "iputils-ping": {"fedora": "iputils", "suse": "iputils", "arch": "iputils"},
    "netcat-openbsd": {"fedora": "netcat", "arch": "openbsd-netcat"},
    "tshark": {"fedora": "wireshark-cli", "suse": "wireshark", "arch": "wireshark-cli"},
}

# Optional programs: (what to look for, Debian's package, what it is good for).
STRANGERS = (
    ("ip", "iproute2", "taking a device away while the wire runs"),
    ("ping", "iputils-ping", "round trips through the wire, by another's clock"),
    ("nc", "netcat-openbsd", "a stranger at a server's door"),
    ("socat", "socat", "a stranger at a server's door"),
    ("iperf3", "iperf3", "the wire's rate and loss, by another's count"),
    ("sockperf", "sockperf", "round trips to compare with, in make bench"),
    ("tcpdump", "tcpdump", "watching a wire while it runs"),
    ("tshark", "tshark", "reading captures"),
    ("chromium", "chromium", "checking that the pages look right"),
)
LINT = (
    ("clang-format", "clang-format", "C, its format"),
    ("clang-tidy", "clang-tidy", "C, its mistakes"),
    ("cppcheck", "cppcheck", "C, its mistakes"),
    ("black", "black", "Python, its format"),
    ("flake8", "flake8", "Python, its mistakes"),
)


def family(path=Path("/etc/os-release")):
    """Which family of distributions this is: a key of INSTALL."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return "debian"
    words = " ".join(
        line.partition("=")[2].strip("\"'")
        for line in lines
        if line.startswith(("ID=", "ID_LIKE="))
    ).split()
    for word in words:
        for known in INSTALL:
            if word.startswith(known) or (known, word) in (("fedora", "rhel"), ("suse", "sles")):
                return known
    return "debian"


def install(packages):
    """The one command that installs these Debian packages, by this machine's names."""
    here = family()
    names = []
    for package in packages:
        for name in ELSEWHERE.get(package, {}).get(here, package).split():
            if name not in names:
                names.append(name)
    sudo = "sudo " if os.geteuid() != 0 else ""
    return f"{sudo}{INSTALL[here]} {' '.join(names)}"


class Report:
    """One line for each thing, and what is missing."""

    def __init__(self):
        self.needed, self.optional, self.blocked = [], [], False

    def line(self, well, name, text):
        """Says how one thing stands."""
        print(f"  {well:<8} {name:<14} {text}".rstrip())

    def thing(self, have, name, text, package, needed):
        """One thing that a package brings."""
        if have:
            self.line("ok", name, text)
            return
        self.line("MISSING" if needed else "missing", name, f"{text}: {install([package])}")
        (self.needed if needed else self.optional).append(package)


def runs(command, source=None):
    """Whether a command ends with 0."""
    try:
        done = subprocess.run(
            command,
            input=source,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def compiler():
    """The words of the compiler that make uses."""
    return (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc").split()


def compiles(*flags):
    """Whether the compiler makes a program that uses libc and the kernel's headers."""
    source = '#include <stdio.h>\n#include <linux/if_tun.h>\nint main(void){return puts("")<0;}\n'
    return runs(compiler() + list(flags) + ["-x", "c", "-o", "/dev/null", "-"], source)


def python_with_pytest():
    """The first python3 that has pytest 7 or newer, as the Makefile looks for it, or None."""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        if runs([python, "-c", "import pytest; pytest.version_tuple"]):
            return python
    return None


def check_wire(report):
    """The wire says itself what it needs; here each of its lines is shown."""
    wire = ROOT / "build" / "bin" / "wire"
    if not wire.exists():
        report.line("unknown", "wire", "not built yet: make, then make doctor again")
        report.blocked = True
        return
    done = subprocess.run([str(wire), "--check"], capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"  {line}")
    if done.returncode != 0:
        report.blocked = True


def main():
    """The whole report."""
    # Who reads no further wants no more: `make doctor | head` ends as any program does.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    report = Report()
    print("To build and to test:")
    found = shutil.which(compiler()[0])
    report.thing(found, "compiler", found or "a C compiler", "gcc", True)
    if found:
        report.thing(compiles(), "headers", "of libc and of the kernel", "libc6-dev", True)
    report.thing(shutil.which("make"), "make", "GNU make", "make", True)
    recent = sys.version_info >= (3, 9)
    version = ".".join(str(number) for number in sys.version_info[:3])
    report.thing(recent, "python3", f"3.9 or newer (this is {version})", "python3", True)
    python = python_with_pytest()
    text = f"7 or newer, for {python or 'python3 (Ubuntu 22.04: pip3 install --user pytest)'}"
    report.thing(python, "pytest", text, "python3-pytest", True)
    print("To run the wire, and so the labs:")
    check_wire(report)
    print("Strangers that the tests try when they are here (optional):")
    for name, package, text in STRANGERS:
        report.thing(shutil.which(name), name, text, package, False)
    print("For make lint and make SANITIZE=1 test (optional):")
    for name, package, text in LINT:
        report.thing(shutil.which(name), name, text, package, False)
    if found:
        sanitizes = compiles("-fsanitize=address,undefined")
        report.thing(sanitizes, "sanitizers", "of the compiler", "libasan8", False)
    print()
    if report.optional:
        print(f"Optional, all at once: {install(report.optional)}")
    if report.needed:
        print(f"Needed: {install(report.needed)}")
    if report.needed or report.blocked:
        print("Not everything that is needed is here: the labs cannot run yet.")
        return CANNOT_RUN
    print("Everything that is needed is here: make test, or make run-lab 6.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
