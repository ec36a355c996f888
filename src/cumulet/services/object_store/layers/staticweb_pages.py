"""The pages that static web makes itself. Style sheets of sites know the ids and classes in them, which are swift's."""

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import msgspec

UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")

PAGE = """<!DOCTYPE html>
<html>
 <head>
  <title>Listing of {label}</title>
  {style}
 </head>
 <body>
{body} </body>
</html>
"""
STYLE = """<style type="text/css">
   h1 {font-size: 1em; font-weight: bold;}
   th, td {padding: 0 1em; text-align: left;}
   a {text-decoration: none;}
  </style>"""
TABLE = """  <h1 id="title">Listing of {label}</h1>
  <table id="listing">
   <tr id="heading">
    <th class="colname">Name</th>
    <th class="colsize">Size</th>
    <th class="coldate">Date</th>
   </tr>
{rows}  </table>
"""
ROW = """   <tr{kind}>
    <td class="colname"><a href="{link}">{name}</a></td>
    <td class="colsize">{size}</td>
    <td class="coldate">{date}</td>
   </tr>
"""
DISABLED = """  <h1>Web Listing Disabled</h1>
  <p>What is in here is not shown. Whoever owns this site may have it shown with X-Container-Meta-Web-Listings: true.</p>
"""
NO_INDEX = """  <h1>Index File Not Found</h1>
  <p>X-Container-Meta-Web-Index of this site is {index}, but there is no such object.</p>
"""
NOTHING = "&nbsp;"


class Row(msgspec.Struct):
    """A row of a listing: an object, or a name that several begin with."""

    name: str = ""
    subdir: str = ""
    bytes: int = 0
    content_type: str = ""
    last_modified: str = ""


decode_rows = msgspec.json.Decoder(list[Row]).decode


def rows_of(body: bytes) -> list[Row]:
    return decode_rows(body) if body else []


def listing(label: str, css: str, rows: Sequence[Row], prefix: str, *, up: bool, query: str) -> str:
    """What is in a directory; `query` is appended to every link, `up` says whether there is one to the directory above."""
    lines = []
    if up:
        lines.append(_row('id="parent" class="item"', "../" + query, "../", NOTHING, NOTHING))
    for row in rows:
        if row.subdir:
            name = row.subdir.removeprefix(prefix)
            lines.append(_row('class="item subdir"', _link(name, query), name, NOTHING, NOTHING))
    for row in rows:
        if not row.subdir:
            name = row.name.removeprefix(prefix)
            kinds = " ".join(f"type-{escape(word.lower())}" for word in row.content_type.split("/"))
            date = escape(row.last_modified).split(".")[0].replace("T", " ")
            lines.append(_row(f'class="item {kinds}"', _link(name, query), name, readable(row.bytes), date))
    label = escape(label)
    return PAGE.format(label=label, style=_style(css), body=TABLE.format(label=label, rows="".join(lines)))


def disabled(label: str, css: str, index: str) -> str:
    body = DISABLED + (NO_INDEX.format(index=escape(index)) if index else "")
    return PAGE.format(label=escape(label), style=_style(css), body=body)


def css_path(css: str, prefix: str) -> str:
    """Where the style sheet is, seen from a page; one of the site itself lies in its root."""
    if css.startswith(("/", "http://", "https://")):
        return quote(css, safe=":/")
    return "../" * prefix.count("/") + quote(css)


def readable(size: int) -> str:
    """1048576 is 1Mi."""
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            break
        size = round(size / 1024)
    return f"{size}{unit}"


def _link(name: str, query: str) -> str:
    return "./" + quote(name).replace(".", "%2E") + query


def _style(css: str) -> str:
    return f'<link rel="stylesheet" type="text/css" href="{css}" />' if css else STYLE


def _row(kind: str, link: str, name: str, size: Any, date: str) -> str:
    return ROW.format(kind=f" {kind}", link=link, name=escape(name), size=size, date=date)
