# SPDX-License-Identifier: MIT
"""Google's packetdrill suite against our TCP, as the tables of docs/conformance.md.

    git clone https://github.com/google/packetdrill
    python tests/packetdrill/conformance.py packetdrill

The suite is run unmodified: in simulation, and with `--harness` also through the real packetdrill
against running processes (`real.py`; needs root, and `--packetdrill`, the binary). A script that
is about something which a user-space stack does not have is not applicable; what it is follows
from what the script asks for. `--live-json FILE` keeps the live results, and without `--harness`
reads them. The column `kernel` is how many of a directory's scripts Linux 6.18 passes on the
machine where kernel.txt was made; why we fail others is in reasons.txt.

With `--into docs/conformance.md` the page's part about this suite is replaced.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Final

from real import Live, Setup, run_all

from skbus.packetdrill import report
from skbus.packetdrill.config import Config
from skbus.packetdrill.report import Result, Status
from skbus.packetdrill.run import find, run_file
from skbus.packetdrill.sim import SimBackend

LENIENT: Final = Config(tolerance=14_000_000, given=frozenset({"tolerance_usecs"}))
KERNEL: Final = Path(__file__).with_name("kernel.txt")
"""The scripts that the kernel does not pass, one a line, with a reason after a tab."""
REASONS: Final = Path(__file__).with_name("reasons.txt")
"""Why we do not pass a script, in the same form."""
SUITE: Final = "gtests/net/tcp"

HEAD: Final = """# Conformance

## Google's packetdrill suite

