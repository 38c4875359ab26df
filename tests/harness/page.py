"""What the labs leave for the browser: a page for each run, and the list of all of them.

Each page is one file with everything in it; it asks nothing of a network and runs no script. It
holds for a phone, paper, light and dark, keyboard and screen reader: whatever may be wider than the
window scrolls in a box of its own that the keyboard reaches, and no meaning hangs on colour alone.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from datetime import datetime
from html import escape

from harness import lab as labs
from harness import screen, tree

STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#55606a;--line:#d8dde1;--paper:#fff;
--good:#00704f;--bad:#b03a00;--open:#7a5a00;--code:#f3f5f6;--link:#0b5c99}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a9b3bc;--line:#39424a;
--paper:#15191d;--good:#3fd0a6;--bad:#ff9a66;--open:#e6b422;--code:#20262b;--link:#7cc0f5}}
*{box-sizing:border-box}
html{background:var(--paper);-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;padding:1rem 1rem 3rem;max-width:56rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:.2rem 0 .8rem;text-wrap:balance}
h2{font-size:1.2rem;line-height:1.3;margin:2.4rem 0 .7rem}
p{margin:.5rem 0}a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);
outline-offset:2px;border-radius:3px}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);
white-space:nowrap}
.skip{position:absolute;left:1rem;top:-5rem;background:var(--paper);padding:.5rem .8rem;z-index:1}
.skip:focus{top:.5rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;list-style:none;margin:0;padding:0;
font-size:.95rem}
nav a{display:inline-block;padding:.35rem 0}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.6rem}
.soft,figcaption,caption,.figures dt{color:var(--soft)}
.lab{margin:1.4rem 0 0}.result{font-weight:600}
.holds{--mark:var(--good)}.fails,.error{--mark:var(--bad)}.inconclusive,.skipped{--mark:var(--open)}
.none{--mark:var(--soft)}.verdict,.reason{color:var(--mark)}.verdict{font-weight:600}
.sign{display:inline-block;min-width:1.2em}
.scroll{position:relative;overflow-x:auto;max-width:100%}
.scroll pre{display:inline-block;min-width:100%;max-width:none;margin:0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.92rem;padding-bottom:.3rem}
th,td{padding:.35rem 1rem .35rem 0;text-align:left;border-bottom:1px solid var(--line);
vertical-align:top}
thead th{vertical-align:bottom;white-space:pre;line-height:1.3}th{font-weight:600}
.number{text-align:right}td.number,td.word{white-space:nowrap}
tbody th{min-width:3.5rem}tbody th.text{min-width:8.5rem}td.text{min-width:9rem}
ol.claims,ol.labs{list-style:none;padding:0;margin:0}
ol.claims>li,ol.labs>li{padding:.8rem 0;border-bottom:1px solid var(--line)}
ol.claims p,ol.labs p{margin:0}
.reason{white-space:pre-line;overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:.15rem 1.5rem;margin:.35rem 0 0;font-size:.9rem}
.figures div{display:flex;flex-wrap:wrap;gap:0 .45rem}.figures dd{margin:0;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
@media (min-width:40rem){ol.claims>li{display:grid;grid-template-columns:8.5rem 1fr;gap:0 1rem}
ol.claims>li>*{grid-column:2}ol.claims>li>.verdict{grid-column:1;grid-row:1}
ol.labs>li{display:grid;grid-template-columns:3rem 1fr 17rem;gap:0 1rem}
ol.labs>li>ul{grid-column:2/4}}
ol.labs h2{font-size:1.05rem;margin:0}ol.labs ul{margin:.4rem 0 0;padding-left:1.2rem;
font-size:.92rem}
figure{margin:1.4rem 0}
figure .scroll{border:1px solid var(--line);border-radius:6px;max-width:46rem}
figure svg{display:block;width:100%;height:auto}
figcaption{max-width:46rem;font-size:.92rem;margin-top:.4rem}
pre,code{font-family:ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--code);padding:.7rem .9rem;border-radius:6px;font-size:.86rem;line-height:1.5;
margin:.6rem 0;max-width:100%}
pre.fold{white-space:pre-wrap;overflow-wrap:anywhere}
pre.fold span{display:block;padding-left:1.6em;text-indent:-1.6em}
summary{cursor:pointer;padding:.3rem 0}
ul.files{list-style:none;padding:0;margin:0;columns:14rem;font-size:.92rem}
ul.files li{break-inside:avoid;overflow-wrap:anywhere;padding:.12rem 0}
@media print{:root{color-scheme:light}@page{margin:14mm}body{max-width:none;padding:0;
font-size:10.5pt}nav,.skip{display:none}footer{border:0;margin:0}.scroll{overflow:visible}
figure,li,tr,pre.again{break-inside:avoid}h2,summary,caption,thead{break-after:avoid}
figure .scroll{max-width:none}figure svg{
min-width:0!important;max-width:44rem;max-height:225mm;margin:auto}
table{font-size:.85em}thead th{white-space:pre-line}th,td{padding-right:.7rem}
td.text,tbody th.text{min-width:0}
td.number,td.word{white-space:normal}
pre{white-space:pre-wrap;border:1px solid var(--line);font-size:8pt}
a{color:inherit;text-decoration:none}}
""".strip()

