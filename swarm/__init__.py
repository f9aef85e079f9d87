"""A cluster orchestrator: Docker Swarm's commands on a base that does not get stuck."""

__version__ = "0.1.0"
