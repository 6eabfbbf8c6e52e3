# SPDX-License-Identifier: MIT
"""Typed sysctls under Linux's names and defaults (`Documentation/networking/ip-sysctl.rst`).

`Sysctl()["net.ipv4.tcp_sack"]` is the value; `set` takes text or a value and checks it. A core
keeps no copy of a value. Those that every packet needs are also fields of `Sysctl.ipv4`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from skbus.core.netns_ipv4 import FIELDS, NetnsIpv4

Value = int | str | tuple[int, ...]


class SysctlError(ValueError):
    """An unknown name, or a value that the sysctl does not take; the text names both."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One sysctl: its default, bounds (for each number) and meaning."""

    default: Value
    low: int = 0
    high: int = 2**31 - 1
    doc: str = ""
    words: tuple[str, ...] = ()


def _spec(default: Value, low: int = 0, high: int = 2**31 - 1, doc: str = "") -> Spec:
    return Spec(default, low, high, doc)


SPECS: Final[dict[str, Spec]] = {
    # fs
    "fs.file-max": _spec(1 << 20, 0, doc="descriptors of all clients together"),
    "fs.nr_open": _spec(65536, 1, 1 << 20, "descriptors that a client may have"),
    # net/core
    "net.core.somaxconn": _spec(4096, 0, 65535, "limit of a listener's accept queue"),
    "net.core.rmem_default": _spec(212992, 2304, doc="receive buffer of a socket, bytes"),
    "net.core.rmem_max": _spec(4194304, 2304, doc="largest SO_RCVBUF, bytes"),
    "net.core.wmem_default": _spec(212992, 4608, doc="send buffer of a socket, bytes"),
    "net.core.wmem_max": _spec(4194304, 4608, doc="largest SO_SNDBUF, bytes"),
    "net.core.netdev_max_backlog": _spec(1000, 1, doc="no effect: a pipe holds 1000 messages"),
    "net.core.netdev_budget": _spec(300, 1, doc="no effect: nic has a budget of its own"),
    "net.core.busy_poll": _spec(0, 0, 1_000_000, "us to look for messages before sleeping"),
    "net.core.optmem_max": _spec(
        131072, 0, doc="no effect: ancillary data of one call may have 32768 bytes"
    ),
    # ip
    "net.ipv4.ip_forward": _spec(0, 0, 1, "forward packets between interfaces"),
    "net.ipv4.ip_default_ttl": _spec(64, 1, 255, "time to live of what we send"),
    "net.ipv4.ip_no_pmtu_disc": _spec(0, 0, 3, "0: discover path MTUs"),
    "net.ipv4.ip_nonlocal_bind": _spec(0, 0, 1),
    "net.ipv4.route.min_adv_mss": _spec(256, 0, 65535, "smallest MSS that we offer, bytes"),
    "net.ipv4.route.min_pmtu": _spec(552, 68, 65535, "smallest path MTU that is believed"),
    "net.ipv4.route.mtu_expires": _spec(600, 1, doc="seconds that a path MTU is believed"),
    "net.ipv4.route.redirect_load": _spec(20, 0, doc="ms between two redirects, doubled each time"),
    "net.ipv4.route.redirect_number": _spec(
        9, 0, doc="redirects to a host that does not heed them"
    ),
    "net.ipv4.route.redirect_silence": _spec(20480, 0, doc="ms until it is told again"),
    "net.ipv4.ipfrag_high_thresh": _spec(4194304, 0, doc="memory for reassembly, bytes"),
    "net.ipv4.ipfrag_low_thresh": _spec(3145728, 0),
    "net.ipv4.ipfrag_time": _spec(30, 1, 255, "seconds that fragments wait for the rest"),
    "net.ipv4.ipfrag_max_dist": _spec(64, 0),
    "net.ipv4.icmp_echo_ignore_all": _spec(0, 0, 1),
    "net.ipv4.icmp_echo_ignore_broadcasts": _spec(1, 0, 1),
    "net.ipv4.icmp_ratelimit": _spec(1000, 0, doc="ms between ICMP errors to one host"),
    "net.ipv4.icmp_ratemask": _spec(6168, 0, doc="ICMP types that are limited (bit mask)"),
    "net.ipv4.icmp_msgs_per_sec": _spec(1000, 0, doc="ICMP errors a second, all hosts"),
    "net.ipv4.icmp_msgs_burst": _spec(50, 0),
    "net.ipv4.ping_group_range": _spec((1, 0), 0, 2**31 - 1),
    "net.ipv4.igmp_max_memberships": _spec(20, 0),
    "net.ipv4.igmp_max_msf": _spec(10, 0, doc="sources in a socket's filter"),
    "net.ipv4.igmp_qrv": _spec(2, 1, 127, "robustness: how often IGMP reports are repeated"),
    "net.ipv4.igmp_link_local_mcast_reports": _spec(1, 0, 1, "report groups of 224.0.0.0/24"),
    "net.ipv4.conf.all.force_igmp_version": _spec(0, 0, 3, "0: as the querier has it"),
    "net.ipv4.conf.all.igmpv2_unsolicited_report_interval": _spec(10000, 1, doc="ms"),
    "net.ipv4.conf.all.igmpv3_unsolicited_report_interval": _spec(1000, 1, doc="ms"),
    "net.ipv4.ip_local_port_range": _spec((32768, 60999), 1, 65535, "automatic ports"),
    "net.ipv4.ip_local_reserved_ports": Spec(
        "", doc="ports that are never automatic: 8080,9000-9100"
    ),
    "net.ipv4.ip_unprivileged_port_start": _spec(
        1024, 0, 65536, "no effect: whoever may use the stack may bind any port"
    ),
    # neighbours
    "net.ipv4.neigh.default.mcast_solicit": _spec(3, 0, doc="ARP requests before giving up"),
    "net.ipv4.neigh.default.ucast_solicit": _spec(3, 0),
    "net.ipv4.neigh.default.app_solicit": _spec(0, 0, 0, "no effect: there is no daemon to ask"),
    "net.ipv4.neigh.default.retrans_time_ms": _spec(1000, 1),
    "net.ipv4.neigh.default.base_reachable_time_ms": _spec(30000, 1),
    "net.ipv4.neigh.default.delay_first_probe_time": _spec(5, 0, doc="seconds"),
    "net.ipv4.neigh.default.gc_stale_time": _spec(60, 0, doc="seconds"),
    "net.ipv4.neigh.default.gc_thresh3": _spec(1024, 1, doc="most neighbours"),
    "net.ipv4.neigh.default.unres_qlen": _spec(101, 0, doc="packets kept per unresolved neighbour"),
    "net.ipv4.neigh.default.unres_qlen_bytes": _spec(212992, 0),
    "net.ipv4.conf.all.arp_ignore": _spec(0, 0, 8),
    "net.ipv4.conf.all.arp_accept": _spec(0, 0, 2),
    "net.ipv4.conf.all.rp_filter": _spec(0, 0, 2),
    "net.ipv4.conf.all.accept_redirects": _spec(0, 0, 1, "a host takes a gateway's word for it"),
    "net.ipv4.conf.all.send_redirects": _spec(1, 0, 1, "a router tells of better gateways"),
    "net.ipv4.conf.all.accept_source_route": _spec(0, 0, 0, "no effect: source routes are refused"),
    "net.ipv4.conf.all.log_martians": _spec(0, 0, 1, "log packets from impossible addresses"),
    "net.ipv4.conf.all.mc_forwarding": _spec(0, 0, 0, "no effect: multicast is not forwarded"),
    # tcp
    "net.ipv4.tcp_sack": _spec(1, 0, 1),
    "net.ipv4.tcp_dsack": _spec(1, 0, 1),
    "net.ipv4.tcp_fack": _spec(0, 0, 1, "no effect, as in Linux since 4.15"),
    "net.ipv4.tcp_timestamps": _spec(1, 0, 2, "1: with a random offset for each connection"),
    "net.ipv4.tcp_window_scaling": _spec(1, 0, 1),
    "net.ipv4.tcp_rmem": _spec((4096, 131072, 6291456), 1),
    "net.ipv4.tcp_wmem": _spec(
        (4096, 16384, 8388608), 1, doc="twice Linux's: a round trip through processes is longer"
    ),
    "net.ipv4.tcp_mem": _spec((190000, 250000, 380000), 1, doc="pages of 4096 bytes"),
    "net.ipv4.tcp_adv_win_scale": _spec(1, -31, 31),
    "net.ipv4.tcp_moderate_rcvbuf": _spec(1, 0, 1),
    "net.ipv4.tcp_app_win": _spec(31, 0, 31),
    "net.ipv4.tcp_syn_retries": _spec(6, 1, 127),
    "net.ipv4.tcp_synack_retries": _spec(5, 0, 255),
    "net.ipv4.tcp_syn_linear_timeouts": _spec(4, 0, 127),
    "net.ipv4.tcp_retries1": _spec(3, 0, 255),
    "net.ipv4.tcp_retries2": _spec(15, 0, 255),
    "net.ipv4.tcp_orphan_retries": _spec(0, 0, 255),
    "net.ipv4.tcp_fin_timeout": _spec(60, 1, doc="seconds in FIN_WAIT_2 without a user"),
    "net.ipv4.tcp_max_tw_buckets": _spec(131072, 0),
    "net.ipv4.tcp_tw_reuse": _spec(2, 0, 2),
    "net.ipv4.tcp_max_orphans": _spec(131072, 0),
    "net.ipv4.tcp_max_syn_backlog": _spec(4096, 0),
    "net.ipv4.tcp_syncookies": _spec(1, 0, 2),
    "net.ipv4.tcp_abort_on_overflow": _spec(0, 0, 1),
    "net.ipv4.tcp_keepalive_time": _spec(7200, 1),
    "net.ipv4.tcp_keepalive_intvl": _spec(75, 1),
    "net.ipv4.tcp_keepalive_probes": _spec(9, 1, 127),
    "net.ipv4.tcp_cubic_hystart": _spec(1, 0, 1, "leave slow start before the first loss"),
    "net.ipv4.tcp_cubic_hystart_detect": _spec(
        0, 0, 3, "0: HyStart++; else HyStart, by 1: ACK trains, 2: delay, 3: both"
    ),
    "net.ipv4.tcp_cubic_hystart_low_window": _spec(16, 0, doc="segments: not below"),
    "net.ipv4.tcp_ecn": _spec(2, 0, 5),
    "net.ipv4.tcp_ecn_fallback": _spec(1, 0, 1),
    "net.ipv4.tcp_ecn_option": _spec(2, 0, 2, "0: none, 1: where there is news, 2: always"),
    "net.ipv4.tcp_ecn_option_beacon": _spec(3, 0, doc="at least so often in a round trip"),
    "net.ipv4.tcp_fastopen": _spec(1, 0),
    "net.ipv4.tcp_fastopen_blackhole_timeout_sec": _spec(0, 0),
    "net.ipv4.tcp_fastopen_key": Spec("", doc="key of the Fast Open cookies, hex"),
    "net.ipv4.tcp_congestion_control": Spec("cubic", doc="of new sockets"),
    "net.ipv4.tcp_available_congestion_control": Spec("", doc="what there is; read only"),
    "net.ipv4.tcp_allowed_congestion_control": Spec(
        "reno cubic", doc="for users without privilege"
    ),
    "net.ipv4.tcp_reordering": _spec(3, 1, 300),
    "net.ipv4.tcp_max_reordering": _spec(300, 1),
    "net.ipv4.tcp_recovery": _spec(1, 0, 7, "bit 0: RACK"),
    "net.ipv4.tcp_early_retrans": _spec(3, 0, 4, "3: tail loss probe"),
    "net.ipv4.tcp_frto": _spec(2, 0, 2),
    "net.ipv4.tcp_retrans_collapse": _spec(
        1, 0, 1, "no effect: what was sent small is sent again small"
    ),
    "net.ipv4.tcp_slow_start_after_idle": _spec(1, 0, 1),
    "net.ipv4.tcp_no_metrics_save": _spec(0, 0, 1, "no effect: only Fast Open's are kept"),
    "net.ipv4.tcp_no_ssthresh_metrics_save": _spec(1, 0, 1, "no effect: it is not kept"),
    "net.ipv4.tcp_min_rtt_wlen": _spec(300, 0, 86400),
    "net.ipv4.tcp_rto_min_us": _spec(200000, 1),
    "net.ipv4.tcp_rto_max_ms": _spec(120000, 1000, 120000),
    "net.ipv4.tcp_mtu_probing": _spec(0, 0, 2),
    "net.ipv4.tcp_base_mss": _spec(1024, 48, 65535),
    "net.ipv4.tcp_min_snd_mss": _spec(48, 48, 65535),
    "net.ipv4.tcp_mtu_probe_floor": _spec(48, 48, 65535),
    "net.ipv4.tcp_probe_threshold": _spec(8, 0),
    "net.ipv4.tcp_probe_interval": _spec(600, 0),
    "net.ipv4.tcp_limit_output_bytes": _spec(4194304, 0),
    "net.ipv4.tcp_notsent_lowat": _spec(2**32 - 1, 0, 2**32 - 1),
    "net.ipv4.tcp_autocorking": _spec(1, 0, 1),
    "net.ipv4.tcp_min_tso_segs": _spec(2, 1, 255),
    "net.ipv4.tcp_tso_win_divisor": _spec(3, 0),
    "net.ipv4.tcp_tso_rtt_log": _spec(9, 0),
    "net.ipv4.tcp_pacing_ss_ratio": _spec(200, 0, 1000),
    "net.ipv4.tcp_pacing_ca_ratio": _spec(120, 0, 1000),
    "net.ipv4.tcp_comp_sack_delay_ns": _spec(1000000, 0),
    "net.ipv4.tcp_comp_sack_nr": _spec(44, 0, 255),
    "net.ipv4.tcp_challenge_ack_limit": _spec(2147483647, 0),
    "net.ipv4.tcp_invalid_ratelimit": _spec(500, 0, doc="ms"),
    "net.ipv4.tcp_rfc1337": _spec(0, 0, 1),
    "net.ipv4.tcp_stdurg": _spec(0, 0, 1),
    "net.ipv4.tcp_thin_linear_timeouts": _spec(0, 0, 1, "no effect"),
    "net.ipv4.tcp_workaround_signed_windows": _spec(0, 0, 1),
    "net.ipv4.tcp_low_latency": _spec(0, 0, 1),
    "net.ipv4.tcp_max_ssthresh": _spec(0, 0, doc="no effect, as in Linux since 3.10"),
    "net.ipv4.tcp_shrink_window": _spec(0, 0, 1, "no effect: a window is never taken back"),
    # udp
    "net.ipv4.udp_rmem_min": _spec(4096, 1, doc="no effect: udp_mem is the one limit"),
    "net.ipv4.udp_wmem_min": _spec(4096, 1, doc="no effect: udp_mem is the one limit"),
    "net.ipv4.udp_mem": _spec((190000, 250000, 380000), 1),
    "net.ipv4.udp_early_demux": _spec(1, 0, 1, "no effect: ip knows no sockets"),
}


