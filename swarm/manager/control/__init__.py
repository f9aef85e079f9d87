"""What users change in the cluster: validate, then one transaction."""

from swarm.manager.control.control import Control
from swarm.manager.control.store import Store

__all__ = ["Control", "Store"]
