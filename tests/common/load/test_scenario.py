# SPDX-License-Identifier: MIT
from pathlib import Path
from typing import Any

import pytest

from skbus.load.quantity import Distribution
from skbus.load.scenario import (
    OWN,
    Flow,
    Scenario,
    ScenarioError,
    find,
    library,
    load,
    validate,
)

MINIMAL = """
[[flow]]
name = "web"
protocol = "http"
rate = 10
[[phase]]
name = "hold"
duration = "2s"
"""


def from_toml(tmp_path: Path, text: str, **changes: Any) -> Scenario:
    file = tmp_path / "my-scenario.toml"
    file.write_text(text)
    return load(file, {k.replace("__", "."): v for k, v in changes.items()})


def test_a_minimal_one(tmp_path: Path) -> None:
    scenario = from_toml(tmp_path, MINIMAL)
    assert scenario.name == "my-scenario"
    assert scenario.duration == 2
    (flow,) = scenario.flows
    assert (flow.rate, flow.clients, flow.timeout, scenario.side_of(flow)) == (10, 1, 10, "linux")


def test_everything(tmp_path: Path) -> None:
    scenario = from_toml(
        tmp_path,
        """
        name = "all"
        description = "of it"
        seed = 3
        side = "skbus"
        processes = 2
        sample = "500ms"
        impair = { loss = "1%" }
        sysctl = { "net.ipv4.tcp_sack" = 0 }
        assert = ["p99 < 1s", "web@up.errors == 0"]
        [[flow]]
        name = "web"
        protocol = "http"
        side = "linux"
        clients = 20
        think = "exp(100ms)"
        response = "lognormal(8KiB, 1)"
        read_rate = "64kbit"
        [[flow]]
        name = "tick"
        protocol = "udp"
        pace = "1s"
        [[phase]]
        name = "up"
        duration = "10s"
        load = [0, 1]
        [[phase]]
        name = "burst"
        duration = "1min"
        load = { web = 2, tick = [1, 0] }
        impair = { delay = "20ms" }
        [[event]]
        at = "5s"
        pause = "tcp"
        lasting = "500ms"
        [[event]]
        at = "6s"
        run = "hping3 {host}"
        """,
    )
    web, tick = scenario.flows
    assert scenario.side_of(web) == "linux"
    assert scenario.side_of(tick) == "skbus"
    assert web.read_rate == 64000
    assert [p.ends("web") for p in scenario.phases] == [(0, 1), (2, 2)]
    assert [p.ends("tick") for p in scenario.phases] == [(0, 1), (1, 0)]
    assert [(e.at, e.say()) for e in scenario.all_events()] == [
        (0, "impair: loss 1 %"),
        (5, "pause tcp for 500 ms"),
        (6, "run hping3 {host}"),
        (10, "impair: delay 20 ms"),
    ]
    assert [a.metric for a in scenario.assertions()] == ["p99", "errors"]


