# SPDX-License-Identifier: MIT
"""Draws docs/tcp-states.md from `skbusd.tcp.tcp_states.TRANSITIONS`.

python tests/services/tcp/states_page.py        writes the page
"""

from pathlib import Path
from typing import Final, NamedTuple

from skbusd.tcp import const as c
from skbusd.tcp.tcp_states import SET, TRANSITIONS, Transition

PAGE: Final = Path(__file__).resolve().parents[3] / "docs/tcp-states.md"

WIDTH: Final = 16
COLUMN: Final = 36
ROW: Final = 7
"""Lines of a box, and of the lanes beneath it."""
END: Final = -1
"""CLOSE once more, at the foot of the drawing."""

PLACES: Final = {
    c.TCP_CLOSE: (1, 0),
    c.TCP_LISTEN: (0, 1),
    c.TCP_SYN_SENT: (2, 1),
    c.TCP_NEW_SYN_RECV: (0, 2),
    c.TCP_SYN_RECV: (0, 3),
    c.TCP_ESTABLISHED: (1, 4),
    c.TCP_FIN_WAIT1: (0, 5),
    c.TCP_CLOSE_WAIT: (2, 5),
    c.TCP_FIN_WAIT2: (0, 6),
    c.TCP_CLOSING: (1, 6),
    c.TCP_LAST_ACK: (2, 6),
    c.TCP_TIME_WAIT: (0, 7),
    END: (1, 8),
}
"""Column and row of each state's box."""


class Route(NamedTuple):
    """How an arrow goes: out of the box `old` at column `out` of it, down to the lane above `new`,
    along it, and into `new` at column `into`."""

    old: int
    new: int
    out: int = WIDTH // 2
    into: int = WIDTH // 2


ROUTES: Final = (
    Route(c.TCP_CLOSE, c.TCP_LISTEN, out=4),
    Route(c.TCP_CLOSE, c.TCP_SYN_SENT, out=12),
    Route(c.TCP_LISTEN, c.TCP_NEW_SYN_RECV),
    Route(c.TCP_NEW_SYN_RECV, c.TCP_SYN_RECV, 4, 4),
    Route(c.TCP_SYN_SENT, c.TCP_SYN_RECV, 4, 12),
    Route(c.TCP_SYN_SENT, c.TCP_ESTABLISHED, 12, 12),
    Route(c.TCP_SYN_RECV, c.TCP_ESTABLISHED, 12, 4),
    Route(c.TCP_SYN_RECV, c.TCP_FIN_WAIT1, 4, 4),
    Route(c.TCP_ESTABLISHED, c.TCP_FIN_WAIT1, 6, 10),
    Route(c.TCP_ESTABLISHED, c.TCP_CLOSE_WAIT, 10),
    Route(c.TCP_FIN_WAIT1, c.TCP_FIN_WAIT2, 2, 2),
    Route(c.TCP_FIN_WAIT1, c.TCP_CLOSING, 14),
    Route(c.TCP_CLOSE_WAIT, c.TCP_LAST_ACK),
    Route(c.TCP_FIN_WAIT2, c.TCP_TIME_WAIT, 4, 4),
    Route(c.TCP_CLOSING, c.TCP_TIME_WAIT, into=12),
    Route(c.TCP_TIME_WAIT, END, into=4),
    Route(c.TCP_LAST_ACK, END, into=12),
)


def name(state: int) -> str:
    """As `ss` and Linux have it."""
    return c.STATE_NAMES[c.TCP_CLOSE if state == END else state]


def label(t: Transition) -> str:
    """RFC 9293's: what comes, and what leaves."""
    return f"{t.cause} / {t.sends}" if t.sends else t.cause


def find(old: int, new: int) -> Transition:
    """The first row of the table for an arrow."""
    new = c.TCP_CLOSE if new == END else new
    return next(t for t in TRANSITIONS if (t.old, t.new) == (old, new))


