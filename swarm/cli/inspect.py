"""`inspect --format`: an object of the API and a template in, text out.

Docker executes such templates on typed objects, in which an absent optional field is an empty value; the API
leaves those out of its JSON. `_OPTIONAL` names them, so that a script's template works on both.
"""

from __future__ import annotations

from swarm.base.errors import InvalidArgument

_OPTIONAL = frozenset(
    """Args Command Env Dir User Groups Mounts Secrets Configs Hosts StopSignal StopGracePeriod Labels TTY Init
    Healthcheck DNSConfig Privileges CapabilityAdd CapabilityDrop Hostname ReadOnly OpenStdin Isolation Sysctls
    Limits Reservations Resources NanoCPUs MemoryBytes Pids GenericResources RestartPolicy Condition Delay
    MaxAttempts Window Placement Constraints Preferences MaxReplicas Platforms Networks LogDriver ForceUpdate
    Runtime UpdateConfig RollbackConfig UpdateStatus PreviousSpec ServiceStatus JobStatus EndpointSpec Ports
    VirtualIPs ManagerStatus Leader Message Err ContainerStatus PortStatus NodeID Slot NetworksAttachments
    Replicated Global ReplicatedJob GlobalJob Name Addr Source ReadOnly BindOptions VolumeOptions TmpfsOptions
    PublishedPort PublishMode Protocol Plugins DriverConfig Options Containers Peers Services""".split()
)


def render_object(template: str, item: object) -> str:
    """`item` as `template` says.

    Raises:
        InvalidArgument: the template is wrong.
    """
    from swarm.model.gotemplate import Options, TemplateError, render

    try:
        return render(template, item, Options(optional=_OPTIONAL))
    except TemplateError as error:
        raise InvalidArgument(f"template parsing error: {error}") from None
