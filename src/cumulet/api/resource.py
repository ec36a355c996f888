"""Declare a resource once; everything else is compiled from the declaration.

    class Port(Resource, table="network_port", path="/v2.0/ports"):
        "A point at which a device joins a network."
        id: Id = read("The ID of the port.", use=FIND)
        name: Str255 = edit("A name, which need not be unique.", "", FIND)
        mac_address: Mac = edit("The hardware address.", AUTO, FIND, set="create_port:mac_address")
        binding_host: Str255 = edit("The node.", "", FILTER, wire="binding:host_id", show="get_port:binding:host_id")
        segment: int = hidden("The VXLAN identifier.", 0)

The kinds of field: `read` (shown only), `once` (sent on create), `edit` (sent on create and update), `hidden` (stored, never
shown), `sent` (taken on create, never stored), `computed` (shown, made by `fn(row)`). A subclass of a resource without a
table has its fields too (what all resources of a service share). The class is also the type of its
stored row, and has a `table`. Compiled, once per version and set of granted checks: `body` (bytes to a checked struct),
`view` (row to reply). Filters, sorting and pages are in `api/query.py`, the calls in `api/crud.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Flag
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, dataclass_transform, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType, defstruct, json

from cumulet.core.db.table import define, split
from cumulet.core.errors import Invalid
from cumulet.core.types import Shown

if TYPE_CHECKING:
    from sqlalchemy import Table

Version = tuple[int, int]
ANY: Version = (0, 0)
AUTO: Any = type("AUTO", (), {"__repr__": lambda self: "AUTO"})()
"""The default of a field that need not be sent: the service picks the value."""


class Use(Flag):
    """What clients may do with a field in a query string."""

    NONE = 0
    FILTER = 1
    SORT = 2
    FIND = 3


FILTER, SORT, FIND = Use.FILTER, Use.SORT, Use.FIND


@dataclass(frozen=True)
class Field:
    """One field of a resource: all that its API reference says of it."""

    modes: tuple[str, ...]  # which of create, update, show carry it
    doc: str
    default: Any = UNSET  # UNSET: required on create; AUTO: the service picks it
    use: Use = Use.NONE
    show: str = ""  # policy rule needed to see it
    set: str = ""  # policy rule needed to send it, "{verb}" standing for create or update
    since: Version = (0, 0)  # microversions, both ends included
    until: Version = (99, 999)
    wire: str = ""  # its name in JSON, where that is no Python name
    index: bool = False  # worth an index of its own
    stored: bool = True
    make: Callable[[Any], Any] | None = None  # of a computed field: from the row
    name: str = ""
    type: Any = None
    convert: Callable[[Any], Any] | None = None


def _kind(*modes: str, **fixed: Any) -> Callable[..., Any]:
    return partial(Field, modes, **fixed)


read = _kind("show")
once = _kind("create", "show")
edit = _kind("create", "update", "show")
hidden = _kind()
sent = _kind("create", stored=False)
sent_always = _kind("create", "update", stored=False)


def computed(doc: str, make: Callable[[Any], Any], **more: Any) -> Any:
    """A field that is shown and not stored: `make(row)`."""
    return Field(("show",), doc, stored=False, make=make, **more)


class Constant(Struct, frozen=True):
    """Stands where a computed field's function would."""

    value: Any

    def __call__(self, row: Any) -> Any:
        return self.value


def constant(doc: str, value: Any, **more: Any) -> Any:
    """A field that is the same for every object: upstream has it, and here it can say one thing only."""
    return Field(("show",), doc, stored=False, make=Constant(value), **more)


