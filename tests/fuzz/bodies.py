"""Request bodies from declarations: mostly what the declaration allows, now and then what it does not."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

TEXT = st.text(max_size=40) | st.sampled_from(
    ["", " ", "a" * 300, "\x00", "💥", "10.0.0.0/24", "::1", "true", "-1", "../..", "%s", "'"]
)
SCALAR = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
WRONG = SCALAR | st.lists(SCALAR, max_size=2) | st.dictionaries(TEXT, SCALAR, max_size=2)


def body_of(model: Any, ids: list[str]) -> st.SearchStrategy[Any]:
    """Values that encode to JSON, shaped like `model`. `ids` are ids of real things, for fields that name some."""
    return _of(inspect.type_info(model), ids)


def _of(kind: inspect.Type, ids: list[str], depth: int = 0) -> st.SearchStrategy[Any]:
    right = _right(kind, ids, depth)
    return st.one_of(right, right, right, right, WRONG) if depth else right | WRONG


def _right(kind: inspect.Type, ids: list[str], depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return _struct(kind, ids, depth)
        case inspect.Metadata():
            return _of(kind.type, ids, depth)
        case inspect.UnionType():
            arms = [t for t in kind.types if not isinstance(t, inspect.CustomType) and "Unset" not in type(t).__name__]
            return st.one_of([_of(t, ids, depth + 1) for t in arms])
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType():
            return st.lists(_of(kind.item_type, ids, depth + 1), max_size=3)
        case inspect.DictType():
            return st.dictionaries(TEXT | st.sampled_from(["a", "b"]), _of(kind.value_type, ids, depth + 1), max_size=3)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(kind.ge if kind.ge is not None else -5, kind.le if kind.le is not None else 5000)
        case inspect.FloatType():
            return st.floats(0, 100)
        case inspect.StrType():
            return st.sampled_from(ids) | TEXT if kind.pattern else TEXT | st.sampled_from(ids)
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case inspect.NoneType():
            return st.none()
        case _:
            return WRONG


def _struct(kind: Any, ids: list[str], depth: int) -> st.SearchStrategy[Any]:
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.fields:
        (required if field.required else optional)[field.encode_name] = _of(field.type, ids, depth + 1)
    return st.fixed_dictionaries(required, optional=optional)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
