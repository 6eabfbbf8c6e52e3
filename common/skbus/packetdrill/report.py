# SPDX-License-Identifier: MIT
"""What came of a script, for people and for machines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr


class Status(Enum):
    """How a script ended."""

    PASSED = "passed"
    FAILED = "failed"
    """The stack did not do what the script says."""
    NOT_APPLICABLE = "not applicable"
    """The script asks for something that this kind of stack does not have."""
    ERROR = "error"
    """The script cannot be understood or run."""


class Happened(NamedTuple):
    """One thing that happened in a run. line: of the script; 0 for what no line mentions."""

    time: int
    line: int
    text: str


@dataclass(slots=True)
class Result:
    """What came of one script. Times: ns of the script, seconds of the machine."""

    path: str
    status: Status
    line: int = 0
    reason: str = ""
    """in one line"""
    event: str = ""
    """the line of the script"""
    details: list[str] = field(default_factory=list)
    """expected and seen, and how they differ"""
    history: list[Happened] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    duration: int = 0
    seconds: float = 0.0


def seconds(ns: int) -> str:
    """As scripts have times."""
    return f"{ns / 1e9:.6f}"


def show(result: Result, *, verbose: bool = False, history: int = 12) -> str:
    """A result as text; a pass is one line."""
    where = f"{result.path}:{result.line}" if result.line else result.path
    mark = {
        Status.PASSED: "ok  ",
        Status.FAILED: "FAIL",
        Status.NOT_APPLICABLE: "n/a ",
        Status.ERROR: "ERR ",
    }[result.status]
    if result.status is Status.PASSED:
        lines = [f"{mark} {result.path} ({seconds(result.duration)} s)"]
    else:
        lines = [f"{mark} {where}: {result.reason}"]
    if result.event and result.status is not Status.PASSED:
        lines.append(f"     script    {result.event}")
    lines += [f"     {detail}" for detail in result.details]
    if result.status is Status.FAILED or verbose:
        shown = result.history if verbose else result.history[-history:]
        if shown:
            lines.append("     what happened, line by line:")
            lines += [f"     {_line(h.line)} {seconds(h.time):>12}  {h.text}" for h in shown]
    lines += [f"     note: {w}" for w in result.warnings] if verbose else []
    return "\n".join(lines)


def _line(line: int) -> str:
    return f"{line:>5}" if line else "    +"


def summary(results: Sequence[Result]) -> str:
    """`3 passed, 1 failed in 0.2 s (12.5 s of the stack's time)`"""
    counts = [
        f"{n} {status.value}"
        for status in Status
        if (n := sum(r.status is status for r in results)) or status is Status.PASSED
    ]
    took = sum(r.seconds for r in results)
    virtual = sum(r.duration for r in results) / 1e9
    return f"{', '.join(counts)} in {took:.2f} s ({virtual:.1f} s of the stack's time)"


def as_json(results: Sequence[Result]) -> str:
    """All results, for machines."""
    return json.dumps(
        [
            {
                "path": r.path,
                "status": r.status.value,
                "line": r.line,
                "reason": r.reason,
                "event": r.event,
                "details": r.details,
                "warnings": r.warnings,
                "stack_seconds": r.duration / 1e9,
                "seconds": round(r.seconds, 4),
            }
            for r in results
        ],
        indent=1,
    )


def as_junit(results: Sequence[Result]) -> str:
    """JUnit's XML, which CI systems read."""
    cases = []
    for r in results:
        body = ""
        text = escape(show(r))
        if r.status is Status.FAILED:
            body = f"<failure message={quoteattr(r.reason)}>{text}</failure>"
        elif r.status is Status.ERROR:
            body = f"<error message={quoteattr(r.reason)}>{text}</error>"
        elif r.status is Status.NOT_APPLICABLE:
            body = f"<skipped message={quoteattr(r.reason)}/>"
        directory, _, name = r.path.rpartition("/")
        cases.append(
            f"<testcase classname={quoteattr(directory.replace('/', '.') or 'packetdrill')}"
            f" name={quoteattr(name)} time={quoteattr(f'{r.seconds:.4f}')}>{body}</testcase>"
        )
    failures = sum(r.status is Status.FAILED for r in results)
    errors = sum(r.status is Status.ERROR for r in results)
    skipped = sum(r.status is Status.NOT_APPLICABLE for r in results)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuite name="packetdrill" tests="{len(results)}" failures="{failures}"'
        f' errors="{errors}" skipped="{skipped}">\n' + "\n".join(cases) + "\n</testsuite>\n"
    )