def test_it_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    scenario = from_toml(tmp_path, MINIMAL + "[[event]]\nat='1s'\nimpair={loss='5%'}\n")
    again = validate(scenario.model_dump(mode="json", by_alias=True))
    assert again == scenario


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[flow]]\nname='a'\n", "flow.a.protocol: is missing"),
        ("x = 1", "x: no such key; known here: name, description"),
        (MINIMAL.replace("rate", "rat"), "flow.web.rat: no such key; did you mean rate?"),
        (MINIMAL.replace("http", "gopher"), "flow web: protocol = 'gopher': takes connect-close"),
        (MINIMAL.replace('"2s"', "2"), "phase.hold.duration = 2: takes a time with its unit"),
        (MINIMAL.replace('"2s"', '"0s"'), "phase.hold.duration = '0s': must be longer than 0s"),
        (MINIMAL.replace("rate = 10", 'rate = "fast"'), "flow.web.rate = 'fast': takes so many"),
        (MINIMAL.replace("rate = 10", "clients = 0"), "flow.web.clients = 0: takes 1 or more"),
        (MINIMAL.replace("rate = 10", 'response = "1 kg"'), "flow.web.response = '1 kg': takes a"),
        (MINIMAL.replace("rate = 10", 'rate = 1\nthink = "1s"'), "flow.web: rate makes an open"),
        (MINIMAL.replace("rate = 10", 'host = "h"'), "flow.web: host and port belong together"),
        (
            MINIMAL.replace("http", "echo").replace("rate = 10", "path = '/'"),
            "flow.web: path is for http, not for echo",
        ),
        (MINIMAL.replace("rate = 10", "direction = 'up'"), "direction is for bulk, not for http"),
        (MINIMAL.replace("rate = 10", "arrivals = 'even'"), "arrivals is of an open loop"),
        (
            MINIMAL.replace("rate = 10", "path = '/'\nresponse = 9"),
            "flow.web: path asks for what the server has there: response says nothing then",
        ),
        (MINIMAL + "load = -1", "phase.hold.load = -1: a load is not negative"),
        (MINIMAL + "load = { mail = 1 }", "phase hold: load: no flow 'mail'"),
        (
            MINIMAL + "impair = { los = 1 }",
            "phase.hold.impair.los: no such key; did you mean loss?",
        ),
        (MINIMAL + "[[event]]\nat='1s'", "event[0]: takes exactly one of impair, pause"),
        (
            MINIMAL + "[[event]]\nat='1s'\npause='tcp'\nrestart='ip'",
            "event[0]: takes exactly one of impair, pause, restart, run, sysctl, not pause and",
        ),
        (MINIMAL + "[[event]]\nat='1s'\npause='tcp'", "event[0]: pause needs lasting"),
        (MINIMAL + "[[event]]\nat='1s'\nrestart='dns'", "event[0].restart = 'dns': takes a layer"),
        (MINIMAL + "[[event]]\nat='9s'\nrestart='ip'", "event: at = 9s is after the end (2s)"),
        ("assert = ['p99 < 5']\n" + MINIMAL, "assert 'p99 < 5': takes a time with its unit"),
        ("assert = ['@old.p99 < 5s']\n" + MINIMAL, "assert '@old.p99 < 5s': no phase 'old'"),
        ("assert = ['errors.timout == 0']\n" + MINIMAL, "of that kind; did you mean timeout?"),
        ("assert = ['errors.HTTP 99 == 0']\n" + MINIMAL, "no errors of that kind"),
        ("assert = ['drops.FULL_RING == 0']\n" + MINIMAL, "mean SKB_DROP_REASON_FULL_RING?"),
        ("assert = ['drops.nonsense == 0']\n" + MINIMAL, "they are named as Linux's"),
        ("sysctl = { 'net.ipv4.tcp_sak' = 1 }\n" + MINIMAL, "no such sysctl: net.ipv4.tcp_sak"),
        (
            MINIMAL + "[[event]]\nat='1s'\nsysctl={ 'net.ipv4.tcp_sack' = 7 }",
            "event[0].sysctl: net.ipv4.tcp_sack: 7 is outside 0 .. 1",
        ),
        (MINIMAL + MINIMAL, "flow: web is there twice"),
        ("flow = 3 4", "is not TOML"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        from_toml(tmp_path, text)
    assert error in str(caught.value)
    assert "my-scenario.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot read the scenario"):
        load(tmp_path / "none.toml")


def test_keys_can_be_changed(tmp_path: Path) -> None:
    scenario = from_toml(tmp_path, MINIMAL, flow__web__rate=500, phase__0__duration="1s", seed=9)
    assert (scenario.flows[0].rate, scenario.duration, scenario.seed) == (500, 1, 9)
    with pytest.raises(ScenarioError, match="there is no 'mail' among web"):
        from_toml(tmp_path, MINIMAL, flow__mail__rate=1)
    with pytest.raises(ScenarioError, match=r"Name one, as in flow.NAME.rate"):
        from_toml(tmp_path, MINIMAL, flow__rate=1)


def test_time_can_be_stretched(tmp_path: Path) -> None:
    scenario = from_toml(
        tmp_path, MINIMAL + "[[event]]\nat='1s'\npause='ip'\nlasting='200ms'\n"
    ).scaled(3)
    assert scenario.duration == 6
    assert (scenario.events[0].at, scenario.events[0].lasting) == pytest.approx((3, 0.6))


PYTHON = """
from skbus.load.client import Client

class Visit(Client):
    protocol = "visit"

scenario = {
    "flow": [{"name": "v", "protocol": "visit"}],
    "phase": [{"name": "p", "duration": "1s"}],
}
"""


