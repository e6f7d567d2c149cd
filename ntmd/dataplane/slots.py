"""A read buffer whose payload arrives cut up, with room for headers before each piece.

The kernel hands over a super-packet: one header and up to 64 KiB of payload. A bulk flow's next one
has the shape of its last, so it is read into places that leave the headers' room free; those are
then written for all packets at once, and each packet lies ready to be sealed.
"""

from __future__ import annotations

from ntmd.dataplane.packets import VNET_SIZE
from ntmd.dataplane.slicing import VIEWS
from ntmd.dataplane.stamps import pack_sequences

LARGEST = 65_536
HEAD_MAX = 128  # IPv6 and TCP with all options
SEQUENCE = 44  # where a TCP sequence number begins behind an IPv6 header
BUFFER = VNET_SIZE + LARGEST + VIEWS * HEAD_MAX + 2048


class Slots:
    """The buffer, and the shape that the next super-packet is expected to have."""

    def __init__(self, start: int) -> None:
        """``start``: where a packet is read to: 0, or behind a virtio header that is not read."""
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self._plain = [self.view[start : VNET_SIZE + LARGEST]]
        self._scatters = not start
        self.packets: list[memoryview] = []  # one for each place
        self.be_plain()

    def be_plain(self) -> None:
        """Read everything in one piece."""
        self.into = self._plain
        self.whole = BUFFER  # a packet of this length or less lies in one piece
        self.shape = (0, 0)
        self._template = b""

    def expect(self, head: int, size: int) -> None:
        """Super-packets with headers of ``head`` bytes and payloads of ``size`` will follow."""
        count = -(-LARGEST // size)
        if not self._scatters or count > VIEWS or head > HEAD_MAX or (head, size) == self.shape:
            return
        full, view = head + size, self.view
        at = [VNET_SIZE + i * full for i in range(count)]
        self.packets = [view[i : i + full] for i in at]
        self.into = [view[: VNET_SIZE + full], *(view[i + head : i + full] for i in at[1:])]
        self.whole = VNET_SIZE + full
        self.shape = (head, size)
        self._template = b""

    def dress(self, template: bytearray, count: int, sequence: int | None) -> None:
        """Put ``template`` before the first ``count`` payloads; TCP: with growing sequences."""
        head, size = self.shape
        full, slots = head + size, len(self.packets)
        buffer = self.buffer
        fixed = bytes(template)
        if sequence is not None:
            fixed = fixed[:SEQUENCE] + bytes(4) + fixed[SEQUENCE + 4 :]
        if self._template:
            changed = int.from_bytes(fixed, "little") ^ int.from_bytes(self._template, "little")
        else:
            changed = (1 << 8 * head) - 1
        while changed:
            i = (changed & -changed).bit_length() - 1 >> 3
            changed &= ~(0xFF << 8 * i)
            at = VNET_SIZE + i
            buffer[at : at + (slots - 1) * full + 1 : full] = fixed[i : i + 1] * slots
        self._template = fixed
        buffer[VNET_SIZE : VNET_SIZE + head] = template  # a packet is read over the first place
        if sequence is not None:
            packed = pack_sequences(sequence, size, count)
            for i in range(4):
                at = VNET_SIZE + SEQUENCE + i
                buffer[at : at + (count - 1) * full + 1 : full] = packed[i::4]

    def undress(self, place: int) -> None:
        """The header at ``place`` was changed: make it like the others again."""
        at = VNET_SIZE + place * sum(self.shape)
        self.buffer[at : at + len(self._template)] = self._template

    def gather(self, length: int) -> None:
        """Lay what was read in one piece after all."""
        data = b"".join(self.into)[:length]
        self.buffer[:length] = data
        self._template = b""
