"""Users and groups of a domain from an LDAP directory.

The options are those of upstream's `[ldap]` group (`keystone/conf/ldap.py`), under their names. References: RFC 4511 (LDAP),
RFC 4513 (binding: an empty password would be an anonymous bind, which always succeeds), RFC 4515 (filters), RFC 2696 (pages).
"""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import ldap
import ldap.dn
import ldap.filter
import msgspec
from ldap.controls.libldap import SimplePagedResultsControl
from msgspec import Struct

from cumulet.services.identity.drivers import Person, SourceError, Team

SECONDS = 5
"""How long the directory may take to answer, where no time-out is set."""
IDLE = 4
"""How many connections are kept for the next questions."""
IN_CHAIN = "1.2.840.113556.1.4.1941"
"""Active Directory's rule that finds members of groups in groups."""
SCOPES = {"one": ldap.SCOPE_ONELEVEL, "sub": ldap.SCOPE_SUBTREE}
ALIASES = {
    "never": ldap.DEREF_NEVER,
    "searching": ldap.DEREF_SEARCHING,
    "finding": ldap.DEREF_FINDING,
    "always": ldap.DEREF_ALWAYS,
}
CERTIFICATES = {
    "demand": ldap.OPT_X_TLS_DEMAND,
    "allow": ldap.OPT_X_TLS_ALLOW,
    "never": ldap.OPT_X_TLS_NEVER,
}
Listed = str | list[str]


class LdapOptions(Struct, frozen=True, kw_only=True):
    """Upstream's options of a domain's LDAP. Those about writing, and about connection pools, change nothing here."""

    url: str = "ldap://localhost"
    user: str | None = None
    password: str | None = None
    suffix: str = "cn=example,cn=com"
    query_scope: Literal["one", "sub"] = "one"
    page_size: int = 0
    alias_dereferencing: Literal["never", "searching", "always", "finding", "default"] = "default"
    chase_referrals: bool | None = None
    user_tree_dn: str | None = None
    user_filter: str | None = None
    user_objectclass: str = "inetOrgPerson"
    user_id_attribute: str = "cn"
    user_name_attribute: str = "sn"
    user_description_attribute: str = "description"
    user_mail_attribute: str = "mail"
    user_enabled_attribute: str = "enabled"
    user_enabled_invert: bool = False
    user_enabled_mask: int = 0
    user_enabled_default: str | int | bool = "True"
    user_attribute_ignore: Listed = "default_project_id"
    user_default_project_id_attribute: str | None = None
    user_enabled_emulation: bool = False
    user_enabled_emulation_dn: str | None = None
    user_enabled_emulation_use_group_config: bool = False
    user_additional_attribute_mapping: Listed = ""
    group_tree_dn: str | None = None
    group_filter: str | None = None
    group_objectclass: str = "groupOfNames"
    group_id_attribute: str = "cn"
    group_name_attribute: str = "ou"
    group_member_attribute: str = "member"
    group_members_are_ids: bool = False
    group_desc_attribute: str = "description"
    group_ad_nesting: bool = False
    use_tls: bool = False
    tls_cacertfile: str | None = None
    tls_cacertdir: str | None = None
    tls_req_cert: Literal["demand", "never", "allow"] = "demand"
    connection_timeout: int = -1
    pool_connection_timeout: int = -1


class Entry(Struct, frozen=True):
    """An entry of the directory; names of attributes in lower case."""

    dn: str
    attributes: Mapping[str, list[str]]

    def all(self, name: str) -> list[str]:
        return self.attributes.get(name.lower(), [])

    def first(self, name: str | None) -> str | None:
        found = self.attributes.get(name.lower()) if name else None
        return found[0] if found else None


