# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.checksum import csum_partial
from skbus.inet.headers import HeaderError, icmp, igmp, tcp, udp

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 2**32 - 1)
ip4 = st.binary(min_size=4, max_size=4)


@given(st.binary(max_size=80), st.integers(-2, 85))
def test_arbitrary_bytes_raise_nothing_but_header_error(data: bytes, offset: int) -> None:
    reasons = set()
    for parse in (
        tcp.parse,
        udp.parse,
        icmp.parse,
        igmp.parse,
        igmp.parse_v3_query,
        igmp.parse_v3_report,
    ):
        try:
            parse(data, offset)
        except HeaderError as e:
            reasons.add(e.drop_reason)
    assert reasons <= {"PKT_TOO_SMALL"}


@given(u16, u16, u16, u16)
def test_udp_round_trip(source: int, dest: int, length: int, check: int) -> None:
    assert udp.parse(udp.build(source, dest, length, check)) == (source, dest, length, check)


@given(u8, u8, u32, st.binary(max_size=70))
def test_icmp_round_trip(type_: int, code: int, rest: int, payload: bytes) -> None:
    raw = icmp.build_message(type_, code, rest, payload)
    assert csum_partial(raw) in (0, 0xFFFF)
    hdr = icmp.parse(raw)
    assert (hdr.type, hdr.code, hdr.rest) == (type_, code, rest)
    assert icmp.build(type_, code, rest, hdr.checksum) == raw[:8]
    assert hdr.id << 16 | hdr.sequence == rest
    assert hdr.mtu == rest & 0xFFFF
    assert hdr.gateway == raw[4:8]
    assert hdr.pointer == raw[4]


@given(u8, u8, ip4)
def test_igmp_round_trip(type_: int, code: int, group: bytes) -> None:
    raw = igmp.build(type_, code, group)
    assert csum_partial(raw) in (0, 0xFFFF)
    hdr = igmp.parse(raw)
    assert (hdr.type, hdr.code, hdr.group) == (type_, code, group)


@given(u8, ip4, st.lists(ip4, max_size=5), st.booleans(), st.integers(0, 7), u8)
def test_igmpv3_query_round_trip(
    code: int, group: bytes, srcs: list[bytes], suppress: bool, qrv: int, qqic: int
) -> None:
    raw = igmp.build_v3_query(code, group, tuple(srcs), suppress=suppress, qrv=qrv, qqic=qqic)
    assert csum_partial(raw) == 0xFFFF
    query = igmp.parse_v3_query(raw)
    assert query == (code, query.csum, group, suppress, qrv, qqic, tuple(srcs))


@given(st.lists(st.tuples(u8, ip4, st.lists(ip4, max_size=3)), max_size=4))
def test_igmpv3_report_round_trip(records: list[tuple[int, bytes, list[bytes]]]) -> None:
    grecs = tuple(igmp.Igmpv3Grec(t, g, tuple(s)) for t, g, s in records)
    raw = igmp.build_v3_report(grecs)
    assert csum_partial(raw) == 0xFFFF
    assert igmp.parse_v3_report(raw) == grecs


def test_igmpv3_floating_point_codes() -> None:
    assert igmp.igmpv3_decode(127) == 127
    assert igmp.igmpv3_decode(0x80) == 128
    assert igmp.igmpv3_decode(0xFF) == 31 << 10


# ---- TCP ---------------------------------------------------------------------------------

options = st.builds(
    tcp.TcpOptions,
    mss=u16,
    wscale=st.none() | st.integers(0, 14),
    sack_ok=st.booleans(),
    saw_tstamp=st.just(True),
    tsval=u32,
    tsecr=u32,
    fastopen=st.none()
    | st.integers(2, 4).flatmap(lambda n: st.binary(min_size=n * 2, max_size=n * 2)),
    fastopen_exp=st.just(False),
)


@given(u16, u16, u32, u32, st.integers(0, 0x1FF), u16, st.integers(0, 10), u16, u16)
def test_tcp_round_trip(
    source: int,
    dest: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    nopt: int,
    urg: int,
    check: int,
) -> None:
    raw = tcp.build(source, dest, seq, ack, flags, window, bytes(4 * nopt), urg, check)
    assert len(raw) == 20 + 4 * nopt
    assert tcp.parse(raw) == (source, dest, seq, ack, 20 + 4 * nopt, flags, window, check, urg)


@given(options)
def test_syn_options_round_trip(opt: tcp.TcpOptions) -> None:
    raw = tcp.build_options(opt)
    assert len(raw) % 4 == 0
    assert tcp.parse_options(raw, syn=True) == opt


