# SPDX-License-Identifier: MIT
"""`struct netns_ipv4`: the sysctls that are read for every packet, as fields.

`skbus.core.sysctl.Sysctl` has all sysctls by name, checks what is set, and keeps the fields here
equal. A field costs a fraction of a look-up by name, above all where mypyc compiled its reader.
A field is named after its sysctl: `sysctl_tcp_recovery` is `net.ipv4.tcp_recovery`.
"""

from typing import Final

from skbus.core.compiled import field_names


class NetnsIpv4:
    """The fields; their values come from `Sysctl`, which sets them at once."""

    __slots__ = (
        "sysctl_genid",
        "sysctl_ip_default_ttl",
        "sysctl_ip_forward",
        "sysctl_tcp_adv_win_scale",
        "sysctl_tcp_autocorking",
        "sysctl_tcp_cubic_hystart",
        "sysctl_tcp_cubic_hystart_detect",
        "sysctl_tcp_cubic_hystart_low_window",
        "sysctl_tcp_early_retrans",
        "sysctl_tcp_limit_output_bytes",
        "sysctl_tcp_low_latency",
        "sysctl_tcp_min_rtt_wlen",
        "sysctl_tcp_min_tso_segs",
        "sysctl_tcp_pacing_ca_ratio",
        "sysctl_tcp_pacing_ss_ratio",
        "sysctl_tcp_recovery",
        "sysctl_tcp_reordering",
        "sysctl_tcp_rto_max_ms",
        "sysctl_tcp_rto_min_us",
        "sysctl_tcp_slow_start_after_idle",
        "sysctl_tcp_tso_rtt_log",
    )

    def __init__(self) -> None:
        self.sysctl_genid = 0
        """How often any sysctl was set."""
        self.sysctl_ip_default_ttl = 0
        self.sysctl_ip_forward = 0
        self.sysctl_tcp_adv_win_scale = 0
        self.sysctl_tcp_autocorking = 0
        self.sysctl_tcp_cubic_hystart = 0
        self.sysctl_tcp_cubic_hystart_detect = 0
        self.sysctl_tcp_cubic_hystart_low_window = 0
        self.sysctl_tcp_early_retrans = 0
        self.sysctl_tcp_limit_output_bytes = 0
        self.sysctl_tcp_low_latency = 0
        self.sysctl_tcp_min_rtt_wlen = 0
        self.sysctl_tcp_min_tso_segs = 0
        self.sysctl_tcp_pacing_ca_ratio = 0
        self.sysctl_tcp_pacing_ss_ratio = 0
        self.sysctl_tcp_recovery = 0
        self.sysctl_tcp_reordering = 0
        self.sysctl_tcp_rto_max_ms = 0
        self.sysctl_tcp_rto_min_us = 0
        self.sysctl_tcp_slow_start_after_idle = 0
        self.sysctl_tcp_tso_rtt_log = 0


FIELDS: Final = {
    "net.ipv4." + name.removeprefix("sysctl_"): name
    for name in field_names(NetnsIpv4)
    if name != "sysctl_genid"
}
"""The field of a sysctl."""