class Body(Struct):
    """A decoded request body: one attribute per field that was sent or has a default; UNSET where it was not sent."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def given(self) -> dict[str, Any]:
        """The fields that have a value, by their Python names."""
        return {n: v for n in self.__struct_fields__ if (v := getattr(self, n)) is not UNSET}


class Options(Struct, frozen=True):
    """What holds for a whole resource."""

    path: str  # of the collection
    key: str  # the name of one in JSON ("" where the body has no envelope)
    plural: str  # the name of many
    lax: bool  # "true" and "1" pass for booleans and numbers
    extra: str  # the hidden field (a dict) that keeps attributes nobody declared; "" refuses them
    ignore_unknown: bool  # attributes nobody declared are dropped
    below: tuple[str, ...]  # what is below one in the tree of URLs, for its links


@dataclass_transform(
    kw_only_default=True, field_specifiers=(read, once, edit, hidden, sent, sent_always, computed, constant)
)
class ResourceMeta(msgspec.StructMeta):
    """Builds the struct, its table and its field list from the declaration."""

    kind: str
    table: "Table"
    fields: tuple[Field, ...]
    options: Options

    def __new__(
        meta,
        name: str,
        bases: tuple[type, ...],
        body: dict[str, Any],
        *,
        table: str = "",
        path: str = "",
        key: str | None = None,
        plural: str = "",
        primary_key: tuple[str, ...] = ("id",),
        lax: bool = False,
        extra: str = "",
        ignore_unknown: bool = False,
        below: tuple[str, ...] = (),
    ) -> "ResourceMeta":
        if taken := {"kind", "table", "fields", "options"} & {n for n, f in body.items() if isinstance(f, Field)}:
            raise TypeError(f"{name} may not call a field {', '.join(taken)}: give it another name, and `wire`")
        inherited = {f.name: f for base in bases for f in getattr(base, "fields", ())}
        declared = {n: f for n, f in body.items() if isinstance(f, Field)}
        cls: Any = super().__new__(meta, name, bases, {**body, **dict.fromkeys(declared, UNSET)}, kw_only=True)
        hints = get_type_hints(cls, include_extras=True)
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
        key = snake if key is None else key
        cls.kind = snake
        cls.options = Options(path, key, plural or f"{key or snake}s", lax, extra, ignore_unknown, below)
        cls.fields = tuple(_complete(f, n, hints[n]) for n, f in {**inherited, **declared}.items())
        if table:
            columns = {f.name: f.type for f in cls.fields if f.stored}
            indexed = frozenset(f.name for f in cls.fields if f.index)
            cls.table = define(table, columns, primary_key=primary_key, index=indexed)
        return cls  # type: ignore[no-any-return]

    def at(cls, mode: str, version: Version = ANY, granted: frozenset[str] | None = None) -> list[Field]:
        """The fields that one mode carries at one version, as one set of granted checks sees them."""
        return [
            f
            for f in cls.fields
            if mode in f.modes
            and f.since <= version <= f.until
            and (granted is None or not f.show or f.show in granted)
        ]

    @property
    def show_rules(cls) -> frozenset[str]:
        return _show_rules(cls)

    def decode(cls, mode: str, data: bytes, version: Version = ANY) -> Any:
        """The checked body of a create or update; Invalid says what is wrong and where."""
        try:
            return _body(cls, mode, version)(data)
        except msgspec.DecodeError as error:
            raise Invalid(_explain(error)) from None

    def decode_many(cls, mode: str, data: bytes, version: Version = ANY) -> list[Any] | None:
        """The checked bodies of a bulk create (`{"ports": [...]}`); None where the body is not one."""
        try:
            wrapped = json.decode(data, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return None
        if cls.options.plural not in wrapped:
            return None
        try:
            return [
                _bare(cls, mode, version)(raw)
                for raw in json.decode(wrapped[cls.options.plural], type=list[msgspec.Raw])
            ]
        except msgspec.DecodeError as error:
            raise Invalid(_explain(error)) from None

    def view(cls, version: Version = ANY, granted: frozenset[str] = frozenset()) -> Callable[[Any], Any]:
        """A function from a stored row (or object) to what is sent."""
        return _view(cls, version, granted & _show_rules(cls))

    def linked_view(
        cls, base: str, version: Version = ANY, granted: frozenset[str] = frozenset()
    ) -> Callable[[Any], Any]:
        """The same, as a mapping that has the object's own URL in it (`base` and its id), and those of what is below it."""
        return _linked_view(cls, version, granted & _show_rules(cls))(base)


