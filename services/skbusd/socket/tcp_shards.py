# SPDX-License-Identifier: MIT
"""Sockets of a TCP that is spread over several processes (`tcp_shards`, `skbus.inet.rps`).

A socket begins at one shard, its *home*, by turns; it is known there under its number. Sockets'
numbers come in blocks of as many even numbers as there are shards, so that a socket may be known
at each shard under a number of that shard's own, and what one of them says of it is told apart:

    block b, b+2, b+4, ...      b + 2 * shard: the number at that shard; `sk.number`: at its home

- connect(2) of a socket without a port: its home takes only local ports with which the answers
  come to itself. Where it has none left, the next shard is tried.
- bind(2) makes the socket known at all shards, and asks each of them for the port, so that each
  knows who has which port. Requests of ours reach all shards in one order, so that two binds of
  one port end alike everywhere; where they do not (only one shard knows the port of a connection),
  what was given is taken back. Port 0 is chosen by the home, and asked of the others.
- connect(2) of a bound socket: the port decides. The home answers EREMCHG with the shard to which
  the connection belongs, and the socket moves there.
- listen(2) makes all shards listen. Children come from any of them, into one accept queue.
- Options of a socket that all shards know are told to all. Its close ends it at all of them.

Called by tcp_sock.py, tcp_fastopen.py, af_inet.py, sockopt.py and core.py, where `net.tcp_prots`
is not empty.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from skbus.core.abi import (
    GET_PORT_AUTO,
    Close,
    Connect,
    Connected,
    Disconnect,
    GetPort,
    InitSock,
    ListenStart,
    Setsockopt,
)
from skbus.core.entry import Entry, Request, T
from skbus.core.interfaces import TransportProto
from skbus.inet.rps import MAX_SHARDS, tcp_processes
from skbusd.socket import uapi
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto, Result
from skbusd.socket.request import new_request, transport_call
from skbusd.socket.sock import InetSock, TcpSock

_MOVES: Final = 4
"""The route, and with it our address, may change between two shards' look-ups."""

Target = tuple[str, int]
"""(process, the socket's number there)"""
Answers = dict[int, tuple[int, Any]]
"""number -> (errno, value)"""


class Bound(NamedTuple):
    """What the shards know of a socket that all of them know. port 0: nothing yet. auto: the
    port was not asked for by its number."""

    addr: bytes = uapi.INADDR_ANY
    port: int = 0
    auto: bool = False


# ---- numbers ------------------------------------------------------------------------------


def tcp_shards_init(net: SocketNet, prot: Proto) -> None:
    """TCP once for each shard, where there are several."""
    if net.tcp_shards > 1:
        net.tcp_prots = tuple(replace(prot, process=p) for p in tcp_processes(net.tcp_shards))


def _base(net: SocketNet, number: int) -> int:
    return number - number % (2 * net.tcp_shards)


def sk_ino(net: SocketNet, number: int) -> int:
    """The number that people see: the same wherever the socket moves."""
    return number if net.tcp_shards == 1 or number > 0xFFFFFFFF else _base(net, number)


def _set_home(net: SocketNet, sk: InetSock, shard: int) -> None:
    net.socks.pop(sk.number, None)
    sk.number = _base(net, sk.number) + 2 * shard
    sk.sk_prot = net.tcp_prots[shard]
    net.socks[sk.number] = sk


def tcp_assign_shard(net: SocketNet, sk: InetSock) -> None:
    """A new socket: its home is the next shard."""
    shard = net.tcp_next_shard
    net.tcp_next_shard = (shard + 1) % net.tcp_shards
    _set_home(net, sk, shard)


def sock_of(net: SocketNet, number: int) -> InetSock | None:
    """The socket that a shard knows under this number."""
    base = _base(net, number)
    for at in range(base, base + 2 * net.tcp_shards, 2):
        sk = net.socks.get(at)
        if sk is not None:
            return sk
    return None


