# SPDX-License-Identifier: MIT
"""Captures in pcapng, for Wireshark and tshark (the python-pcapng library writes them)."""

import warnings
from pathlib import Path
from typing import Any, BinaryIO

from pcapng import FileWriter
from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader

_LINKTYPE_ETHERNET = 1


class PcapWriter:
    """A pcapng file with one interface for each name that is used.

    An interface is described when its first frame is written, or at the beginning if it is among
    `interfaces`. Times are ns, here and in the file.
    """

    def __init__(self, path: str | Path, interfaces: tuple[str, ...] = ()) -> None:
        self._stream: BinaryIO = open(path, "wb")  # noqa: SIM115 (closed by close)
        section: Any = SectionHeader(options={"shb_userappl": "skbus"})
        self._interfaces: dict[str, int] = {}
        self._section = section
        with warnings.catch_warnings():
            # python-pcapng warns of its own table's missing type of if_tsresol
            warnings.simplefilter("ignore", DeprecationWarning)
            self._writer: Any = FileWriter(self._stream, section)
            for name in interfaces:
                self._describe(name)

    def _describe(self, name: str) -> int:
        block = self._section.new_member(
            InterfaceDescription,
            link_type=_LINKTYPE_ETHERNET,
            snaplen=262144,
            options={"if_name": name, "if_tsresol": b"\x09"},
        )
        number = self._interfaces[name] = len(self._interfaces)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._writer.write_block(block)
        return number

    def write(self, interface: str, now: int, frame: bytes) -> None:
        """One Ethernet frame at `now` (ns)."""
        number = self._interfaces.get(interface)
        block = self._section.new_member(
            EnhancedPacket,
            interface_id=self._describe(interface) if number is None else number,
            timestamp_high=now >> 32,
            timestamp_low=now & 0xFFFFFFFF,
            packet_len=len(frame),
            packet_data=frame,
        )
        self._writer.write_block(block)

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()