def _number(field: object) -> int:
    """A number as `proc_get_long` reads it: decimal, 0x hexadecimal or 0 octal. ValueError."""
    if isinstance(field, int):
        return field
    if not isinstance(field, str):
        raise ValueError
    octal = len(field) > 1 and field[0] == "0" and field.isdigit()
    return int(field, 8 if octal else 0)


class Sysctl(dict[str, Any]):
    """The sysctls of one process. Reading an unknown name raises KeyError.

    checks: a layer's own checks of text values, by name: each returns the value to be kept, or
    raises SysctlError. ipv4: some of the values once more, as fields.
    """

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self.checks: dict[str, Callable[[str], str]] = {}
        self.ipv4 = NetnsIpv4()
        super().__init__({name: spec.default for name, spec in SPECS.items()})
        for name, field in FIELDS.items():
            setattr(self.ipv4, field, self[name])
        for name, value in (values or {}).items():
            self.set(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.ipv4.sysctl_genid += 1
        if name in FIELDS:
            setattr(self.ipv4, FIELDS[name], value)

    def set(self, name: str, value: object) -> None:
        """Check and set. value: an int, a list of ints, or what one writes into /proc/sys.

        SysctlError names the sysctl, the value, and what the sysctl takes.
        """
        spec = SPECS.get(name)
        if spec is None:
            raise SysctlError(f"no such sysctl: {name} (`skbus sysctl -a` lists them)")
        if isinstance(spec.default, str):
            if not isinstance(value, str):
                raise SysctlError(f"{name} takes text, not {value!r}")
            check = self.checks.get(name)
            self[name] = check(value.strip()) if check is not None else value.strip()
            return
        want = len(spec.default) if isinstance(spec.default, tuple) else 1
        fields: list[object]
        if isinstance(value, str):
            fields = list(value.split())
        elif isinstance(value, (list, tuple)):
            fields = list(value)
        else:
            fields = [value]
        try:
            numbers = [_number(f) for f in fields]
        except ValueError:
            raise SysctlError(f"{name} takes {want} number(s), not {value!r}") from None
        if len(numbers) != want:
            raise SysctlError(f"{name} takes {want} number(s), not {len(numbers)}: {value!r}")
        for n in numbers:
            if not spec.low <= n <= spec.high:
                raise SysctlError(f"{name}: {n} is outside {spec.low} .. {spec.high}")
        self[name] = tuple(numbers) if isinstance(spec.default, tuple) else numbers[0]