WORDS = {
    "holds": "holds",
    "fails": "does not hold",
    "error": "could not be tried",
    "inconclusive": "inconclusive",
    "skipped": "not tried",
    "none": "no result yet",
}
MANY = {**WORDS, "holds": "hold", "fails": "do not hold"}
NO_SIGN = "·"

_STYLE = re.compile(r"<style>(.*?)</style>", re.S)
_FIGURE = re.compile(r"^[<>~≤≥+-]?\s?[0-9]")
GUIDE = "guide.txt"
SHORT = 14  # letters that need no second line in a table


def _sign(outcome):
    """An outcome as its mark and its word: never colour alone, and no mark is read aloud."""
    mark = screen.MARKS[outcome][0] if outcome in screen.MARKS else NO_SIGN
    return f'<span class="sign" aria-hidden="true">{mark}</span> {WORDS[outcome]}'


def result(report):
    """(outcome, words) of a whole report; an outcome `none` where there is none."""
    claims = (report or {}).get("claims") or []
    count = {each: 0 for each in WORDS}
    for claim in claims:
        count[claim["outcome"]] += 1
    if not claims:
        return "none", WORDS["none"]
    if count["holds"] == len(claims):
        return "holds", f"all {len(claims)} claims hold" if len(claims) > 1 else "its claim holds"
    order = ("fails", "error", "holds", "inconclusive", "skipped")
    outcome = next(each for each in order if count[each])
    if count[outcome] == len(claims) and outcome in ("inconclusive", "skipped"):
        return outcome, f"{WORDS[outcome]}: no claim could be told here"
    parts = [f"{n} {(WORDS if n == 1 else MANY)[each]}" for each, n in count.items() if n]
    return outcome, f"{len(claims)} claims: {', '.join(parts)}"


def _reason(claim):
    return (claim.get("reason") or "no reason given").strip()


def _claim(claim):
    parts = [
        f'<li class="{claim["outcome"]}" id="claim-{escape(claim["id"])}">',
        f'<p class="verdict">{_sign(claim["outcome"])}</p>',
        f'<p class="sentence">{escape(claim["sentence"])}</p>',
    ]
    if claim["outcome"] != "holds":
        reason = f"{WORDS[claim['outcome']]}: {_reason(claim)}"
        parts.append(f'<p class="reason">{escape(reason[0].upper() + reason[1:])}</p>')
    if claim["figures"]:
        parts.append('<dl class="figures">')
        for name, value in claim["figures"].items():
            label = re.sub(r" (ns|bytes)$", "", name.replace("_", " "))
            shown = screen.figure(name, value)[len(label) :].strip() or "none"
            parts.append(f"<div><dt>{escape(label)}</dt><dd>{escape(shown)}</dd></div>")
        parts.append("</dl>")
    parts.append("</li>")
    return "".join(parts)


def _box(label, inner):
    """What may be wider than a phone, in a box that scrolls by finger and by keyboard."""
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(label)}">{inner}</div>'
    )


def _cost(each):
    """CPU time and context switches of one program, as a line."""
    return (
        f"{each['program']}, run {each['run']}: {screen.duration(each['cpu_user_ns'])} of CPU in "
        f"the program, {screen.duration(each['cpu_system_ns'])} in the kernel; it waited "
        f"{each['voluntary_switches']} times and was made to {each['involuntary_switches']} times"
    )