def child_prot(net: SocketNet, child: int) -> Proto:
    """The shard that has made an accepted socket (`TcpNet.child_number`)."""
    return net.tcp_prots[min((child >> 33) % MAX_SHARDS, net.tcp_shards - 1)]


def listener_number(net: SocketNet, sk: InetSock, child: InetSock) -> int:
    """Under which number the child's shard knows the listener."""
    return _base(net, sk.number) + 2 * net.tcp_prots.index(child.sk_prot)


def _others(net: SocketNet, sk: InetSock) -> Iterator[Target]:
    number = _base(net, sk.number)
    for prot in net.tcp_prots:
        if number != sk.number:
            yield prot.process, number
        number += 2


# ---- telling ------------------------------------------------------------------------------


def tell_others(net: SocketNet, sk: InetSock, entry: Entry[Any], item: Any) -> None:
    """What the home was told, to the others that know the socket; none of them answers."""
    if sk in net.tcp_replicas:
        for process, number in _others(net, sk):
            net.call(process, entry, item._replace(sk=number))


def _introduce(net: SocketNet, sk: InetSock, to: Target) -> None:
    """A shard hears of a socket, with the options that it has."""
    process, number = to
    net.call(
        process, TransportProto.init, InitSock(number, sk.sk_family, sk.sk_protocol, sk.sk_type)
    )
    if isinstance(sk, TcpSock):
        for (level, optname), optval in sk.options.items():
            net.call(
                process, TransportProto.setsockopt, Setsockopt(number, 0, level, optname, optval)
            )


def _replicate(net: SocketNet, sk: InetSock) -> None:
    """Make the socket known at all shards."""
    if sk not in net.tcp_replicas:
        net.tcp_replicas[sk] = Bound()
        for to in _others(net, sk):
            _introduce(net, sk, to)


def forget_others(net: SocketNet, sk: InetSock) -> None:
    """Only the home knows the socket from now on."""
    if sk in net.tcp_replicas:
        tell_others(net, sk, TransportProto.close, Close(0, 0, -1))
        del net.tcp_replicas[sk]
        net.tcp_backlogs.pop(sk, None)


def _ask(
    net: SocketNet,
    sk: InetSock,
    targets: list[Target],
    entry: Request[T, Any],
    make: Callable[[int, int], T],
    done: Callable[[SocketNet, Answers], None],
) -> None:
    """Ask several shards; make(number, req). `done` hears when all have answered."""
    answers: Answers = {}

    def answered(number: int) -> Result:
        def one(net: SocketNet, err: int, value: Any) -> None:
            answers[number] = (err, value)
            if len(answers) == len(targets):
                done(net, answers)

        return one

    for process, number in targets:
        req = new_request(net, process, entry, answered(number))
        net.call(process, entry, make(number, req))


# ---- bind ---------------------------------------------------------------------------------


def tcp_get_port(
    net: SocketNet, sk: InetSock, addr: bytes, port: int, reuse: int, then: Result
) -> None:
    """`inet_csk_get_port` at all shards: EADDRINUSE where one of them says so."""
    _replicate(net, sk)
    item = GetPort(0, 0, addr, port, reuse, sk.sk_bound_dev_if)

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err and sk in net.tcp_replicas:
            net.tcp_replicas[sk] = Bound(addr, value[1], not port)
        then(net, err, value)

    if port:
        _get_port(net, sk, [_home(sk), *_others(net, sk)], item, bound)
    else:
        _get_any_port(net, sk, item, bound)


def _home(sk: InetSock) -> Target:
    return sk.sk_prot.process, sk.number


def _put_port(net: SocketNet, to: Target, item: GetPort) -> None:
    net.call(to[0], TransportProto.bind, item._replace(sk=to[1], req=0, port=-1))


