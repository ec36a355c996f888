"""The account and container side of a node: its databases, their servers, and what keeps them in order."""

from cumulet.core.tasks import Tasks
from cumulet.services.object_store.node import Nodes
from cumulet.services.object_store.storage.account_server import AccountServer
from cumulet.services.object_store.storage.container_server import ContainerServer
from cumulet.services.object_store.storage.databases import Databases
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.reports import Cluster, Reports


class Catalogue:
    def __init__(self, cluster: Cluster, nodes: Nodes, devices: Devices) -> None:
        def policy_name(index: int) -> str | None:
            policy = cluster.policies.get(index)
            return None if policy is None else policy.name

        self.tasks = Tasks()
        self.databases = Databases(devices, cluster.salt)
        self.reports = Reports(cluster, nodes, self.tasks)
        self.accounts = AccountServer(self.databases, policy_name, self.reports)
        self.containers = ContainerServer(self.databases, policy_name, self.reports)

    async def stop(self) -> None:
        """Report what waits, and close all databases."""
        await self.reports.deliver()
        await self.tasks.stop()
        self.databases.stop()
