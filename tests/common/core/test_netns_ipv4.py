# SPDX-License-Identifier: MIT
"""`skbus.core.netns_ipv4`: the fields follow the sysctls."""

from skbus.core.netns_ipv4 import FIELDS
from skbus.core.sysctl import SPECS, Sysctl


def test_each_field_is_a_sysctl_that_is_a_number() -> None:
    assert FIELDS
    for name in FIELDS:
        assert isinstance(SPECS[name].default, int), name


def test_the_fields_begin_with_the_defaults_and_with_what_is_configured() -> None:
    sysctl = Sysctl({"net.ipv4.tcp_recovery": 0})
    assert {name: getattr(sysctl.ipv4, field) for name, field in FIELDS.items()} == {
        name: sysctl[name] for name in FIELDS
    }
    assert sysctl.ipv4.sysctl_tcp_recovery == 0


def test_a_field_changes_with_its_sysctl() -> None:
    sysctl = Sysctl()
    sysctl.set("net.ipv4.tcp_rto_max_ms", "60000")
    assert sysctl.ipv4.sysctl_tcp_rto_max_ms == 60000
    sysctl["net.ipv4.ip_forward"] = 1
    assert sysctl.ipv4.sysctl_ip_forward == 1


def test_whoever_keeps_something_of_a_sysctl_sees_that_one_was_set() -> None:
    sysctl = Sysctl()
    before = sysctl.ipv4.sysctl_genid
    sysctl.set("net.ipv4.conf.all.rp_filter", 1)
    assert sysctl.ipv4.sysctl_genid != before


def test_two_stacks_have_fields_of_their_own() -> None:
    one, other = Sysctl(), Sysctl()
    one.set("net.ipv4.tcp_early_retrans", 0)
    assert other.ipv4.sysctl_tcp_early_retrans == 3
