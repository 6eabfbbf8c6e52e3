# SPDX-License-Identifier: MIT
"""`python -m skbus.load`: `skbus load`, without the other commands."""

from collections.abc import Callable
from functools import partial

from skbus.stack import interrupt


def _load() -> Callable[[], object]:
    import typer

    from skbus.load import cli

    app = typer.Typer(rich_markup_mode=None)
    cli.register(app)
    return partial(app, prog_name="skbus load")


if __name__ == "__main__":
    interrupt.run(_load)
