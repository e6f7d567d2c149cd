"""The coordinator and the relay, built from what the account server handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntm_server.membership import ServerFiles
from ntm_server.options import Settings
from ntmd.proto import certs
from ntmd.proto.certs import Anchor, Trust
from ntmd.proto.events import Identity
from ntmd.proto.records import Capability
from ntmd.proto.types import Role
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.statefiles import damaged

if TYPE_CHECKING:
    from ntm_dc.shell import DcServer
    from ntm_rs.shell import RsServer
    from ntmd.runtime.stream_server import StreamListener

ABLE = int(Capability.SUITE_AES_GCM | Capability.SUITE_CHACHA | Capability.WIRE_1)


def coordinator(
    settings: Settings,
    files: ServerFiles,
    enrolment: Enrolment,
    streams: StreamListener | None = None,
) -> DcServer:
    """The coordinator of a domain."""
    from ntm_dc.shell import DcServer  # here, because the other roles do not need it

    return DcServer(
        files.directory,
        enrolment,
        settings.listen,
        settings.udp_port,
        dns_port=settings.dns_port,
        resolver=settings.resolver,
        database=settings.database,
        streams=streams,
    )


def relay(
    settings: Settings,
    files: ServerFiles,
    enrolment: Enrolment,
    streams: StreamListener | None = None,
) -> RsServer:
    """A relay; it listens on the port after the coordinator's."""
    from ntm_rs.shell import RsEnrolment, RsServer, home_dc

    if enrolment.dc is None:
        raise damaged(files.enrolment_file, "it names no coordinator")
    given = RsEnrolment(
        identity=Identity(
            Role.RS, enrolment.name, files.key(), enrolment.certificates, capabilities=ABLE
        ),
        trust=trust(enrolment),
        platform_id=enrolment.platform_id,
        dc=home_dc(enrolment),
    )
    return RsServer(
        files.directory / "store",
        given,
        settings.listen,
        settings.udp_port + 1,
        streams=streams,
    )


def trust(enrolment: Enrolment) -> Trust:
    """The one platform that is trusted."""
    return Trust((Anchor(enrolment.platform_id, (certs.ca_key_of(enrolment.ca),)),))
