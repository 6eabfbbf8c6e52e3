# SPDX-License-Identifier: MIT
"""`skbus abi`: the messages between the processes, with their fields; docs/messages.md is its
output.

All of it is read from the interfaces (`skbus.core.interfaces`), from the NamedTuples of
`skbus.core.abi` and from the tables that each layer's core serves. Nothing is written down here.
"""

import ast
import importlib
import inspect
import textwrap
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import typer

LAYERS: Final = ("nic", "ip", "tcp", "udp", "socket")


def register(app: typer.Typer) -> None:
    app.command()(abi)


def abi(
    entry: Annotated[
        str | None,
        typer.Argument(help="One entry (tcp_sendmsg, bind), interface (Ip) or item (GetPort)."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all of it as docs/messages.md has it.")
    ] = False,
) -> None:
    """Print the messages between the processes: who sends what to whom, with the fields."""
    if markdown:
        print("\n".join(page()))
        return
    lines = list(listing(entry)) if entry else list(overview())
    if not lines:
        raise typer.BadParameter(f"no entry, interface or item is named {entry!r}; try `skbus abi`")
    print("\n".join(lines))


# ---- what there is --------------------------------------------------------------------------


def takers() -> dict[str, list[tuple[str, str]]]:
    """Entry's name -> (process, function) of each process that takes it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for layer in LAYERS:
        serves = importlib.import_module(f"skbusd.{layer}.core").SERVES
        for entry, function in serves.items():
            where = f"{function.__module__.partition('.')[2].replace('.', '/')}.py"
            found.setdefault(entry.name, []).append((layer, f"{where}:{function.__name__}"))
    return found


def fields_of(kind: Any) -> Iterator[tuple[str, str, str]]:
    """(name, type, text) of each field of a NamedTuple; the text stands below the field."""
    hints = typing.get_type_hints(kind)
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    last = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            texts[last] = " ".join(str(node.value.value).split())
    for name in kind._fields:
        yield name, getattr(hints[name], "__name__", str(hints[name])), texts.get(name, "")


def remarks(interface: Any) -> dict[str, str]:
    """Entry's name -> the text below it."""
    body = ast.parse(inspect.getsource(interface)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    last = ""
    for node in body.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            last = node.targets[0].id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            texts[last] = " ".join(str(node.value.value).split())
            last = ""
    return texts


def ends(interface: Any, arrow: str = "->") -> str:
    """The callers and callees of an interface, as text."""
    callers, callees = interface.callers, interface.callees
    if not callers:
        return f"every process {arrow} its neighbours"
    return f"{', '.join(callers)} {arrow} {', '.join(callees)}"


def doc_of(what: Any) -> str:
    """A docstring, each paragraph of it as one line."""
    text = inspect.getdoc(what) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def item_of(entry: Any) -> str:
    """What an entry carries, in a word or two."""
    if entry.is_skb:
        return f"sk_buff, cb {entry.kind.__name__}" if entry.kind is not None else "sk_buff"
    return str(entry.kind.__name__)


def answer_of(entry: Any) -> str:
    """What `sk_ret` answers; "" where there is no answer."""
    if entry.reply is None:
        return ""
    return "errno" if entry.reply is type(None) else f"errno, {entry.reply.__name__}"


def kinds() -> list[Any]:
    """The NamedTuples of all entries and answers, in the order of `skbus.core.abi`."""
    import skbus.core.interfaces  # noqa: F401
    from skbus.core import abi as schema
    from skbus.core.entry import BY_NAME

    used: set[Any] = set()
    for entry in BY_NAME.values():
        used |= {entry.kind, entry.reply}
    return [kind for kind in vars(schema).values() if isinstance(kind, type) and kind in used]


# ---- in a terminal --------------------------------------------------------------------------


def overview() -> Iterator[str]:
    """One line for each entry."""
    import skbus.core.interfaces  # noqa: F401
    from skbus.core.abi import ABI
    from skbus.core.entry import INTERFACES, entries_of

    yield f"ABI {ABI}; `skbus abi NAME` shows an entry, an interface or an item with its fields"
    for interface in INTERFACES:
        yield ""
        yield f"{interface.__name__}: {ends(interface)}"
        for entry in entries_of(interface):
            answer = answer_of(entry)
            yield f"  {entry.name:<24} {item_of(entry)}{f'  -> {answer}' if answer else ''}"


def listing(name: str) -> Iterator[str]:
    """All that there is to say of one entry, interface or item."""
    from skbus.core.entry import INTERFACES, entries_of

    taken = takers()
    for interface in INTERFACES:
        chosen = [e for e in entries_of(interface) if name in (e.name, interface.__name__, repr(e))]
        texts = remarks(interface)
        for entry in chosen:
            yield f"{entry!r}: {ends(interface)}"
            if entry.name in texts:
                yield f"  {texts[entry.name]}"
            for process, function in taken.get(entry.name, ()):
                yield f"  {process:<7} {function}"
            if answer_of(entry):
                yield f"  answer: {answer_of(entry)}"
            full = "waits" if entry.lossless else "is dropped (SKBUS_PIPE_FULL)"
            yield f"  a full pipe: it {full}"
            if entry.kind is not None:
                yield f"  {item_of(entry)}:"
                yield from _fields(entry.kind, "    ")
    for kind in kinds():
        if kind.__name__ == name:
            yield name
            yield from (f"  {line}" for line in doc_of(kind).split("\n"))
            yield from _fields(kind, "  ")


def _fields(kind: Any, indent: str) -> Iterator[str]:
    for name, type_, text in fields_of(kind):
        yield f"{indent}{name:<14} {type_:<7} {text}".rstrip()


# ---- docs/messages.md -----------------------------------------------------------------------


def page() -> Iterator[str]:
    """docs/messages.md."""
    from skbus.core.abi import ABI
    from skbus.core.entry import INTERFACES, entries_of

    taken = takers()
    yield "# Messages between the processes"
    yield ""
    yield "<!-- Made by `skbus abi --markdown > docs/messages.md`; a test says when it is old. -->"
    yield ""
    yield from _paragraphs(
        "Every process calls functions of its neighbours by messages. This page lists all of them,"
        f" as `skbus.core.interfaces` defines them (ABI {ABI}).",
        "An entry is named after the function that takes it. The column *taken by* says in which"
        " process and file that function is, below `services/skbusd/`. An entry with an `sk_buff`"
        " has the item as the skb's `cb`. *Answer* is what `SkCallbacks.sk_ret` brings back: an"
        " errno and, on success, the type that is named. An entry that is marked *drops* is dropped"
        " by a full pipe, and counted as `SKBUS_PIPE_FULL`; every other one waits.",
    )
    for interface in INTERFACES:
        yield ""
        yield f"## {interface.__name__}: {ends(interface, '→')}"
        yield ""
        yield doc_of(interface)
        yield ""
        yield "| entry | item | answer | full pipe | taken by |"
        yield "|---|---|---|---|---|"
        texts = remarks(interface)
        for entry in entries_of(interface):
            item = "`sk_buff`" if entry.is_skb else ""
            if entry.kind is not None:
                name = entry.kind.__name__
                item = f"{item} [{name}](#{name.lower()})".strip()
            functions = "<br>".join(f"{p}: `{f}`" for p, f in taken.get(entry.name, ()))
            if interface.__name__ == "Neighbour":
                functions = "every process: `common/skbus/bus/dispatch.py`"
            elif interface.__name__ == "NetProtocol":
                functions = "a plug-in"
            full = "" if entry.lossless else "drops"
            yield f"| `{entry.name}` | {item} | {_answer(entry)} | {full} | {functions} |"
        for name, text in texts.items():
            yield ""
            yield f"`{name}`: {text}"
    yield ""
    yield "## The items"
    for kind in kinds():
        yield ""
        yield f"### {kind.__name__}"
        yield ""
        yield doc_of(kind)
        yield ""
        yield "| field | type | |"
        yield "|---|---|---|"
        for name, type_, text in fields_of(kind):
            yield f"| `{name}` | {type_} | {text} |"


def _answer(entry: Any) -> str:
    if entry.reply is None:
        return ""
    if entry.reply is type(None):
        return "errno"
    name = entry.reply.__name__
    return f"[{name}](#{name.lower()})" if hasattr(entry.reply, "_fields") else f"`{name}`"


def _paragraphs(*texts: str) -> Iterable[str]:
    for i, text in enumerate(texts):
        if i:
            yield ""
        yield from textwrap.wrap(text, 100)
