"""Address translation of one router, as an nft ruleset. Pure functions: a Router in, text out."""

import ipaddress

from cumulet.services.network.drivers import Router

TABLE = "cumulet"
HAIRPIN = 1
"""The packet mark of traffic from inside to a floating IP, which must come back through the router."""


def gateway_device(router: Router) -> str:
    """The router's device on the external network, as Neutron names it."""
    return "qg-" + router.gateway.port_id[:11] if router.gateway else ""


def leg_device(port_id: str) -> str:
    """The router's device on a tenant network, as Neutron names it."""
    return "qr-" + port_id[:11]


def floating(router: Router) -> dict[str, str]:
    """Floating address to fixed address, IPv4, in order; none without a way out."""
    if router.gateway is None:
        return {}
    pairs = {fip.floating_ip_address: fip.fixed_ip_address for fip in router.floating_ips}
    return {outer: pairs[outer] for outer in sorted(pairs)}


def gateway_address(router: Router) -> str | None:
    """The IPv4 address that hides the networks behind the router."""
    for address in router.gateway.addresses if router.gateway else ():
        interface = ipaddress.ip_interface(address)
        if interface.version == 4:
            return str(interface.ip)
    return None


def ruleset(router: Router) -> str:
    """The whole translation of a router, to be loaded in one transaction."""
    outer = gateway_device(router)
    fips = floating(router)
    own = gateway_address(router)
    mark, before, after = [], [], []
    if fips:
        inward = ", ".join(f"{public} : {fixed}" for public, fixed in fips.items())
        names = {fixed: public for public, fixed in reversed(fips.items())}
        outward = ", ".join(f"{fixed} : {public}" for fixed, public in names.items())
        mark.append(f'iifname != "{outer}" ip daddr {{ {", ".join(fips)} }} meta mark set {HAIRPIN}')
        before.append(f"dnat to ip daddr map {{ {inward} }}")
        after.append(f'oifname "{outer}" snat to ip saddr map {{ {outward} }}')
        after.append(f"meta mark {HAIRPIN} snat to ip saddr map {{ {outward} }}")
    if own and fips:
        after.append(f"meta mark {HAIRPIN} snat to {own}")
    if own and router.enable_snat:
        after.append(f'oifname "{outer}" snat to {own}')
    forward = [] if router.admin_state_up else ["drop"]
    return f"""\
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain inward {{
    type filter hook prerouting priority -150; policy accept;
{_lines(mark)}  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
{_lines(before)}  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
{_lines(after)}  }}
}}
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
{_lines(forward)}  }}
}}
"""


def _lines(rules: list[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)


def masquerade(bridge: str, table: str, cidrs: list[str]) -> str:
    """The ruleset by which the host hides external networks behind its own addresses; without CIDRs it removes it."""
    head = f"table ip {table}\ndelete table ip {table}\n"
    if not cidrs:
        return head
    return (
        head
        + f"""\
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {{ {", ".join(cidrs)} }} oifname != "{bridge}" masquerade
  }}
}}
"""
    )
