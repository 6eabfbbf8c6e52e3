# SPDX-License-Identifier: MIT
import pytest

from skbus.core.net import MSEC
from skbus.stack.config import Device
from skbusd.nic.main import dev_addr, nic_config, own_mac


def test_a_mac_of_our_own_is_the_same_in_every_life_and_local() -> None:
    a = Device(name="eth0", addr=["10.0.0.1/24"])
    b = Device(name="eth0", addr=["10.0.0.2/24"])
    assert own_mac(a) == own_mac(a.model_copy())
    assert own_mac(a) != own_mac(b)
    assert own_mac(a)[0] == 0x02
    assert len(own_mac(a)) == 6


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"mac": "02:00:00:00:00:07"}, b"\x02\0\0\0\0\x07"),
        ({"mac": "02:00:00:00:00:07", "mode": "take-over"}, b"\x02\0\0\0\0\x07"),
        ({"mode": "take-over"}, b""),
        ({"backend": "tap"}, b""),
    ],
)
def test_which_mac(fields: dict[str, str], want: bytes) -> None:
    assert dev_addr(Device(name="eth0", **fields)) == want  # type: ignore[arg-type]


def test_configuration() -> None:
    config = nic_config(
        Device.model_validate(
            {
                "name": "eth0",
                "addr": "10.0.0.1/24",
                "mtu": 1400,
                "impair": {"loss": "5%", "delay": "20ms", "rate": "1mbit", "seed": 3},
            }
        )
    )
    assert (config.dev, config.mtu) == ("eth0", 1400)
    rx, tx = config.impair_rx, config.impair_tx
    assert rx is not None
    assert tx is not None
    assert (rx.loss, rx.delay, tx.rate) == (0.05, 20 * MSEC, 1_000_000)
    assert [rx.rand.random() for _ in range(3)] != [tx.rand.random() for _ in range(3)]


def test_no_impairment_is_none() -> None:
    config = nic_config(Device(name="eth0"))
    assert config.impair_rx is None
    assert config.impair_tx is None