class Resource(Struct, metaclass=ResourceMeta):
    """Base of every API resource; the subclass is also the type of its stored row."""

    kind: ClassVar[str]
    table: ClassVar[Any]
    fields: ClassVar[tuple[Field, ...]]
    options: ClassVar[Options]

    @classmethod
    def new(cls, body: Body | None = None, /, **values: Any) -> Self:
        """A new object from a decoded body and the values the service picked, which win; other fields get their defaults."""
        given = {} if body is None else body.given()
        stored = {f.name: given.get(f.name, f.default) for f in cls.fields if f.stored}
        stored.update(values)
        missing = [n for n, v in stored.items() if v is UNSET or v is AUTO]
        if missing:
            raise TypeError(f"{cls.__name__}.new() was given no {', '.join(missing)}")
        return cls(**stored)


def _complete(field: Field, name: str, hint: Any) -> Field:
    _, extras, nullable = split(hint)
    convert = next((e.convert for e in extras if isinstance(e, Shown)), None)
    default = None if field.default is UNSET and nullable and not {"create"} & {*field.modes} else field.default
    return replace(field, name=name, wire=field.wire or name, type=hint, convert=convert, default=default)


@cache
def _show_rules(cls: ResourceMeta) -> frozenset[str]:
    return frozenset(f.show for f in cls.fields if f.show)


@cache
def _struct(cls: ResourceMeta, mode: str, version: Version) -> Any:
    def column(f: Field) -> Any:
        if mode == "create" and f.default is not AUTO:
            if f.default is UNSET:
                return f.name, f.type
            if isinstance(f.default, (dict, list, set)):
                return f.name, f.type, msgspec.field(default_factory=partial(_copy, f.default))
            return f.name, f.type, f.default
        return f.name, f.type | UnsetType, UNSET

    fields = cls.at(mode, version)
    closed = not (cls.options.extra or cls.options.ignore_unknown)
    return defstruct(
        f"{cls.__name__}{mode.title()}",
        [column(f) for f in fields],
        bases=(Body,),
        kw_only=True,
        forbid_unknown_fields=closed,
        rename={f.name: f.wire for f in fields},
        module=cls.__module__,
    )


def _copy(value: Any) -> Any:
    return type(value)(value)


@cache
def _bare(cls: ResourceMeta, mode: str, version: Version) -> Callable[[bytes | msgspec.Raw], Any]:
    """The decoder of a body without its envelope."""
    model = _struct(cls, mode, version)
    decode = json.Decoder(model, strict=not cls.options.lax).decode
    if not cls.options.extra:
        return decode
    known = {f.wire for f in cls.fields}
    extra = cls.options.extra
    whole = defstruct(f"{model.__name__}Extra", [(extra, dict[str, Any], {})], bases=(model,), kw_only=True)

    def decode_with_extra(data: bytes | msgspec.Raw) -> Any:
        body = decode(data)
        free = {k: v for k, v in json.decode(data, type=dict[str, Any]).items() if k not in known}
        return whole(**{n: getattr(body, n) for n in body.__struct_fields__}, **{extra: free})

    return decode_with_extra


@cache
def _body(cls: ResourceMeta, mode: str, version: Version) -> Callable[[bytes], Any]:
    """The decoder of a request: bytes to a checked struct."""
    bare = _bare(cls, mode, version)
    if not cls.options.key:
        return bare
    key = cls.options.key
    if cls.options.extra:
        outer: Any = defstruct("Body", [("inner", msgspec.Raw)], rename={"inner": key})
        envelope = json.Decoder(outer).decode
        return lambda data: bare(envelope(data).inner)
    model = _struct(cls, mode, version)
    closed = not cls.options.ignore_unknown
    wrapped: Any = defstruct("Body", [("inner", model)], rename={"inner": key}, forbid_unknown_fields=closed)
    decode = json.Decoder(wrapped, strict=not cls.options.lax).decode
    return lambda data: decode(data).inner