def test_python(tmp_path: Path) -> None:
    file = tmp_path / "s.py"
    file.write_text(PYTHON)
    assert load(file).flows[0].protocol == "visit"
    file.write_text(PYTHON.replace("scenario =", "def scenario(): return"))
    assert load(file).name == "s"
    file.write_text("scenario = 7")
    with pytest.raises(ScenarioError, match="has no `scenario`"):
        load(file)
    file.write_text("1 / 0")
    with pytest.raises(ScenarioError, match="ZeroDivisionError"):
        load(file)


def test_distributions_are_equal_by_their_text() -> None:
    assert Flow(name="a", protocol="udp").think == Distribution.parse("0s", "time")


@pytest.mark.parametrize("file", library().values(), ids=lambda p: p.name)
def test_the_library_is_valid(file: Path) -> None:
    scenario = load(file)
    assert scenario.description
    assert scenario.asserts


def test_a_scenario_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("smoke") == OWN / "smoke.toml"
    assert find("login") == OWN / "login.py"
    assert len(library()) >= 11
    (tmp_path / "mine.toml").write_text(MINIMAL)
    (tmp_path / "smoke.toml").write_text(MINIMAL)
    monkeypatch.setenv("SKBUS_SCENARIOS", str(tmp_path))
    assert find("mine") == tmp_path / "mine.toml"
    assert find("smoke") == tmp_path / "smoke.toml"
    assert find("steady-web") == OWN / "steady-web.toml"
    assert find("./other.toml") == Path("other.toml")
    with pytest.raises(ScenarioError) as caught:
        find("stedy-web")
    assert "did you mean steady-web? There are mine, smoke, datagrams" in str(caught.value)
    monkeypatch.setenv("SKBUS_SCENARIOS", str(tmp_path / "none"))
    with pytest.raises(ScenarioError, match=r"SKBUS_SCENARIOS=.*: there is no such directory"):
        find("smoke")


WRONG = """processes = "many"
processes = 0
processes = 100
processes = 1.5
name = "a b"
name = 3
side = "windows"
settle = 5
sysctl = 3
flow = 3
phase = []
flow = [{}]
event = [{ at = "1s", run = 3 }]
event = [3]
impair = 5
impair = { loss = "x" }
assert = "errors == 0"
assert = [3]
flow = [{ name = "1a", protocol = "udp" }]
flow = [{ name = "a", protocol = "udp", clients = 100000 }]
flow = [{ name = "a", protocol = "udp", verify = "perhaps" }]
flow = [{ name = "a", protocol = "udp", arrivals = "odd" }]
flow = [{ name = "a", protocol = "http", method = "BREW" }]
flow = [{ name = "a", protocol = "http", host = "h", port = 70000 }]
flow = [{ name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", protocol = "udp" }]
phase = [{ name = "p", duration = "1s", load = "much" }]
phase = [{ name = "p", duration = "1s", load = [1] }]
phase = [{ name = "p", duration = "1s", load = { web = "x" } }]""".splitlines()


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_are_told_in_words_of_ours(tmp_path: Path, line: str) -> None:
    key = line.partition(" ")[0]
    kept = MINIMAL
    if key in ("flow", "phase"):
        head, second, rest = MINIMAL.partition("[[phase]]")
        kept = second + rest if key == "flow" else head
    with pytest.raises(ScenarioError) as caught:
        from_toml(tmp_path, f"{line}\n{kept}")
    said = str(caught.value)
    for word in ("nput should", "alid ", "ydantic", "dictionary", "pattern", "_type", "[type"):
        assert word not in said, said
    assert said.startswith(key), said
    assert "takes " in said or "is missing" in said, said


def test_a_union_s_mistake_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        from_toml(tmp_path, MINIMAL + 'load = "much"')
    assert (
        str(caught.value)
        .splitlines()[0]
        .startswith("phase.hold.load = 'much': takes a number or a list or a table")
    )
    assert str(caught.value).count("\n") == 0
    with pytest.raises(ScenarioError) as caught:
        from_toml(tmp_path, MINIMAL + 'load = { web = "much" }')
    assert str(caught.value).startswith("phase.hold.load.web = 'much': takes a number or a list")
