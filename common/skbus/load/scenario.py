# SPDX-License-Identifier: MIT
"""A scenario: which flows there are, how much they carry and when, the faults meanwhile, and the
assertions.

It is a TOML file, or a Python file with `scenario` (a Scenario, a dict, or a function that returns
one). A Python file may have protocols of its own (`skbus.load.client.Client`). docs/load.md
describes every key. A mistake is a ScenarioError that names the key, the given value and what the
key takes.

Read by `skbus.load.runner`, which sends it to the workers. They validate it again.
"""

import difflib
import os
import runpy
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from skbus.core.dropreason import REASONS
from skbus.core.sysctl import Sysctl
from skbus.load import quantity
from skbus.load.assertion import Assertion
from skbus.load.curve import Curve
from skbus.load.kinds import KINDS, is_kind
from skbus.load.quantity import Distribution
from skbus.stack.config import Impair
from skbus.stack.explain import explain

PROTOCOLS: Final = ("connect-close", "echo", "http", "bulk", "udp")
"""Those that are built in."""

_ONLY_FOR: Final = {
    "path": ("http",),
    "method": ("http",),
    "direction": ("bulk",),
    "read_rate": ("http", "bulk"),
}
"""Keys of a flow that some protocols alone look at."""

LAYERS: Final = ("nic", "ip", "tcp", "udp", "socket")


class ScenarioError(ValueError):
    """A scenario that cannot be used; one line for each mistake."""


_seconds = PlainSerializer(lambda v: f"{v:.9f}s")
Seconds = Annotated[float, BeforeValidator(quantity.seconds), _seconds]
Size = Annotated[int, BeforeValidator(quantity.size)]
PerSecond = Annotated[float, BeforeValidator(quantity.per_second)]
BitRate = Annotated[
    float, BeforeValidator(quantity.bit_rate), PlainSerializer(lambda v: f"{v:.0f}bit")
]


def _sizes(value: object) -> Distribution:
    return value if isinstance(value, Distribution) else Distribution.parse(value, "size")


def _times(value: object) -> Distribution:
    return value if isinstance(value, Distribution) else Distribution.parse(value, "time")


_as_text = PlainSerializer(lambda d: d.text)
Sizes = Annotated[Distribution, BeforeValidator(_sizes), _as_text]
Times = Annotated[Distribution, BeforeValidator(_times), _as_text]
Side = Literal["linux", "skbus"]


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Flow(_Model):
    """Clients that all do the same."""

    name: str = Field(pattern=r"^[A-Za-z][\w-]*$", max_length=32)
    protocol: str
    """connect-close, echo, http, bulk, udp, or a class of the scenario's own file"""
    side: Side | None = None
    """whose stack the clients are on; the server is on the other one. None: the scenario's"""
    clients: int = Field(default=1, ge=1, le=60_000)
    """connections at load 1; with a rate, the most that there are at once"""
    rate: PerSecond = 0.0
    """requests in a second at load 1, whatever becomes of earlier ones (an open loop). 0: each
    client waits for its answer, thinks, and asks again (a closed loop)"""
    arrivals: Literal["poisson", "even"] = "poisson"
    think: Times = Distribution("0s", lambda _: 0.0)
    """closed loop: time between an answer and the next request"""
    pace: Seconds = 0.0
    """closed loop: each client begins a request so often, and is late when it cannot"""
    request: Sizes = Distribution("64", lambda _: 64.0)
    response: Sizes = Distribution("64", lambda _: 64.0)
    per_connection: int = Field(default=0, ge=0)
    """requests after which a client connects anew; 0 for never"""
    direction: Literal["up", "down"] = "down"
    """bulk: from the client, or to it"""
    read_rate: BitRate = 0.0
    """bulk, http: the client takes in no more than that; 0 for no limit"""
    timeout: Seconds = 10.0
    verify: bool = True
    """check that the bytes received are those that must come"""
    method: Literal["GET", "HEAD"] = "GET"
    """http"""
    path: str | None = None
    """http: what to ask for; None asks the built-in server for as many bytes as `response` says"""
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    """a server that runs already; None for the built-in one on the other side"""

    @model_validator(mode="after")
    def _consistent(self) -> "Flow":
        if self.rate and (self.pace or self.think.text != "0s"):
            raise ValueError("rate makes an open loop, think and pace a closed one: take one")
        if self.pace and self.think.text != "0s":
            raise ValueError("think and pace exclude each other")
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port belong together")
        self._of_use()
        return self

    def _of_use(self) -> None:
        """A key that this flow's protocol or loop does not look at is a mistake, not a wish."""

        def given(key: str) -> bool:
            default = Flow.model_fields[key].default
            return bool(getattr(self, key) != default)

        if given("arrivals") and not self.rate:
            raise ValueError("arrivals is of an open loop: it needs a rate")
        for key in ("request", "response"):
            if self.path is not None and given(key):
                raise ValueError(
                    f"path asks for what the server has there: {key} says nothing then"
                )
        if self.protocol not in PROTOCOLS:
            return
        for key, protocols in _ONLY_FOR.items():
            if given(key) and self.protocol not in protocols:
                raise ValueError(f"{key} is for {' and '.join(protocols)}, not for {self.protocol}")


