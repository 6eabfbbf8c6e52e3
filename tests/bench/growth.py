# SPDX-License-Identifier: MIT
"""The plots of docs/performance.md, drawn from its tables.

    growth.py docs/performance.md docs/growth.svg

`performance.py --into` calls it. A table becomes a panel where its first column is a size, a loss,
an MTU or a number of connections. Columns of Mbit/s or round trips become its lines.
"""

import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

RATES: Final = ("bulk in, Mbit/s", "bulk out, Mbit/s", "round trips a second")
AXES: Final = ("bytes there and back", "loss each way", "MTU", "idle")
COLOURS: Final = {RATES[0]: "#1f77b4", RATES[1]: "#ff7f0e", RATES[2]: "#2ca02c"}


class Panel(NamedTuple):
    """One table: the values of its first column, and a line for each rate."""

    axis: str
    values: list[str]
    lines: dict[str, list[float | None]]


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(cell: str) -> float | None:
    """A cell's number; None where there is none."""
    text = cell.replace(",", "")
    return float(text) if re.fullmatch(r"[0-9.]+", text) else None


def panels(page: str) -> list[Panel]:
    """The tables that can be drawn."""
    found: list[Panel] = []
    head: list[str] = []
    for line in [*page.splitlines(), ""]:
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells(line)
            if head[0] in AXES:
                found.append(Panel(head[0], [], {name: [] for name in head if name in RATES}))
        elif head[0] in AXES and not line.startswith("|-"):
            row = cells(line)
            found[-1].values.append(row[0])
            for name, line_values in found[-1].lines.items():
                line_values.append(number(row[head.index(name)]))
    return [panel for panel in found if panel.values and panel.lines]


def draw(page: str, path: Path) -> str:
    """Draw the panels; returns where, or why not."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "no plot: matplotlib is not installed (pip install -e '.[bench]')"
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "skbus"
    import matplotlib.pyplot as plt

    found = panels(page)
    if not found:
        return "no plot: the page has no table of rates"
    figure, axes = plt.subplots(
        1, len(found), figsize=(3.4 * len(found), 3.0), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes.flat, found, strict=True):
        for name, values in panel.lines.items():
            points = [(x, y) for x, y in enumerate(values) if y is not None]
            axis.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], label=name)
        axis.set_ylim(bottom=0)
        axis.set_xticks(range(len(panel.values)), panel.values, fontsize=7)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_xlabel("idle connections" if panel.axis == "idle" else panel.axis, fontsize=8)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return f"plot: {path}"


def main() -> int:
    if len(sys.argv) != 3:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    sys.stdout.write(draw(Path(sys.argv[1]).read_text(), Path(sys.argv[2])) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
