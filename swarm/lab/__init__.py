"""Several hosts on one machine: what `swarm lab` does, and what the integration tests run on."""
