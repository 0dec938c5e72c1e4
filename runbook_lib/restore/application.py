"""Taking the application out of service, and bringing it back as it was.

The runbook scales the API to 0 and later back to 3. It may have had another number, and whoever types 3 at four in the
morning does not know. So the number is remembered in the journal, and brought back from there; and where somebody else
has scaled it meanwhile, it is left as they want it, and told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import Denied, NotFound
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems

OUT_OF_SERVICE = 0


@dataclass(frozen=True)
class TakeApplicationOut(Act):
    """Scale a Deployment to nothing, and see its pods gone."""

    kind: ClassVar[str] = "take the application out of service"

    region: str
    """The region whose cluster it runs in: ``primary`` or ``dr``."""
    deployment: str
    """The Deployment's name."""
    within_seconds: float
    """How long its pods may take to go, and to come back."""

    def look(self, systems: Systems) -> Before:
        """Read how many replicas it has."""
        with systems.cluster(self.region) as cluster:
            found = cluster.deployment(self.deployment)
        return {"replicas": found.replicas, "uid": found.uid}

    def describe(self, before: Before) -> str:
        """Say from how many it is scaled to none."""
        return f"scale {self.deployment} in {self.region} from {_replicas(before['replicas'])} to none"

    def describe_undoing(self, before: Before) -> str:
        """Say to how many it is scaled back."""
        return f"scale {self.deployment} in {self.region} back to {_replicas(before['replicas'])}"

    def do(self, systems: Systems, before: Before) -> None:
        """Scale it, if it still has as many as when it was looked at, and wait until the last pod is gone."""
        with systems.cluster(self.region) as cluster:
            found = cluster.deployment(self.deployment)
            if found.replicas != before["replicas"]:
                raise Denied(
                    f"to scale {self.deployment} to none",
                    where=str(cluster),
                    why=f"it had {_replicas(before['replicas'])} a moment ago and has {_replicas(found.replicas)} now:"
                    " somebody else is scaling it",
                    remedy="find out who (an autoscaler, a deployment), and begin again",
                )
            cluster.scale(self.deployment, OUT_OF_SERVICE, expected=found)
            cluster.wait_for_replicas(self.deployment, OUT_OF_SERVICE, within_seconds=self.within_seconds)

    def undo(self, systems: Systems, before: Before) -> str:
        """Scale it back, unless somebody else has scaled it meanwhile, and wait until its pods are ready."""
        wanted = before["replicas"]
        with systems.cluster(self.region) as cluster:
            try:
                found = cluster.deployment(self.deployment)
            except NotFound:
                return f"{self.deployment} was deleted meanwhile: there is nothing to scale"
            if found.uid != before["uid"]:
                return f"{self.deployment} was made anew meanwhile, with {_replicas(found.replicas)}: left as it is"
            if found.replicas not in (OUT_OF_SERVICE, wanted):
                return f"somebody else has scaled it to {_replicas(found.replicas)} meanwhile: left so"
            if found.replicas != wanted:
                cluster.scale(self.deployment, wanted, expected=found)
            cluster.wait_for_replicas(self.deployment, wanted, within_seconds=self.within_seconds)
        did = "scaled back to" if found.replicas != wanted else "already had"
        return f"{self.deployment} {did} {_replicas(wanted)}"


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number} replicas"
