"""Makes messages.json: one sample of every control message and handshake payload, as bytes.

Written from the tables of ``docs/protocol.md`` with a packer of its own; see make_vectors.py.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

U64 = 0xFEDCBA9876543210
V4 = bytes((192, 0, 2, 7)) + struct.pack(">H", 4000)
V6 = bytes.fromhex("20010db8000000000000000000000007") + struct.pack(">H", 65535)
ID = bytes(range(16))
RECORD = bytes(range(141))
CERTIFICATE = b"\x30\x82" + bytes(300)
CANDIDATES = [[1, V4], [2, V6]]
RELAY = ["rs1.home.test", CERTIFICATE, [V4, V6], [V6]]
NAT = [1, 3]
SEEN = [0x2A, U64, 2**64 - 1, [[1, 70_000], [2, 5]]]
ROUTE: list[Any] = [
    "desk.lab.test", CERTIFICATE, RECORD, b"", CANDIDATES, NAT, ID, bytes(32),
    [[RELAY, bytes(207)]], True, False, "rs2.lab.test",
]  # fmt: skip

SAMPLES: dict[str, list[Any]] = {
    "CallPayload": [
        1, U64, 1_767_225_600_000, 7, ID, [[1, ID], [2, bytes(16)]], [CERTIFICATE], RECORD,
        b"", b"", 0x0800001D,
    ],
    "AnswerPayload": [
        2, 200, ID, [], b"", bytes(32), bytes(range(32)), 31, V6, 1_767_225_600_000,
    ],
    "Confirm": [10],
    "Probe": [11, U64, 3, bytes(40), True],
    "Answer": [12, U64, V4, 1_767_225_600_000, SEEN],
    "Seen": [13, SEEN],
    "Move": [14, 65_536, 2, 1, 127, CANDIDATES, True, None, bytes(256)],
    "CandidateUpdate": [15, 128, [[3, V6]]],
    "Close": [16, 255, 1],
    "Unsupported": [17, 70],
    "MoveReport": [19, True, 65_536, 1_200, 127, 0],
    "Done": [18, 4_294_967_295, 6, 1500, "too many calls: warte 1,5 s – später"],
    "Register": [
        30, 1, CANDIDATES, NAT, 29, "rs1.home.test", 600,
        [["rs1.home.test", 9], ["rs2.home.test", 300]],
    ],
    "Registered": [
        31, 1, 0, 0, 1_767_225_600_000, bytes(range(16)), RECORD, CERTIFICATE, V4, [V4, V6],
        [RELAY], 20, ["home.test", "lab.test"], "", [V4],
    ],
    "Deregister": [32, 2],
    "DirectionRequest": [33, 3, "desk.lab.test", b""],
    "RouteDirectionToCaller": [34, 3, 0, 0, "", ROUTE],
    "RouteDirection": [35, 4, "laptop.home.test", ROUTE],
    "RouteDirectionResponse": [36, 4, 4, 2000, "asleep"],
    "RouteDirectionRequest": [37, 5],
    "InformationRequest": [50, 6, "", bytes(range(16)), CERTIFICATE, RECORD, b""],
    "InformationResponse": [
        51, 6, 0, 0, "desk.lab.test", CERTIFICATE, RECORD, CERTIFICATE, CANDIDATES, NAT, True,
        [[RELAY, bytes(207)]], "rs2.lab.test", "",
    ],
    "RelayRegister": [60, 7, [V4, V6], 12, 1_000_000, True, [V4]],
    "RelayRegistered": [61, 7, 0, 0, 1_767_225_600_000, CERTIFICATE, 60],
    "LegOpen": [62, 8, bytes(207), 0xA1A2A3A4],
    "LegOpened": [63, 8, 0, 0, 0xB1B2B3B4, ID, V4, ""],
    "LegMove": [64, 9, 17, 2, 2000],
    "LegMoved": [65, 9, 17, None, [[1, 2], [4_000_000_000, 255]]],
    "LegClose": [66, 10, ID],
    "Draining": [67, 11, True],
}  # fmt: skip


def number(value: int) -> bytes:
    for limit, form in ((0x100, ">BB"), (0x10000, ">BH"), (1 << 32, ">BI"), (1 << 64, ">BQ")):
        if value < 0x80:
            return bytes((value,))
        if value < limit:
            return struct.pack(
                form, {">BB": 0xCC, ">BH": 0xCD, ">BI": 0xCE, ">BQ": 0xCF}[form], value
            )
    raise OverflowError


def pack(value: Any) -> bytes:
    """The shortest form of the MessagePack specification."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return number(value)
    if isinstance(value, bytes):
        size = len(value)
        return (
            struct.pack(">BB", 0xC4, size) if size < 256 else struct.pack(">BH", 0xC5, size)
        ) + value
    if isinstance(value, str):
        text = value.encode()
        assert len(text) < 256
        return (bytes((0xA0 + len(text),)) if len(text) < 32 else bytes((0xD9, len(text)))) + text
    assert len(value) < 16
    return bytes((0x90 + len(value),)) + b"".join(pack(each) for each in value)


def plain(value: Any) -> Any:
    """As JSON: bytes become {"bin": hex}."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    made = [
        {"name": n, "fields": plain(f[1:]), "tag": f[0], "bytes": pack(f).hex()}
        for n, f in SAMPLES.items()
    ]
    target = Path(__file__).parent / "messages.json"
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
