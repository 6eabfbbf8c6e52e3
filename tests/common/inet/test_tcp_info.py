# SPDX-License-Identifier: MIT
"""`skbus.inet.tcp_info` reads what this machine's kernel writes."""

import socket
import struct

from skbus.inet.tcp_info import SIZE, TcpInfo, tcp_info


def test_of_a_connection_of_the_kernels() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(bytes(1000))
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        info = tcp_info(client)
        assert info.state == 1
        assert info.bytes_sent == 1000
        assert info.segs_out >= 3
        assert info.snd_mss > 536
        assert info.rcv_wscale == info.snd_wscale  # both ends are this kernel's


def test_each_member_is_read_from_its_place() -> None:
    data = struct.pack("=8B24I4Q6I4Q2I2Q6I2H8I2H", *range(1, 7), 0x21, 0b101, *range(8, 68))
    info = TcpInfo.unpack(data)
    assert len(data) == SIZE
    assert info[:6] == (1, 2, 3, 4, 5, 6)
    assert (info.snd_wscale, info.rcv_wscale) == (1, 2)
    assert (info.delivery_rate_app_limited, info.fastopen_client_fail) == (1, 2)
    assert info[10:] == tuple(range(8, 68))


def test_what_an_older_kernel_does_not_tell_is_0() -> None:
    info = TcpInfo.unpack(b"\1" + bytes(103))
    assert (info.state, info.snd_cwnd, info.accecn_opt_seen) == (1, 0, 0)


def test_what_a_newer_kernel_tells_more_is_left_out() -> None:
    assert TcpInfo.unpack(bytes(SIZE) + b"\1" * 40) == TcpInfo.unpack(bytes(SIZE))


def test_the_members_of_a_shorter_struct() -> None:
    assert TcpInfo.members(SIZE + 4) == TcpInfo._fields
    assert TcpInfo.members(SIZE - 1) == TcpInfo._fields[:-1]
    assert TcpInfo.members(104)[-1] == "total_retrans"
    assert TcpInfo.members(7)[-1] == "rcv_wscale"
    assert TcpInfo.members(0) == ()
