"""A new key for what is stored sealed, and everything sealed anew with it: `cumulet keys rotate --credentials`.

It may be cut off at any point, and be run while the program serves. Rows are sealed anew in small transactions, each only
if it is still what was read. The key before the newest is kept until the next rotation: the program may just have sealed
something with it that it has not stored yet.
"""

from collections.abc import Iterator

from sqlalchemy import Column, Connection, Engine, inspect, select, tuple_, update

from cumulet.core.db import metadata
from cumulet.services.identity.credential import Credential
from cumulet.services.identity.fernet import Vault

AT_ONCE = 200
"""Rows in one transaction: others wait for its end."""
KEPT = 2


def rotate_vault(engine: Engine, vault: Vault) -> int:
    """Make a new key and seal everything with it; how many values there were.

    What an earlier run did not come to is done first. ValueError where something cannot be opened: no key is dropped then.
    """
    if vault.ring.numbers():
        reseal(engine, vault)
        vault.ring.drop(vault.ring.numbers()[:-KEPT])
    vault.ring.add()
    count = reseal(engine, vault)
    vault.ring.drop(vault.ring.numbers()[:-KEPT])
    return count


def reseal(engine: Engine, vault: Vault) -> int:
    """Seal with the newest key what an older one has sealed; how many values that were."""
    count = 0
    for column in sealed_columns(engine):
        last: tuple[object, ...] | None = None
        while True:
            with engine.begin() as tx:
                last, changed = _some(tx, column, vault, last)
            count += changed
            if last is None:
                break
    return count


def sealed_columns(engine: Engine) -> Iterator[Column[str]]:
    """Where sealed values are: in the blobs of credentials, and in every column of identity's that is named `sealed`."""
    there = set(inspect(engine).get_table_names())
    for table in metadata.tables.values():
        if table.name.startswith("identity_") and table.name in there:
            yield from (c for c in table.columns if c.name == "sealed" or c is Credential.table.c.blob)


def _some(
    tx: Connection, column: Column[str], vault: Vault, after: tuple[object, ...] | None
) -> tuple[tuple[object, ...] | None, int]:
    """Seal the next rows anew: the key of the last of them, None at the end, and how many were changed."""
    key = list(column.table.primary_key.columns)
    statement = select(*key, column).order_by(*key).limit(AT_ONCE)
    if after is not None:
        statement = statement.where(tuple_(*key) > after)
    rows = [(tuple(row[:-1]), row[-1]) for row in tx.execute(statement)]
    changed = 0
    for values, sealed in rows:
        if sealed is None or vault.is_current(sealed):
            continue
        where = [c == value for c, value in zip(key, values, strict=True)]
        anew = vault.seal(vault.open(sealed))
        changed += tx.execute(update(column.table).where(*where, column == sealed).values({column: anew})).rowcount
    return (rows[-1][0] if len(rows) == AT_ONCE else None), changed
