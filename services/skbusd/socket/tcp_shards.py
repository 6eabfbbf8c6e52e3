# SPDX-License-Identifier: MIT
"""Sockets of a TCP that is spread over several processes (`tcp_shards`, `skbus.inet.rps`).

A socket begins at one shard, its *home*, by turns; it is known there under its number. Sockets'
numbers come in blocks of as many even numbers as there are shards. So each shard may know a socket
under a number of its own, and the shards' reports on it are told apart:

    block b, b+2, b+4, ...      b + 2 * shard: the number at that shard; `sk.number`: at its home

- connect(2) of a socket without a port: its home takes only local ports with which the answers
  come to itself. Where it has none left, the next shard is tried.
- bind(2) makes the socket known at all shards, and asks each of them for the port, so that each
  knows every port's owner. Requests of ours reach all shards in one order, so that two binds of one
  port end alike everywhere. Where they do not (only one shard knows the port of a connection), the
  port is given back. The home chooses a port for port 0, and the others are asked for it.
- connect(2) of a bound socket: the port decides. The home answers EREMCHG with the shard to which
  the connection belongs, and the socket moves there.
- listen(2) makes all shards listen. Children come from any of them, into one accept queue.
- Options of a socket that all shards know are told to all. Its close ends it at all of them.

All this is a struct proto that wraps TCP's: its `ask` and `tell` choose the shards for each
message. TCP's own functions know nothing of shards.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from skbus.core.abi import (
    GET_PORT_AUTO,
    Accept,
    Close,
    Connect,
    Connected,
    Disconnect,
    GetPort,
    Getsockopt,
    ListenStart,
    Setsockopt,
)
from skbus.core.entry import Entry, Request, T
from skbus.core.interfaces import TransportProto
from skbus.core.uapi import TCP_INFO
from skbus.inet.rps import MAX_SHARDS, tcp_processes
from skbusd.socket import uapi
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Intent, Proto, Result, proto_replay, sk_intent, sk_reuse_bits
from skbusd.socket.request import new_request, transport_ask
from skbusd.socket.sock import TcpSock

_MOVES: Final = 4
"""The most moves of a connect(2): the route, and with it our address, may change between two
shards' look-ups."""

Target = tuple[str, int]
"""(process, the socket's number there)"""
Answers = dict[int, tuple[int, Any]]
"""number -> (errno, value)"""


class Bound(NamedTuple):
    """The shards' knowledge of a socket that is known to all. port 0: nothing yet. auto: nobody
    asked for the port by its number."""

    addr: bytes = uapi.INADDR_ANY
    port: int = 0
    auto: bool = False
    listening: bool = False


_UNACKED: Final = slice(24, 28)
_SACKED: Final = slice(28, 32)


# ---- numbers ------------------------------------------------------------------------------


def tcp_shards_init(net: SocketNet, prot: Proto[TcpSock]) -> None:
    """Register TCP once for each of several shards: new sockets have a struct proto that wraps
    `prot`."""
    if net.shards.count == 1:
        return
    net.shards.prots = tuple(
        replace(
            prot,
            process=process,
            ask=shards_ask,
            tell=shards_tell,
            accept=_accept,
            acceptq_changed=backlog_changed,
            child_prot=_child_prot,
            moved=next_shard,
        )
        for process in tcp_processes(net.shards.count)
    )
    for entries in net.inetsw:
        for i, entry in enumerate(entries):
            if entry.prot is prot:
                entries[i] = replace(entry, prot=net.shards.prots[0])


def _base(net: SocketNet, number: int) -> int:
    return number - number % (2 * net.shards.count)


def sk_ino(net: SocketNet, number: int) -> int:
    """The number that users see: the same wherever the socket moves."""
    return number if net.shards.count == 1 or number > 0xFFFFFFFF else _base(net, number)


def _set_home(net: SocketNet, sk: TcpSock, shard: int) -> None:
    net.socks.pop(sk.number, None)
    sk.number = _base(net, sk.number) + 2 * shard
    sk.sk_prot = net.shards.prots[shard]
    net.socks[sk.number] = sk


def _assign_shard(net: SocketNet, sk: TcpSock) -> None:
    """A new socket: its home is the next shard."""
    shard = net.shards.next
    net.shards.next = (shard + 1) % net.shards.count
    _set_home(net, sk, shard)