def _table(table):
    """Figures to the right, words to the left; the first cell of each row is its head."""
    rows = [["–" if cell is None else str(cell) for cell in row] for row in table["rows"]]
    kinds = []
    for cells in zip(*rows):
        said = [cell for cell in cells if cell not in ("–", "")]
        kind = "text" if max(map(len, said), default=0) > SHORT else "word"
        kinds.append("number" if all(map(_FIGURE.match, said)) and said else kind)
    heads = []
    for head, kind in zip(table["columns"], kinds or ["word"] * len(table["columns"])):
        words = escape(head) if head else '<span class="unseen">what ran</span>'
        heads.append(f'<th scope="col" class="{kind}">{words}</th>')
    wide = ' class="text"' if any(len(row[0]) > SHORT for row in rows) else ""
    body = []
    for row in rows:
        cells = [f'<th scope="row"{wide}>{escape(row[0])}</th>']
        for cell, kind in zip(row[1:], kinds[1:]):
            words = escape(cell)
            if cell == "–":
                words = '<span aria-hidden="true">–</span><span class="unseen">none</span>'
            cells.append(f'<td class="{kind}">{words}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _box(
        "The run in figures, a table",
        f"<table><caption>The run in figures</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>",
    )


def _setting(report):
    """The link and the traffic in words."""
    knobs, said = report["knobs"], []
    if "LINK" in knobs:
        words = f"The link, each way: {screen.link_words(knobs['LINK'])}."
    else:
        words = "The link: a clean cable, unless a claim says otherwise."
    said.append(f'<p class="link">{escape(words)}</p>')
    if "COUNT" in knobs:
        parts = [f"{knobs['COUNT']} messages"]
        if "SIZE" in knobs:
            parts[0] += f" of {knobs['SIZE']} bytes"
        if "INTERVAL" in knobs:
            parts.append(f"one every {screen.duration(labs.duration_ns(knobs['INTERVAL']))}")
        if "SEED" in knobs:
            parts.append(f"seed {knobs['SEED']}")
        said.append(f"<p>The traffic: {escape(', '.join(parts))}.</p>")
    return said


def _figure(lab, chart):
    """A chart or a ladder as part of the page, and its style, which the page holds only once."""
    svg = (lab.folder / chart["file"]).read_text(encoding="utf-8")
    styles = _STYLE.findall(svg)
    # Never smaller than it was drawn: a phone scrolls it in its box.
    svg = re.sub(r' width="([0-9]+)" height="[0-9.]+"', r' style="min-width:\1px"', svg, count=1)
    name = chart["file"].rpartition(".")[0]
    kind = "ladder" if 'class="chart ladder"' in svg else "chart"
    links = [f'<a href="{escape(chart["file"])}">the picture alone</a>']
    if (lab.folder / f"{name}.txt").exists():
        links.append(f'<a href="{escape(name)}.txt">the same in letters</a>')
    caption = f'{escape(chart["caption"])} <span class="soft">({", ".join(links)})</span>'
    label = f"{kind}: {chart['caption'] or name}"
    return (
        f'<figure class="{kind}">{_box(label, svg)}<figcaption>{caption}</figcaption></figure>',
        styles,
    )


def _files(lab):
    """Links to everything else that the run left, by what it is."""
    kinds = (
        ("Captures, for Wireshark", "*.pcapng"),
        ("The wire's and the programs' logs", "*.csv"),
        ("Everything that was measured", "report.json"),
        ("Where in the code it failed", "tracebacks.txt"),
        ("What the programs complained of", "*.stderr"),
    )
    out = []
    for words, pattern in kinds:
        names = sorted(path.name for path in lab.folder.glob(pattern) if path.stat().st_size)
        items = [f'<li><a href="{escape(name)}">{escape(name)}</a></li>' for name in names]
        if items:
            out.append(f'<p class="soft">{escape(words)}:</p>')
            out.append(f'<ul class="files">{"".join(items)}</ul>')
    return out


def _shown(command, lab):
    """A command without this machine's folders."""
    return command.replace(f"{lab.folder}/", "").replace(f"{tree.BIN}/", "")


