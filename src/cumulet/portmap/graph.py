"""Components and who connects to whom, as a drawing: SVG, Graphviz DOT or Mermaid."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from msgspec import Struct

from cumulet.portmap.facts import OWN, Component, Facts, Flow

COLOURS = {
    "public": "#c2410c", "internal": "#475569", "storage": "#15803d", "tenant": "#7e22ce", "admin": "#b91c1c",
    "local": "#94a3b8",
}  # fmt: skip
COLUMNS = ("outside", "entrance", "APIs", "services", "infrastructure", "hosts and storage")
OUTSIDE = ("client", "tenant", "operator", "external")
ENTRANCES = ("load balancer", "horizon", "skyline-console", "skyline-apiserver")
BASICS = (
    "mysqld", "rabbitmq-server", "memcached", "etcd", "redis", "qdrouterd", "prometheus", "opensearch", "chronyd", "fluentd",
    "ceph", "haproxy", "keepalived", "log collector", "proxysql",
)  # fmt: skip


class Node(Struct, frozen=True, kw_only=True):
    name: str
    column: int
    ports: tuple[str, ...]  # 8774, 6081/udp
    planned: bool = False


class Edge(Struct, frozen=True, kw_only=True):
    source: str
    destination: str
    network: str
    label: str  # what for


class Graph(Struct, frozen=True, kw_only=True):
    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def build(
    facts: Facts, *, era: str = "current", dialect: str = OWN, service: str = "", role: str = "", deploy: bool = False
) -> Graph:
    """The graph of one kind of cloud. With `service` (a type): what that service opens and is reached by. With `role`: what
    the hosts of that role are reached by. Connections that only a deployment opens are left out unless `deploy`."""
    rows = [row for row in facts.table(era, dialect) if row.state in ("listed", "planned")]
    planned = {row.component for row in rows if row.state == "planned"}
    ports: dict[str, list[str]] = {}
    for row in rows:
        suffix = "" if row.protocol == "tcp" else f"/{row.protocol}"
        ports.setdefault(row.component, []).append(f"{row.port}{suffix}")
    kept = [flow for flow in facts.flows if _is_kept(facts, flow, ports, era, dialect, deploy)]
    if service:
        kept = [flow for flow in kept if service in (_service(facts, flow.source), _service(facts, flow.destination))]
    if role:
        kept = [flow for flow in kept if role in facts.by_name[flow.destination].roles]
    edges = {(f.source, f.destination, f.network): f.purpose for f in kept}
    names = sorted({name for source, destination, _ in edges for name in (source, destination)})
    what = service or role or ("Cumulet" if dialect == OWN else f"OpenStack, {dialect}, {era}")
    return Graph(
        title=f"Who connects to whom: {what}",
        nodes=tuple(
            Node(
                name=name,
                column=_column(facts.by_name[name]),
                ports=tuple(dict.fromkeys(ports.get(name, ()))),
                planned=name in planned,
            )
            for name in names
        ),
        edges=tuple(Edge(source=s, destination=d, network=n, label=text) for (s, d, n), text in sorted(edges.items())),
    )


def _is_kept(facts: Facts, flow: Flow, ports: Mapping[str, list[str]], era: str, dialect: str, deploy: bool) -> bool:
    if flow.destination not in ports or (flow.phase == "deploy" and not deploy):
        return False
    if (
        dialect == OWN
    ):  # its ports are of both times; its own parts talk inside one process, so callers from outside count
        return facts.by_name[flow.source].roles[0] in OUTSIDE
    return flow.era == era


def _service(facts: Facts, name: str) -> str:
    return facts.by_name[name].service


def _column(component: Component) -> int:
    """From left to right as a request travels."""
    name = component.component
    if component.roles[0] in OUTSIDE:
        return 0
    if name in ENTRANCES or ("proxy" in name and name != "swift-proxy"):
        return 1
    if name.startswith(BASICS):
        return 4
    if (
        "-api" in name
        or name.startswith("keystone")
        or name in ("neutron-server", "swift-proxy", "tacker-server", "radosgw")
    ):
        return 2
    return 5 if component.roles[0] in ("compute", "storage", "network") else 3


# ---- SVG ----------------------------------------------------------------------------------------------------------------

BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN, TOP = 205, 34, 14, 30, 96
COLUMN_GAP = 110
LOOP = 70
"""How far a line swings out that joins two boxes of one column."""


STYLE = """
.box { fill: #fff; stroke: #334155; stroke-width: 1.2 } .planned { stroke-dasharray: 5 4 }
.title { font-size: 19px; fill: #0f172a; font-weight: 600 } .name { font-size: 13px; fill: #0f172a }
.port { font-size: 11px; fill: #475569 } .head { font-size: 12px; fill: #64748b } .key { font-size: 12px; fill: #334155 }
.line { fill: none; stroke-width: 1.4; stroke-opacity: .55 } .line:hover { stroke-width: 4; stroke-opacity: 1 }
"""


class Box(Struct, frozen=True):
    x: float
    y: float

    @property
    def middle(self) -> float:
        return self.y + BOX_HEIGHT / 2


def svg(graph: Graph) -> str:
    """A drawing that a browser shows; each line and box has its words as a tooltip."""
    columns = _ordered(graph)
    used = [c for c in range(len(COLUMNS)) if columns.get(c)]
    tallest = max((len(columns[c]) for c in used), default=1)
    height = TOP + tallest * (BOX_HEIGHT + GAP) + 40
    width = MARGIN * 2 + max(len(used), 1) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP + LOOP
    boxes: dict[str, Box] = {}
    parts = []
    for place, column in enumerate(used):
        x = MARGIN + place * (BOX_WIDTH + COLUMN_GAP)
        parts.append(f'<text class="head" x="{x}" y="{TOP - 18}">{COLUMNS[column]}</text>')
        free = (tallest - len(columns[column])) * (BOX_HEIGHT + GAP) / 2
        for row, name in enumerate(columns[column]):
            boxes[name] = Box(x, TOP + free + row * (BOX_HEIGHT + GAP))
    parts += [_line(edge, boxes) for edge in graph.edges if edge.source != edge.destination]
    parts += [_box(node, boxes[node.name]) for node in graph.nodes]
    size = f'width="{width:.0f}" height="{height:.0f}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} font-family="sans-serif">',
        f"<style>{STYLE}</style>",
        f'<rect {size} fill="#f8fafc"/>',
        "<defs>" + "".join(_arrow(name, colour) for name, colour in COLOURS.items()) + "</defs>",
        f'<text class="title" x="{MARGIN}" y="34">{escape(graph.title)}</text>',
        *_key(graph), *parts, "</svg>", "",
    ])  # fmt: skip


def _ordered(graph: Graph) -> dict[int, list[str]]:
    """The nodes of each column, those near each other that are joined: by the mean place of their neighbours, a few times."""
    columns: dict[int, list[str]] = {}
    for node in graph.nodes:
        columns.setdefault(node.column, []).append(node.name)
    joined: dict[str, list[str]] = {}
    for edge in graph.edges:
        joined.setdefault(edge.source, []).append(edge.destination)
        joined.setdefault(edge.destination, []).append(edge.source)
    for _ in range(6):
        place = {name: (row + 0.5) / len(names) for names in columns.values() for row, name in enumerate(names)}
        for names in columns.values():
            names.sort(key=lambda name: (sum(place[n] for n in joined[name]) / len(joined[name]), name))
    return columns


def _line(edge: Edge, boxes: Mapping[str, Box]) -> str:
    start, end = boxes[edge.source], boxes[edge.destination]
    forward = start.x < end.x
    x1 = start.x + (BOX_WIDTH if start.x <= end.x else 0)
    x2 = end.x + (0 if forward else BOX_WIDTH)
    bend = LOOP if start.x == end.x else max(50.0, abs(x2 - x1) / 2)
    to1 = x1 + (bend if start.x <= end.x else -bend)
    to2 = x2 + (-bend if forward else bend)
    words = escape(f"{edge.source} to {edge.destination} ({edge.network}): {edge.label}")
    path = f"M{x1:.0f},{start.middle:.0f} C{to1:.0f},{start.middle:.0f} {to2:.0f},{end.middle:.0f} {x2:.0f},{end.middle:.0f}"
    colour, arrow = COLOURS[edge.network], f"url(#{edge.network})"
    return f'<path class="line" d="{path}" stroke="{colour}" marker-end="{arrow}"><title>{words}</title></path>'


def _arrow(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
    )


def _box(node: Node, box: Box) -> str:
    shown = ", ".join(node.ports[:3]) + (" ..." if len(node.ports) > 3 else "")
    ports = f'<text class="port" x="{box.x + 10}" y="{box.y + 28}">{escape(shown)}</text>' if shown else ""
    y = box.y + (15 if shown else 21)
    shape = "box planned" if node.planned else "box"
    frame = f'x="{box.x}" y="{box.y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
    return (
        f"<g><title>{escape(node.name)} {escape(', '.join(node.ports))}</title>"
        f'<rect class="{shape}" rx="7" {frame}/>'
        f'<text class="name" x="{box.x + 10}" y="{y:.0f}">{escape(node.name)}</text>{ports}</g>'
    )


def _key(graph: Graph) -> Iterable[str]:
    """What the colours mean, of those that are used."""
    x = MARGIN
    for network in (n for n in COLOURS if any(edge.network == n for edge in graph.edges)):
        yield f'<line x1="{x}" y1="54" x2="{x + 26}" y2="54" stroke="{COLOURS[network]}" stroke-width="3"/>'
        yield f'<text class="key" x="{x + 32}" y="58">{network}</text>'
        x += 110


# ---- text forms ---------------------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """For Graphviz (`dot -Tpdf`)."""
    lines = ["digraph ports {", "  rankdir=LR; node [shape=box, style=rounded, fontname=sans]; edge [fontname=sans];"]
    lines.append(f"  label={_quoted(graph.title)};")
    for node in graph.nodes:
        text = node.name + (f"\\n{', '.join(node.ports)}" if node.ports else "")
        lines.append(f"  {_quoted(node.name)} [label={_quoted(text)}];")
    for edge in graph.edges:
        ends = f"{_quoted(edge.source)} -> {_quoted(edge.destination)}"
        lines.append(f"  {ends} [color={_quoted(COLOURS[edge.network])}, tooltip={_quoted(edge.label)}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def mermaid(graph: Graph) -> str:
    """For Markdown pages that draw Mermaid."""
    ids = {node.name: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node in graph.nodes:
        text = escape(node.name) + (f"<br/>{', '.join(node.ports)}" if node.ports else "")
        lines.append(f'  {ids[node.name]}["{text}"]')
    lines += [f"  {ids[edge.source]} -->|{edge.network}| {ids[edge.destination]}" for edge in graph.edges]
    return "\n".join([*lines, ""])


FORMS: Mapping[str, Callable[[Graph], str]] = {"svg": svg, "dot": dot, "mermaid": mermaid}


def services(facts: Facts) -> Sequence[str]:
    """The service types that a graph can be asked for."""
    return sorted({row.service for row in facts.components if row.service})