def _child_prot(net: SocketNet, sk: TcpSock, child: int) -> Proto[TcpSock]:
    """`Proto.child_prot`: the shard that has made it (`TcpNet.child_number`)."""
    return net.shards.prots[min((child >> 33) % MAX_SHARDS, net.shards.count - 1)]


def _accept(net: SocketNet, sk: TcpSock, child: TcpSock) -> tuple[str, Accept]:
    """`Proto.accept`: the child's shard knows the listener under a number of its own."""
    number = _base(net, sk.number) + 2 * net.shards.prots.index(child.sk_prot)
    return child.sk_prot.process, Accept(number, child.number)


def _home(sk: TcpSock) -> Target:
    return sk.sk_prot.process, sk.number


def _others(net: SocketNet, sk: TcpSock) -> Iterator[Target]:
    number = _base(net, sk.number)
    for prot in net.shards.prots:
        if number != sk.number:
            yield prot.process, number
        number += 2


# ---- asking and telling ---------------------------------------------------------------------


def shards_tell(net: SocketNet, sk: TcpSock, entry: Entry[Any], item: Any) -> None:
    """`Proto.tell`: to the home, and to the others as far as it concerns them."""
    if entry is TransportProto.init:
        _assign_shard(net, sk)
        item = item._replace(sk=sk.number)
    elif entry is TransportProto.close:
        forget_others(net, sk)
    elif entry is TransportProto.disconnect:
        _disconnect_others(net, sk)
    net.call(sk.sk_prot.process, entry, item)
    if entry is TransportProto.setsockopt:
        _tell_others(net, sk, entry, item)


def shards_ask(
    net: SocketNet,
    sk: TcpSock,
    entry: Request[Any, Any],
    make: Callable[[int, int], Any],
    then: Result,
) -> None:
    """`Proto.ask`: of the home, or of all shards."""
    if entry is TransportProto.bind:
        _bind(net, sk, make(0, 0), then)
    elif entry is TransportProto.listen:
        _listen(net, sk, make(0, 0), then)
    elif entry is TransportProto.connect:
        _connect(net, sk, make, then)
    elif entry is TransportProto.setsockopt:
        _setsockopt(net, sk, make, then)
    elif entry is TransportProto.getsockopt:
        _getsockopt(net, sk, make, then)
    else:
        if entry is TransportProto.disconnect:
            _disconnect_others(net, sk)
        transport_ask(net, sk, entry, make, then)


def _tell_others(net: SocketNet, sk: TcpSock, entry: Entry[Any], item: Any) -> None:
    """Tell the home's message to the others that know the socket."""
    if sk in net.shards.replicas:
        for process, number in _others(net, sk):
            net.call(process, entry, item._replace(sk=number))


def _introduce(net: SocketNet, sk: TcpSock, to: Target) -> None:
    """A shard hears of a socket, with the options that it has."""
    proto_replay(net, sk, *to, Intent(sk.options))


def _replicate(net: SocketNet, sk: TcpSock) -> None:
    """Make the socket known at all shards."""
    if sk not in net.shards.replicas:
        net.shards.replicas[sk] = Bound()
        for to in _others(net, sk):
            _introduce(net, sk, to)


def forget_others(net: SocketNet, sk: TcpSock) -> None:
    """Only the home knows the socket from now on."""
    if sk in net.shards.replicas:
        _tell_others(net, sk, TransportProto.close, Close(0, 0, -1))
        del net.shards.replicas[sk]
        net.shards.backlogs.pop(sk, None)


def _ask_all(
    net: SocketNet,
    targets: list[Target],
    entry: Request[T, Any],
    item: Any,
    done: Callable[[SocketNet, Answers], None],
) -> None:
    """Ask several shards the same. `done` hears the answers when all have come."""
    answers: Answers = {}

    def answered(number: int) -> Result:
        def one(net: SocketNet, err: int, value: Any) -> None:
            answers[number] = (err, value)
            if len(answers) == len(targets):
                done(net, answers)

        return one

    for process, number in targets:
        req = new_request(net, process, entry, answered(number))
        net.call(process, entry, item._replace(sk=number, req=req))


# ---- bind ---------------------------------------------------------------------------------


