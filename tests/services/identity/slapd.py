"""A real OpenLDAP server on a free port, with its own configuration and data, for the tests of directories."""

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cloud import free_port

SUFFIX = "dc=cumulet,dc=test"
ADMIN = f"cn=admin,{SUFFIX}"
SECRET = "directory-secret"
BINARY = shutil.which("slapd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/libexec")
CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
{tls}
sizelimit {sizelimit}
database mdb
maxsize 104857600
suffix "{suffix}"
rootdn "{admin}"
rootpw {secret}
directory {directory}/data
index objectClass eq
"""


class Slapd:
    """Started by `start`; `add` and `change` write to it as its administrator."""

    def __init__(self, directory: Path, *, tls: tuple[Path, Path] | None = None, sizelimit: str = "500") -> None:
        self.port = free_port()
        self.url = f"ldap://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "data").mkdir(parents=True)
        lines = f"TLSCertificateFile {tls[0]}\nTLSCertificateKeyFile {tls[1]}" if tls else ""
        text = CONFIGURATION.format(
            directory=directory, suffix=SUFFIX, admin=ADMIN, secret=SECRET, tls=lines, sizelimit=sizelimit
        )
        (directory / "slapd.conf").write_text(text)

    def start(self) -> None:
        assert BINARY is not None
        command = [BINARY, "-f", str(self._directory / "slapd.conf"), "-h", self.url, "-d", "0"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                said = (self._directory / "log").read_text()
                assert self._process.poll() is None and time.monotonic() < until, f"slapd does not start: {said}"
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def _connected(self) -> Any:
        import ldap

        connection = ldap.initialize(self.url)
        connection.simple_bind_s(ADMIN, SECRET)
        return connection

    def add(self, dn: str, attributes: Mapping[str, str | list[str]]) -> None:
        connection = self._connected()
        connection.add_s(dn, [(name, _bytes(value)) for name, value in attributes.items()])
        connection.unbind_s()

    def change(self, dn: str, **attributes: str | list[str]) -> None:
        """Set attributes; an empty list removes one."""
        import ldap

        connection = self._connected()
        connection.modify_s(dn, [(ldap.MOD_REPLACE, name, _bytes(value) or None) for name, value in attributes.items()])
        connection.unbind_s()

    def remove(self, dn: str) -> None:
        connection = self._connected()
        connection.delete_s(dn)
        connection.unbind_s()

    def tree(self) -> None:
        """The top, and places for users and groups."""
        self.add(SUFFIX, {"objectClass": ["dcObject", "organization"], "dc": "cumulet", "o": "Cumulet"})
        for name in ("Users", "UserGroups"):
            self.add(f"ou={name},{SUFFIX}", {"objectClass": "organizationalUnit", "ou": name})

    def user(self, uid: str, name: str, password: str = "secret", **more: str) -> str:
        """Add a user; his DN."""
        dn = f"cn={uid},ou=Users,{SUFFIX}"
        fields = {"objectClass": "inetOrgPerson", "cn": uid, "sn": name, "userPassword": password, **more}
        self.add(dn, fields)
        return dn

    def group(self, uid: str, name: str, *members: str) -> str:
        """Add a group of these DNs; its own."""
        dn = f"cn={uid},ou=UserGroups,{SUFFIX}"
        self.add(dn, {"objectClass": "groupOfNames", "cn": uid, "ou": name, "member": list(members)})
        return dn


def _bytes(value: str | list[str]) -> list[bytes]:
    return [text.encode() for text in ([value] if isinstance(value, str) else value)]
