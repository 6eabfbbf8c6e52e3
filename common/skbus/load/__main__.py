# SPDX-License-Identifier: MIT
"""`python -m skbus.load`: `skbus load`, without the other commands."""

import typer

from skbus.cli import load

app = typer.Typer(rich_markup_mode=None)
load.register(app)

if __name__ == "__main__":
    app(prog_name="skbus load")