def _bind(net: SocketNet, sk: TcpSock, item: GetPort, then: Result) -> None:
    """Bind at all shards: EADDRINUSE where one of them says so."""
    _replicate(net, sk)
    port = item.port

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err and sk in net.shards.replicas:
            net.shards.replicas[sk] = Bound(item.addr, value.port, not port)
        then(net, err, value)

    if port:
        _get_port(net, [_home(sk), *_others(net, sk)], item, bound)
    else:
        _get_any_port(net, sk, item, bound)


def _put_port(net: SocketNet, to: Target, item: GetPort) -> None:
    net.call(to[0], TransportProto.bind, item._replace(sk=to[1], req=0, port=-1))


def _get_port(net: SocketNet, targets: list[Target], item: GetPort, then: Result) -> None:
    """Get one port from several shards, or from none."""

    def answered(net: SocketNet, answers: Answers) -> None:
        failed = [answers[number][0] for _, number in targets if answers[number][0]]
        if failed:
            for to in targets:
                if not answers[to[1]][0]:
                    _put_port(net, to, item)
            then(net, failed[0], None)
        else:
            then(net, 0, answers[targets[0][1]][1])

    _ask_all(net, targets, TransportProto.bind, item, answered)


def _get_any_port(
    net: SocketNet, sk: TcpSock, item: GetPort, then: Result, refused: tuple[int, ...] = ()
) -> None:
    """Get a port that the home finds free, if the others agree; else the next one, once round."""
    home = _home(sk)
    if refused:
        item = item._replace(port=-refused[-1])

    def chosen(net: SocketNet, err: int, value: Any) -> None:
        if not err and value.port in refused:
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
                _get_any_port(net, sk, item, then, (*refused, value.port))
            else:
                then(net, err, None)

        found = item._replace(port=value.port, reuse=item.reuse | GET_PORT_AUTO)
        _get_port(net, list(_others(net, sk)), found, settled)

    _get_port(net, [home], item, chosen)


# ---- listen -------------------------------------------------------------------------------


def _listen(net: SocketNet, sk: TcpSock, item: ListenStart, started: Result) -> None:
    """All shards listen; a socket that has no port gets one first."""
    bound = net.shards.replicas.get(sk)
    if bound is None or not bound.port:

        def got(net: SocketNet, err: int, value: Any) -> None:
            if err:
                started(net, err, None)
            else:
                _listen(net, sk, item, started)

        any_port = GetPort(0, 0, uapi.INADDR_ANY, 0, sk_reuse_bits(sk), sk.sk_bound_dev_if)
        _bind(net, sk, any_port, got)
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
            net.shards.replicas[sk] = bound
            for process, number in targets:
                if not answers[number][0]:
                    net.call(process, TransportProto.disconnect, Disconnect(number, 0))
            if bound.auto:
                _unbind(net, sk)
        started(net, failed[0], None)

    net.shards.backlogs.pop(sk, None)
    net.shards.replicas[sk] = bound._replace(listening=True)
    # A shard's first child may come before another shard has answered.
    sk.sk_state = uapi.TCP_LISTEN
    _ask_all(net, targets, TransportProto.listen, item, answered)


