"""What a lab leaves for the browser: one file, with everything in it."""

import re
from html import escape

from harness import screen, tree

STYLE = """
:root{--ink:#1d2329;--soft:#5c6670;--line:#d8dde1;--paper:#fff;--good:#00704f;--bad:#b03a00;
--open:#7a5a00;--code:#f3f5f6}
@media (prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a3adb7;--line:#343d45;
--paper:#15191d;--good:#3fd0a6;--bad:#ff9a66;--open:#e6b422;--code:#20262b}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:54rem;background:var(--paper);
color:var(--ink);font:1rem/1.55 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 .6rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p.lab,p.link,figcaption,.figures{color:var(--soft)}p.lab{margin:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{vertical-align:bottom;font-weight:600;white-space:pre}th:first-child,td:first-child{text-align:left}
ol.claims{list-style:none;padding:0;margin:0}
ol.claims li{padding:.6rem 0 .6rem 2rem;border-bottom:1px solid var(--line);position:relative}
ol.claims .mark{position:absolute;left:.2rem;font-weight:700}
.holds .mark{color:var(--good)}.fails .mark,.error .mark{color:var(--bad)}
.inconclusive .mark,.skipped .mark{color:var(--open)}
.figures{display:block;font-size:.92rem}.reason{display:block;color:var(--bad);font-size:.95rem}
.inconclusive .reason,.skipped .reason{color:var(--open)}
figure{margin:1.5rem 0}figure svg{width:100%;max-width:44rem;display:block;
border:1px solid var(--line);border-radius:6px}
figcaption{max-width:44rem;font-size:.92rem;margin-top:.4rem}
pre{background:var(--code);padding:.7rem .9rem;border-radius:6px;overflow-x:auto;font-size:.88rem;
line-height:1.45}
a{color:inherit}
@media print{body{max-width:none;padding:0}figure,li{break-inside:avoid}}
"""

WORDS = {
    "holds": "holds",
    "fails": "does not hold",
    "error": "could not be tried",
    "inconclusive": "inconclusive",
    "skipped": "not tried",
}


def _claim(claim):
    mark = screen.MARKS[claim["outcome"]][0]
    parts = [
        f'<li class="{claim["outcome"]}" id="{escape(claim["id"])}">',
        f'<span class="mark" role="img" aria-label="{WORDS[claim["outcome"]]}">{mark}</span>',
        escape(claim["sentence"]),
    ]
    if claim["figures"]:
        parts.append(f'<span class="figures">{escape(screen.figures(claim["figures"]))}</span>')
    if claim["outcome"] != "holds":
        reason = f'{WORDS[claim["outcome"]]}: {claim["reason"] or "no reason given"}'
        parts.append(f'<span class="reason">{escape(reason)}</span>')
    parts.append("</li>")
    return "".join(parts)


def _table(table):
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table["columns"])
    rows = []
    for row in table["rows"]:
        cells = ["–" if cell is None else str(cell) for cell in row]
        first = f'<th scope="row">{escape(cells[0])}</th>'
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        rows.append(f"<tr>{first}{rest}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _inline(svg):
    """A chart's file as part of the page: without its fixed size."""
    return re.sub(r' width="480" height="[0-9.]+"', "", svg, count=1)


def page(lab, report):
    """The page of a lab, as one HTML text that asks nothing of a network."""
    title = f"Lab {lab.number:02}: {report['question']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
        f'<p class="lab">socklab, lab {lab.number:02}</p><h1>{escape(report["question"])}</h1>',
        f'<p class="link">The link: {escape(screen.link_words(report["link"]))}.</p>',
    ]
    if report["table"]:
        parts.append(_table(report["table"]))
    parts += [f"<p>{escape(note)}</p>" for note in report["notes"]]
    parts.append('<h2>What this run shows</h2><ol class="claims">')
    parts += [_claim(claim) for claim in report["claims"]]
    parts.append("</ol>")
    if report["charts"]:
        parts.append("<h2>What it looks like</h2>")
    for chart in report["charts"]:
        svg = _inline((lab.folder / chart["file"]).read_text())
        parts.append(f"<figure>{svg}<figcaption>{escape(chart['caption'])}</figcaption></figure>")
    for name, text in report["waterfalls"].items():
        parts.append(f"<h2>Where every message went: {escape(name)}</h2>")
        parts.append(f"<pre>{escape(text)}</pre>")
    parts.append("<h2>Again</h2>")
    parts.append(f"<pre>{escape(lab.command())}</pre>")
    if report["commands"]:
        parts.append("<p>What ran on the two hosts:</p>")
        text = "\n".join(report["commands"]).replace(str(lab.folder) + "/", "")
        text = text.replace(str(tree.BIN) + "/", "")
        parts.append(f"<pre>{escape(text)}</pre>")
    links = [
        f'<a href="{escape(name)}">{escape(name)}</a>'
        for names in report["files"].values()
        for name in names
    ]
    if links:
        parts.append(f"<p>Captures and logs: {', '.join(links)}, ")
        parts.append('<a href="report.json">report.json</a>.</p>')
    parts.append("</main></body></html>\n")
    return "\n".join(parts)
