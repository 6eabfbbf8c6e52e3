# SPDX-License-Identifier: MIT
"""The iperf3 server against the real iperf3, over the loopback and the standard library."""

import json
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from skbus.serve.iperf3 import (
    ACCESS_DENIED,
    CREATE_STREAMS,
    PARAM_EXCHANGE,
    SERVER_ERROR,
    Params,
    ProtocolError,
    Report,
    Server,
)

needs_iperf3 = pytest.mark.skipif(shutil.which("iperf3") is None, reason="no iperf3 here")


@pytest.fixture
def server() -> Iterator[Server]:
    said: list[str] = []
    server = Server("127.0.0.1", 0, say=said.append)
    yield server
    server.close()


def in_thread(server: Server) -> Callable[[], Report]:
    """Serve one test beside this thread; the result waits for its end."""
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(server.serve_one()), daemon=True)
    thread.start()

    def result() -> Report:
        thread.join(60)
        return reports[0]

    return result


def iperf3(server: Server, *options: str) -> dict[str, Any]:
    argv = ["iperf3", "-J", "-c", "127.0.0.1", "-p", str(server.port), *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@needs_iperf3
@pytest.mark.parametrize(
    ("options", "direction", "streams"),
    [
        (["-n", "20M"], "receive", 1),
        (["-n", "20M", "-R"], "send", 1),
        (["-n", "20M", "-P", "3"], "receive", 3),
        (["-n", "20M", "-P", "2", "-R"], "send", 2),
        (["-k", "100", "-l", "16K", "-N"], "receive", 1),
        (["-n", "2M", "-w", "64K"], "receive", 1),
        (["-n", "2M", "-M", "900"], "receive", 1),
        (["-n", "2M", "-C", "reno", "-R"], "send", 1),
    ],
)
def test_tcp(server: Server, options: list[str], direction: str, streams: int) -> None:
    report = in_thread(server)
    result = iperf3(server, *options)
    ours = report()
    assert "error" not in result
    assert ours.error == ""
    assert [s.direction for s in ours.streams] == [direction] * streams
    end = result["end"]
    wanted = 100 * 16384 if "-k" in options else 2 << 20 if "2M" in options else 20 << 20
    if direction == "receive":
        assert end["sum_sent"]["bytes"] >= wanted
        # what the client knows of our side is what we counted
        assert end["sum_received"]["bytes"] == ours.bytes("receive")
        assert ours.bytes("receive") <= end["sum_sent"]["bytes"]
    else:
        assert end["sum_received"]["bytes"] >= wanted - (1 << 20)
        assert end["sum_sent"]["bytes"] == ours.bytes("send")
        assert all(s.retransmits >= 0 for s in ours.streams)


@needs_iperf3
def test_both_directions_at_once(server: Server) -> None:
    report = in_thread(server)
    result = iperf3(server, "--bidir", "-t", "1", "-P", "2")
    ours = report()
    assert "error" not in result
    assert [s.direction for s in ours.streams] == ["receive", "receive", "send", "send"]
    assert ours.bytes("receive") > 0
    assert ours.bytes("send") > 0
    assert result["end"]["sum_received"]["bytes"] == ours.bytes("receive")


@needs_iperf3
def test_omitted_seconds_do_not_count(server: Server) -> None:
    report = in_thread(server)
    result = iperf3(server, "-O", "1", "-t", "1")
    (stream,) = report().streams
    assert "error" not in result
    assert stream.omitted > 0
    assert stream.counted < stream.total
    assert 0.5 < result["end"]["sum_received"]["bytes"] / result["end"]["sum_sent"]["bytes"] < 1.5


@needs_iperf3
@pytest.mark.parametrize("options", [[], ["-R"], ["-P", "2"]])
def test_udp(server: Server, options: list[str]) -> None:
    report = in_thread(server)
    result = iperf3(server, "-u", "-b", "10M", "-t", "1", "-l", "1000", *options)
    ours = report()
    assert "error" not in result
    assert ours.error == ""
    assert ours.params.udp
    direction = "send" if "-R" in options else "receive"
    assert len(ours.streams) == (2 if "-P" in options else 1)
    for stream in ours.streams:
        assert stream.direction == direction
        assert stream.packets > 100
        assert stream.counted == stream.packets * 1000


@needs_iperf3
def test_server_output_reaches_the_client(server: Server) -> None:
    report = in_thread(server)
    result = iperf3(server, "-n", "1M", "--get-server-output")
    assert result["server_output_text"] == "\n".join(report().lines()) + "\n"


def long_client(server: Server) -> subprocess.Popen[str]:
    """A client that sends for 20 s, and says how it goes."""
    command = f"iperf3 -c 127.0.0.1 -p {server.port} -t 20 -i 0.1 --forceflush"
    return subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True)


