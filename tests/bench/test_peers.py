# SPDX-License-Identifier: MIT
"""The peers and the HTTP rounds of the benchmark: each subject starts, and does one short round of
each kind. A peer is skipped only where its packages are not installed."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
BENCH = HERE / "bench.py"
GO = Path("/usr/share/gocode/src/gvisor.dev/gvisor")
LWIP = Path("/usr/include/lwip/lwip/tcpip.h")
ROUNDS = ("bulk_in", "bulk_out", "rr", "crr", "udp_in", "udp_out")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own modules can be imported, as by its programs."""
    monkeypatch.syspath_prepend(str(HERE))


def bench(out: Path, *arguments: str, path: str = "") -> tuple[str, dict[str, Any]]:
    """Run it; (what it says, its JSON)."""
    done = subprocess.run(
        [sys.executable, str(BENCH), *arguments, "--no-plot", "--idle", "0", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "80", **({"PATH": path} if path else {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(next(out.glob("*.json")).read_text())
    return done.stdout, figures


def all_went_well(figures: dict[str, Any], subject: str, workloads: tuple[str, ...]) -> None:
    for name in workloads:
        (round_,) = figures["workloads"][name]["subjects"][subject]["rounds"]
        assert round_.get("rate", 0) > 0, f"{name}: {round_}"


def one_round_each(out: Path, subject: str, workloads: tuple[str, ...] = ROUNDS) -> str:
    said, figures = bench(
        out, "--subjects", f"linux,{subject}", "--only", ",".join(workloads),
        "--reps", "1", "--seconds", "0.3",
    )  # fmt: skip
    all_went_well(figures, subject, workloads)
    return said


@pytest.mark.lab
def test_gvisor_does_every_round(tmp_path: Path) -> None:
    if shutil.which("go") is None or not GO.is_dir():
        pytest.skip("no gVisor (apt-get install golang-go golang-gvisor-gvisor-dev)")
    said = one_round_each(tmp_path, "gvisor")
    assert "gVisor" in said


@pytest.mark.lab
def test_lwip_does_every_round(tmp_path: Path) -> None:
    if shutil.which("cc") is None or not LWIP.exists():
        pytest.skip("no lwIP (apt-get install gcc libc6-dev liblwip-dev)")
    said = one_round_each(tmp_path, "lwip")
    assert "lwIP" in said


@pytest.mark.lab
def test_our_web_server_answers_wrk(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("no wrk (apt-get install wrk)")
    _, figures = bench(
        tmp_path, "--subjects", "skbus", "--only", "http,rr", "--reps", "1", "--seconds", "1"
    )
    all_went_well(figures, "skbus", ("http", "rr"))
    (found,) = figures["workloads"]["http"]["subjects"]["skbus"]["rounds"]
    assert found["linux"]["p50_us"] > 0
    assert found["cpu_seconds"]["application"] > 0, "the web server's own time is counted"


@pytest.mark.lab
def test_our_layers_in_one_process_do_every_round(tmp_path: Path) -> None:
    one_round_each(tmp_path, "fused")


@pytest.mark.lab
def test_what_is_missing_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    """Without Go, C compiler, wrk: programs that a run needs alone are in PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("ip", "sysctl", "nsenter", "unshare", "sh", "cat", "ping", "git"):
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert found is not None, name
        (tools / name).symlink_to(found)
    said, figures = bench(
        tmp_path, "--subjects", "linux,gvisor,lwip", "--only", "rr,http",
        "--reps", "1", "--seconds", "0.2", path=str(tools),
    )  # fmt: skip
    absent = figures["absent"]
    assert "apt-get install golang-go golang-gvisor-gvisor-dev" in absent["gvisor"]
    assert "apt-get install gcc libc6-dev liblwip-dev" in absent["lwip"]
    assert "apt-get install wrk" in absent["linux http"]
    assert "without gvisor: there is no Go compiler" in said
    all_went_well(figures, "linux", ("rr",))
    assert "http" not in figures["workloads"]


@pytest.mark.usefixtures("modules")
def test_a_process_of_several_layers_is_counted_once() -> None:
    from subjects import processes

    apart = {"nic.eth0": 3, "ip": 4, "tcp": 5}
    assert processes({"holder": 1, "peer": 2, **apart}) == apart
    fused = {"holder": 1, "peer": 2, "nic.eth0": 3, "ip": 4, "tcp": 4, "udp": 4}
    assert processes(fused) == {"nic.eth0": 3, "ip,tcp,udp": 4}
    assert processes({"ip": 0, "tcp": 0}) == {"ip": 0, "tcp": 0}, "not there: each by its name"


WRK = """Running 1s test @ http://10.77.0.2:8080/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    35.43ms    8.97ms  69.11ms   73.44%
    Req/Sec     1.41k   131.24     1.55k    80.00%
  Latency Distribution
     50%   34.66ms
     75%   39.94ms
     90%   47.27ms
     99%    1.05s
  1408 requests in 1.01s, 0.85MB read
{wrong}Requests/sec:   1394.06
Transfer/sec:    861.06KB
"""


@pytest.mark.usefixtures("modules")
def test_wrk_is_read() -> None:
    import web

    found = web.parse(WRK.format(wrong=""))
    assert found == {"bytes": 1408, "seconds": 1.01, "p50_us": 34660.0, "p99_us": 1_050_000.0}


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    "wrong",
    [
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 7\n",
    ],
)
def test_answers_that_may_be_cheaper_do_not_count(wrong: str) -> None:
    import web

    with pytest.raises(web.WebError, match=wrong.strip()):
        web.parse(WRK.format(wrong=wrong))
    with pytest.raises(web.WebError, match="no number of requests"):
        web.parse("unable to connect")


@pytest.mark.usefixtures("modules")
def test_a_web_server_that_ends_at_once_says_why() -> None:
    import web

    with ExitStack() as stack:
        server = web.start(stack, ["sh", "-c", "echo port taken >&2; exit 3"], {})
        server.wait()
        with pytest.raises(web.WebError, match="ended with 3: port taken"):
            web.wait([], "127.0.0.1", server)


@pytest.mark.usefixtures("modules")
def test_a_driver_that_does_not_compile_says_what_the_compiler_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peers import build

    compiler = tmp_path / "cc"
    compiler.write_text(
        "#!/bin/sh\necho 'x.c:1: error: no such thing' >&2\necho more >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setattr(build, "OUT", tmp_path / "out")
    with pytest.raises(build.NotBuilt, match=r"lwip cannot be built: .*/cc says x\.c:1: error"):
        build._compile("lwip", [str(compiler)])
    linker = "/usr/bin/ld: cannot open it: Permission denied\ncollect2: error: ld returned 1\n"
    assert build._complaint(linker).endswith("Permission denied")
    assert build._complaint("# command-line-arguments\nx.go:1: undefined: y\n").startswith("x.go")
    with pytest.raises(build.NotBuilt, match="cannot be built in"):
        build._compile("lwip", [str(tmp_path / "none")])


@pytest.mark.usefixtures("modules")
def test_figures_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    import into
    from subjects import Round

    path = tmp_path / "page.md"
    with pytest.raises(into.NoPlace, match="No such file"):
        into.check(path)
    path.write_text("# Page\n")
    with pytest.raises(into.NoPlace, match="it has no line"):
        into.check(path)
    path.write_text(f"# Page\n\n{into.BEGIN}\nold\n{into.END}\n\nMore.\n")
    into.check(path)
    machine = {
        "cpu": "Z80", "cpus": 2, "kernel": "6.1.0-1", "python": "3.11.2", "date": "2026-01-02T",
        "commit": "abc",
    }  # fmt: skip
    facts = {"machine": machine, "reps": 3, "seconds": 2.0, "absent": {"lwip": "there is no C"}}
    rounds: Any = {
        "rr": {
            "gvisor": [Round(400.0, 1.0, {})],
            "compiled": [Round(90.0, 1.0, {}), Round(100.0, 1.0, {}), Round(110.0, 1.0, {})],
            "pmd": ["no answer"],
        }
    }
    into.write_into(path, rounds, facts)
    text = path.read_text()
    assert "old" not in text
    assert "| 1-byte round trips, 1/s | 400 (0%) | 1 failed | 100 (10%) |" in text
    assert "| | compiled / pmd-pytcp" in text
    assert "| 1-byte round trips |  | 0.25 |" in text
    assert "Without lwip: there is no C." in text
    assert text.endswith(f"{into.END}\n\nMore.\n")
