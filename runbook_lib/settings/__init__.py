"""What a run acts on, as a file says it.

A profile names databases, buckets, clusters and budgets; it never holds a credential. An unknown key is an error that
names the key, because a misspelt limit that is silently ignored is worse than none. The same form describes production
and the sandbox, so that a drill and a production check differ by it alone.
"""

from runbook_lib.settings.loading import load, parse
from runbook_lib.settings.profile import Settings
from runbook_lib.settings.sections import (
    Archiving,
    Backups,
    Changes,
    Contact,
    Database,
    Dns,
    Kubernetes,
    KubernetesCluster,
    Maintenance,
    MaintenanceWindow,
    Patroni,
    Restore,
)

__all__ = [
    "Archiving",
    "Backups",
    "Changes",
    "Contact",
    "Database",
    "Dns",
    "Kubernetes",
    "KubernetesCluster",
    "Maintenance",
    "MaintenanceWindow",
    "Patroni",
    "Restore",
    "Settings",
    "load",
    "parse",
]
