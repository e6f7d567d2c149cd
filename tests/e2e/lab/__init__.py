"""A small internet out of network namespaces: hosts, NATs, links with delay and loss.

Used by the end-to-end tests, the demo and the benchmarks. Everything a lab makes carries a name
unique to the run and is removed when the lab is closed; nothing else on the host is touched.
"""

from tests.e2e.lab.topology import Lab, Nat, Uplink

__all__ = ["Lab", "Nat", "Uplink"]
