# SPDX-License-Identifier: MIT
"""`docs/kernel-map.md` is complete and true: every function of the articles is on it, and what it
says of files, functions and tests is so."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from skbus.cli.abi import takers
from skbus.core.compiled import field_names
from skbusd.socket import sock, socket
from skbusd.tcp import sock as tcp_sock

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernel-map.md"

SEND = """
    sock_write sock_sendmsg inet_sendmsg tcp_sendmsg tcp_send_skb tcp_write_xmit tcp_transmit_skb
    ip_queue_xmit ip_queue_xmit2 ip_output ip_finish_output ip_finish_output2
    neigh_resolve_output dev_queue_xmit dev_hard_start_xmit
""".split()

RECEIVE = """
    napi_gro_receive netif_receive_skb ip_rcv arp_rcv ip_rcv_finish ip_route_input
    ip_local_deliver ip_defrag ip_local_deliver_finish inet_protos ip_forward icmp_rcv igmp_rcv
    raw_local_deliver ping_rcv tcp_v4_rcv sk_add_backlog tcp_prequeue tcp_v4_do_rcv
    tcp_rcv_established tcp_rcv_state_process tcp_data_queue sk_receive_queue sk_data_ready
    sock_read sock_recvmsg inet_recvmsg tcp_recvmsg
""".split()

START = """
    sock_init sk_init skb_init inet_init proto_register tcp_prot udp_prot raw_prot ping_prot
    sock_register sock_unregister inet_family_ops net_families NPROTO inet_add_protocol
    inetsw inetsw_array inet_register_protosw INET_PROTOSW_PERMANENT INET_PROTOSW_REUSE
    INET_PROTOSW_ICSK arp_init ip_init tcp_v4_init tcp_init udp_init udplite4_register ping_init
    icmp_init ipv4_proc_init ipfrag_init dev_add_pack ip_packet_type request_module
""".split()

TYPES = """
    socket sock inet_sock inet_connection_sock tcp_sock udp_sock raw_sock
""".split()

KERNEL = """
    sock_create_lite sk_sleep kernel_bind kernel_listen inet_getname lock_sock release_sock
    sk_rcvqueues_full sk_rmem_alloc sk_wmem_queued
""".split()

LIFE = """
    sys_socket sock_create __sock_create inet_create sk_alloc sock_init_data sock_map_fd
    inet_stream_connect tcp_v4_connect ip_route_connect tcp_connect sock_close sock_release
    inet_release tcp_close
""".split()


class Row(NamedTuple):
    """A line of one of the page's tables."""

    line: int
    section: str
    name: str
    process: str
    file: str
    function: str
    test: str

    def __str__(self) -> str:
        return f"kernel-map.md:{self.line}: {self.name}"


def rows() -> list[Row]:
    """The tables' lines, but for their heads."""
    found = []
    section = ""
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if line.startswith("## "):
            section = line[3:]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        assert len(cells) == 6, f"kernel-map.md:{number}: {len(cells)} cells instead of 6"
        name, process, place, _, _, test = (cell.strip("`") for cell in cells)
        file, _, function = place.partition(":")
        found.append(Row(number, section, name, process, file, function or name, test))
    return found


def source(file: str) -> Path:
    """A file of the page."""
    return (
        ROOT / file
        if file.startswith(("common/", "examples/"))
        else ROOT / "services/skbusd" / file
    )


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def names(path: Path) -> frozenset[str]:
    """What a file defines: functions, classes, constants; `Class.method` and `Class.field`."""
    out: set[str] = set()
    for node in tree(path).body:
        out |= set(_defined(node))
        if isinstance(node, ast.ClassDef):
            for member in ast.walk(node):
                out |= {f"{node.name}.{name}" for name in _defined(member)}
    return frozenset(out)


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [
        target.id if isinstance(target, ast.Name) else target.attr
        for target in targets
        if isinstance(target, (ast.Name, ast.Attribute))
    ]


@cache
def logged(path: Path) -> frozenset[str]:
    """The events that a file logs: names of trace events, of log lines, of steps of the start."""
    out: set[str] = set()
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Name):
            called = node.func.id
        if called in ("trace", "info", "warning", "InitStep", "do_initcalls"):
            out |= {str(arg.value) for arg in node.args[:2] if isinstance(arg, ast.Constant)}
    return frozenset(out)