def backlog_changed(net: SocketNet, sk: TcpSock) -> None:
    """`Proto.acceptq_changed`. Each shard limits its own part of the accept queue. When the queue
    is half full, each shard hears the part of the backlog that the others leave it.

    Differs from Linux: children that come meanwhile may exceed the backlog, at most once a shard.
    """
    backlog = min(sk.sk_max_ack_backlog, net.sysctl["net.core.somaxconn"])
    queue = sk.icsk_accept_queue or ()
    total = len(queue)
    told = net.shards.backlogs.get(sk, 0)
    short = 2 * total <= backlog
    if short and not told:
        return
    if abs(total - told) < max(backlog // 16, 1) and not short:
        return
    parts = dict.fromkeys(net.shards.prots, 0)
    for child in queue:
        parts[child.sk_prot] += 1
    number = _base(net, sk.number)
    for prot, part in parts.items():
        left = backlog if short else max(backlog - total + part, 0)
        net.call(prot.process, TransportProto.listen, ListenStart(number, 0, left))
        number += 2
    if short:
        del net.shards.backlogs[sk]
    else:
        net.shards.backlogs[sk] = total


def _unbind(net: SocketNet, sk: TcpSock) -> None:
    """The socket has no port any more, at no shard."""
    _put_port(net, _home(sk), GetPort(0, 0, uapi.INADDR_ANY, 0, 0, 0))
    forget_others(net, sk)


def _disconnect_others(net: SocketNet, sk: TcpSock) -> None:
    """The home was told to disconnect: a port that was asked for stays, others go."""
    bound = net.shards.replicas.get(sk)
    if bound is None:
        return
    if bound.auto:
        forget_others(net, sk)
    elif bound.listening:
        net.shards.replicas[sk] = bound._replace(listening=False)
        _tell_others(net, sk, TransportProto.disconnect, Disconnect(0, 0))


# ---- connect ------------------------------------------------------------------------------


def _connect(
    net: SocketNet,
    sk: TcpSock,
    make: Callable[[int, int], Connect],
    then: Result,
    tries: int = 0,
) -> None:
    """connect(2), at the shard to which the connection belongs."""

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if err and next_shard(net, sk, err, value, tries):
            _connect(net, sk, make, then, tries + 1)
        else:
            then(net, errno.EADDRNOTAVAIL if err == errno.EREMCHG else err, value)

    transport_ask(net, sk, TransportProto.connect, make, answered)


def next_shard(net: SocketNet, sk: TcpSock, err: int, value: Any, tries: int) -> bool:
    """`Proto.moved`: the home could not connect. Has the socket moved to a shard that might?"""
    if net.socks.get(sk.number) is not sk:
        return False  # closed meanwhile
    if sk in net.shards.replicas:
        if err != errno.EREMCHG or tries >= _MOVES or type(value) is not Connected:
            return False
        if not 0 <= value.shard < net.shards.count:
            return False
        _set_home(net, sk, value.shard)
        return True
    if err != errno.EADDRNOTAVAIL or tries >= net.shards.count - 1:
        return False
    # The socket has no port, and none is free here: it moves to the next shard.
    process, number = _home(sk)
    _set_home(net, sk, (net.shards.prots.index(sk.sk_prot) + 1) % net.shards.count)
    _introduce(net, sk, _home(sk))
    net.call(process, TransportProto.close, Close(number, 0, -1))
    return True


# ---- a shard that starts anew ----------------------------------------------------------------


def shard_restarted(net: SocketNet, process: str) -> None:
    """A restarted shard hears again of sockets that all shards know and that have another home."""
    for sk, bound in tuple(net.shards.replicas.items()):
        intent = sk_intent(sk)._replace(
            bound=(bound.addr, bound.port) if bound.port else None,
            reuse=sk_reuse_bits(sk) | (GET_PORT_AUTO if bound.auto else 0),
            peer=None,
        )
        for to in _others(net, sk):
            if to[0] == process:
                proto_replay(net, sk, *to, intent)


# ---- options ------------------------------------------------------------------------------


def _setsockopt(
    net: SocketNet, sk: TcpSock, make: Callable[[int, int], Setsockopt], then: Result
) -> None:
    """The home decides; values that it accepts are told to the others."""

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            _tell_others(net, sk, TransportProto.setsockopt, make(0, 0))
        then(net, err, value)

    transport_ask(net, sk, TransportProto.setsockopt, make, answered)


def _getsockopt(
    net: SocketNet, sk: TcpSock, make: Callable[[int, int], Getsockopt], then: Result
) -> None:
    """Ask the home, which knows all but the length of an accept queue: it has only a part."""
    item = make(0, 0)

    def answered(net: SocketNet, err: int, value: Any) -> None:
        of_tcp = item.level == uapi.SOL_TCP and item.optname == TCP_INFO
        if not err and of_tcp and sk.sk_state == uapi.TCP_LISTEN:
            value = listener_info(sk, value)
        then(net, err, value)

    transport_ask(net, sk, TransportProto.getsockopt, make, answered)


def listener_info(sk: TcpSock, value: bytes) -> bytes:
    """Complete a listener's TCP_INFO: `tcpi_unacked` is the length of its accept queue,
    `tcpi_sacked` the limit. A shard knows only its part of them."""
    out = bytearray(value)
    if len(out) >= _SACKED.stop:
        out[_UNACKED] = len(sk.icsk_accept_queue or ()).to_bytes(4, "little")
    return bytes(out)