def _around(folder):
    """The labs before and behind this one: [(word, folder, question)], at most two."""
    order = list(labs.find().values())
    names = [each.name for each in order]
    at = names.index(folder.name) if folder.name in names else None
    found = []
    if at is not None and at > 0:
        found.append(("Previous", order[at - 1]))
    if at is not None and at + 1 < len(order):
        found.append(("Next", order[at + 1]))
    return [(word, each, labs.describe(each)[0]) for word, each in found]


def _nav(folder, label):
    links = ['<li><a href="../index.html">All labs</a></li>']
    for word, each, question in _around(folder):
        links.append(
            f'<li><a href="../{escape(each.name)}/index.html">{word}: {each.name[:2]},'
            f" {escape(question)}</a></li>"
        )
    return f'<nav aria-label="{label}"><ul>{"".join(links)}</ul></nav>'


def _document(title, header, main, footer, styles=()):
    style = "\n".join([STYLE, *dict.fromkeys(styles)])
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>{style}</style></head><body>",
            '<a class="skip" href="#main">Skip to the content</a>',
            f"<header>{header}</header>",
            '<main id="main" tabindex="-1">',
            *main,
            f"</main>{footer and '<footer>' + footer + '</footer>'}</body></html>\n",
        ]
    )


def _ended(report):
    """When a run ended, for people and for machines; empty where nobody knows."""
    try:
        moment = datetime.fromisoformat(report["ended"])
    except (KeyError, TypeError, ValueError):
        return ""
    words = moment.astimezone().strftime("%Y-%m-%d %H:%M %Z").strip()
    return f'<time datetime="{escape(report["ended"])}">{escape(words)}</time>'


def page(lab, report):
    """The page of a run, as one HTML text that asks nothing of a network."""
    outcome, words = result(report)
    mark = screen.MARKS[outcome][0] if outcome in screen.MARKS else NO_SIGN
    ended = _ended(report)
    main = [
        f'<p class="lab soft">socklab, lab {lab.number:02}</p>',
        f'<h1>{escape(report["question"])}</h1>',
        *_setting(report),
        f'<p class="result {outcome}"><span class="verdict"><span class="sign" aria-hidden="true">'
        f"{mark}</span> {escape(words[0].upper() + words[1:])}.</span></p>",
    ]
    if ended:
        main.append(f'<p class="soft">Run ended {ended}.</p>')
    if report["table"]:
        main.append(_table(report["table"]))
    main += [f"<p>{escape(note)}</p>" for note in report["notes"]]
    main.append('<section aria-labelledby="claims"><h2 id="claims">What this run shows</h2>')
    main.append('<ol class="claims">')
    main += [_claim(claim) for claim in report["claims"]]
    main.append("</ol></section>")
    styles = []
    if report["charts"]:
        main.append('<section aria-labelledby="looks"><h2 id="looks">What it looks like</h2>')
        for chart in report["charts"]:
            text, more = _figure(lab, chart)
            main.append(text)
            styles += more
        main.append("</section>")
    for n, (name, text) in enumerate(report["waterfalls"].items()):
        head = f"Where every message went: {name}"
        main.append(f'<section aria-labelledby="books{n}"><h2 id="books{n}">{escape(head)}</h2>')
        main.append(_box(head, f"<pre>{escape(text)}</pre>") + "</section>")
    main.append('<section aria-labelledby="again"><h2 id="again">Again</h2>')
    main.append(f'<pre class="fold again">{escape(lab.command())}</pre>')
    if report["commands"]:
        lines = [f"<span>{escape(_shown(each, lab))}</span>" for each in report["commands"]]
        main.append(
            f"<details open><summary>What ran on the two hosts ({len(lines)} commands)</summary>"
            f'<pre class="fold">{"".join(lines)}</pre></details>'
        )
    if report["costs"]:
        lines = [f"<span>{escape(_cost(each))}</span>" for each in report["costs"]]
        main.append(
            "<details><summary>What it cost the programs, by the kernel's count</summary>"
            f'<pre class="fold">{"".join(lines)}</pre></details>'
        )
    main.append("</section>")
    main.append('<section aria-labelledby="files"><h2 id="files">What it left</h2>')
    if (lab.folder / GUIDE).exists():
        main.append(
            f'<p><a href="{GUIDE}">The guide</a>: what to look for, and what to change.</p>'
        )
    main += _files(lab)
    main.append("</section>")
    return _document(
        f"Lab {lab.number:02}: {report['question']}",
        _nav(lab.folder, "Labs"),
        main,
        _nav(lab.folder, "Other labs"),
        styles,
    )


