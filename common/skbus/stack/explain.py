# SPDX-License-Identifier: MIT
"""Mistakes in a configuration or a scenario, in words: the key, what was given, what the key takes.

pydantic finds them; `explain` makes a line of each. Used by `skbus.stack.config` and
`skbus.load.scenario`.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

_UNION: Final = re.compile(r"(?:int|float|str|bool|none|\w+\[.*\]|function-.*|[A-Z]\w*)")
"""How pydantic calls the members of a union in an error's place; keys are in lower case."""

_PATTERNS: Final = {
    r"^[A-Za-z][\w-]*$": "a name: a letter, then letters, digits, - and _",
    r"^[\w-]*$": "a name of letters, digits, - and _",
}

_TAKES: Final = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "none_required": "nothing",
}
_LIMITS: Final = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} at most"),
    "less_than": ("lt", "less than {}"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_too_short": ("min_length", "at least {} characters"),
    "too_short": ("min_length", "at least {}"),
    "too_long": ("max_length", "at most {}"),
}


def explain(
    error: ValidationError,
    model: type[BaseModel],
    source: str | None = None,
    data: object = None,
    hidden: Sequence[str] = (),
) -> str:
    """A line for each mistake. data: what was validated, for the names of what is in lists.
    hidden: fields that are nobody's to set."""
    said: dict[str, list[str]] = {}
    takes: dict[str, list[str]] = {}
    for e in error.errors(include_url=False):
        loc = [p for p in e["loc"] if not (isinstance(p, str) and _UNION.fullmatch(p))]
        key = key_of(loc, data)
        given = e["input"]
        if e["type"] == "extra_forbidden":
            said[key] = [f"{key}: no such key; {_hint(model, loc, hidden)}"]
        elif e["type"] == "missing":
            said[key] = [f"{key}: is missing"]
        elif e["type"] == "value_error":
            text = str(e["ctx"]["error"]) if "ctx" in e else e["msg"]
            said.setdefault(key, []).append(_line(key, given, text))
        else:
            what = _takes(e["type"], dict(e.get("ctx") or {}), e["msg"])
            takes.setdefault(_line(key, given, ""), []).append(what)
    lines = [line for every in said.values() for line in every]
    for start, whats in takes.items():
        lines.append(f"{start}takes {' or '.join(dict.fromkeys(whats))}")
    deepest = [line for line in lines if not _has_deeper(line, lines)]
    where = f" ({source})" if source else ""
    return "\n".join(f"{line}{where}" for line in dict.fromkeys(deepest))


def _has_deeper(line: str, lines: Sequence[str]) -> bool:
    """A union fails in each of its members: what lies deeper is what was meant."""
    key = re.split(r" = |: ", line, maxsplit=1)[0]
    return bool(key) and any(other.startswith(f"{key}.") for other in lines)


def key_of(loc: Sequence[int | str], data: object = None) -> str:
    """`flow.web.rate`: what is in a list goes by its name, or else by its number."""
    key = ""
    at = data
    for part in loc:
        at = _inside(at, part)
        if isinstance(part, str):
            key += f".{part}" if key else part
            continue
        name = at.get("name") if isinstance(at, Mapping) else None
        key += f".{name}" if isinstance(name, str) and name else f"[{part}]"
    return key


def _inside(at: object, part: int | str) -> object:
    if isinstance(at, Mapping):
        return at.get(part)
    if isinstance(at, Sequence) and isinstance(part, int) and part < len(at):
        return at[part]
    return None


def _line(key: str, given: object, text: str) -> str:
    if not key:
        return text
    simple = isinstance(given, str | int | float)
    return f"{key} = {given!r}: {text}" if simple else f"{key}: {text}"


def _takes(kind: str, ctx: Mapping[str, Any], message: str) -> str:
    if kind == "literal_error":
        return re.sub(r"'([^']*)'", r"\1", str(ctx["expected"]))
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(ctx["pattern"], f"text of the form {ctx['pattern']}")
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        return text.format(ctx.get(name, ""))
    return _TAKES.get(kind) or message[:1].lower() + message[1:]


def _hint(model: type[BaseModel], loc: Sequence[int | str], hidden: Sequence[str]) -> str:
    at: type[BaseModel] | None = model
    for part in loc[:-1]:
        if isinstance(part, str) and at is not None:
            field = next((f for n, f in at.model_fields.items() if part in (n, f.alias)), None)
            at = _model_in(field.annotation) if field is not None else None
    fields = at.model_fields if at is not None else {}
    known = [f.alias or n for n, f in fields.items() if n not in hidden]
    near = difflib.get_close_matches(str(loc[-1]), known, 1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type is, or is a list or an option of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
