"""A state directory of a node that has joined, made without any server."""

import os
import time
from pathlib import Path

from ntmd.nodefiles import NodeFiles
from ntmd.proto import certs, crypto
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime.enrolment import Coordinator, Enrolment
from ntmd.runtime.statefiles import write_file

DAY = 86_400_000


def enrolled(state: Path, coordinator: Endpoint, name: str = "laptop.home.test") -> Enrolment:
    """Write key and enrolment into ``state``."""
    now = int(time.time() * 1000)
    ca_private = os.urandom(32)
    ca = certs.make_ca(ca_private, now - DAY, now + 900 * DAY, b"\x11" * 16)
    platform_id = certs.platform_id_of(ca)
    network = certs.Anchor(platform_id, ()).network
    delegation = next(network.subnets(new_prefix=64))

    def issue(role: Role, fqdn: str, key: bytes) -> bytes:
        own = delegation if role in (Role.DC, Role.DC_SIGN) else None
        return certs.issue(
            ca_private, platform_id, public_key=key, role=role, name=fqdn, domain_labels=2,
            prefix=own, not_before_ms=now - DAY, not_after_ms=now + 13 * DAY,
            serial=b"\x22" * 16,
        )  # fmt: skip

    files = NodeFiles(state)
    key = files.key_or_new(os.urandom)
    dc = Coordinator(
        "dc1.home.test", "home.test",
        issue(Role.DC, "dc1.home.test", crypto.public_key(os.urandom(32))),
        issue(Role.DC_SIGN, "dc1.home.test", crypto.ed25519_public(os.urandom(32))),
        (coordinator,),
    )  # fmt: skip
    enrolment = Enrolment(
        name, "home.test", platform_id, ca, (issue(Role.NODE, name, crypto.public_key(key)),),
        "https://192.0.2.1:8443", str(network), dc, ("home.test",),
    )  # fmt: skip
    write_file(files.enrolment_file, enrolment.to_json().encode())
    return enrolment