def _waiting(folder, question):
    """What stands in a page's place until its lab has run."""
    main = [
        f'<p class="lab soft">socklab, lab {folder.name[:2]}</p><h1>{escape(question)}</h1>',
        "<p>There is no result here yet: this lab has not run to its end.</p>",
        f'<pre class="fold again">make run-lab {int(folder.name[:2])}</pre>',
    ]
    title = f"Lab {folder.name[:2]}: {question}"
    return _document(title, _nav(folder, "Labs"), main, _nav(folder, "Other labs"))


def _read(folder):
    """A lab's last report; None while there is none, or only half of one."""
    try:
        report = json.loads((tree.OUT / folder.name / "report.json").read_text(encoding="utf-8"))
        return report if isinstance(report.get("claims"), list) else None
    except (OSError, ValueError, AttributeError):
        return None


def _entry(folder):
    question = labs.describe(folder)[0]
    report = _read(folder)
    outcome, words = result(report)
    mark = screen.MARKS[outcome][0] if outcome in screen.MARKS else NO_SIGN
    when = _ended(report) if report else f"<code>make run-lab {int(folder.name[:2])}</code>"
    parts = [
        f'<li class="{outcome}" id="lab-{folder.name[:2]}"><p class="soft">{folder.name[:2]}</p>',
        f'<div><h2><a href="{escape(folder.name)}/index.html">{escape(question)}</a></h2>',
        f'<p class="soft">{escape(folder.name[3:])}</p></div>',
        f'<div><p class="verdict"><span class="sign" aria-hidden="true">{mark}</span> ',
        f'{escape(words)}</p><p class="soft">{when}</p></div>',
    ]
    told = [] if report is None else [c for c in report["claims"] if c["outcome"] != "holds"]
    if told and all(c["outcome"] == "skipped" and c["reason"] == told[0]["reason"] for c in told):
        told = [{**told[0], "sentence": ""}] if len(told) == len(report["claims"]) else told
    if told:
        parts.append("<ul>")
        for claim in told:
            lead = f"{escape(claim['sentence'])} " if claim["sentence"] else ""
            words = f"{WORDS[claim['outcome']]}: {_reason(claim)}"
            words = words[0].upper() + words[1:]
            parts.append(f'<li>{lead}<span class="reason">{escape(words)}</span></li>')
        parts.append("</ul>")
    return "".join([*parts, "</li>"])


def list_page():
    """The list of all labs with the result and the time of each one's last run."""
    main = [
        "<h1>Labs with TCP, UDP and raw sockets</h1>",
        '<p class="soft">Each lab asks one question, and answers it with what happened on this'
        " machine. A lab's page is made anew by each run of it.</p>",
        '<ol class="labs">',
        *[_entry(folder) for folder in labs.find().values()],
        "</ol>",
    ]
    return _document("socklab: all labs", '<p class="lab soft">socklab</p>', main, "")


def _put(path, text):
    """A whole file or none: who reads it meanwhile sees the old one to its end."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _alone():
    """One at a time: several labs may end at once, and each must see the others' reports."""
    fd = os.open(tree.OUT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _stand_in(folder):
    """A page for a lab that has none, so that no link leads nowhere; never over a real one."""
    target = tree.OUT / folder.name / "index.html"
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    draft = tree.OUT / f".{folder.name}.{os.getpid()}.html"
    _put(draft, _waiting(folder, labs.describe(folder)[0]))
    try:
        # Fails where a run has left its own page since, or has just emptied the folder.
        os.link(draft, target)
    except (FileExistsError, FileNotFoundError):
        pass
    except OSError:
        # A file system without hard links.
        if not target.exists():
            os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def leave(lab, report):
    """Writes the page of a run, whose report.json is there already, and the list anew."""
    guide = tree.LABS / lab.folder.name / "README.md"
    if guide.exists():
        shutil.copyfile(guide, lab.folder / GUIDE)
    _put(lab.folder / "index.html", page(lab, report))
    with _alone():
        for folder in labs.find().values():
            _stand_in(folder)
        _put(tree.OUT / "index.html", list_page())
