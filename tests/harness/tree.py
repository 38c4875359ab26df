"""Where things are. Tests of the harness itself put their own labs and programs in their place."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
BIN = Path(os.environ.get("SOCKLAB_BIN", BUILD / "bin"))
LABS = Path(os.environ.get("SOCKLAB_LABS", ROOT / "labs"))
OUT = Path(os.environ.get("SOCKLAB_OUT", BUILD / "labs"))

KINDS = ("tcp", "udp", "raw")


def program(name):
    """The path of one of our programs, as text; any other name is left to PATH."""
    path = BIN / name
    return str(path) if path.exists() else name


def shown(path):
    """A path as a student types it: from the root when it lies below."""
    try:
        return str(Path(path).resolve().relative_to(ROOT))
    except ValueError:
        return str(path)
