# SPDX-License-Identifier: MIT
"""The outcome of a run: one HTML file that needs nothing else, one JSON file, and a summary.

Written by `skbus.load.cli`, even when Ctrl-C has ended the run.
"""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from skbus.load.assertion import blank, say
from skbus.load.plots import NoPlotsError, all_plots
from skbus.load.quantity import say_bits, say_size, say_time
from skbus.load.result import Cell, Result

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2.2rem } p.sub { color: #666; margin-top: .2rem }
table { border-collapse: collapse; font-size: 13px } div.wide { overflow-x: auto }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4;
         font-variant-numeric: tabular-nums; white-space: nowrap }
th { color: #666; font-weight: 500 } th:first-child, td:first-child { text-align: left }
.good { color: #137333 } .bad { color: #b3261e; font-weight: 600 }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12.5px }
svg { max-width: 100%; height: auto } figure { margin: 1.4rem 0 } figcaption { color: #444 }
"""


def write(result: Result, directory: Path) -> tuple[Path, Path]:
    """NAME.html and NAME.json in the directory, which is made; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    html_file = directory / f"{result.scenario.name}.html"
    json_file = directory / f"{result.scenario.name}.json"
    json_file.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    html_file.write_text(html(result), encoding="utf-8")
    return html_file, json_file


# ---- for the terminal ------------------------------------------------------------------------


def summary(result: Result) -> list[str]:
    """What a person reads after the run."""
    out = [f"{flow + ':':<12} {_sentence(result.total(flow))}" for flow in result.flow_names()]
    if len(result.scenario.flows) > 1:
        out.append(f"{'all:':<12} {_sentence(result.total())}")
    for kind, text in result.samples.items():
        if text:
            out.append(f"  {kind}, for example: {text}")
    for process in result.monitor.samples:
        last = result.monitor.samples[process][-1]
        if not last.rss:
            continue
        growth = result.growth_shown(process)
        out.append(
            f"{process + ':':<12} cpu {result.monitor.cpu(process) * 100:.0f} %, memory "
            f"{say_size(last.rss)}"
            + (f", growth {say(growth, 'slope')}" if growth is not None else "")
        )
    if result.books:
        missing = result.unaccounted()
        out.append(
            "skbs:        every one is accounted for"
            if missing == 0
            else f"skbs:        {say(missing, 'count')} unaccounted for"
        )
        drops = ", ".join(f"{k} {v}" for k, v in sorted(result.drops().items()))
        out.append(f"dropped:     {drops or 'none'}; {result.monitor.retransmits()} retransmits")
    out.extend(f"TROUBLE      {text}" for text in result.trouble)
    missing_phases = [p.name for p in result.scenario.phases if not result.reached(p.name)]
    out.extend(f"phase {name}: not reached" for name in missing_phases)
    out.extend(f"NOTE         {text}" for text in result.unasserted())
    for verdict in result.verdicts():
        word = "ok  " if verdict.holds else "FAIL"
        out.append(f"{word}         {verdict.assertion.text}    ({verdict.said})")
    return out


def _sentence(cell: Cell) -> str:
    rate = cell.metric("rate")
    parts = [f"{cell.completed} answered" + (f" ({say(rate, 'rate')})" if rate is not None else "")]
    parts += [f"{p} {say(v, 'time')}" for p in ("p50", "p99") if (v := cell.shown(p)) is not None]
    if cell.completed:
        parts.append(f"longest {say(cell.metric('max'), 'time')}")
    parts.append(say_bits(cell.metric("goodput") or 0))
    text = ", ".join(parts)
    kinds = ", ".join(f"{n} {k}" for k, n in cell.errors.most_common())
    return f"{text}, {cell.failed} errors" + (f" ({kinds})" if kinds else "")


# ---- the page --------------------------------------------------------------------------------


def html(result: Result) -> str:
    """The whole page."""
    scenario = result.scenario
    verdict = "passed" if result.passed else "failed"
    cut = " Interrupted: what follows is the part that was run." if result.interrupted else ""
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        f"<title>{escape(scenario.name)}: skbus load</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(scenario.name)}</h1>",
        f"<p class='sub'>{escape(scenario.description)}</p>",
        f"<p><b class='{'good' if result.passed else 'bad'}'>{verdict}</b>{cut} "
        f"{result.elapsed:.1f} s on {escape(result.where)}, started {escape(result.started)}, "
        f"on {escape(_machine(result))}.</p>",
        _verdicts(result),
        "<h2>Flows</h2>",
        _table(_FLOW_HEAD, (_flow_row(f, result.total(f)) for f in result.flow_names())),
        _notes(result),
        _phases(result),
        _plots(result),
        _processes(result),
        _books(result),
        _happened(result),
        "<h2>Scenario</h2><details><summary>as it was run</summary><pre>",
        escape(json.dumps(scenario.model_dump(mode="json", by_alias=True), indent=1)),
        "</pre></details></body></html>\n",
    ]
    return "\n".join(parts)


def _machine(result: Result) -> str:
    host = result.host
    if not host:
        return "an unknown machine"
    return (
        f"{host['processors']} × {host['processor'] or host['machine']}, Linux {host['kernel']}, "
        f"Python {host['python']}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    out = ["<div class='wide'><table><tr>", *(f"<th>{h}</th>" for h in head), "</tr>"]
    out.extend("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return "".join([*out, "</table></div>"])


def _mark(good: bool, text: str) -> str:
    return f"<span class='{'good' if good else 'bad'}'>{text}</span>"


def _verdicts(result: Result) -> str:
    verdicts = result.verdicts()
    parts = [f"<p>{_mark(False, escape(t))}</p>" for t in [*result.trouble, *result.unasserted()]]
    if verdicts:
        rows = [
            (
                f"<code>{escape(v.assertion.text)}</code>",
                escape(v.said),
                _mark(v.holds, "holds" if v.holds else "does not hold"),
            )
            for v in verdicts
        ]
        parts.append(_table(("assertion", "value", ""), rows))
    return "".join(parts)


_FLOW_HEAD: Final = (
    "",
    "answered",
    "errors",
    "per second",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "longest",
    "service p99",
    "connect p99",
    "goodput",
    "connections",
)


def _flow_row(name: str, cell: Cell) -> list[str]:
    times = [blank(cell.shown(m), "time") for m in ("p50", "p90", "p99", "p99.9")]
    times.append(blank(cell.metric("max"), "time"))
    times += [blank(cell.shown(m), "time") for m in ("service", "connect")]
    kinds = ", ".join(f"{escape(k)} {n}" for k, n in cell.errors.most_common())
    errors = _mark(False, f"{cell.failed} ({kinds})") if cell.failed else "0"
    return [
        escape(name),
        str(cell.completed),
        errors,
        f"{cell.metric('rate') or 0:.1f}",
        *times,
        say_bits(cell.metric("goodput") or 0.0),
        str(cell.connects),
    ]


def _notes(result: Result) -> str:
    lag = say(result.lag.percentile(99), "time")
    load = ", ".join(f"{escape(w)} {share * 100:.0f} %" for w, share in result.cpu.items())
    text = (
        "<p class='sub'>Latency counts from the time at which a request was meant to start, "
        "service from the time at which it did. Requests that failed are counted as errors, and "
        "have no latency. A percentile that no request lies beyond is left out. "
        f"The load itself was late by {lag} at p99; processor time: "
        f"{load or 'unknown'}.</p>"
    )
    examples = [f"<li>{escape(k)}: {escape(t)}</li>" for k, t in result.samples.items() if t]
    return text + (f"<ul>{''.join(examples)}</ul>" if examples else "")


def _phases(result: Result) -> str:
    phases = result.scenario.phases
    if len(phases) < 2:
        return ""
    rows = [
        _flow_row(f"{p.name}: {f}", result.total(f, p.name))
        if result.reached(p.name)
        else [escape(f"{p.name}: {f}"), "not reached", *[""] * (len(_FLOW_HEAD) - 2)]
        for p in phases
        for f in result.flow_names()
    ]
    return "<h2>Phases</h2>" + _table(_FLOW_HEAD, rows)


def _plots(result: Result) -> str:
    try:
        plots = all_plots(result)
    except NoPlotsError as e:
        return f"<h2>Plots</h2><p>{escape(str(e))}</p>"
    figures = [f"<figure><figcaption>{t}</figcaption>{svg}</figure>" for t, svg in plots]
    return "<h2>Plots</h2>" + "".join(figures)


def _processes(result: Result) -> str:
    if not result.monitor.samples:
        return ""
    rows = []
    for process, samples in result.monitor.samples.items():
        last = samples[-1]
        rows.append(
            (
                escape(process),
                ", ".join(map(str, result.monitor.lives[process])),
                f"{result.monitor.cpu(process) * 100:.1f} %",
                say_size(samples[0].rss) if last.rss else "?",
                say_size(last.rss) if last.rss else "?",
                blank(result.growth_shown(process), "slope") if last.rss else "?",
                str(max((s.held for s in samples if s.held is not None), default="?")),
                str(max(s.pool for s in samples)),
            )
        )
    head = (
        "process",
        "pid",
        "processor",
        "memory at first",
        "at the end",
        "growth",
        "skbs held, at most",
        "pool slots, at most",
    )
    return (
        "<h2>Processes of the stack</h2>"
        + _table(head, rows)
        + "<p class='sub'>Growth is the slope, by least squares, of anonymous memory in the "
        "longest phase, without the first tenth of that; of less than 10 s there is none.</p>"
    )


def _books(result: Result) -> str:
    if not result.books:
        return ""
    keys = ("born", "received", "sent", "consumed", "dropped", "held")
    rows = []
    for books in result.books:
        missing = books.unaccounted
        c = books.conservation
        rows.append(
            (
                escape(books.process),
                *(str(c[k]) if c else "?" for k in keys),
                _mark(missing == 0, "no answer" if missing is None else str(missing)),
                escape(", ".join(f"{k} {v}" for k, v in sorted(books.drops.items()))) or "none",
            )
        )
    return (
        "<h2>Where every skb went</h2>"
        + _table(("process", *keys, "unaccounted", "dropped in this run"), rows)
        + f"<p class='sub'>{result.monitor.retransmits()} segments were retransmitted by both "
        f"ends; {result.monitor.restarts()} processes were started again.</p>"
    )


def _happened(result: Result) -> str:
    if not result.happened:
        return ""
    rows = [(escape(text), say_time(t)) for t, text in result.happened]
    return "<h2>Events</h2>" + _table(("", "at"), rows)
