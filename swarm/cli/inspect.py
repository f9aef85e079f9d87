"""`inspect --format`: an object of the API and a template in, text out.

Docker executes such templates on typed objects, in which an absent optional field is an empty value; the API
leaves those out of its JSON. `_OPTIONAL` names them, so that a script's template works on both.
"""

from __future__ import annotations

from swarm.base.errors import InvalidArgument

_OPTIONAL = frozenset(
    {
        "Addr",
        "Args",
        "BindOptions",
        "CapabilityAdd",
        "CapabilityDrop",
        "Command",
        "Condition",
        "Configs",
        "Constraints",
        "ContainerStatus",
        "Containers",
        "DNSConfig",
        "Delay",
        "Dir",
        "DriverConfig",
        "EndpointSpec",
        "Env",
        "Err",
        "ForceUpdate",
        "GenericResources",
        "Global",
        "GlobalJob",
        "Groups",
        "Healthcheck",
        "Hostname",
        "Hosts",
        "Init",
        "Isolation",
        "JobStatus",
        "Labels",
        "Leader",
        "Limits",
        "LogDriver",
        "ManagerStatus",
        "MaxAttempts",
        "MaxReplicas",
        "MemoryBytes",
        "Message",
        "Mounts",
        "Name",
        "NanoCPUs",
        "Networks",
        "NetworksAttachments",
        "NodeID",
        "OpenStdin",
        "Options",
        "Peers",
        "Pids",
        "Placement",
        "Platforms",
        "Plugins",
        "PortStatus",
        "Ports",
        "Preferences",
        "PreviousSpec",
        "Privileges",
        "Protocol",
        "PublishMode",
        "PublishedPort",
        "ReadOnly",
        "Replicated",
        "ReplicatedJob",
        "Reservations",
        "Resources",
        "RestartPolicy",
        "RollbackConfig",
        "Runtime",
        "Secrets",
        "ServiceStatus",
        "Services",
        "Slot",
        "Source",
        "StopGracePeriod",
        "StopSignal",
        "Sysctls",
        "TTY",
        "TmpfsOptions",
        "UpdateConfig",
        "UpdateStatus",
        "User",
        "VirtualIPs",
        "VolumeOptions",
        "Window",
    }
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
