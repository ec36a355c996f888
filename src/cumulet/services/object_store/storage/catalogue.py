"""The account and container side of a node: its databases, their servers, and what keeps them in order."""

import asyncio
from contextlib import suppress

from cumulet.config import Settings
from cumulet.core.tasks import Tasks
from cumulet.services.object_store.node import Nodes
from cumulet.services.object_store.storage.account_server import AccountServer
from cumulet.services.object_store.storage.container_server import ContainerServer
from cumulet.services.object_store.storage.database import Database
from cumulet.services.object_store.storage.database_auditor import DatabaseAuditor
from cumulet.services.object_store.storage.database_replicator import DatabaseReplicator
from cumulet.services.object_store.storage.database_rounds import Job, Rounds
from cumulet.services.object_store.storage.databases import CONTAINERS, Databases
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.reaper import Reaper
from cumulet.services.object_store.storage.reconciler import Reconciler
from cumulet.services.object_store.storage.reports import Cluster, Reports

DAY = 86400
STOPPING = 2
"""Seconds that reports to accounts elsewhere may take when the node stops."""


class Catalogue:
    def __init__(self, cluster: Cluster, nodes: Nodes, devices: Devices, settings: Settings) -> None:
        def policy_name(index: int) -> str | None:
            policy = cluster.policies.get(index)
            return None if policy is None else policy.name

        self.settings = settings
        self.tasks = Tasks()
        self.databases = Databases(devices, cluster.salt)
        self.reports = Reports(cluster, nodes, self.tasks)
        self.accounts = AccountServer(self.databases, policy_name, self.reports)
        self.containers = ContainerServer(self.databases, policy_name, self.reports)
        age, delay = settings.object_reclaim_age, settings.object_reaper_delay
        self.auditor = DatabaseAuditor(self.databases, cluster)
        self.reaper = Reaper(self.databases, nodes, cluster, cluster.salt, delay=delay)
        self.reconciler = Reconciler(self.databases, nodes, cluster, cluster.salt)
        self._rounds = Rounds(self.databases, cluster)
        self.replicator = DatabaseReplicator(self.databases, nodes, cluster, reclaim_age=age)

    def start(self) -> None:
        """Set the background work going."""
        told = self.settings
        self.tasks.every("database replicator", told.object_replication_interval, self.replicator.run)
        self.tasks.every("reports to accounts", told.object_update_interval, self.reports.again)
        self.tasks.every("database auditor", told.object_database_audit_interval, self.auditor.run)
        self.tasks.every("account reaper", told.object_reaper_interval, self.reaper.run)
        self.tasks.every("reconciler", told.object_replication_interval, self.reconciler.run)
        self.tasks.spawn("reports to accounts from before", self.report_all())
        self.tasks.every("deleted rows", min(DAY, told.object_reclaim_age), self.replicator.reclaim)

    async def report_all(self) -> None:
        """Report whatever this node's containers have not: it stopped too early, or their account was not to be reached."""

        async def check(_: Job, database: Database) -> None:
            await self.reports.check(database)

        await self._rounds.over(CONTAINERS, check)

    async def stop(self) -> None:
        """Report what waits, and close all databases."""
        with suppress(TimeoutError):  # what is not delivered stays known as such
            async with asyncio.timeout(STOPPING):
                await self.reports.deliver()
        await self.tasks.stop()
        self.databases.stop()
