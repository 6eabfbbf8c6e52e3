# SPDX-License-Identifier: MIT
"""Posted sends, between real processes: nothing is lost or out of order, and errors are told as
Linux tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.interop.endpoints_posts import COUNT

if TYPE_CHECKING:
    from tests.interop.conftest import Lab, Reference

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_posts")]


@pytest.mark.parametrize("how", ["send_and_die", "send_and_close", "send_by_threads"])
def test_all_that_was_posted_arrives(lab: Lab, port: int, how: str) -> None:
    server = lab.ours(how, port=port)
    server.heard("ready")
    assert lab.linux("read_numbers", host=lab.address, port=port).result() == [COUNT, True]
    if how != "send_and_die":
        assert server.result() == "closed"


def test_an_error_is_told_by_a_later_call(lab: Lab, port: int) -> None:
    server = lab.ours("send_until_error", port=port)
    server.heard("ready")
    client = lab.linux("reset_after_hello", host=lab.address, port=port)
    assert server.result() == [True, ["ECONNRESET", "EPIPE", "EPIPE"]]
    client.result()


def test_after_a_failed_recv_the_next_send_knows(lab: Lab, reference: Reference, port: int) -> None:
    told = []
    for cable in (lab, reference):
        server = cable.ours("send_after_the_end", port=port)
        server.heard("ready")
        client = cable.linux("reset_after_hello", host=cable.address, port=port)
        told.append(server.result())
        client.result()
    assert told[0] == told[1]
