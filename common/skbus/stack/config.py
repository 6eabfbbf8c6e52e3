# SPDX-License-Identifier: MIT
"""The configuration of one stack: one TOML file, the environment, flags; the last one wins.

`Config.load` is for the person's side (`skbus up`, `skbus lab up`, `skbusd`); the effective
configuration is then written to RUN/config.json, which is what the layers read.

    [[devices]]
    name = "eth1"
    addr = "192.0.2.7/24"
    gateway = "192.0.2.1"
    impair = { loss = "1%", delay = "20ms", rate = "100mbit", seed = 7 }

    [sysctl]
    "net.ipv4.tcp_sack" = 0

    [log]
    level = "info"
    layers = { tcp = "debug" }

A mistake is a ConfigError that names the key, what was given and what the key takes.
"""

import fcntl
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

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

from skbus.bus.rundir import RunDir
from skbus.core.quantities import parse_fraction, parse_rate, parse_time
from skbus.core.sysctl import Sysctl, SysctlError
from skbus.inet.rps import MAX_SHARDS, RSS_KEY_LEN, tcp_processes
from skbus.stack.explain import explain

LAYERS: Final = ("ip", "tcp", "udp", "socket")
"""The layers of which a stack has one process each; nic has one for each device."""

LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(ValueError):
    """A configuration that cannot be used; one line for each mistake."""


Nanoseconds = Annotated[int, BeforeValidator(parse_time), PlainSerializer(lambda v: f"{v}ns")]
BitsPerSecond = Annotated[int, BeforeValidator(parse_rate), PlainSerializer(lambda v: f"{v}bit")]
Fraction = Annotated[float, BeforeValidator(parse_fraction)]


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_assignment=True)


class Impair(_Model):
    """What happens to packets between nic and wire, in both directions."""

    loss: Fraction = 0.0
    delay: Nanoseconds = 0
    jitter: Nanoseconds = 0
    reorder: Fraction = 0.0
    dup: Fraction = 0.0
    corrupt: Fraction = 0.0
    rate: BitsPerSecond = 0
    """bits per second, 0 for no limit"""
    seed: int = 0

    def __bool__(self) -> bool:
        return any(v for k, v in self if k != "seed")


def _interface(value: str) -> str:
    try:
        found = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError("takes an address with its prefix length, such as 10.77.0.2/24") from None
    if "/" not in value:
        raise ValueError(f"lacks the prefix length: write {value}/24, if that is its network")
    return str(found)


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("takes an address, such as 10.77.0.1") from None