ROWS = rows()


LOGGED = ("Sending", "Receiving", "Creating, connecting, closing")
"""The sections whose functions are in their layer's debug log, each where it is."""


def test_every_function_of_the_articles_is_there() -> None:
    assert {*SEND, *RECEIVE, *START, *TYPES, *KERNEL, *LIFE} - {row.name for row in ROWS} == set()


def test_the_way_of_a_packet_is_in_its_order() -> None:
    """The functions of docs/architecture.md, each below the one before it."""
    for section, wanted in (("Sending", SEND), ("Receiving", RECEIVE)):
        there = [row.name for row in ROWS if row.section == section and row.name in wanted]
        assert list(dict.fromkeys(there)) == wanted


def test_what_a_line_says_is_there() -> None:
    wrong = [f"{row}: {problem}" for row in ROWS for problem in problems(row)]
    assert wrong == []


def problems(row: Row) -> list[str]:
    """What is not so in a line."""
    path = source(row.file)
    if not path.is_file():
        return [f"no file {row.file}"]
    found = []
    if row.function not in names(path):
        found.append(f"no {row.function} in {row.file}")
    where = row.file.split("/")[0]
    if where not in ("common", "examples", row.process):
        found.append(f"{row.file} is not of the process {row.process}")
    if row.section in LOGGED and "." not in row.function and row.name not in logged(path):
        found.append(f"{row.file} never traces it")
    test, _, function = row.test.partition("::")
    if not (ROOT / "tests" / test).is_file():
        found.append(f"no file tests/{test}")
    elif not function.startswith("test_") or function not in names(ROOT / "tests" / test):
        found.append(f"no test {function!r} in tests/{test}")
    return found


FIELDS = {
    socket.Socket: "state type ops sk",
    sock.Sock: "sk_family sk_type sk_protocol sk_prot sk_socket sk_state sk_err sk_err_soft"
    " sk_shutdown sk_receive_queue sk_write_queue sk_error_queue sk_rmem_alloc sk_wmem_queued"
    " sk_rcvbuf sk_sndbuf sk_rcvlowat sk_rcvtimeo sk_sndtimeo sk_lingertime sk_reuse"
    " sk_reuseport sk_bound_dev_if sk_priority sk_mark sk_wq",
    sock.InetSock: "inet_saddr inet_daddr inet_rcv_saddr inet_sport inet_dport inet_num tos uc_ttl",
    sock.InetConnectionSock: "icsk_accept_queue sk_max_ack_backlog",
    sock.TcpSock: "nonagle defer_connect urg_data recvmsg_inq",
    tcp_sock.TcpSock: "snd_una snd_nxt snd_wnd snd_wl1 snd_up write_seq rcv_nxt rcv_wnd rcv_wup"
    " copied_seq mss_cache advmss snd_cwnd snd_ssthresh packets_out retrans_out lost_out"
    " sacked_out srtt_us mdev_us icsk_rto icsk_backoff icsk_retransmits reordering undo_marker"
    " high_seq ts_recent",
    sock.UdpSock: "mc_list sk_drops",
}
"""Fields that a reader of the kernel looks for."""


def test_the_chain_of_a_socket_has_the_kernels_fields() -> None:
    for cls, fields in FIELDS.items():
        # A field that is rarely set stands in the class, with its default.
        slots = {*field_names(cls)}
        assert set(fields.split()) - slots == set(), cls


def test_each_struct_begins_with_the_one_before_it() -> None:
    chain = [sock.TcpSock, sock.InetConnectionSock, sock.InetSock, sock.Sock]
    assert list(sock.TcpSock.__mro__[:4]) == chain
    assert issubclass(sock.UdpSock, sock.InetSock)
    assert issubclass(sock.RawSock, sock.InetSock)


def test_the_process_is_the_one_that_takes_the_message() -> None:
    """Where a function takes a message, the table of entries says in which process it is."""
    taken = {where: process for served in takers().values() for process, where in served}
    checked = {row: taken.get(f"{row.file}:{row.function}") for row in rows()}
    assert sum(process is not None for process in checked.values()) >= 15
    assert [
        str(row) for row, process in checked.items() if process not in (None, row.process)
    ] == []
