"""The steps of `cumulet demo`. Each finds what is there by its name, and makes it if it is not."""

import asyncio
import os
import shlex
import shutil
import sys
from pathlib import Path

from cumulet.cli.cloud import Cloud, CloudError, Json, wait_for
from cumulet.cli.progress import Progress, Step
from cumulet.config import Settings
from cumulet.credentials import DEMO_CLOUD
from cumulet.files import write_atomic

IMAGE = "cumulet-guest"
EMPTY_IMAGE = "demo-image"
FLAVOR = "m1.nano"
KEY = "demo-key"
NETWORK = "demo-net"
SUBNET = "demo-subnet"
CIDR = "192.168.90.0/24"
ROUTER = "demo-router"
GROUP = "demo-secgroup"
SERVER = "demo-server"
FLOATING_IP = "cumulet demo"
"""A floating IP has no name; it is known by its description."""
USER = "cumulet"
"""The login of the guest image."""
RULES: tuple[Json, ...] = (
    {"protocol": "icmp", "port_range_min": None, "port_range_max": None},
    {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
)
SSH_TRY = 20.0
"""Seconds that one attempt to log in may take."""

Result = dict[str, object]


class Showcase:
    """The demo against one cloud. `directory` keeps the private key; `timeout` bounds each wait, in seconds.

    The public methods raise CloudError.
    """

    def __init__(self, cloud: Cloud, directory: Path, progress: Progress, *, simulated: bool, timeout: float) -> None:
        self._cloud = cloud
        self._progress = progress
        self._simulated = simulated
        self._timeout = timeout
        self._private_key = directory / "id_ed25519"

    async def run(self) -> Result:
        """Make all of it; returns ids, the address and the command to log in."""
        image = await self._image()
        await self._key()
        network, subnet = await self._network()
        external = await self._router(network, subnet)
        await self._group()
        server = await self._server(image, network)
        address = await self._floating_ip(server, external)
        result: Result = {"server": server, "network": network, "floating_ip": address, "key": str(self._private_key)}
        if self._simulated:
            self._progress.say("This cloud is simulated: no machine runs behind the server, so no SSH can come.")
            return result | {"ssh": None, "hostname": None}
        login = self._ssh(address)
        hostname = await self._log_in(address, login)
        self._progress.say(f"The server answers as {hostname}. Log in with:\n  {shlex.join(login)}")
        self._progress.say(f"Point the clients to the cloud with:\n  {self._export()}")
        return result | {"ssh": shlex.join(login), "hostname": hostname}

    async def remove(self) -> Result:
        """Remove all that `run` makes, in the opposite order; what is not there is passed over."""
        await self._remove_server()
        await self._remove_floating_ips()
        await self._remove_router()
        for service, path, collection, name in (
            ("network", "/networks", "networks", NETWORK),
            ("network", "/security-groups", "security_groups", GROUP),
            ("image", "/images", "images", EMPTY_IMAGE),
        ):
            await self._remove_named(service, path, collection, name)
        async with self._progress.step(f"key {KEY}") as step:
            removed = await self._cloud.delete("compute", f"/os-keypairs/{KEY}")
            self._private_key.unlink(missing_ok=True)
            step.result = _removed(removed)
        return {"removed": True}

    # Making

    async def _image(self) -> str:
        async with self._progress.step("image") as step:
            found = await self._cloud.find("image", "/images", "images", IMAGE)
            if found is None and self._simulated:
                found = await self._empty_image()
            if found is None or found["status"] != "active":
                way_out = "build it with `make guest-image`, then upload it or start with --guest-image"
                raise CloudError(f"there is no active image {IMAGE}: {way_out}")
            step.result = f"{found['name']} {found['id']}"
            return str(found["id"])

    async def _empty_image(self) -> Json:
        """An image that nothing boots: enough for a simulated server."""
        found = await self._cloud.find("image", "/images", "images", EMPTY_IMAGE)
        if found is None:
            wanted = {"name": EMPTY_IMAGE, "disk_format": "raw", "container_format": "bare"}
            found = await self._cloud.request("POST", "image", "/images", wanted)
        if found["status"] == "queued":
            await self._cloud.upload(f"/images/{found['id']}/file", bytes(1024))
        return await self._cloud.get("image", f"/images/{found['id']}")

    async def _key(self) -> None:
        """A key pair of our own. If the private half got lost, the public one, and the server made with it, go too."""
        async with self._progress.step(f"key {KEY}") as step:
            public = await asyncio.to_thread(_ensure_private_key, self._private_key)
            present = await self._cloud.exists("compute", f"/os-keypairs/{KEY}")
            if present is not None and present["keypair"]["public_key"].split()[:2] == public.split()[:2]:
                step.result = f"reused {self._private_key}"
                return
            if present is not None:
                await self._delete_server()
                await self._cloud.delete("compute", f"/os-keypairs/{KEY}")
            body = {"keypair": {"name": KEY, "public_key": public}}
            await self._cloud.request("POST", "compute", "/os-keypairs", body)
            step.result = f"made {self._private_key}"

    async def _network(self) -> tuple[str, str]:
        """Ids of the network and its subnet."""
        async with self._progress.step(f"network {NETWORK} with subnet {CIDR}") as step:
            network = await self._ensure("/networks", "network", NETWORK, {}, step)
            subnet = {"network_id": network, "ip_version": 4, "cidr": CIDR}
            return network, await self._ensure("/subnets", "subnet", SUBNET, subnet, step)

    async def _router(self, network: str, subnet: str) -> str:
        """The id of the external network that the router leads to."""
        async with self._progress.step(f"router {ROUTER} to the external network") as step:
            listed = (await self._cloud.get("network", "/networks?router:external=true"))["networks"]
            if not listed:
                raise CloudError("the cloud has no external network")
            external = str(listed[0]["id"])
            wanted = {"external_gateway_info": {"network_id": external}}
            router = await self._ensure("/routers", "router", ROUTER, wanted, step)
            ports = (await self._cloud.get("network", f"/ports?device_id={router}&network_id={network}"))["ports"]
            if not any(ip["subnet_id"] == subnet for port in ports for ip in port["fixed_ips"]):
                path = f"/routers/{router}/add_router_interface"
                await self._cloud.request("PUT", "network", path, {"subnet_id": subnet})
            return external

    async def _group(self) -> None:
        async with self._progress.step(f"security group {GROUP}: ICMP and SSH from anywhere") as step:
            group = await self._ensure("/security-groups", "security_group", GROUP, {}, step)
            shown = await self._cloud.get("network", f"/security-groups/{group}")
            present = shown["security_group"]["security_group_rules"]
            for rule in RULES:
                wanted = {"direction": "ingress", "ethertype": "IPv4", **rule}
                if not any(all(one.get(key) == value for key, value in wanted.items()) for one in present):
                    body = {"security_group_rule": {"security_group_id": group, **wanted}}
                    await self._cloud.request("POST", "network", "/security-group-rules", body)

    async def _server(self, image: str, network: str) -> str:
        async with self._progress.step(f"server {SERVER}") as step:
            found = await self._cloud.find("compute", "/servers", "servers", SERVER)
            if found is not None:
                found = (await self._cloud.get("compute", f"/servers/{found['id']}"))["server"]
                if found["status"] == "ERROR":
                    await self._delete_server()
                    found = None
            step.result = "reused"
            if found is None:
                found = await self._create_server(image, network)
                step.result = "made"
            elif found["status"] == "SHUTOFF":
                await self._cloud.request("POST", "compute", f"/servers/{found['id']}/action", {"os-start": None})
                step.result = "started"
            server = str(found["id"])
            await wait_for(f"server {SERVER}", lambda: self._active(server), timeout=self._timeout, interval=0.2)
            step.result += f", ACTIVE {server}"
            return server

    async def _create_server(self, image: str, network: str) -> Json:
        flavors = (await self._cloud.get("compute", "/flavors"))["flavors"]
        flavor = next((one for one in flavors if one["name"] == FLAVOR), None)
        if flavor is None:
            raise CloudError(f"the cloud has no flavor {FLAVOR}")
        wanted = {
            "name": SERVER,
            "imageRef": image,
            "flavorRef": flavor["id"],
            "key_name": KEY,
            "networks": [{"uuid": network}],
            "security_groups": [{"name": GROUP}],
        }
        server: Json = (await self._cloud.request("POST", "compute", "/servers", {"server": wanted}))["server"]
        return server

    async def _active(self, server: str) -> Json | None:
        shown: Json = (await self._cloud.get("compute", f"/servers/{server}"))["server"]
        if shown["status"] == "ERROR":
            raise CloudError(f"server {SERVER} failed: {shown.get('fault', {}).get('message', 'no fault is given')}")
        return shown if shown["status"] == "ACTIVE" else None

    async def _floating_ip(self, server: str, external: str) -> str:
        """The address at which the server is reached."""
        async with self._progress.step("floating IP") as step:
            port = (await self._cloud.get("network", f"/ports?device_id={server}"))["ports"][0]["id"]
            own = await self._own_floating_ips()
            found = next((one for one in own if one["port_id"] == port), None)
            step.result = "reused"
            if found is None and own:
                body = {"floatingip": {"port_id": port}}
                found = (await self._cloud.request("PUT", "network", f"/floatingips/{own[0]['id']}", body))[
                    "floatingip"
                ]
            elif found is None:
                wanted = {"floating_network_id": external, "port_id": port, "description": FLOATING_IP}
                answer = await self._cloud.request("POST", "network", "/floatingips", {"floatingip": wanted})
                found = answer["floatingip"]
                step.result = "made"
            address = str(found["floating_ip_address"])
            step.result += f" {address}"
            return address

    async def _own_floating_ips(self) -> list[Json]:
        listed = (await self._cloud.get("network", "/floatingips"))["floatingips"]
        return [one for one in listed if one.get("description") == FLOATING_IP]

    async def _ensure(self, path: str, kind: str, name: str, wanted: Json, step: Step) -> str:
        """The id of a networking resource of that name, made if there is none."""
        found = await self._cloud.find("network", path, path[1:].replace("-", "_"), name)
        step.result = "reused"
        if found is None:
            found = (await self._cloud.request("POST", "network", path, {kind: {"name": name, **wanted}}))[kind]
            step.result = "made"
        return str(found["id"])

    # Logging in

    def _ssh(self, address: str) -> list[str]:
        """The command to log in. The host key is not remembered: the next server at this address has another."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        words = ["ssh", "-i", str(self._private_key.absolute())]
        return words + [word for option in options for word in ("-o", option)] + [f"{USER}@{address}"]

    async def _log_in(self, address: str, login: list[str]) -> str:
        """Wait until the server lets us in; what it says its name is."""
        if shutil.which("ssh") is None:
            raise CloudError("ssh is not installed: apt-get install openssh-client")
        async with self._progress.step(f"SSH on {address}") as step:
            what = f"an SSH greeting from {address}"
            step.result = await wait_for(what, lambda: _greeting(address), timeout=self._timeout)
        async with self._progress.step(f"{USER}@{address}: hostname") as step:
            command = [*login[:1], "-o", "BatchMode=yes", *login[1:], "hostname"]
            said: list[str] = []
            try:
                what = f"a login at {address}"
                step.result = await wait_for(what, lambda: _output(command, said), timeout=self._timeout)
            except CloudError as error:
                raise CloudError(f"{error}; ssh said: {said[-1] if said else 'nothing'}") from error
            return step.result

    def _export(self) -> str:
        """The command that points a shell's clients to the demo's cloud."""
        words = [_own_command(), "clouds-yaml", "--export", "--cloud", DEMO_CLOUD]
        data = self._private_key.parent.parent.absolute()
        if data != Settings().data.absolute():
            words += ["--data", str(data)]
        return f'eval "$({shlex.join(words)})"'

    # Removing

    async def _remove_server(self) -> None:
        async with self._progress.step(f"server {SERVER}") as step:
            step.result = _removed(await self._delete_server())

    async def _delete_server(self) -> bool:
        """Delete the server and wait until it is gone; False if there is none."""
        found = await self._cloud.find("compute", "/servers", "servers", SERVER)
        if found is None:
            return False
        path = f"/servers/{found['id']}"

        async def gone() -> bool | None:
            return True if await self._cloud.exists("compute", path) is None else None

        await self._cloud.delete("compute", path)
        return await wait_for(f"the end of server {SERVER}", gone, timeout=self._timeout, interval=0.2)

    async def _remove_floating_ips(self) -> None:
        async with self._progress.step("floating IP") as step:
            own = await self._own_floating_ips()
            for one in own:
                await self._cloud.delete("network", f"/floatingips/{one['id']}")
            step.result = _removed(bool(own))

    async def _remove_router(self) -> None:
        async with self._progress.step(f"router {ROUTER}") as step:
            found = await self._cloud.find("network", "/routers", "routers", ROUTER)
            if found is not None:
                subnet = await self._cloud.find("network", "/subnets", "subnets", SUBNET)
                ports = (await self._cloud.get("network", f"/ports?device_id={found['id']}"))["ports"]
                if subnet and any(ip["subnet_id"] == subnet["id"] for port in ports for ip in port["fixed_ips"]):
                    path = f"/routers/{found['id']}/remove_router_interface"
                    await self._cloud.request("PUT", "network", path, {"subnet_id": subnet["id"]})
                await self._cloud.delete("network", f"/routers/{found['id']}")
            step.result = _removed(found is not None)

    async def _remove_named(self, service: str, path: str, collection: str, name: str) -> None:
        async with self._progress.step(f"{collection.rstrip('s').replace('_', ' ')} {name}") as step:
            found = await self._cloud.find(service, path, collection, name)
            if found is not None:
                await self._cloud.delete(service, f"{path}/{found['id']}")
            step.result = _removed(found is not None)


def _own_command() -> str:
    """How this program is called from the shell: by its name, or by its path where it is not in PATH."""
    installed = Path(sys.prefix, "bin", "cumulet")
    if shutil.which("cumulet") is not None or not installed.exists():
        return "cumulet"
    return os.path.relpath(installed) if installed.is_relative_to(Path.cwd()) else str(installed)


def _removed(was_there: bool) -> str:
    return "removed" if was_there else "not there"


def _ensure_private_key(path: Path) -> str:
    """The OpenSSH public key of the private key at `path`, which is made if it is missing."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        write_atomic(path, key.private_bytes(*form))
    except (OSError, ValueError) as error:
        raise CloudError(f"cannot use the private key {path}: {error}; remove it to get a new one") from error
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} cumulet-demo"


async def _greeting(address: str, port: int = 22) -> str | None:
    """The SSH server's first line, None if there is none. One connection at a time, closed in order: a small SSH
    server counts the connections of an address that have not logged in, and refuses more of them."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                line = (await reader.readline()).decode(errors="replace").strip()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return None
    return line if line.startswith("SSH-") else None


async def _output(command: list[str], said: list[str]) -> str | None:
    """What a command prints, None if it fails or takes longer than SSH_TRY; its complaint is added to `said`."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(SSH_TRY):
            output, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        said.append(f"nothing within {SSH_TRY:.0f} s")
        return None
    if process.returncode:
        said.append(complaint.decode(errors="replace").strip())
    return output.decode(errors="replace").strip() if process.returncode == 0 else None