def _mac(value: str) -> str:
    if not re.fullmatch(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}", value):
        raise ValueError("takes a MAC address, such as 02:00:00:00:00:07")
    if int(value[:2], 16) & 1:
        raise ValueError("takes a unicast MAC address: the first byte must be even")
    return value.lower()


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Device(_Model):
    """One interface, and the nic process that drives it."""

    name: str = Field(min_length=1, max_length=15, pattern=r"^[^/\s:]+$")
    backend: Literal["af_packet", "tap"] = "af_packet"
    mode: Literal["own", "take-over"] = "own"
    """own: an address of our own on the segment; take-over: the kernel gives its address up"""
    addr: list[str] = []
    gateway: str | None = None
    mac: str | None = None
    """None: take-over uses the interface's; own makes one up from name and address"""
    mtu: int | None = Field(default=None, ge=68, le=65535)
    """None: the interface's"""
    impair: Impair = Impair()

    @field_validator("addr", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return _listed(value)

    @field_validator("addr")
    @classmethod
    def _cidr(cls, value: list[str]) -> list[str]:
        return [_interface(v) for v in value]

    @field_validator("gateway")
    @classmethod
    def _gw(cls, value: str | None) -> str | None:
        return None if value is None else _address(value)

    @field_validator("mac")
    @classmethod
    def _dev_addr(cls, value: str | None) -> str | None:
        return None if value is None else _mac(value)

    @property
    def process(self) -> str:
        """The name of its nic process."""
        return f"nic.{self.name}"


class Route(_Model):
    """One route, as `ip route add DST via GATEWAY dev DEV` has it."""

    dst: str
    gateway: str | None = None
    dev: str | None = None
    metric: int = Field(default=0, ge=0, le=2**32 - 1)
    type: Literal["unicast", "blackhole", "unreachable", "prohibit"] = "unicast"
    """all but unicast lead nowhere, each with an error of its own"""
    prefsrc: str | None = None
    """source address of what leaves by this route"""
    mtu: int = Field(default=0, ge=0, le=65535)
    """bytes, where the path takes less than the device; 0: the device's"""

    @field_validator("dst")
    @classmethod
    def _net(cls, value: str) -> str:
        text = "0.0.0.0/0" if value == "default" else value
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError("takes a network such as 10.0.0.0/8, or default") from None

    @field_validator("gateway", "prefsrc")
    @classmethod
    def _gw(cls, value: str | None) -> str | None:
        return None if value is None else _address(value)

    @model_validator(mode="after")
    def _somewhere(self) -> "Route":
        if self.type == "unicast" and self.gateway is None and self.dev is None:
            raise ValueError("takes a gateway, a dev, or both")
        return self


class Log(_Model):
    """What is logged, and how."""

    level: LogLevel = "info"
    layers: dict[str, LogLevel] = {}
    """other levels for single processes: tcp, or nic.eth0, or nic for each of them"""
    format: Literal["auto", "json", "console"] = "auto"
    """auto: colours on a terminal, else JSON lines"""

    def level_of(self, process: str) -> LogLevel:
        """The level of one process."""
        layer = process.split(".")[0]
        return self.layers.get(process) or self.layers.get(layer) or self.level


class Clock(_Model):
    """The stack's clock against the machine's."""

    time_scale: float = Field(default=1.0, gt=0, le=1000)
    """2.0: everything takes twice as long as it says, in the machine's time"""


class Config(_Model):
    """The whole configuration."""

    run_dir: str | None = None
    devices: list[Device] = []
    routes: list[Route] = []
    congestion_control: list[str] = []
    """controls of one's own: "path/to/file.py:Class" or "package.module:Class" """
    sysctl: dict[str, int | str | list[int]] = {}
    log: Log = Log()
    clock: Clock = Clock()
    layers: list[Literal["ip", "tcp", "udp", "socket"]] = list(LAYERS)
    """layers to run; leave one out to run it elsewhere, or not at all"""
    tcp_shards: int = Field(default=1, ge=1, le=MAX_SHARDS)
    """tcp processes, among which connections are spread (`skbus.inet.rps`)"""
    rss_key: str = ""
    """by which they are spread: 32 hex digits, chosen at start where it is not set"""
    module_alias: dict[str, str] = {}
    """what the socket layer loads when it lacks a family or protocol: "net-pf-2-proto-253-type-4"
    -> a file, an entry point or a dotted module"""
    modules: list[str] = []
    """code for the socket process: a file, an entry point of skbus.modules or a dotted module, and
    behind it its parameters: "examples/kernel/server.py port=7" """
    placement: Literal["auto", "one", "spread"] = "auto"
    """whether all layers share one processor, or use all; auto: by what there is to do"""
    affinity: dict[str, list[int]] = {}
    """process -> processors it may run on, whatever the placement"""
    fuse: list[str] = []
    """layers that live in one process; `all`: all of them. Several nic processes: nic.DEV is one"""
    interpreted: list[str] = []
    """layers or processes that run from their sources in a compiled build
    (`skbus.stack.interpreted`)"""

    @field_validator("sysctl")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        table = Sysctl()
        for name, given in value.items():
            try:
                table.set(name, given)
            except SysctlError as e:
                raise ValueError(str(e)) from None
        return value

    @field_validator("interpreted", "fuse", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        texts = _listed(value)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return value
        return [name.strip() for text in texts for name in text.split(",") if name.strip()]

    @field_validator("rss_key")
    @classmethod
    def _key(cls, value: str) -> str:
        if value and not re.fullmatch(rf"[0-9a-fA-F]{{{2 * RSS_KEY_LEN}}}", value):
            raise ValueError(f"takes {2 * RSS_KEY_LEN} hex digits")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        names = [d.name for d in self.devices]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"devices: {name} is listed twice")
        for route in self.routes:
            if route.dev is not None and route.dev not in names:
                raise ValueError(f"routes: no device {route.dev!r} among {names}")
        known = dict.fromkeys(("nic", *LAYERS, *self.processes()))
        for name in self.interpreted:
            if name not in known:
                raise ValueError(f"interpreted: no layer {name!r}; there are: {', '.join(known)}")
        self._check_fuse()
        return self

    def _check_fuse(self) -> None:
        """Refuse layers that cannot live in one process."""
        known = dict.fromkeys(("nic", *self.layers, *self.processes(), "all"))
        for name in self.fuse:
            if name not in known:
                raise ValueError(f"fuse: no layer {name!r} here; there are: {', '.join(known)}")
        fused = self.fused()
        nics = [process for process in fused if process.startswith("nic.")]
        shards = [process for process in fused if process.startswith("tcp.")]
        if shards:
            raise ValueError(
                f"fuse: tcp has tcp_shards = {self.tcp_shards}, which are to run on several "
                "processors: fuse without tcp, or have one tcp"
            )
        if len(nics) > 1:
            raise ValueError(
                f"fuse: there are several devices, and one of them at most can be fused: name "
                f"{' or '.join(nics)}"
            )
        if self.fuse and len(fused) < 2 and self.devices:
            names = ", ".join(self.fuse)
            raise ValueError(f"fuse takes two layers or more; {names} is one process")
        alone = [process for process in fused if self.is_interpreted(process)]
        if alone and len(alone) < len(fused):
            raise ValueError(
                f"interpreted: {', '.join(alone)} would live in one process with "
                f"{', '.join(p for p in fused if p not in alone)} (fuse): name all of them, or "
                "fuse without"
            )
        if len({tuple(self.affinity_of(process) or ()) for process in fused}) > 1:
            raise ValueError(
                f"affinity: {', '.join(fused)} are one process (fuse), and take the same processors"
            )

    # ---- reading ---------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "Config":
        """Defaults, then the file (or SKBUS_CONFIG's), then the environment, then the flags.

        overrides: nested like the file; None leaves a key alone; a list of devices is matched
        by name. ConfigError says what is wrong, and where.
        """
        env = os.environ if environ is None else environ
        chosen = file or env.get("SKBUS_CONFIG")
        data = _read(Path(chosen)) if chosen else {}
        _merge(data, from_environment(env))
        _merge(data, overrides or {})
        return _validate(cls, data, str(chosen) if chosen else None)

    def to_json(self) -> str:
        """For RUN/config.json."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """What `to_json` wrote."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as e:
            raise ConfigError(explain(e, cls, "config.json")) from None

    @classmethod
    def read(cls, run: RunDir) -> "Config":
        """The effective configuration of the stack in a run directory."""
        try:
            text = run.read_text("config.json")
        except OSError as e:
            raise ConfigError(
                f"cannot read {run.config_file}: {e.strerror}; `skbus up` and `skbus lab up` "
                "write it, and so does `skbusd nic`"
            ) from None
        return cls.from_json(text)

    def write(self, run: RunDir) -> None:
        """Write RUN/config.json, whole or not at all; with a key for its shards, if it has any.
        ConfigError where it cannot be written."""
        if self.tcp_shards > 1 and not self.rss_key:
            self.rss_key = os.urandom(RSS_KEY_LEN).hex()
        try:
            run.write_text("config.json", self.to_json())
        except OSError as e:
            raise ConfigError(f"cannot write {run.config_file}: {e.strerror}") from e

    @classmethod
    def update(cls, run: RunDir, change: Callable[["Config"], None]) -> None:
        """Change RUN/config.json; nobody else does meanwhile. ConfigError where there is none."""
        directory = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            config = cls.read(run)
            change(config)
            config.write(run)
        finally:
            os.close(directory)

    def device(self, name: str) -> Device:
        """The device of that name; ConfigError lists those that there are."""
        for device in self.devices:
            if device.name == name:
                return device
        have = ", ".join(d.name for d in self.devices)
        has = f"it has: {have}" if have else "it has no device at all"
        raise ConfigError(f"no device {name!r} in the configuration; {has}")

    def processes(self) -> list[str]:
        """The processes of this stack, lowest layer first."""
        out = [d.process for d in self.devices]
        for layer in LAYERS:
            if layer in self.layers:
                out += self.layer_processes(layer)
        return out

    def fused(self) -> tuple[str, ...]:
        """The processes of the configuration that live in one, lowest layer first."""
        return tuple(
            process
            for process in self.processes()
            if not {process, process.split(".")[0], "all"}.isdisjoint(self.fuse)
        )

    def living_with(self, process: str) -> tuple[str, ...]:
        """The layers that live in one process with this one, which is among them; lowest first."""
        fused = self.fused()
        return fused if process in fused else (process,)

    def affinity_of(self, process: str) -> list[int] | None:
        """The processors that a process may run on; None for any."""
        return self.affinity.get(process) or self.affinity.get(process.split(".")[0])

    def is_interpreted(self, process: str) -> bool:
        """Is a process to run from the sources, even if the build is compiled?"""
        return not {process, process.split(".")[0]}.isdisjoint(self.interpreted)

    def layer_processes(self, layer: str) -> tuple[str, ...]:
        """The processes of one layer besides nic: several where tcp has shards."""
        return tcp_processes(self.tcp_shards) if layer == "tcp" else (layer,)

    def neighbours(self, *layers: str) -> tuple[str, ...]:
        """The processes of those of the layers that this stack runs."""
        return tuple(p for x in layers if x in self.layers for p in self.layer_processes(x))


# ---- environment, files, merging -----------------------------------------------------------

_ENV: Final[dict[str, tuple[str, ...]]] = {
    "SKBUS_DIR": ("run_dir",),
    "SKBUS_LOG_LEVEL": ("log", "level"),
    "SKBUS_LOG_FORMAT": ("log", "format"),
    "SKBUS_TIME_SCALE": ("clock", "time_scale"),
    "SKBUS_TCP_SHARDS": ("tcp_shards",),
    "SKBUS_INTERPRETED": ("interpreted",),
    "SKBUS_FUSE": ("fuse",),
}
_ENV_DEVICE: Final = {
    "SKBUS_ADDR": "addr",
    "SKBUS_GATEWAY": "gateway",
    "SKBUS_MODE": "mode",
    "SKBUS_MAC": "mac",
    "SKBUS_MTU": "mtu",
    "SKBUS_BACKEND": "backend",
}


def from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    """What SKBUS_... variables say, nested like the file.

    SKBUS_DIR, SKBUS_LOG_LEVEL, SKBUS_LOG_FORMAT, SKBUS_TIME_SCALE, SKBUS_TCP_SHARDS,
    SKBUS_INTERPRETED, SKBUS_FUSE; SKBUS_DEV names a device, to which SKBUS_ADDR, _GATEWAY, _MODE,
    _MAC, _MTU and _BACKEND belong; SKBUS_SYSCTL is `name=value; name=value`. An empty variable
    counts as unset.
    """
    data: dict[str, Any] = {}
    for variable, path in _ENV.items():
        if value := env.get(variable):
            at = data
            for key in path[:-1]:
                at = at.setdefault(key, {})
            at[path[-1]] = value
    device = {key: env[variable] for variable, key in _ENV_DEVICE.items() if env.get(variable)}
    if name := env.get("SKBUS_DEV"):
        data["devices"] = [{"name": name, **device}]
    elif device:
        given = ", ".join(v for v in _ENV_DEVICE if env.get(v))
        raise ConfigError(f"{given}: of which device? Set SKBUS_DEV too")
    for assignment in filter(str.strip, env.get("SKBUS_SYSCTL", "").split(";")):
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"SKBUS_SYSCTL has {assignment.strip()!r}: it takes name=value; name=value"
            )
        data.setdefault("sysctl", {})[name.strip()] = value.strip()
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f:
            return tomllib.load(f)
    except OSError as e:
        raise ConfigError(f"cannot read the configuration {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not TOML: {e}") from None


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Put new's keys over those of `into`; devices go by name, None leaves alone."""
    for key, value in new.items():
        if value is None:
            continue
        old = into.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            _merge(old, value)
        elif key == "devices" and isinstance(old, list) and isinstance(value, list):
            for device in value:
                same = [d for d in old if isinstance(d, dict) and d.get("name") == device["name"]]
                if same:
                    _merge(same[0], device)
                else:
                    old.append(_without_none(device))
        elif isinstance(value, Mapping):
            into[key] = _without_none(value)
        elif key == "devices" and isinstance(value, list):
            into[key] = [_without_none(d) if isinstance(d, Mapping) else d for d in value]
        else:
            into[key] = value


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    _merge(out, data)
    return out


# ---- errors --------------------------------------------------------------------------------

M = TypeVar("M", bound=_Model)


def _validate(model: type[M], data: Mapping[str, Any], source: str | None) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise ConfigError(explain(e, model, source, data)) from None