@needs_iperf3
def test_a_second_client_is_told_that_the_server_is_busy(server: Server) -> None:
    report = in_thread(server)
    first = long_client(server)
    with first:
        assert first.stdout is not None
        for line in first.stdout:
            if "sec" in line:  # the first interval: the test runs
                break
        result = iperf3(server, "-t", "1")
        first.terminate()
        first.stdout.read()
    assert "busy" in result["error"]
    assert report().error == "stopped by the client"


@needs_iperf3
def test_the_next_client_is_served_after_one_that_was_killed(server: Server) -> None:
    report = in_thread(server)
    with long_client(server) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "sec" in line:
                break
        first.kill()
        first.stdout.read()
    assert report().error != ""
    report = in_thread(server)
    assert "error" not in iperf3(server, "-n", "1M")
    assert report().error == ""


def client(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    sock.sendall(b"c" * 36 + b"\0")
    assert sock.recv(1) == bytes([PARAM_EXCHANGE])
    return sock


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (struct.pack("!I", 1 << 30), "the limit"),
        (struct.pack("!I", 4) + b"nojs", "no JSON"),
        (struct.pack("!I", 2) + b"[]", "no object"),
        (struct.pack("!I", 15) + b'{"parallel": 0}', "parallel = 0 is not within 1 and 128"),
        (struct.pack("!I", 13) + b'{"len": "no"}', "len is no number"),
        (struct.pack("!I", 12) + b'{"sctp":  1}', "SCTP"),
        (struct.pack("!I", 17) + b'{"authtoken":"x"}', "authentication"),
    ],
)
def test_bad_parameters_are_refused(server: Server, sent: bytes, error: str) -> None:
    report = in_thread(server)
    with client(server) as sock:
        sock.sendall(sent)
        assert sock.recv(1) == bytes([SERVER_ERROR])
        assert error in report().error


def test_a_stream_with_another_cookie_is_denied(server: Server) -> None:
    report = in_thread(server)
    with client(server) as sock:
        params = json.dumps({"tcp": True, "parallel": 1, "time": 1}).encode()
        sock.sendall(struct.pack("!I", len(params)) + params)
        assert sock.recv(1) == bytes([CREATE_STREAMS])
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
            other.sendall(b"x" * 37)
            assert other.recv(1) == bytes([ACCESS_DENIED])
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as data:
            data.sendall(b"c" * 36 + b"\0")
            assert sock.recv(2) in (b"\x01", b"\x01\x02")
        sock.close()
    assert report().error != ""


def test_a_port_scanner_does_not_count_as_a_test(server: Server) -> None:
    report = in_thread(server)
    socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
    with client(server) as sock:
        sock.sendall(struct.pack("!I", 2) + b"[]")
        assert "no object" in report().error


def test_directions() -> None:
    assert Params(reverse=True, parallel=2).directions() == ["send", "send"]
    assert Params(bidirectional=True).directions() == ["receive", "send"]
    with pytest.raises(ProtocolError, match="bandwidth"):
        Params.parse({"bandwidth": -1})