@given(st.lists(st.tuples(u32, u32), min_size=1, max_size=3), u32, u32)
def test_sack_round_trip(sacks: list[tuple[int, int]], tsval: int, tsecr: int) -> None:
    opt = tcp.TcpOptions(saw_tstamp=True, tsval=tsval, tsecr=tsecr, sacks=tuple(sacks))
    raw = tcp.build_options(opt)
    assert tcp.parse_options(raw, syn=False) == opt
    assert tcp.parse_aligned_timestamp(raw, 0) == (tsval, tsecr)
    assert raw.startswith(tcp.build_aligned_timestamp(tsval, tsecr))


@given(st.binary(max_size=44), st.booleans())
def test_arbitrary_options_never_fail(raw: bytes, syn: bool) -> None:
    opt = tcp.parse_options(raw, syn)
    assert syn or (not opt.mss and opt.wscale is None and not opt.sack_ok)
    tcp.parse_aligned_timestamp(raw, 0)


def test_linux_syn_options_byte_for_byte() -> None:
    # a SYN of Linux 6 on a veth with MTU 1500
    raw = bytes.fromhex("020405b4 0402080a 3a1b2c3d00000000 0103030a".replace(" ", ""))
    opt = tcp.parse_options(raw, syn=True)
    assert opt == tcp.TcpOptions(
        mss=1460, wscale=10, sack_ok=True, saw_tstamp=True, tsval=0x3A1B2C3D
    )
    assert tcp.build_options(opt) == raw


@pytest.mark.parametrize(
    ("opt", "wire"),
    [
        (tcp.TcpOptions(mss=1460, sack_ok=True), "020405b401010402"),
        (tcp.TcpOptions(mss=1460, wscale=7), "020405b401030307"),
        (tcp.TcpOptions(mss=1460, saw_tstamp=True, tsval=1), "020405b40101080a0000000100000000"),
        (tcp.TcpOptions(mss=536, fastopen=b""), "0204021822020101"),
        (tcp.TcpOptions(fastopen=b"", fastopen_exp=True), "fe04f989"),
        (tcp.TcpOptions(fastopen=b"12345678"), "220a31323334353637380101"),
        (tcp.TcpOptions(sacks=((1, 2),)), "0101050a0000000100000002"),
        (tcp.TcpOptions(), ""),
    ],
)
def test_layouts_of_linux(opt: tcp.TcpOptions, wire: str) -> None:
    assert tcp.build_options(opt).hex() == wire
    assert tcp.parse_options(bytes.fromhex(wire), syn=True) == opt


@pytest.mark.parametrize(
    ("wire", "syn", "opt"),
    [
        ("0204", True, tcp.TcpOptions()),  # cut off
        ("020105b4", True, tcp.TcpOptions()),  # length 1
        ("0301070204058c", True, tcp.TcpOptions()),  # stops at the bad length
        ("030400000204058c", True, tcp.TcpOptions(mss=0x58C)),  # a wrong size is skipped
        ("000204058c", True, tcp.TcpOptions()),  # behind END
        ("0204058c", False, tcp.TcpOptions()),  # not in a SYN
        ("0303ff", True, tcp.TcpOptions(wscale=14)),  # RFC 7323 2.3
        ("050b" + "00" * 9, False, tcp.TcpOptions()),  # not a multiple of 8
        ("22053132330000", True, tcp.TcpOptions()),  # an odd cookie
        ("2204313200", True, tcp.TcpOptions()),  # a cookie of 2 bytes
        ("1312" + "00" * 16, False, tcp.TcpOptions(md5=True)),
        ("1d040000", False, tcp.TcpOptions(ao=True)),
        ("fd06010203040204058c", True, tcp.TcpOptions(mss=0x58C)),  # unknown
    ],
)
def test_tolerance_of_linux(wire: str, syn: bool, opt: tcp.TcpOptions) -> None:
    assert tcp.parse_options(bytes.fromhex(wire), syn) == opt


def test_aligned_timestamp_only_when_it_comes_first() -> None:
    assert tcp.parse_aligned_timestamp(b"\x01\x01\x08\x0a" + bytes(7), 0) is None
    assert tcp.parse_aligned_timestamp(b"\x08\x0a" + bytes(8) + b"\x01\x01", 0) is None


def test_too_many_options_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="at most 40"):
        tcp.build_options(tcp.TcpOptions(saw_tstamp=True, sacks=((1, 2),) * 4))


def test_options_show_what_is_set() -> None:
    assert repr(tcp.TcpOptions(mss=1460)) == "TcpOptions(mss=1460)"
