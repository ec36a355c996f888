"""All settings: name, type, default and one sentence each.

A setting has one name everywhere: `port_offset` in the TOML file, `CUMULET_PORT_OFFSET` in the environment and
`--port-offset` on the command line. A flag wins over the environment, the environment over the file, the file over
the default. The fields of `Settings` are the only place where a setting is described.
"""

import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct, field

from cumulet.config_object_store import ObjectStoreSettings
from cumulet.config_words import says as _says

ENVIRONMENT_PREFIX = "CUMULET_"
CONFIG_VARIABLE = "CUMULET_CONFIG"
"""Names the TOML file, as `--config` does; the only `CUMULET_` variable that is no setting."""


TERMINAL = "-"
"""As `log_file`: no file, all lines go to standard error."""


class SettingsError(Exception):
    """A setting is unknown or its value cannot be used; the text says which, where it was set, and what would do."""


def _default_data() -> Path:
    return Path("/var/lib/cumulet") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "cumulet"


class Settings(ObjectStoreSettings, frozen=True, kw_only=True):
    """What the program is told. Made by `load`; `docs` and `cumulet up --help` are generated from it."""

    data: Annotated[
        Path,
        _says("The directory that holds the cloud's state.", "/var/lib/cumulet as root, else ~/.local/share/cumulet"),
    ] = field(default_factory=_default_data)
    bind: Annotated[str, _says("The IP address on which all services listen.")] = "127.0.0.1"
    endpoint_host: Annotated[
        str,
        _says(
            "The host name or address in the catalogue's URLs.",
            "`bind`, or this host's own address for a wildcard",
        ),
    ] = ""
    port_offset: Annotated[int, _says("A number added to every port.", ge=0, le=30000)] = 0
    region: Annotated[str, _says("The region of all endpoints.", min_length=1, max_length=255)] = "RegionOne"
    hostname: Annotated[
        str, _says("The name of this host among compute hosts and agents.", "the host's own name", min_length=1)
    ] = field(default_factory=socket.gethostname)
    hypervisor: Annotated[
        Literal["auto", "qemu", "simulated"],
        _says("What runs servers: `auto` takes QEMU where it can be used, and says so where it cannot."),
    ] = "auto"
    virt_type: Annotated[
        Literal["auto", "kvm", "tcg"],
        _says("How QEMU runs guests: `auto` measures KVM and takes it only if it is fast."),
    ] = "auto"
    network: Annotated[
        Literal["auto", "linux", "simulated"],
        _says("What carries tenant networks: `auto` takes Linux namespaces and nftables where it may."),
    ] = "auto"
    public_cidr: Annotated[str, _says("The subnet of the external network `public`, made at the first start.")] = (
        "172.24.4.0/24"
    )
    public_bridge: Annotated[
        str, _says("The host's bridge to the external network.", pattern="^[a-zA-Z0-9_.-]{1,15}$")
    ] = "cumulet-ext"
    guest_image: Annotated[
        Path | None,
        _says(
            "The qcow2 file registered as image `cumulet-guest` at the first start.",
            "guest.qcow2 in the data directory, in /usr/share/cumulet or in the source checkout",
        ),
    ] = None
    database: Annotated[str, _says("The database, as an SQLAlchemy URL.", "an SQLite file in the data directory")] = ""
    admin_password: Annotated[
        str, _says("The admin's password, set at the first start; prefer the environment to the flag.", "generated")
    ] = ""
    token_lifetime: Annotated[int, _says("How long a token is valid, in seconds.", ge=60)] = 14400
    limit_model: Annotated[
        Literal["flat", "strict_two_level"],
        _says("How unified limits hold: each by itself, or no project's above its domain's (in trees of two levels)."),
    ] = "flat"
    allow_expired_window: Annotated[
        int,
        _says(
            "How long after its end a token still counts in a request that a service hands on with a token of its own, "
            "in seconds.",
            ge=0,
        ),
    ] = 48 * 3600
    policy_file: Annotated[
        Path | None,
        _says(
            "The YAML or JSON file with rules that override the defaults of policy, under upstream's names (`cumulet policy`).",
            "policy.yaml in the data directory, if it is there",
        ),
    ] = None
    notification_format: Annotated[
        Literal["cadf", "basic"],
        _says("How identity tells of changes: as CADF events (DMTF DSP0262), or with no more than the object's ID."),
    ] = "cadf"
    audit_log: Annotated[
        Path | None,
        _says(
            "The file for notifications of every change of identity and every login, one JSON object a line.",
            "not written",
        ),
    ] = None
    auth_ttl: Annotated[
        int, _says("For how many minutes after it was signed a request of EC2 is good to authenticate with.", ge=1)
    ] = 15
    credential_user_limit: Annotated[
        int, _says("How many credentials a user may have; -1 is as many as he likes.", ge=-1)
    ] = -1
    request_token_duration: Annotated[
        int, _says("How long a request token of OAuth 1.0 is valid, in seconds; 0 is for ever.", ge=0)
    ] = 28800
    access_token_duration: Annotated[
        int, _says("How long an access token of OAuth 1.0 is valid, in seconds; 0 is for ever.", ge=0)
    ] = 86400
    max_redelegation_count: Annotated[
        int, _says("How often what a trust gives may be passed on by further trusts.", ge=0, le=16)
    ] = 3
    application_credential_limit: Annotated[
        int, _says("How many application credentials a user may have; -1 is any number.", ge=-1)
    ] = -1
    federation: Annotated[
        Path | None,
        _says("The TOML file that says where the assertions of identity providers come from.", "no federated logins"),
    ] = None
    lockout_failure_attempts: Annotated[
        int, _says("How many wrong passwords in a row lock a user out.", "0: nobody is locked out", ge=0)
    ] = 0
    lockout_duration: Annotated[
        int,
        _says("How long a locked user stays locked, in seconds; 0: until an administrator enables him again.", ge=0),
    ] = 1800
    disable_user_account_days_inactive: Annotated[
        int, _says("After how many days without a login a user counts as disabled.", "0: never", ge=0)
    ] = 0
    password_expires_days: Annotated[
        int, _says("For how many days a new password is good.", "0: for ever", ge=0, le=36500)
    ] = 0
    unique_last_password_count: Annotated[
        int, _says("From how many of his last passwords a user's own new one must differ.", "0: from none", ge=0, le=64)
    ] = 0
    minimum_password_age: Annotated[
        int, _says("How many days must pass before a user changes again a password that he chose.", ge=0, le=36500)
    ] = 0
    password_regex: Annotated[str, _says("The regular expression that new passwords must match.", "any password")] = ""
    password_regex_description: Annotated[
        str, _says("What users are told of `password_regex`.", "the expression itself")
    ] = ""
    change_password_upon_first_use: Annotated[
        bool, _says("Whether users must change a password that an administrator gave them before they log in.")
    ] = False
    receipt_lifetime: Annotated[
        int, _says("How long a login that needs further proofs can be gone on with, in seconds.", ge=1)
    ] = 300
    totp_previous_windows: Annotated[
        int, _says("How many one-time passcodes before the present one are taken as well.", ge=0, le=10)
    ] = 1
    image_metadefs: Annotated[
        Path | None,
        _says(
            "A directory of JSON files with metadata definitions in upstream's form, made at a start where missing.",
            "none are made",
        ),
    ] = None
    image_property_protections: Annotated[
        Path | None,
        _says(
            "The file that says who may create, read, update and delete which custom properties of images.",
            "nothing is protected",
        ),
    ] = None
    image_property_protection_format: Annotated[
        Literal["roles", "policies"], _says("What that file names: roles, or rules of policy.")
    ] = "roles"
    image_locations: Annotated[
        bool,
        _says("Show where images' data lies, and let their owners change it (upstream's `show_multiple_locations`)."),
    ] = False
    image_web: Annotated[
        bool,
        _says("Let images lie at http and https URLs that their owners name, wherever images may be fetched from."),
    ] = False
    image_stores: Annotated[
        str,
        _says(
            "The stores of images' data, separated by commas: NAME, NAME=DIRECTORY, NAME=object-store. The first takes data "
            "for which no store is named.",
            "`file`, the directory `image` in the data directory",
        ),
    ] = "file"
    image_segment_size: Annotated[
        int,
        _says("The largest piece in which images are kept in object storage, in MiB.", ge=1, le=5120),
    ] = 1024
    image_staging: Annotated[
        Path | None,
        _says("The directory where data waits to be imported.", "`image-staging` in the data directory"),
    ] = None
    image_size_limit: Annotated[int, _says("The largest image that is taken, in GiB.", ge=1, le=1 << 30)] = 1024
    image_virtual_size_limit: Annotated[
        int, _says("The largest disk that the data of an image may make for a server, in GiB.", ge=1, le=1 << 32)
    ] = 65536
    image_format_match: Annotated[
        bool,
        _says("Refuse data of images that is not of the disk format that was told; what is unsafe is always refused."),
    ] = True
    image_signature_certificates: Annotated[
        Path | None,
        _says(
            "The directory of certificates (`<uuid>.pem`) that signed images are verified with.", "nothing is verified"
        ),
    ] = None
    image_cache: Annotated[
        int,
        _says("How much room copies of images that lie elsewhere may take on this host, in GiB; 0: no cache.", ge=0),
    ] = 0
    image_import_methods: Annotated[
        str,
        _says("The ways of importing images that are offered, separated by commas.", "all"),
    ] = "glance-direct,web-download,copy-image,glance-download"
    image_download_hosts: Annotated[
        str,
        _says("The only hosts that images are fetched from, separated by commas.", "any host with public addresses"),
    ] = ""
    image_download_ports: Annotated[
        str, _says("The only ports that images are fetched from, separated by commas; `*` is any.")
    ] = "80,443"
    image_download_private: Annotated[
        str,
        _says(
            "Networks (10.0.0.0/8, fd00::/8), separated by commas, that images are fetched from although they are private.",
            "none",
        ),
    ] = ""
    image_conversion: Annotated[
        Literal["none", "raw", "qcow2"], _says("The format that imported disks are converted to.")
    ] = "none"
    image_decompression: Annotated[
        bool, _says("Unpack imported images whose container format is `compressed` (gzip, or zip with one file).")
    ] = False
    image_inject: Annotated[
        str,
        _says(
            "Custom properties (name:value), separated by commas, that images get which anybody but an admin imports.",
            "none",
        ),
    ] = ""
    object_operator_roles: Annotated[
        str, _says("The roles that make a user an owner of his project's account, separated by commas.")
    ] = "admin,member"
    object_project_reader_roles: Annotated[
        str, _says("The roles that let a user read all of his project's account, separated by commas.", "none")
    ] = "reader"
    object_system_reader_roles: Annotated[
        str,
        _says("The roles that, held on the system, let a user read every account, separated by commas.", "none"),
    ] = "reader"
    object_reseller_admin_roles: Annotated[
        str, _says("The roles that let a user do everything in every account, separated by commas.", "none")
    ] = "ResellerAdmin"
    object_reseller_prefixes: Annotated[
        str,
        _says(
            "What names of accounts begin with before `_` and the project's id; the first is in the catalogue, those of the "
            "others are for services that hand on a user's request."
        ),
    ] = "AUTH"
    object_service_roles: Annotated[
        str,
        _says(
            "The roles of services that may reach accounts of further prefixes for a user, separated by commas.", "none"
        ),
    ] = ""
    object_open_expired: Annotated[
        bool,
        _says("Let clients read and keep objects that have expired and are not removed yet, by X-Open-Expired: true."),
    ] = False
    object_info_key: Annotated[
        str, _says("The key that signs requests for what GET /info tells administrators only.", "nobody is told that")
    ] = ""
    object_devices: Annotated[
        Path | None,
        _says(
            "The directory of this host's devices of object storage: each a directory, or a file system mounted there.",
            "`object-store/devices` in the data directory",
        ),
    ] = None
    object_rings: Annotated[
        Path | None,
        _says(
            "The directory of the cluster's rings and its swift.conf, the same on every host of object storage.",
            "`object-store/rings` in the data directory, made for one host at the first start",
        ),
    ] = None
    object_bind: Annotated[
        str,
        _says(
            "The IP address of this host on which storage nodes reach each other; they trust whoever reaches them, so it is "
            "one of a network of their own."
        ),
    ] = "127.0.0.1"
    s3_location: Annotated[
        str,
        _says("The region that S3's requests are signed for.", min_length=1, max_length=64, pattern="^[A-Za-z0-9-]+$"),
    ] = "us-east-1"
    s3_acl: Annotated[
        bool,
        _says(
            "Keep S3's own ACLs of buckets and objects, and let them alone say who may use either by S3; otherwise roles and "
            "swift's ACLs do."
        ),
    ] = False
    s3_domains: Annotated[
        str,
        _says("The domains below which host names begin with a bucket's name, separated by commas.", "none"),
    ] = ""
    s3_dns_names: Annotated[
        bool, _says("Take names of buckets that host names may begin with only, as S3 does; otherwise any of swift's.")
    ] = True
    s3_cors_origins: Annotated[
        str,
        _says(
            "The sites whose pages may ask for any bucket before they sign a request, separated by commas; `*` is any.",
            "none",
        ),
    ] = ""
    s3_lifecycle_interval: Annotated[
        int, _says("How often the lifecycle rules of S3's buckets are applied, in seconds.", ge=1)
    ] = 3600
    object_mounts: Annotated[
        bool, _says("Whether a device of object storage is used only while a file system is mounted in its directory.")
    ] = False
    object_reserve: Annotated[
        float, _says("The part of a device that is kept free of objects, in percent.", ge=0, le=50)
    ] = 1.0
    object_reclaim_age: Annotated[
        int,
        _says(
            "How long it is remembered that an object was deleted, in seconds: a node that was away for longer brings it back.",
            ge=1,
        ),
    ] = 7 * 86400
    object_update_interval: Annotated[
        float, _says("Seconds between rounds that bring listings what they could not be told at once.", gt=0)
    ] = 30.0
    object_replication_interval: Annotated[
        float, _says("Seconds between rounds that compare the copies of objects.", gt=0)
    ] = 30.0
    object_audit_interval: Annotated[float, _says("Seconds between rounds that look for damaged objects.", gt=0)] = 30.0
    object_audit_files: Annotated[
        float, _says("How many objects a second are read to see whether they are whole; 0 is without a limit.", ge=0)
    ] = 20.0
    object_audit_bytes: Annotated[
        float, _says("How many bytes a second are read to see whether objects are whole; 0 is without a limit.", ge=0)
    ] = 10e6
    object_audit_fast_files: Annotated[
        float, _says("How many objects a second are looked at without reading their data; 0 is without a limit.", ge=0)
    ] = 50.0
    max_body: Annotated[
        int, _says("The largest request body accepted, in bytes; uploads of image data are not bound by it.", ge=4096)
    ] = 1024 * 1024
    operation_workers: Annotated[
        int, _says("How many long operations (building a server, and the like) run at once.", ge=1, le=1024)
    ] = 16
    stop_servers: Annotated[
        bool, _says("Shut all servers down when the program stops; otherwise they keep running.")
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _says("The least serious messages that are logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], _says("How log lines are written.")] = "text"
    log_file: Annotated[
        str,
        _says(
            "The file for log lines, the access log among them; warnings are shown on the terminal too. `-` writes all to "
            "standard error instead.",
            "cumulet.log in the data directory",
        ),
    ] = ""

    @property
    def log_path(self) -> Path:
        """The log file, the default filled in. Not for `log_file = "-"`."""
        return Path(self.log_file).expanduser() if self.log_file else self.data.absolute() / "cumulet.log"

    def find_policy_file(self) -> Path | None:
        """The operator's policy file: the one set, else the one in the data directory, if it is there."""
        usual = self.data / "policy.yaml"
        return self.policy_file or (usual if usual.exists() else None)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL to connect to, the default filled in."""
        return self.database or f"sqlite:///{self.data.absolute() / 'cumulet.sqlite'}"

    @property
    def endpoint_address(self) -> str:
        """What stands for this host in URLs, without brackets. May ask the kernel for this host's address."""
        if self.endpoint_host:
            return self.endpoint_host
        if not ipaddress.ip_address(self.bind).is_unspecified:
            return self.bind
        return _own_address(self.bind)

    def find_guest_image(self) -> Path | None:
        """The guest image to register: the one set, else the first that exists of the usual places."""
        if self.guest_image is not None:
            return self.guest_image
        places = [self.data / "guest.qcow2", Path("/usr/share/cumulet/guest.qcow2")]
        checkout = Path(__file__).resolve().parents[2]
        if (checkout / "pyproject.toml").is_file():
            places.append(checkout / "guest.qcow2")
        return next((place for place in places if place.is_file()), None)


class Setting(Struct, frozen=True):
    """One row of the table of settings, as people and the command line see it. `default` is text."""

    name: str
    type: Any
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_flag: bool = False

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _row(info: msgspec.structs.FieldInfo) -> Setting:
    kind, meta = get_args(info.type)
    default = str(info.default).lower() if kind is bool else str(info.default)
    return Setting(
        name=info.name,
        type=info.type,
        default=(meta.extra or {}).get("default", default),
        description=meta.description,
        choices=get_args(kind) if get_origin(kind) is Literal else (),
        is_flag=kind is bool,
    )


SETTINGS: tuple[Setting, ...] = tuple(
    _row(info)
    for info in sorted(
        msgspec.structs.fields(Settings), key=lambda info: info.name in ObjectStoreSettings.__struct_fields__
    )
)
_BY_NAME = {row.name: row for row in SETTINGS}


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Put the settings together from flags (None: not given), environment and TOML file.

    Without `file`, `CUMULET_CONFIG` may name one. A variable that is set to nothing counts as not set.
    Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CONFIG_VARIABLE)
    if file is None and named:
        file = Path(named)
    values = _from_file(file) if file is not None else {}
    values |= _from_environment(environ)
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _convert(_known(name, f"the flag {name}"), value, _BY_NAME[name].flag, strict=False)
    settings = Settings(**values)
    _check(settings)
    return settings


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {file} is no valid TOML: {error}") from error
    return {
        name: _convert(_known(name, f"`{name}` in {file}"), value, f"`{name}` in {file}", strict=True)
        for name, value in content.items()
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != CONFIG_VARIABLE and value:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            values[name] = _convert(_known(name, variable), value, f"{variable}={value}", strict=False)
    return values


def _known(name: str, source: str) -> Setting:
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the settings are: {', '.join(_BY_NAME)}"
    raise SettingsError(f"{source} is not a setting; {hint}")


def _convert(row: Setting, value: object, source: str, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, row.type, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as error:
        if row.choices:
            raise SettingsError(f"{source}: must be one of {', '.join(row.choices)}") from error
        reason = str(error).removesuffix(" - at `$`")
        for python, words in _WORDS:
            reason = reason.replace(python, words)
        raise SettingsError(f"{source}: {reason[:1].lower() + reason[1:]}") from error


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise ValueError("expected a path")


def _check(settings: Settings) -> None:
    """Refuse what the types alone cannot."""
    for name, parse, wanted in _ADDRESSES:
        value = getattr(settings, name)
        try:
            parse(value)
        except ValueError as error:
            raise SettingsError(f"`{name}` is {value!r}, but must be {wanted}") from error
    try:
        re.compile(settings.password_regex)
    except re.error as error:
        raise SettingsError(f"`password_regex` is no regular expression: {error}") from error
    if settings.guest_image is not None and not settings.guest_image.is_file():
        raise SettingsError(f"`guest_image` names {settings.guest_image}, which is no file")
    protections = settings.image_property_protections
    if protections is not None and not protections.is_file():
        raise SettingsError(f"`image_property_protections` names {protections}, which is no file")
    certificates = settings.image_signature_certificates
    if certificates is not None and not certificates.is_dir():
        raise SettingsError(f"`image_signature_certificates` names {certificates}, which is no directory")
    if settings.image_metadefs is not None and not settings.image_metadefs.is_dir():
        raise SettingsError(f"`image_metadefs` names {settings.image_metadefs}, which is no directory")


_WORDS = (("`int`", "a whole number"), ("`str`", "text"), ("`bool`", "true or false"))
"""Names of types as users know them, for messages about values."""

_ADDRESSES: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("bind", ipaddress.ip_address, "an IP address of this host, such as 127.0.0.1 or 0.0.0.0"),
    ("object_bind", ipaddress.ip_address, "an IP address of this host, such as 127.0.0.1 or 10.0.0.1"),
    ("public_cidr", ipaddress.ip_network, "a network with its prefix length, such as 172.24.4.0/24"),
)


def _own_address(wildcard: str) -> str:
    """This host's address towards the world; loopback where there is no route. Sends nothing."""
    family, far, loopback = (
        (socket.AF_INET6, "2001:db8::1", "::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])