class LdapSource:
    """A `UserSource`. `options` are the domain's group `ldap`; SourceError where they make no sense."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            self.options = o = msgspec.convert({k: v for k, v in options.items() if v != ""}, LdapOptions, strict=False)
        except msgspec.ValidationError as error:
            raise SourceError(f"the domain's LDAP options make no sense: {error}") from error
        self._user_tree = o.user_tree_dn or f"ou=Users,{o.suffix}"
        self._group_tree = o.group_tree_dn or f"ou=UserGroups,{o.suffix}"
        self._ignored = {name.lower() for name in _list(o.user_attribute_ignore)}
        self._mapped = [
            (theirs.strip(), ours.strip())
            for theirs, _, ours in (pair.partition(":") for pair in _list(o.user_additional_attribute_mapping))
        ]
        self._idle: deque[Any] = deque()

    # ---- what is asked of a source --------------------------------------------------------------------------------------

    def person(self, *, id: str = "", name: str = "") -> Person | None:
        """See `UserSource`. Of several with the same name there is none: nobody could tell who is meant."""
        o = self.options
        attribute, value = (o.user_id_attribute, id) if id else (o.user_name_attribute, name)
        found = [self._person(entry, None) for entry in self._users(_equals(attribute, value))]
        people = [person for person in found if person is not None]
        return people[0] if len(people) == 1 else None

    def people(self) -> list[Person]:
        """See `UserSource`."""
        enabled = self._emulated() if self.options.user_enabled_emulation else None
        found = (self._person(entry, enabled) for entry in self._users(""))
        return [person for person in found if person is not None]

    def teams(self, people: Sequence[Person]) -> list[Team]:
        """See `UserSource`."""
        o = self.options
        ids = {person.id: person.id for person in people}
        if not o.group_members_are_ids:
            ids = {_normal(person.dn): person.id for person in people}
        teams = []
        for entry in self._groups(""):
            named = entry.all(o.group_member_attribute)
            if o.group_ad_nesting:
                condition = f"(memberOf:{IN_CHAIN}:={ldap.filter.escape_filter_chars(entry.dn)})"
                named = [user.dn for user in self._users(condition)]
            keys = named if o.group_members_are_ids else map(_normal, named)
            team = self._team(entry, [ids[key] for key in keys if key in ids])
            teams += [team] if team is not None else []
        return teams

    def teams_of(self, person: Person) -> list[Team]:
        """See `UserSource`."""
        o = self.options
        key = person.id if o.group_members_are_ids else person.dn
        attribute = f"member:{IN_CHAIN}:" if o.group_ad_nesting else o.group_member_attribute
        found = (self._team(entry, []) for entry in self._groups(_equals(attribute, key)))
        return [team for team in found if team is not None]

    def is_password(self, person: Person | None, password: str) -> bool:
        """See `UserSource`. Whoever has an empty password, or none that LDAP could take, has none."""
        o = self.options
        if not password or "\0" in password:
            return False
        nobody = f"{o.user_id_attribute}={secrets.token_hex(16)},{self._user_tree}"
        dn = nobody if person is None else person.dn
        with _worded("bind as a user"):
            connection = self._connect()
            try:
                connection.simple_bind_s(dn, password)
            except (ldap.INVALID_CREDENTIALS, ldap.NO_SUCH_OBJECT, ldap.INAPPROPRIATE_AUTH, ldap.UNWILLING_TO_PERFORM):
                return False
            except (ldap.CONSTRAINT_VIOLATION, ldap.INSUFFICIENT_ACCESS, ldap.INVALID_DN_SYNTAX):
                return False  # locked by the directory's own policy, and the like
            finally:
                connection.unbind_ext()
        return person is not None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().unbind_ext()

    # ---- entries --------------------------------------------------------------------------------------------------------

    def _users(self, condition: str) -> list[Entry]:
        o = self.options
        wanted = [
            o.user_id_attribute, o.user_name_attribute, o.user_description_attribute, o.user_mail_attribute,
            o.user_enabled_attribute, o.user_default_project_id_attribute, *(theirs for theirs, _ in self._mapped),
        ]  # fmt: skip
        where = _both(o.user_objectclass, o.user_filter, condition)
        return self._search(self._user_tree, SCOPES[o.query_scope], where, [name for name in wanted if name])

    def _groups(self, condition: str) -> list[Entry]:
        o = self.options
        wanted = [o.group_id_attribute, o.group_name_attribute, o.group_desc_attribute, o.group_member_attribute]
        where = _both(o.group_objectclass, o.group_filter, condition)
        return self._search(self._group_tree, SCOPES[o.query_scope], where, wanted)

    def _person(self, entry: Entry, enabled: set[str] | None) -> Person | None:
        """The user of an entry; None where it has no id or no name. `enabled` are the enabled ones, if they are known."""
        o = self.options
        id, name = _id(entry, o.user_id_attribute), entry.first(o.user_name_attribute)
        if id is None or name is None:
            return None
        shown = {"email": o.user_mail_attribute, "description": o.user_description_attribute}
        shown |= {ours: theirs for theirs, ours in self._mapped}
        found = {ours: entry.first(theirs) for ours, theirs in shown.items() if ours not in self._ignored}
        project = None
        if "default_project_id" not in self._ignored:
            project = entry.first(o.user_default_project_id_attribute)
        return Person(
            id=id, dn=entry.dn, name=name, enabled=self._is_enabled(entry, enabled), default_project_id=project,
            extra={ours: value for ours, value in found.items() if value is not None},
        )  # fmt: skip

    def _is_enabled(self, entry: Entry, enabled: set[str] | None) -> bool:
        o = self.options
        if o.user_enabled_emulation:
            return _normal(entry.dn) in (self._emulated(entry) if enabled is None else enabled)
        value = entry.first(o.user_enabled_attribute)
        if o.user_enabled_mask:
            number = value if value is not None else str(o.user_enabled_default)
            return not number.lstrip("-").isdecimal() or int(number) & o.user_enabled_mask != o.user_enabled_mask
        if "enabled" in self._ignored:
            return True
        stated = (str(o.user_enabled_default) if value is None else value).lower() == "true"
        return stated != o.user_enabled_invert

    def _emulated(self, one: Entry | None = None) -> set[str]:
        """The DNs of the enabled users (of `one`, where he is one): the members of a group."""
        o = self.options
        kind, attribute = "groupOfNames", "member"
        if o.user_enabled_emulation_use_group_config:
            kind, attribute = o.group_objectclass, o.group_member_attribute
        where = _both(kind, None, "" if one is None else _equals(attribute, one.dn))
        base = o.user_enabled_emulation_dn or f"cn=enabled_users,{self._user_tree}"
        found = self._search(base, ldap.SCOPE_BASE, where, [attribute])
        return {_normal(dn) for entry in found for dn in entry.all(attribute)}

    def _team(self, entry: Entry, members: Sequence[str]) -> Team | None:
        o = self.options
        id, name = _id(entry, o.group_id_attribute), entry.first(o.group_name_attribute)
        if id is None or name is None:
            return None
        return Team(id=id, name=name, description=entry.first(o.group_desc_attribute) or "", members=members)

    # ---- the wire -------------------------------------------------------------------------------------------------------

    def _search(self, base: str, scope: int, where: str, wanted: Sequence[str]) -> list[Entry]:
        """All entries for which `where` holds; once more on a new connection, where an idle one turns out to be dead."""
        with _worded(f"search below {base}"):
            while self._idle:
                try:
                    return self._search_on(self._idle.pop(), base, scope, where, wanted)
                except IndexError:  # another thread was quicker
                    break
                except (ldap.SERVER_DOWN, ldap.CONNECT_ERROR):
                    continue
            connection = self._connect()
            connection.simple_bind_s(self.options.user or "", self.options.password or "")
            return self._search_on(connection, base, scope, where, wanted)

    def _search_on(self, connection: Any, base: str, scope: int, where: str, wanted: Sequence[str]) -> list[Entry]:
        try:
            found = list(self._pages(connection, base, scope, where, wanted))
        except ldap.NO_SUCH_OBJECT:
            found = []
        except ldap.LDAPError:
            connection.unbind_ext()
            raise
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.unbind_ext()
        return found

    def _pages(self, connection: Any, base: str, scope: int, where: str, wanted: Sequence[str]) -> Iterator[Entry]:
        size = self.options.page_size
        control = SimplePagedResultsControl(True, size=size, cookie=b"") if size else None
        while True:
            controls = [control] if control else None
            message = connection.search_ext(base, scope, where, list(wanted), serverctrls=controls)
            _, entries, _, answers = connection.result3(message, timeout=self._seconds())
            yield from (_entry(dn, attributes) for dn, attributes in entries if dn is not None)  # None: a referral
            answer = next((a for a in answers if a.controlType == SimplePagedResultsControl.controlType), None)
            if control is None or answer is None or not answer.cookie:
                return
            control.cookie = answer.cookie

    def _seconds(self) -> float:
        o = self.options
        return next((seconds for seconds in (o.connection_timeout, o.pool_connection_timeout) if seconds > 0), SECONDS)

    def _connect(self) -> Any:
        """A new connection, not yet bound."""
        o = self.options
        connection = ldap.initialize(" ".join(_list(o.url)))
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, self._seconds())
        connection.set_option(ldap.OPT_TIMEOUT, self._seconds())
        connection.timeout = self._seconds()
        if o.chase_referrals is not None:
            connection.set_option(ldap.OPT_REFERRALS, int(o.chase_referrals))
        if o.alias_dereferencing != "default":
            connection.set_option(ldap.OPT_DEREF, ALIASES[o.alias_dereferencing])
        if o.use_tls or o.url.lower().startswith("ldaps:"):
            connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, CERTIFICATES[o.tls_req_cert])
            if o.tls_cacertfile:
                connection.set_option(ldap.OPT_X_TLS_CACERTFILE, o.tls_cacertfile)
            elif o.tls_cacertdir:
                connection.set_option(ldap.OPT_X_TLS_CACERTDIR, o.tls_cacertdir)
            connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # which puts the options before it into force
        if o.use_tls:
            connection.start_tls_s()
        return connection


@contextmanager
def _worded(what: str) -> Iterator[None]:
    """LDAP's errors as SourceError."""
    try:
        yield
    except ldap.LDAPError as error:
        told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        reason = told.get("desc") or type(error).__name__
        raise SourceError(f"cannot {what}: {reason}{': ' + told['info'] if told.get('info') else ''}") from error


