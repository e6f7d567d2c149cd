"""The kinds of NAT that the lab's boxes can be, as nftables rules (words of RFC 4787).

Linux alone is port-restricted (it keeps the source port wherever it can) or, with random ports,
symmetric. The more generous kinds, and hairpinning, keep their own map of external ports: whoever
sends out is noted, and what comes in is translated back through the map if the kind's filter lets
it pass. What the map translated is a connection like any other from then on.
"""

from __future__ import annotations

from typing import Literal

NatKind = Literal["full-cone", "address-restricted", "port-restricted", "symmetric"]

BEHAVIOUR: dict[NatKind, tuple[str, str]] = {
    "full-cone": ("endpoint-independent", "endpoint-independent"),
    "address-restricted": ("endpoint-independent", "address-dependent"),
    "port-restricted": ("endpoint-independent", "address-and-port-dependent"),
    "symmetric": ("address-and-port-dependent", "address-and-port-dependent"),
}
"""Mapping and filtering of each kind."""

LIFETIME = 120
"""Seconds that an unused mapping stays, unless told otherwise; the least that RFC 4787 allows."""

# Dropping unsolicited input matters: without it an early probe from outside takes the tuple that
# the later outgoing datagram needs, and the NAT cannot be punched.
PLAIN = """
table ip ntmdlab {{
  chain post {{ type nat hook postrouting priority 100; oifname "wan" masquerade{ports}; }}
}}
table inet ntmdlabfilter {{
  chain input {{ type filter hook input priority 0; iifname "wan" ct state new drop; }}
  chain pass {{
    type filter hook forward priority 0;
    iifname "wan" ct state new ct status & dnat != dnat drop
  }}
}}
"""

# The chain "learn" sees what leaves before any translation; ports are kept, so that the inner port
# is the outer one. What is sent to the box's own outer address from inside comes back in (hairpin)
# under the same filter as what comes from outside, or is dropped without a word.
CONE = """
table ip ntmdcone {{
  map inner {{
    type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout {lifetime}s;
  }}
  set hosts {{ type inet_service . ipv4_addr; flags dynamic, timeout; timeout {lifetime}s; }}
  set ports {{
    type inet_service . ipv4_addr . inet_service; flags dynamic, timeout; timeout {lifetime}s;
  }}
  chain learn {{
    type filter hook prerouting priority -110;
    iifname "wan" return
    meta l4proto udp update @inner {{ udp sport : ip saddr . udp sport }}
    meta l4proto udp update @hosts {{ udp sport . ip daddr }}
    meta l4proto udp update @ports {{ udp sport . ip daddr . udp dport }}
  }}
  chain pre {{
    type nat hook prerouting priority -100;
    ip daddr != {address} return
    {rules}
  }}
  chain back {{
    type nat hook postrouting priority 99;
    iifname != "wan" oifname != "wan" ct status & dnat == dnat snat ip to {address}
  }}
  chain input {{
    type filter hook input priority 0;
    iifname != "wan" ip daddr {address} meta l4proto udp drop
  }}
}}
"""

OUTSIDE: dict[NatKind, str] = {
    "full-cone": 'iifname "wan" meta l4proto udp',
    "address-restricted": 'iifname "wan" udp dport . ip saddr @hosts',
    "port-restricted": 'iifname "wan" udp dport . ip saddr . udp sport @ports',
}
INSIDE: dict[NatKind, str] = {
    "full-cone": 'iifname != "wan" meta l4proto udp',
    "address-restricted": 'iifname != "wan" udp dport . ip daddr @hosts',
    "port-restricted": 'iifname != "wan" udp dport . ip daddr . udp sport @ports',
}


def ruleset(kind: NatKind, address: str | None, lifetime: int, *, hairpin: bool) -> str:
    """What makes a box with the outer ``address`` a NAT of this kind; ``lifetime`` in seconds."""
    text = PLAIN.format(ports=" random,fully-random" if kind == "symmetric" else "")
    if address is None or kind == "symmetric":
        return text
    lets_in = [OUTSIDE[kind], *([INSIDE[kind]] if hairpin else [])]
    rules = "\n    ".join(f"{each} dnat ip to udp dport map @inner" for each in lets_in)
    return text + CONE.format(address=address, lifetime=lifetime, rules=rules)
