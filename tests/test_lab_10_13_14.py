"""Labs 10, 13 and 14: their claims fail when what they are about is taken away."""

import functools
import importlib.util
import inspect

from harness import lab as labs


def load(number, folder, **knobs):
    """A lab's module and a Lab that writes to a folder of the test's own."""
    source = labs.find()[number]
    spec = importlib.util.spec_from_file_location(f"lab_{number}", source / "lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lab = labs.Lab(source, {name: str(value) for name, value in knobs.items()})
    lab.folder = folder / lab.slug
    return module, lab


def claims(module):
    """{name: function} of a lab's claims."""
    return {name: each for name, each in vars(module).items() if name.startswith("test_")}


def fails(claim, **given):
    """True when a claim is tried with what its fixtures would give it, and does not hold."""
    given["figures"] = lambda **_: None
    names = inspect.signature(claim).parameters
    try:
        claim(**{name: given[name] for name in names})
    except AssertionError:
        return True
    return False


def holding(module, **given):
    """The names of the claims that do not fail."""
    return [name for name, claim in claims(module).items() if not fails(claim, **given)]


def test_overload_needs_a_slow_reader(tmp_path):
    """Lab 10 with a reader that keeps up: not one of its claims holds."""
    # So few that they find room even if the reader is not run once.
    module, lab = load(10, tmp_path, COUNT=60)
    with lab.wire() as wire:
        runs = module.overload_all(lab, wire, slow=False)
        asked = {kind: module.ask(lab, wire, kind, slow=False) for kind in ("udp", "raw")}
        module.buffers = functools.partial(module.buffers, slow=False)
        assert not holding(module, lab=lab, wire=wire, runs=runs, asked=asked)


def test_the_ladder_of_a_closed_window(tmp_path):
    """From the last data that found room, by probes, to the first behind the window's opening."""
    module, lab = load(10, tmp_path)
    with lab.wire() as wire:
        run, hold = module.overload(lab, wire, "tcp", probes=1)
        steps = module.closed_ladder(wire, run, hold).packets
    first, *middle, last = steps
    assert first.side == last.side == "client" and first.length and last.length
    assert not any(each.length for each in middle)
    told = [each.window for each in middle if each.side == "server"]
    shut = told[told.index(0) :]
    # Announced when the buffer was full, and again to the probe; and then there was room.
    assert shut.count(0) >= 2 and shut[-1] > 0
    assert shut == sorted(shut), "it closed again"
    probes = [each.relative_seq for each in middle if each.side == "client"]
    assert probes and set(probes) == {
        last.relative_seq - 1
    }, "a probe has the number before the next"


def test_nobody_home_needs_nobody(tmp_path):
    """Lab 13 with a server everywhere and no firewall: not one of its claims holds."""
    module, lab = load(13, tmp_path)
    with lab.wire(name="silent") as quiet, lab.wire() as wire:
        end = module.silent(lab, quiet, servers=True)
        cases = module.ask_all(lab, wire, servers=True)
        cases["tcp blocked"] = end()
        assert cases["tcp closed"].question.replied
        assert cases["udp unconnected"].question.replied
        assert cases["raw closed"].question.replied
        assert not holding(module, lab=lab, cases=cases)


def test_backlog_needs_a_full_queue(tmp_path):
    """Lab 14 with room for all, and all accepted at once: not one of its claims holds."""
    module, lab = load(14, tmp_path)
    with lab.wire() as wire:
        scenes = module.play(lab, wire, eager=True)
        assert not holding(module, lab=lab, scenes=scenes)