def _entry(dn: str, attributes: Mapping[str, Iterable[bytes]]) -> Entry:
    """The entry with its values as text; a value that is none (Active Directory's objectGUID) in hexadecimal."""
    return Entry(dn, {name.lower(): [_text(value) for value in values] for name, values in attributes.items()})


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _id(entry: Entry, attribute: str) -> str | None:
    """An entry's id: of several values the one that is in its DN."""
    found = entry.all(attribute)
    if len(found) < 2:
        return found[0] if found else None
    rdn = {name.lower(): value for name, value, _ in ldap.dn.str2dn(entry.dn)[0]}
    return rdn.get(attribute.lower())


def _normal(dn: str) -> str:
    """A DN as it can be compared with others."""
    try:
        parts = ldap.dn.str2dn(dn)
    except ldap.DECODING_ERROR:
        return dn.lower()
    return str(ldap.dn.dn2str([[(a.lower(), v.lower(), f) for a, v, f in sorted(part)] for part in parts]))


def _equals(attribute: str, value: str) -> str:
    return f"({attribute}={ldap.filter.escape_filter_chars(value)})"


def _both(kind: str, operators: str | None, condition: str) -> str:
    """The filter for entries of a class that the operator's filter and a condition let through."""
    wanted = operators or ""
    if wanted and not wanted.startswith("("):
        wanted = f"({wanted})"
    return f"(&(objectClass={ldap.filter.escape_filter_chars(kind)}){wanted}{condition})"


def _list(value: Listed) -> list[str]:
    """A list that may be written as text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