This section shows what our TCP does with the scripts of
[Google's packetdrill suite](https://github.com/google/packetdrill) (`gtests/net/tcp`). They are run
unmodified. `tests/packetdrill/conformance.py PATH-OF-THE-SUITE` makes the section. None of the
suite is part of this repository.

- **sim**: in simulation, `skbus packetdrill`, with the tolerance that a script has, or 14 ms.
- **live**: the real packetdrill against the five running processes, through a veth
  (`tests/packetdrill/live.sh`). A script has two tries, and 14 ms of tolerance in the stack's time.
  Stack and packetdrill run {scale:g} times slower than life, so that the machine's load does not
  matter.
- **kernel**: the number of applicable scripts that Linux 6.18 itself passes through the real
  packetdrill. Each has a network namespace of its own, and the script's tolerance or 14 ms.
"""
COULD_APPLY: Final = ("pfifo limit 0", "initcwnd 11")
"""How the reasons end of what a user-space stack could have."""
END: Final = "<!-- end of Google's suite -->"


def run(root: Path) -> dict[str, Result]:
    """Each script's result, by its path below gtests/net/tcp."""
    suite = root / SUITE
    results = {}
    for path in find([suite]):
        name = str(path.relative_to(suite))
        for config in (Config(), LENIENT):
            results[name] = run_file(path, lambda _: SimBackend(), config)
            if results[name].status is not Status.FAILED:
                break
    return results


def listed(file: Path) -> dict[str, str]:
    """The scripts that a file lists, with the reason that stands there."""
    if not file.exists():
        return {}
    lines = [x for x in file.read_text().splitlines() if x and not x.startswith("#")]
    return dict(line.partition("\t")[::2] for line in lines)


def run_live(root: Path, results: dict[str, Result], setup: Setup) -> dict[str, Live]:
    """The scripts that apply, through the real packetdrill."""
    suite = root / SUITE
    names = [n for n, r in results.items() if r.status is not Status.NOT_APPLICABLE]
    done = run_all([suite / name for name in names], setup)
    return {str(path.relative_to(suite)): result for path, result in done.items()}


def table(results: dict[str, Result], live: dict[str, Live], kernel: dict[str, str]) -> str:
    """One row a directory."""
    rows = defaultdict(list)
    for name in results:
        rows[name.rpartition("/")[0]].append(name)
    out = [
        "| directory | scripts | not applicable | sim passed | sim failed | live passed"
        " | live failed | kernel |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    total = [0] * 7
    for directory, names in sorted(rows.items()):
        applicable = [n for n in names if results[n].status is not Status.NOT_APPLICABLE]
        sim = sum(results[n].status is Status.PASSED for n in applicable)
        real = sum(n in live and live[n].passed for n in applicable)
        by_kernel = sum(n not in kernel for n in applicable)
        other = len(names) - len(applicable)
        cells = [len(names), other, sim, len(applicable) - sim]
        cells += [real, sum(n in live for n in applicable) - real, by_kernel]
        total = [a + b for a, b in zip(total, cells, strict=True)]
        out.append(f"| {directory} | " + " | ".join(map(str, cells)) + " |")
    out.append("| **all** | " + " | ".join(f"**{n}**" for n in total) + " |")
    return "\n".join(out)


def share(results: dict[str, Result], live: dict[str, Live], kernel: dict[str, str]) -> str:
    """The figures that count."""
    both = [
        n for n, r in results.items() if r.status is not Status.NOT_APPLICABLE and n not in kernel
    ]
    sim = sum(results[n].status is Status.PASSED for n in both)
    real = sum(n in live and live[n].passed for n in both)

    def percent(part: int) -> str:
        return f"**{part} ({100 * part / max(len(both), 1):.0f} %)**"

    text = f"The kernel passes {len(both)} of the scripts that apply."
    text += f" Of these, {percent(sim)} pass in simulation"
    if live:
        again = sum(live[n].passed and live[n].tries > 1 for n in both if n in live)
        text += f" and {percent(real)} live ({again} of them at the second try)"
    text += "."
    missing = [
        n
        for n, r in results.items()
        if r.status is Status.NOT_APPLICABLE and n not in kernel and r.reason.endswith(COULD_APPLY)
    ]
    if missing:
        text += (
            f"\n{len(missing)} more would apply to a stack with routes' metrics and queueing"
            f" disciplines: {', '.join(missing)}."
        )
    return text


def failures(results: dict[str, Result], live: dict[str, Live], kernel: dict[str, str]) -> str:
    """Each script that fails somewhere, with what was seen and the cause."""
    why = listed(REASONS)
    out = ["| script | sim | live | kernel | why |", "|---|---|---|---|---|"]
    for name, r in sorted(results.items()):
        seen = live.get(name, Live(True))
        failed = r.status in (Status.FAILED, Status.ERROR)
        if r.status is Status.NOT_APPLICABLE or not (failed or not seen.passed):
            continue
        cause = why.get(name, "")
        line = f"line {r.line}: {r.reason}" if failed else seen.reason
        cells = [
            name,
            "fails" if failed else "passes",
            ("passes" if seen.passed else "fails") if name in live else "",
            "fails" if name in kernel else "passes",
            _cell(f"{cause}. ({line})" if cause else line),
        ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def not_applicable(results: dict[str, Result]) -> str:
    """Each script that does not apply, with the reason."""
    out = ["| script | why |", "|---|---|"]
    for name, r in sorted(results.items()):
        if r.status is Status.NOT_APPLICABLE:
            line = f"line {r.line}: " if r.line else ""
            out.append(f"| {name} | {_cell(line + r.reason)} |")
    return "\n".join(out)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def page(results: dict[str, Result], live: dict[str, Live], scale: float) -> str:
    """The page, as far as this suite goes."""
    kernel = listed(KERNEL)
    return (
        f"{HEAD.format(scale=scale)}\n{share(results, live, kernel)}\n\n"
        f"### By directory\n\n{table(results, live, kernel)}\n\n"
        f"### Failed\n\n{failures(results, live, kernel)}\n\n"
        f"### Not applicable\n\n{not_applicable(results)}\n\n{END}\n"
    )


def arguments() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", type=Path, help="a checkout of google/packetdrill")
    parser.add_argument("--json", type=Path, help="write the simulation's results there as well")
    parser.add_argument("--into", type=Path, help="the page whose part this replaces")
    parser.add_argument("--harness", type=Path, help="run also live: what runs packetdrill")
    parser.add_argument("--packetdrill", type=Path, help="the real one")
    parser.add_argument("--live-json", type=Path, help="the live results, written or read")
    parser.add_argument("--scale", type=float, default=10.0, help="how much slower than life (10)")
    parser.add_argument("--jobs", type=int, default=2, help="live scripts side by side (2)")
    return parser


def live_results(args: argparse.Namespace, results: dict[str, Result]) -> dict[str, Live]:
    """Of a run now, or of an earlier one."""
    if args.harness is not None:
        setup = Setup(args.harness, args.packetdrill, scale=args.scale, jobs=args.jobs)
        live = run_live(args.suite, results, setup)
        if args.live_json is not None:
            args.live_json.write_text(
                json.dumps({name: asdict(result) for name, result in live.items()}, indent=1)
            )
        return live
    if args.live_json is None:
        return {}
    return {n: Live(**fields) for n, fields in json.loads(args.live_json.read_text()).items()}


def main() -> None:
    """Print the page; progress and a summary go to standard error."""
    parser = arguments()
    args = parser.parse_args()
    if args.harness is not None and args.packetdrill is None:
        parser.error("--harness needs --packetdrill")
    results = run(args.suite)
    if not results:
        parser.error(f"{args.suite} is no checkout of google/packetdrill: no {SUITE}")
    live = live_results(args, results)
    text = page(results, live, args.scale)
    if args.into is None:
        sys.stdout.write(text)
    else:
        rest = args.into.read_text().partition(END)[2].lstrip("\n") if args.into.exists() else ""
        args.into.write_text(text + ("\n" + rest if rest else ""))
    sys.stderr.write(report.summary(list(results.values())) + "\n")
    sys.stderr.write(share(results, live, listed(KERNEL)) + "\n")
    if args.json is not None:
        args.json.write_text(report.as_json(list(results.values())))


if __name__ == "__main__":
    main()