def _get_port(
    net: SocketNet, sk: InetSock, targets: list[Target], item: GetPort, then: Result
) -> None:
    """One port, of several shards or of none."""

    def answered(net: SocketNet, answers: Answers) -> None:
        failed = [answers[number][0] for _, number in targets if answers[number][0]]
        if failed:
            for to in targets:
                if not answers[to[1]][0]:
                    _put_port(net, to, item)
            then(net, failed[0], None)
        else:
            then(net, 0, answers[targets[0][1]][1])

    _ask(net, sk, targets, TransportProto.bind,
         lambda number, req: item._replace(sk=number, req=req), answered)  # fmt: skip


def _get_any_port(
    net: SocketNet, sk: InetSock, item: GetPort, then: Result, refused: tuple[int, ...] = ()
) -> None:
    """A port that the home finds free, if the others do too; else the next one, once round."""
    home = _home(sk)
    if refused:
        item = item._replace(port=-refused[-1])

    def chosen(net: SocketNet, err: int, value: Any) -> None:
        if not err and value[1] in refused:
            err = errno.EADDRINUSE
            _put_port(net, home, item)
        if err:
            then(net, err, None)
            return

        def settled(net: SocketNet, err: int, _: Any) -> None:
            if not err:
                then(net, 0, value)
                return
            _put_port(net, home, item)
            if err == errno.EADDRINUSE:
                _get_any_port(net, sk, item, then, (*refused, value[1]))
            else:
                then(net, err, None)

        found = item._replace(port=value[1], reuse=item.reuse | GET_PORT_AUTO)
        _get_port(net, sk, list(_others(net, sk)), found, settled)

    _get_port(net, sk, [home], item, chosen)


# ---- listen -------------------------------------------------------------------------------


def listen_start(net: SocketNet, sk: TcpSock, backlog: int, started: Result) -> None:
    """`inet_csk_listen_start` at all shards; one that has no port gets one first."""
    bound = net.tcp_replicas.get(sk)
    if bound is None or not bound.port:

        def got(net: SocketNet, err: int, value: Any) -> None:
            if err:
                started(net, err, None)
            else:
                listen_start(net, sk, backlog, started)

        tcp_get_port(net, sk, uapi.INADDR_ANY, 0, sk.sk_reuse | sk.sk_reuseport << 1, got)
        return
    before = sk.sk_state
    targets = [_home(sk), *_others(net, sk)]

    def answered(net: SocketNet, answers: Answers) -> None:
        failed = [err for err, _ in answers.values() if err]
        if not failed:
            started(net, 0, answers[targets[0][1]][1])
            return
        if before == uapi.TCP_CLOSE and net.socks.get(sk.number) is sk:
            sk.sk_state = before
            for process, number in targets:
                if not answers[number][0]:
                    net.call(process, TransportProto.disconnect, Disconnect(number, 0))
            if bound.auto:
                unbind(net, sk)
        started(net, failed[0], None)

    def make(number: int, req: int) -> ListenStart:
        return ListenStart(number, req, backlog)

    net.tcp_backlogs.pop(sk, None)
    # A shard's first child may come before another shard has answered.
    sk.sk_state = uapi.TCP_LISTEN
    _ask(net, sk, targets, TransportProto.listen, make, answered)


