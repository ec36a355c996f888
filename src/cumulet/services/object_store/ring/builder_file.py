"""The files of builders (`object.builder`), as swift-ring-builder keeps them: a pickled dictionary of plain values.

A pickle can hold anything; here only the numbers, texts, lists and arrays that builders are made of are taken.
"""

import io
import pickle
import uuid
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cumulet.files import write_atomic
from cumulet.services.object_store.ring.builder import Builder
from cumulet.services.object_store.ring.data import RingError, parse_device

PROTOCOL = 2
"""Of the pickle: what swift writes."""
TAKEN: Mapping[tuple[str, str], Any] = {("array", "array"): array, ("collections", "OrderedDict"): dict}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in TAKEN:
            return TAKEN[module, name]
        if (module, name) == ("array", "_array_reconstructor"):
            return _array
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, which no builder has")


def _array(kind: type, code: str, format: int, data: bytes) -> "array[int]":
    """As Python pickles arrays with later protocols: the formats are of unsigned numbers of one and two bytes."""
    if kind is not array or (code, format) not in (("B", 0), ("H", 2)):
        raise pickle.UnpicklingError("it holds an array that no builder has")
    made = array(code)
    made.frombytes(data)
    return made


def load(path: Path) -> Builder:
    """Read a builder; RingError if that is not one."""
    try:
        told = _Unpickler(io.BytesIO(path.read_bytes())).load()
        return _builder(told)
    except FileNotFoundError as error:
        raise RingError(f"there is no builder {path}: `cumulet ring create` makes one") from error
    except OSError as error:
        raise RingError(f"cannot read {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise RingError(f"{path} is no builder of a ring: {error}") from error


def save(builder: Builder, path: Path) -> None:
    """Write a builder, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, pickle.dumps(_told(builder), protocol=PROTOCOL), mode=0o600)


def _builder(told: Mapping[str, Any]) -> Builder:
    made = Builder(told["part_power"], told["replicas"], told["min_part_hours"])
    made.next_power = told.get("next_part_power")
    made.overload = told.get("overload", 0.0)
    made.devices = [None if device is None else _device(device) for device in told["devs"]]
    made.removed = [made.find(device["id"]) for device in told["_remove_devs"]]
    made.changed, made.version = told["devs_changed"], told["version"]
    made.table = [array("H", row) for row in told["_replica2part2dev"] or []]
    if any(len(row) > made.parts for row in made.table):
        raise ValueError("its table is longer than it has partitions")
    made.hours = array("B", told["_last_part_moves"] or bytes(made.parts))
    made.hours_of = int(told["_last_part_moves_epoch"] or 0)
    made.start = told["_last_part_gather_start"]
    made.graph = dict(told.get("_dispersion_graph") or {})
    made.dispersion = told.get("dispersion") or 0.0
    made.id = told.get("id") or uuid.uuid4().hex
    return made


def _device(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"parts": 0, "parts_wanted": 0, **parse_device(told)}


def _told(builder: Builder) -> dict[str, Any]:
    return {
        "part_power": builder.power,
        "next_part_power": builder.next_power,
        "replicas": builder.replicas,
        "min_part_hours": builder.min_part_hours,
        "parts": builder.parts,
        "devs": builder.devices,
        "devs_changed": builder.changed,
        "dev_id_bytes": 2,
        "version": builder.version,
        "overload": builder.overload,
        "_replica2part2dev": builder.table or None,
        "_last_part_moves_epoch": builder.hours_of,
        "_last_part_moves": builder.hours,
        "_last_part_gather_start": builder.start,
        "_dispersion_graph": builder.graph,
        "dispersion": builder.dispersion,
        "_remove_devs": builder.removed,
        "id": builder.id,
    }
