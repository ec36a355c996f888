"""S3's XML: written as text, read by lxml without entities, without document types and without the network."""

import re
from typing import Any, TypeAlias

S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]')
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}

Shape: TypeAlias = "dict[str, tuple[str, Shape | None]]"
"""What an element may hold: of each child how often it comes (1, ?, * or +), and its own shape, None where it holds text."""


class BadXml(ValueError):
    """What came is no XML, or none of the wanted shape."""


def text(value: str) -> str:
    """Text as it stands in XML. What XML cannot hold is written as a reference to its number, as S3 does."""
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or f"&#{ord(found[0])};", value)


def leaf(name: str, value: str) -> str:
    """An element that holds text."""
    return f"<{name}>{text(value)}</{name}>"


def node(name: str, *children: str, attributes: str = "") -> str:
    """An element that holds others, which are XML already."""
    return f"<{name}{attributes}>{''.join(children)}</{name}>"


def document(name: str, *children: str, namespace: str = S3_NAMESPACE, declared: bool = True) -> bytes:
    """A whole document."""
    attributes = f' xmlns="{namespace}"' if namespace else ""
    return ((_DECLARATION if declared else "") + node(name, *children, attributes=attributes)).encode()


def parse(data: bytes, root: str, shape: Shape, *, typed: bool = False) -> Any:
    """The root element of a document, its namespaces taken away; BadXml where it is not of this shape. A root of "" may have
    any name. `typed`: it may have a document type. Nothing of that counts: a text ends where it refers to an entity."""
    from lxml import etree  # imported with the first document: starts are counted in tenths of a second

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        found = etree.fromstring(data.strip(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadXml(str(error)) from None
    if found.getroottree().docinfo.doctype and not typed:
        raise BadXml("a document type is not taken here")
    for reference in list(found.iter(etree.Entity)):
        reference.getparent().remove(reference)  # and the text behind it
    for element in found.iter():
        element.tag = etree.QName(element).localname
    if root and found.tag != root:
        raise BadXml(f"the document is a {found.tag}, not a {root}")
    _check(found, shape)
    return found


def value(element: Any, path: str, default: str = "") -> str:
    """The text of what lies at a path below an element."""
    return element.findtext(path) or default


def _check(element: Any, shape: Shape) -> None:
    counts: dict[str, int] = {}
    for child in element:
        known = shape.get(child.tag)
        if known is None:
            raise BadXml(f"a {element.tag} has no {child.tag}")
        counts[child.tag] = counts.get(child.tag, 0) + 1
        if known[1] is not None:
            _check(child, known[1])
        elif len(child):
            raise BadXml(f"a {child.tag} holds text only")
    for name, (often, _) in shape.items():
        count = counts.get(name, 0)
        if (often in "1+" and not count) or (often in "1?" and count > 1):
            raise BadXml(f"a {element.tag} has {count} elements {name}")