def _sysctls(value: dict[str, int | str] | None) -> dict[str, int | str] | None:
    table = Sysctl()
    for name, given in (value or {}).items():
        table.set(name, given)  # SysctlError is a ValueError, which says what is wrong
    return value


Load = float | tuple[float, float]


class Phase(_Model):
    """A stretch of time. The load is a factor on every flow's clients or rate."""

    name: str = Field(pattern=r"^[A-Za-z][\w-]*$", max_length=32)
    duration: Seconds
    load: Load | dict[str, Load] = 1.0
    """a number; [FROM, TO] for a ramp; or these by the name of the flow (others: 0)"""
    impair: Impair | None = None
    """from the beginning of this phase on, until another one says otherwise"""

    @field_validator("duration")
    @classmethod
    def _some(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("must be longer than 0s")
        return value

    @field_validator("load")
    @classmethod
    def _positive(cls, value: Load | dict[str, Load]) -> Load | dict[str, Load]:
        for load in value.values() if isinstance(value, dict) else [value]:
            if any(n < 0 for n in ([load] if isinstance(load, float) else load)):
                raise ValueError("a load is not negative")
        return value

    def ends(self, flow: str) -> tuple[float, float]:
        """The load of a flow at the phase's beginning and end."""
        load = self.load.get(flow, 0.0) if isinstance(self.load, dict) else self.load
        return (load, load) if isinstance(load, float) else load


class Event(_Model):
    """Something that happens at one time: exactly one of the things below."""

    at: Seconds
    impair: Impair | None = None
    pause: str | None = None
    """a layer's process is stopped (SIGSTOP), and goes on after `lasting`"""
    restart: str | None = None
    """a layer's process is killed; its supervisor starts it again"""
    run: str | None = None
    """a command, in the clients' Linux namespace; {host} is the server's address, {echo}, {http},
    {bulk}, {udp} are its ports. It is ended after `lasting`, or at the end"""
    sysctl: dict[str, int | str] | None = None
    lasting: Seconds = 0.0

    @field_validator("sysctl")
    @classmethod
    def _known(cls, value: dict[str, int | str] | None) -> dict[str, int | str] | None:
        return _sysctls(value)

    @field_validator("pause", "restart")
    @classmethod
    def _layer(cls, value: str | None) -> str | None:
        if value is not None and value.split(".")[0] not in LAYERS:
            raise ValueError(f"takes a layer: {', '.join(LAYERS)}")
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> "Event":
        things = [k for k in ("impair", "pause", "restart", "run", "sysctl") if self._has(k)]
        if len(things) != 1:
            raise ValueError(
                "takes exactly one of impair, pause, restart, run, sysctl"
                + (f", not {' and '.join(things)}" if things else "")
            )
        if self.pause and not self.lasting:
            raise ValueError('pause needs lasting, such as lasting = "500ms"')
        return self

    def _has(self, key: str) -> bool:
        return getattr(self, key) is not None

    def say(self) -> str:
        """For the report: one phrase."""
        if self.impair is not None:
            given = {
                "delay": quantity.say_time(self.impair.delay / 1e9),
                "jitter": quantity.say_time(self.impair.jitter / 1e9),
                "rate": quantity.say_bits(self.impair.rate),
                **{
                    k: f"{getattr(self.impair, k) * 100:g} %"
                    for k in ("loss", "reorder", "dup", "corrupt")
                },
            }
            parts = [f"{k} {v}" for k, v in given.items() if getattr(self.impair, k)]
            return "impair: " + (", ".join(parts) or "none")
        if self.pause is not None:
            return f"pause {self.pause} for {quantity.say_time(self.lasting)}"
        if self.restart is not None:
            return f"restart {self.restart}"
        if self.run is not None:
            return f"run {self.run}"
        return "sysctl " + ", ".join(f"{k}={v}" for k, v in (self.sysctl or {}).items())


class Scenario(_Model):
    """The whole of it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    name: str = Field(default="", pattern=r"^[\w-]*$", max_length=64)
    """the file's name, if not given"""
    description: str = ""
    seed: int = 0
    side: Side = "linux"
    """whose stack the clients are on"""
    processes: int = Field(default=1, ge=1, le=64)
    """client processes for each side, which share the clients"""
    sample: Seconds = 1.0
    """how often memory, counters and latencies are sampled"""
    settle: Seconds = 5.0
    """how long the last requests may take after the end, and the stack to come to rest"""
    impair: Impair | None = None
    """from the start"""
    sysctl: dict[str, int | str] = {}
    flows: list[Flow] = Field(alias="flow", min_length=1)
    phases: list[Phase] = Field(alias="phase", min_length=1)
    events: list[Event] = Field(alias="event", default=[])
    asserts: list[str] = Field(alias="assert", default=[])
    file: str | None = None
    """where it came from; a Python file has protocols of its own"""

    @field_validator("sysctl")
    @classmethod
    def _known(cls, value: dict[str, int | str]) -> dict[str, int | str] | None:
        return _sysctls(value)

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        names = [f.name for f in self.flows]
        for kind, every in (("flow", names), ("phase", [p.name for p in self.phases])):
            for name in every:
                if every.count(name) > 1:
                    raise ValueError(f"{kind}: {name} is there twice")
        for phase in self.phases:
            for name in phase.load if isinstance(phase.load, dict) else ():
                if name not in names:
                    raise ValueError(f"phase {phase.name}: load: no flow {name!r}")
        if not self.file or not self.file.endswith(".py"):
            for flow in self.flows:
                if flow.protocol not in PROTOCOLS:
                    raise ValueError(
                        f"flow {flow.name}: protocol = {flow.protocol!r}: takes "
                        f"{', '.join(PROTOCOLS)}"
                    )
        for event in self.events:
            if event.at > self.duration:
                raise ValueError(f"event: at = {event.at:g}s is after the end ({self.duration:g}s)")
        phases = [p.name for p in self.phases]
        for text in self.asserts:
            try:
                phase_name = Assertion.parse(text, frozenset(names)).phase
            except ValueError as e:
                raise ValueError(f"assert {text!r}: {e}") from None
            if phase_name is not None and phase_name not in phases:
                raise ValueError(f"assert {text!r}: no phase {phase_name!r}")
        self._details()
        return self

    def _details(self) -> None:
        """A kind of error, or a reason for a drop, that cannot be: it would be 0 for ever."""
        for a in self.assertions():
            known: Collection[str]
            if a.detail is None:
                continue
            if a.metric == "errors" and not (self.file or "").endswith(".py"):
                unknown, known = not is_kind(a.detail), KINDS
            elif a.metric == "drops":
                unknown, known = a.detail not in REASONS, REASONS
            else:
                continue
            if unknown:
                near = difflib.get_close_matches(f"SKB_DROP_REASON_{a.detail}", REASONS, 1, 0.9)
                near = near or difflib.get_close_matches(a.detail, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
                if a.metric == "drops" and not near:
                    hint = "they are named as Linux's, SKB_DROP_REASON_..."
                raise ValueError(f"assert {a.text!r}: no {a.metric} of that kind; {hint}")

    @property
    def duration(self) -> float:
        """Seconds, without settling."""
        return sum(p.duration for p in self.phases)

    def curve(self, flow: str) -> Curve:
        """The load of one flow."""
        return Curve([(p.duration, *p.ends(flow)) for p in self.phases])

    def assertions(self) -> list[Assertion]:
        """Taken apart."""
        names = frozenset(f.name for f in self.flows)
        return [Assertion.parse(a, names) for a in self.asserts]

    def side_of(self, flow: Flow) -> Side:
        """Whose stack its clients are on."""
        return flow.side or self.side

    def all_events(self) -> list[Event]:
        """The events, and the phases' impairments among them, in the order of their time."""
        events = list(self.events)
        if self.impair is not None:
            events.append(Event(at="0ms", impair=self.impair))  # type: ignore[arg-type]
        at = 0.0
        for phase in self.phases:
            if phase.impair is not None:
                events.append(Event(at=f"{at:.9f}s", impair=phase.impair))  # type: ignore[arg-type]
            at += phase.duration
        return sorted(events, key=lambda e: e.at)

    def scaled(self, factor: float) -> "Scenario":
        """The same with all phases, events and their lengths longer or shorter (--time)."""
        data = self.model_dump(mode="json", by_alias=True)
        for phase, of in zip(data["phase"], self.phases, strict=True):
            phase["duration"] = f"{of.duration * factor:.9f}s"
        for event, old in zip(data["event"], self.events, strict=True):
            event["at"] = f"{old.at * factor:.9f}s"
            event["lasting"] = f"{old.lasting * factor:.9f}s"
        return Scenario.model_validate(data)


# ---- reading -----------------------------------------------------------------------------------

LIBRARY: Final = "SKBUS_SCENARIOS"
"""The variable that names a directory of scenarios of one's own, which come first."""

OWN: Final = Path(__file__).with_name("scenarios")
"""Those that come with the package."""


def library() -> dict[str, Path]:
    """Every scenario that can be called by its name."""
    there: dict[str, Path] = {}
    given = os.environ.get(LIBRARY)
    if given and not Path(given).is_dir():
        raise ScenarioError(f"{LIBRARY}={given}: there is no such directory")
    for directory in (*([Path(given)] if given else ()), OWN):
        for path in sorted(directory.glob("*")):
            python = path.suffix == ".py" and not path.name.startswith(("test_", "_"))
            if path.suffix == ".toml" or python:
                there.setdefault(path.stem, path)
    return there


def find(name: str) -> Path:
    """The file of that path, or that of that name in the library. ScenarioError lists those that
    there are."""
    if "/" in name or Path(name).suffix in (".toml", ".py"):
        return Path(name)
    there = library()
    if name in there:
        return there[name]
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    raise ScenarioError(
        f"no scenario {name!r}: {hint} {', '.join(there)} (`skbus load --list` says what they do; "
        "a path, as ./mine.toml, names a file)"
    )


def load(file: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Scenario:
    """Read a .toml or .py file. changes: dotted key -> value, over what the file says
    ("flow.web.rate": 500). ScenarioError says what is wrong, and where."""
    path = Path(file)
    try:
        if path.suffix == ".py":
            data = _from_python(path)
        else:
            with path.open("rb") as f:
                data = tomllib.load(f)
    except OSError as e:
        raise ScenarioError(f"cannot read the scenario {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ScenarioError(f"{path} is not TOML: {e}") from None
    for key, value in (changes or {}).items():
        _change(data, key, value)
    data.setdefault("name", path.stem)
    data["file"] = str(path.resolve())
    return validate(data, str(path))


def validate(data: Mapping[str, Any], source: str | None = None) -> Scenario:
    """Of nested dicts."""
    try:
        return Scenario.model_validate(data)
    except ValidationError as e:
        raise ScenarioError(explain(e, Scenario, source, data, ("file",))) from None


def _from_python(path: Path) -> dict[str, Any]:
    try:
        found = runpy.run_path(str(path))
    except Exception as e:
        raise ScenarioError(f"{path}: {type(e).__name__}: {e}") from e
    scenario = found.get("scenario")
    if callable(scenario):
        scenario = scenario()
    if isinstance(scenario, Scenario):
        scenario = scenario.model_dump(mode="json", by_alias=True)
    if not isinstance(scenario, dict):
        raise ScenarioError(f"{path}: has no `scenario` (a Scenario, a dict, or a function)")
    return dict(scenario)


def _change(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `flow.web.rate`: parts of a list go by name, or by number from 0."""
    *way, last = key.split(".")
    at: Any = data
    for part in way:
        if isinstance(at, list):
            named = [x for x in at if x.get("name") == part]
            if not named and part.isdigit() and int(part) < len(at):
                named = [at[int(part)]]
            if not named:
                names = ", ".join(str(x.get("name", i)) for i, x in enumerate(at))
                raise ScenarioError(f"{key}: there is no {part!r} among {names}")
            at = named[0]
        else:
            at = at.setdefault(part, {})
    if not isinstance(at, dict):
        raise ScenarioError(f"{key}: what of {way[-1]}? Name one, as in {way[-1]}.NAME.{last}")
    at[last] = value
