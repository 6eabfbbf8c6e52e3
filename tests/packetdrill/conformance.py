# SPDX-License-Identifier: MIT
"""Google's packetdrill suite against our TCP, as the tables of docs/conformance.md.

    git clone https://github.com/google/packetdrill
    python tests/packetdrill/conformance.py packetdrill > docs/conformance.md

The suite is run unmodified and in simulation. A script that is about something which a user-space
stack does not have is not applicable; what it is follows from what the script asks for. The
column `kernel` is how many of a directory's scripts Linux 6.18 passes on the machine where
kernel.txt was made, with the tolerance that is named there.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from skbus.packetdrill import report
from skbus.packetdrill.config import Config
from skbus.packetdrill.report import Result, Status
from skbus.packetdrill.run import find, run_file
from skbus.packetdrill.sim import SimBackend

LENIENT: Final = Config(tolerance=14_000_000, given=frozenset({"tolerance_usecs"}))
KERNEL: Final = Path(__file__).with_name("kernel.txt")
"""The scripts that the kernel does not pass, one a line, with a reason after a tab."""

HEAD: Final = """# Conformance

What our TCP does with the scripts of
[Google's packetdrill suite](https://github.com/google/packetdrill) (`gtests/net/tcp`), unmodified,
in simulation: `skbus packetdrill`, with the tolerance that a script has, or 14 ms, as for the
kernel beside it. Made by `tests/packetdrill/conformance.py PATH-OF-THE-SUITE`; none of the suite
is part of this repository.

"kernel": how many of the applicable scripts Linux 6.18 passes itself, each in a network namespace
of its own, at the scripts' tolerance or at 14 ms.
"""


def run(root: Path) -> dict[str, Result]:
    """Each script's result, by its path below gtests/net/tcp."""
    suite = root / "gtests/net/tcp"
    results = {}
    for path in find([suite]):
        name = str(path.relative_to(suite))
        for config in (Config(), LENIENT):
            results[name] = run_file(path, lambda _: SimBackend(), config)
            if results[name].status is not Status.FAILED:
                break
    return results


def kernel_failures() -> dict[str, str]:
    """The scripts that the kernel does not pass, with the reason."""
    if not KERNEL.exists():
        return {}
    lines = [x for x in KERNEL.read_text().splitlines() if x and not x.startswith("#")]
    return dict(line.partition("\t")[::2] for line in lines)


def table(results: dict[str, Result], kernel: dict[str, str]) -> str:
    """One row a directory."""
    rows = defaultdict(list)
    for name, result in results.items():
        rows[name.rpartition("/")[0]].append((name, result))
    out = [
        "| directory | scripts | passed | failed | not applicable | kernel |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    total = [0] * 5
    for directory, members in sorted(rows.items()):
        cells = _counts(members, kernel)
        total = [a + b for a, b in zip(total, cells, strict=True)]
        out.append(f"| {directory} | " + " | ".join(map(str, cells)) + " |")
    out.append("| **all** | " + " | ".join(f"**{n}**" for n in total) + " |")
    return "\n".join(out)


def _counts(members: list[tuple[str, Result]], kernel: dict[str, str]) -> list[int]:
    applicable = [(n, r) for n, r in members if r.status is not Status.NOT_APPLICABLE]
    passed = sum(r.status is Status.PASSED for _, r in applicable)
    by_kernel = sum(n not in kernel for n, _ in applicable)
    return [
        len(members),
        passed,
        len(applicable) - passed,
        len(members) - len(applicable),
        by_kernel,
    ]


def share(results: dict[str, Result], kernel: dict[str, str]) -> str:
    """The figure that counts."""
    both = [
        r for n, r in results.items() if r.status is not Status.NOT_APPLICABLE and n not in kernel
    ]
    passed = sum(r.status is Status.PASSED for r in both)
    percent = 100 * passed / len(both) if both else 0
    return (
        f"Of the {len(both)} scripts that apply and that the kernel passes,"
        f" **{passed} pass: {percent:.0f} %**."
    )


def reasons(results: dict[str, Result], kernel: dict[str, str], status: Status) -> str:
    """Each script of a status with its reason."""
    out = ["| script | why | kernel |", "|---|---|---|"]
    wanted = (status,) if status is Status.NOT_APPLICABLE else (Status.FAILED, Status.ERROR)
    for name, r in sorted(results.items()):
        if r.status in wanted:
            line = f"line {r.line}: " if r.line else ""
            why = (line + r.reason).replace("|", "\\|").replace("<", "&lt;")
            out.append(f"| {name} | {why} | {'fails' if name in kernel else 'passes'} |")
    return "\n".join(out)


def main() -> None:
    """Print the page; a summary goes to standard error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", type=Path, help="a checkout of google/packetdrill")
    parser.add_argument("--json", type=Path, help="write all results there as well")
    args = parser.parse_args()
    results = run(args.suite)
    if not results:
        parser.error(f"{args.suite} is no checkout of google/packetdrill: no gtests/net/tcp")
    kernel = kernel_failures()
    sys.stdout.write(
        f"{HEAD}\n{share(results, kernel)}\n\n## By directory\n\n{table(results, kernel)}\n\n"
        f"## Failed\n\n{reasons(results, kernel, Status.FAILED)}\n\n"
        f"## Not applicable\n\n{reasons(results, kernel, Status.NOT_APPLICABLE)}\n"
    )
    sys.stderr.write(report.summary(list(results.values())) + "\n")
    if args.json is not None:
        args.json.write_text(report.as_json(list(results.values())))


if __name__ == "__main__":
    main()
