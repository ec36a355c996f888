"""The one registry of ports: the only place in which a port number of Cumulet is written.

What listens, the service catalogue, the start-up checks and `cumulet ports` all read it.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

Endpoint = Literal["public", "admin", "internal"]


class Port(Struct, frozen=True):
    """One row. `name` is unique; for an API it is the service type. `last` ends a range that begins with `number`.

    `component` is what upstream calls the program behind the port. `path` is what the catalogue appends to the root
    URL. `served` tells whether this version listens there yet, `address` which setting says at which address.
    """

    name: str
    service_type: str
    component: str
    number: int
    purpose: str
    protocol: Literal["tcp", "udp"] = "tcp"
    endpoint: Endpoint = "public"
    path: str = ""
    last: int | None = None
    served: bool = False
    address: Literal["bind", "object_bind"] = "bind"
    sometimes: str = ""  # where another program listens there, and not always: when

    @property
    def label(self) -> str:
        """The number, or the range as `first-last`."""
        return str(self.number) if self.last is None else f"{self.number}-{self.last}"


PORTS: tuple[Port, ...] = (
    Port("identity", "identity", "keystone", 5000, "Identity API", path="/v3", served=True),
    Port(
        "identity-admin",
        "identity",
        "keystone (admin)",
        35357,
        "Identity API, admin endpoint",
        endpoint="admin",
        path="/v3",
        served=True,
    ),
    Port("image", "image", "glance-api", 9292, "Image API", served=True),
    Port(
        "image-registry",
        "image",
        "glance-registry",
        9191,
        "Image registry (v1 era, read-only)",
        endpoint="internal",
        served=True,
    ),
    Port("compute", "compute", "nova-api", 8774, "Compute API", path="/v2.1", served=True),
    Port("ec2", "ec2", "nova-api (ec2)", 8773, "EC2 API", path="/"),
    Port("metadata", "compute", "nova-api (metadata)", 8775, "Metadata for guests", endpoint="internal"),
    Port("vnc", "compute", "qemu (VNC, SPICE)", 5900, "Virtual machine consoles", endpoint="internal", last=5999),
    Port("novnc", "compute", "nova-novncproxy", 6080, "VNC console in the browser", served=True),
    Port("xvpvnc", "compute", "nova-xvpvncproxy", 6081, "VNC console for native viewers"),
    Port("spice", "compute", "nova-spicehtml5proxy", 6082, "SPICE console in the browser"),
    Port("serial", "compute", "nova-serialproxy", 6083, "Serial console over websocket"),
    Port("placement", "placement", "placement-api", 8778, "Placement API", served=True),
    Port("network", "network", "neutron-server", 9696, "Networking API", served=True),
    Port("block-storage", "block-storage", "cinder-api", 8776, "Block Storage API", path="/v3"),
    Port("iscsi", "block-storage", "iSCSI target", 3260, "Volumes over iSCSI", endpoint="internal"),
    Port(
        "object-store",
        "object-store",
        "swift-proxy",
        8080,
        "Object Storage API",
        path="/v1/AUTH_$(project_id)s",
        served=True,
    ),
    Port(
        "object",
        "object-store",
        "object-server",
        6000,
        "Object server",
        endpoint="internal",
        served=True,
        address="object_bind",
    ),
    Port(
        "container",
        "object-store",
        "container-server",
        6001,
        "Container server",
        endpoint="internal",
        served=True,
        address="object_bind",
    ),
    Port(
        "account",
        "object-store",
        "account-server",
        6002,
        "Account server",
        endpoint="internal",
        served=True,
        address="object_bind",
    ),
    Port(
        "rsync",
        "object-store",
        "rsyncd",
        873,
        "Object replication",
        endpoint="internal",
        sometimes="with further storage nodes",
    ),
    Port("orchestration", "orchestration", "heat-api", 8004, "Orchestration API", path="/v1/$(project_id)s"),
    Port("cloudformation", "cloudformation", "heat-api-cfn", 8000, "CloudFormation API", path="/v1"),
    Port("cloudwatch", "cloudwatch", "heat-api-cloudwatch", 8003, "CloudWatch API", path="/v1"),
    Port("telemetry", "metering", "ceilometer-api", 8777, "Telemetry API"),
    Port("data-processing", "data-processing", "sahara-api", 8386, "Data Processing API", path="/v2"),
    Port("dashboard", "dashboard", "horizon", 80, "Dashboard over HTTP"),
    Port("dashboard-tls", "dashboard", "horizon", 443, "Dashboard over HTTPS"),
    Port("database", "database", "mysqld", 3306, "MySQL/MariaDB; unused while SQLite is embedded", endpoint="internal"),
    Port("messaging", "messaging", "rabbitmq-server", 5672, "RabbitMQ; unused while in-process", endpoint="internal"),
)

_BY_NAME = {row.name: row for row in PORTS}


def port(name: str, offset: int = 0) -> Port:
    """The row of that name, moved by `offset`. Raises KeyError on a name that is not in the registry."""
    return with_offset(_BY_NAME[name], offset)


def with_offset(row: Port, offset: int) -> Port:
    """The same row, `offset` higher (the setting `port_offset`)."""
    if offset == 0:
        return row
    return replace(row, number=row.number + offset, last=None if row.last is None else row.last + offset)


def served(offset: int = 0) -> tuple[Port, ...]:
    """The ports on which this version listens."""
    return tuple(with_offset(row, offset) for row in PORTS if row.served)


def root_url(host: str, row: Port) -> str:
    """The root of the service behind a port: `http://192.0.2.1:8774`, `http://[2001:db8::1]:8774`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{row.number}"
