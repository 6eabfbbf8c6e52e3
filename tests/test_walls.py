# SPDX-License-Identifier: MIT
"""Who imports whom is as `walls.toml` says; `walls.py` has how that is found out."""

from pathlib import Path

import pytest
from tests.walls import PAGE, ROOT, RULES, TOPS, Picture, Rules, check, drawn, modules

SMALL = """
[wing.low]
is = "below"
modules = ["skbus.low"]
pure = true
may = []
[wing.high]
is = "above"
modules = ["skbus", "skbus.a", "skbus.b"]
apart = true
may = ["low"]
[pure]
modules = ["typing"]
names = ["random.Random"]
[outside]
zmq = ["low"]
"""


@pytest.fixture
def rules() -> Rules:
    return Rules(RULES.read_text())


def test_every_import_keeps_the_rules(rules: Rules) -> None:
    broken = check(rules, ROOT)
    assert not broken, "\n" + "\n".join(broken)


def test_every_module_is_in_a_wing_and_every_entry_is_a_module(rules: Rules) -> None:
    known = modules(ROOT)
    assert [name for name in known if rules.place(name) is None] == []
    assert rules.prefixes.keys() - known.keys() == set()


def test_the_wings_have_no_circle(rules: Rules) -> None:
    floors = rules.floors()
    assert floors["core"] == 0
    for wing in rules.wings.values():
        assert all(floors[may] < floors[wing.name] for may in wing.may)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("low", "from skbus import a\n", "1: low imports high (skbus.a): low may import no wing"),
        ("low", "x = 1\ndef f():\n    import skbus.b\n", "3: low imports high (skbus.b)"),
        (
            "low",
            "import typing\nif typing.TYPE_CHECKING:\n    from .a import x\n",
            "3: low imports high (skbus.a)",
        ),
        ("low", "from importlib import import_module\n", "1: low imports importlib.import_module"),
        ("low", "__import__('skbus.b')\n", "1: low imports high (skbus.b)"),
        ("low", "import os.path\n", "1: low imports os.path: low does no I/O"),
        ("low", "import random\n", "1: low imports random: low does no I/O"),
        ("low", "from random import random\n", "1: low imports random.random"),
        ("low", "from random import Random\nfrom typing import Any\n", ""),
        ("a", "from skbus import b\n", "1: skbus.a imports skbus.b: the parts of high do not"),
        ("a", "import os\nfrom skbus.low import x\n", ""),
        ("a", "import zmq\n", "1: high imports zmq: that is for low alone"),
    ],
)
def test_what_breaks_a_rule_is_found(tmp_path: Path, name: str, text: str, message: str) -> None:
    package = tmp_path / "common/skbus"
    for top in TOPS:
        (tmp_path / top).mkdir(parents=True)
    for module in ("__init__", "low", "a", "b"):
        (package / f"{module}.py").write_text(text if module == name else "")
    broken = check(Rules(SMALL), tmp_path)
    assert len(broken) == bool(message), broken
    assert all(line.startswith(f"common/skbus/{name}.py:{message}") for line in broken), broken


def test_the_page_shows_the_rules(rules: Rules) -> None:
    text = PAGE.read_text()
    assert text == drawn(text, rules, ROOT), "draw it anew: python tests/walls.py --draw"


def picture(wings: dict[str, str]) -> list[str]:
    """The picture of wings with what each may import, without the margin."""
    text = "[pure]\nmodules = []\nnames = []\n[outside]\n"
    for name, may in wings.items():
        text += f'[wing.{name}]\nis = ""\nmodules = ["skbus.{name}"]\nmay = {may.split()}\n'
    lines = list(Picture(Rules(text)).lines())
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    return [line[margin:] for line in lines]


def test_implied_lines_are_left_out_and_lines_to_one_wing_join() -> None:
    assert picture({"top": "left right low", "left": "low", "right": "low", "low": ""}) == [
        "     top",
        "  ┌───┴───┐",
        "  ▼       ▼",
        "left    right",
        "  └───┐   │",
        "      ├───┘",
        "      ▼",
        "     low",
    ]


def test_lines_to_different_wings_cross_and_lines_pass_floors() -> None:
    assert picture({"u": "a c", "v": "b", "w": "v c", "a": "", "b": "", "c": ""}) == [
        "         w",
        "       ┌─┴──┐",
        "       ▼    │",
        "  u    v    │",
        "┌─┴────│──┐ │",
        "│    ┌─┘  ├─┘",
        "▼    ▼    ▼",
        "a    b    c",
    ]


def test_the_picture_reads_in_80_columns(rules: Rules) -> None:
    assert max(map(len, Picture(rules).lines())) <= 76