class Canvas:
    """Lines of characters."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], str] = {}

    def put(self, x: int, y: int, text: str) -> None:
        """Write; ValueError where something else stands already."""
        for i, char in enumerate(text):
            if char == " ":
                continue
            if self.cells.get((x + i, y), char) != char:
                raise ValueError(f"{text!r} meets {self.cells[x + i, y]!r} at {x + i}, {y}")
            self.cells[x + i, y] = char

    def box(self, state: int) -> None:
        """A state, in its place."""
        x, y = PLACES[state][0] * COLUMN, PLACES[state][1] * ROW
        self.put(x, y, "+" + "-" * (WIDTH - 2) + "+")
        self.put(x, y + 1, "|" + name(state).center(WIDTH - 2) + "|")
        self.put(x, y + 2, "+" + "-" * (WIDTH - 2) + "+")

    def arrow(self, route: Route) -> None:
        """Down, along the lane, down."""
        x1, y1 = PLACES[route.old][0] * COLUMN + route.out, PLACES[route.old][1] * ROW + 3
        x2, y2 = PLACES[route.new][0] * COLUMN + route.into, PLACES[route.new][1] * ROW
        lane = y2 - 2
        text = label(find(route.old, route.new))
        if x1 == x2:
            for y in range(y1, y2 - 1):
                self.put(x1, y, "|")
            beside = x1 + 2 if PLACES[route.new][0] < 2 else x1 - 1 - len(text)
            self.put(beside, y2 - 4, text)
        else:
            for y in range(y1, lane):
                self.put(x1, y, "|")
            left, right = min(x1, x2), max(x1, x2)
            self.put(left, lane, "+" + "-" * (right - left - 1) + "+")
            self.put(left + 2, lane - 1, text[: right - left - 3])
            if len(text) > right - left - 3:
                raise ValueError(f"no room for {text!r}")
        self.put(x2, y2 - 1, "v")

    def text(self) -> str:
        """What was drawn."""
        lines = []
        for y in range(max(y for _, y in self.cells) + 1):
            row = {x: char for (x, at), char in self.cells.items() if at == y}
            lines.append("".join(row.get(x, " ") for x in range(max(row, default=-1) + 1)))
        return "\n".join(lines)


def drawing() -> str:
    """RFC 9293's figure 5, with Linux's names."""
    canvas = Canvas()
    for state in PLACES:
        canvas.box(state)
    for route in ROUTES:
        canvas.arrow(route)
    return canvas.text()


def table() -> str:
    """Every row of TRANSITIONS."""
    lines = ["| from | what comes / what leaves | to | by | after |", "|---|---|---|---|---|"]
    lines += [
        f"| {name(t.old)} | {label(t)} | {name(t.new)} | `{t.by}` | {t.source} |"
        for t in TRANSITIONS
    ]
    return "\n".join(lines)


def page() -> str:
    """docs/tcp-states.md."""
    return f"""# The states of a TCP connection

This page is drawn from the table `TRANSITIONS` in `services/skbusd/tcp/tcp_states.py`, by
`python tests/services/tcp/states_page.py`. A test fails when the page is older than the table.

The drawing is figure 5 of [RFC 9293](https://www.rfc-editor.org/rfc/rfc9293#figure-5) with Linux's
names for the states. An arrow says what comes, and behind the stroke what is sent. A RST, a
time-out or an abort leads from every state to CLOSE. These arrows stand in the table alone.

```
{drawing()}
```

NEW_SYN_RECV is Linux's own: while a handshake lasts, a small request sock stands for the
connection. A timewait sock stands for it in TIME_WAIT, and in FIN_WAIT2 once the application has
gone. The column "by" names the function that makes the change. Where that is not `{SET}`,
one object takes the place of another.

In the simulation `{SET}` checks each change against the table. No test, and no run of the
model check, makes a change that the table does not have.

{table()}
"""


if __name__ == "__main__":
    PAGE.write_text(page())
