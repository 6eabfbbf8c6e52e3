# SPDX-License-Identifier: MIT
"""The link's impairment, changed while frames pass (the control method "impair")."""

from skbus.core.net import MSEC
from skbus.inet.impair import Impairment
from skbustest.nicrig import NicRig, data, datagram, out_datagram, out_segment


def test_a_good_link_becomes_bad_and_good_again() -> None:
    rig = NicRig()
    rig.core.set_impair(Impairment(loss=1.0), Impairment(loss=1.0))
    assert rig.receive(datagram(b"x")) == []
    assert rig.xmit(out_datagram(rig, b"x")) == []
    assert rig.drops() == {"SKBUS_IMPAIRED": 2}
    rig.core.set_impair(Impairment(), Impairment())
    rig.core.idle()
    assert [rig.net.netem_rx, rig.net.netem_tx] == [None, None]
    assert len(rig.receive(datagram(b"x"))) == 1
    # as a whole again, and not as the frames that an impaired link would make of it
    assert len(rig.xmit(out_segment(rig, data(5000), mss=1000))) == 1
    assert rig.conserved()


def test_frames_on_the_link_keep_their_time() -> None:
    rig = NicRig(impair_tx=Impairment(delay=20 * MSEC))
    assert rig.xmit(out_datagram(rig, b"old")) == []
    rig.core.set_impair(Impairment(), Impairment())
    rig.core.idle()
    assert "impair_tx" in rig.core.status()
    assert len(rig.xmit(out_datagram(rig, b"new"))) == 1
    assert rig.core.held() == 1
    rig.advance(21 * MSEC)
    assert [f[-3:] for f in rig.sent()] == [b"old"]
    assert "impair_tx" not in rig.core.status()
    assert rig.conserved()


def test_a_super_segment_that_loses_nothing_passes_whole() -> None:
    rig = NicRig()
    rig.core.set_impair(Impairment(loss=0.05, seed=1), Impairment(loss=0.05, seed=1))
    frames = [len(rig.xmit(out_segment(rig, data(10_000), mss=1000))) for _ in range(40)]
    lost = rig.drops()["SKBUS_IMPAIRED"]
    assert 0 < lost < 40
    assert 1 in frames
    assert sum(10 if n == 1 else n for n in frames) == 400 - lost
    assert rig.conserved()