def backlog_changed(net: SocketNet, sk: TcpSock) -> None:
    """A child came into the accept queue, or left it. Each shard limits its own part; when the
    queue is half full, each hears what the others' parts leave it of the backlog.

    Differs from Linux: what comes in meanwhile may exceed the backlog, at most once a shard.
    """
    backlog = min(sk.sk_max_ack_backlog, net.sysctl["net.core.somaxconn"])
    queue = sk.icsk_accept_queue or ()
    total = len(queue)
    told = net.tcp_backlogs.get(sk, 0)
    short = 2 * total <= backlog
    if short and not told:
        return
    if abs(total - told) < max(backlog // 16, 1) and not short:
        return
    parts = dict.fromkeys(net.tcp_prots, 0)
    for child in queue:
        parts[child.sk_prot] += 1
    number = _base(net, sk.number)
    for prot, part in parts.items():
        left = backlog if short else max(backlog - total + part, 0)
        net.call(prot.process, TransportProto.listen, ListenStart(number, 0, left))
        number += 2
    if short:
        del net.tcp_backlogs[sk]
    else:
        net.tcp_backlogs[sk] = total


def unbind(net: SocketNet, sk: InetSock) -> None:
    """The socket has no port any more, at no shard."""
    _put_port(net, _home(sk), GetPort(0, 0, uapi.INADDR_ANY, 0, 0, 0))
    forget_others(net, sk)


def tcp_disconnect(net: SocketNet, sk: InetSock, listening: bool) -> None:
    """The home is told to disconnect. A port that was asked for stays, others go."""
    bound = net.tcp_replicas.get(sk)
    if bound is None:
        return
    if bound.auto:
        forget_others(net, sk)
    elif listening:
        tell_others(net, sk, TransportProto.disconnect, Disconnect(0, 0))


# ---- connect ------------------------------------------------------------------------------


def tcp_v4_connect(
    net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result, tries: int = 0
) -> None:
    """connect(2), at the shard to which the connection belongs."""

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if err and next_shard(net, sk, err, value, tries):
            tcp_v4_connect(net, sk, addr, port, then, tries + 1)
        else:
            then(net, errno.EADDRNOTAVAIL if err == errno.EREMCHG else err, value)

    transport_call(
        net, sk, TransportProto.connect, lambda req: Connect(sk.number, req, addr, port), answered
    )


def next_shard(net: SocketNet, sk: InetSock, err: int, value: Any, tries: int) -> bool:
    """The home could not connect: has the socket moved to a shard that might?"""
    if net.socks.get(sk.number) is not sk:
        return False  # closed meanwhile
    if sk in net.tcp_replicas:
        if err != errno.EREMCHG or tries >= _MOVES or type(value) is not Connected:
            return False
        if not 0 <= value.shard < net.tcp_shards:
            return False
        _set_home(net, sk, value.shard)
        return True
    if err != errno.EADDRNOTAVAIL or tries >= net.tcp_shards - 1:
        return False
    # It has no port, and here none is free: it goes to the next shard altogether.
    process, number = _home(sk)
    _set_home(net, sk, (net.tcp_prots.index(sk.sk_prot) + 1) % net.tcp_shards)
    _introduce(net, sk, _home(sk))
    net.call(process, TransportProto.close, Close(number, 0, -1))
    return True


# ---- a shard that starts anew ----------------------------------------------------------------


def shard_restarted(net: SocketNet, process: str) -> None:
    """It hears again of the sockets that have another home and that all shards know."""
    for sk, bound in tuple(net.tcp_replicas.items()):
        for to in _others(net, sk):
            if to[0] != process:
                continue
            _introduce(net, sk, to)
            if bound.port:
                reuse = sk.sk_reuse | sk.sk_reuseport << 1 | (GET_PORT_AUTO if bound.auto else 0)
                item = GetPort(to[1], 0, bound.addr, bound.port, reuse, sk.sk_bound_dev_if)
                net.call(process, TransportProto.bind, item)
            if sk.sk_state == uapi.TCP_LISTEN and isinstance(sk, TcpSock):
                listen = ListenStart(to[1], 0, sk.sk_max_ack_backlog)
                net.call(process, TransportProto.listen, listen)


# ---- options ------------------------------------------------------------------------------

_UNACKED: Final = slice(24, 28)
_SACKED: Final = slice(28, 32)


def listener_info(sk: TcpSock, value: bytes) -> bytes:
    """TCP_INFO of a listener: `tcpi_unacked` is how many wait in its accept queue, `tcpi_sacked`
    how many may; at one shard it is only a part of them."""
    out = bytearray(value)
    if len(out) >= _SACKED.stop:
        out[_UNACKED] = len(sk.icsk_accept_queue or ()).to_bytes(4, "little")
    return bytes(out)