def _expressions(cls: ResourceMeta, version: Version, granted: frozenset[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """How each shown field is had from `row`, by its name in JSON, and what the names in there stand for."""
    names: dict[str, Any] = {}

    def expression(f: Field) -> str:
        if isinstance(f.make, Constant):
            names[f"constant_{f.name}"] = f.make.value
            return f"constant_{f.name}"
        if f.make is not None:
            names[f"make_{f.name}"] = f.make
            return f"make_{f.name}(row)"
        if f.convert is not None:
            names[f"convert_{f.name}"] = f.convert
            return f"convert_{f.name}(row.{f.name})"
        return f"row.{f.name}"

    return {f.wire: expression(f) for f in cls.at("show", version, granted)}, names


def _mapping(cls: ResourceMeta, pairs: str) -> str:
    """A mapping with these pairs and the attributes that nobody declared, of which most objects have none."""
    extra = f"row.{cls.options.extra}"
    return f"({{**{extra}, {pairs}}} if {extra} else {{{pairs}}})" if cls.options.extra else f"{{{pairs}}}"


@cache
def _view(cls: ResourceMeta, version: Version, granted: frozenset[str]) -> Callable[[Any], Any]:
    """A function from a row to its reply, generated from declared names only, as `dataclasses` does."""
    values, names = _expressions(cls, version, granted)
    if cls.options.extra:
        code = _mapping(cls, ", ".join(f"{wire!r}: {value}" for wire, value in values.items()))
    else:
        shown = cls.at("show", version, granted)
        names["model"] = defstruct(
            cls.__name__, [(f.name, f.type) for f in shown], rename={f.name: f.wire for f in shown}, gc=False
        )
        code = f"model({', '.join(values.values())})"
    return eval(f"lambda row: {code}", names)  # type: ignore[no-any-return]  # noqa: S307 - made of declared names only


@cache
def _linked_view(
    cls: ResourceMeta, version: Version, granted: frozenset[str]
) -> Callable[[str], Callable[[Any], dict[str, Any]]]:
    """The same, generated likewise, from the URL of the collection to the function."""
    values, names = _expressions(cls, version, granted)
    pairs = [f"{wire!r}: {value}" for wire, value in values.items()]
    links = ["'self': base + row.id", *(f"{name!r}: base + row.id + {f'/{name}'!r}" for name in cls.options.below)]
    code = _mapping(cls, ", ".join([*pairs, f"'links': {{{', '.join(links)}}}"]))
    return eval(f"lambda base: lambda row: {code}", names)  # type: ignore[no-any-return]  # noqa: S307 - the same


def _explain(error: msgspec.DecodeError) -> str:
    """msgspec's sentence, with the place in the body in words a caller knows."""
    return str(error).replace("`$", "`body").replace("`body.", "`")


@cache
def body_type(cls: ResourceMeta, mode: str, version: Version = ANY) -> Any:
    """The struct of a create or update body, with its envelope: what documents it and what makes examples of it."""
    model = _struct(cls, mode, version)
    return (
        defstruct(f"{model.__name__}Body", [("inner", model)], rename={"inner": cls.options.key}, module=cls.__module__)
        if cls.options.key
        else model
    )


@cache
def list_type(cls: ResourceMeta, mode: str, version: Version = ANY) -> Any:
    """The struct of a body that lists several of a resource, and at least one (`{"limits": [...]}`); free attributes are not
    taken there."""
    model = _struct(cls, mode, version)
    several = Annotated[list[model], msgspec.Meta(min_length=1)]  # type: ignore[valid-type]
    return defstruct(
        f"{model.__name__}List",
        [("several", several)],
        rename={"several": cls.options.plural},
        forbid_unknown_fields=True,
        module=cls.__module__,
    )
