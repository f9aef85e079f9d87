"""Options that do not fit the service are refused."""

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.option_rules import check_service_options
from swarm.model.options import container_options, service_options
from swarm.model.specs import GlobalMode, ReplicatedJob, ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.types import ResourceRequirements, Resources, UpdateConfig, UpdateOrder

JOB = ServiceMode(replicated_job=ReplicatedJob())
REPLICATED = ServiceMode(replicated=ReplicatedMode())
GLOBAL = ServiceMode(global_=GlobalMode())
START_FIRST = UpdateConfig(order=UpdateOrder.START_FIRST)


def labels(**ours):
    return {f"swarm.{key.replace('__', '.').replace('_', '-')}": value for key, value in ours.items()}


@pytest.mark.parametrize(
    ("mode", "ours", "message"),
    [
        (REPLICATED, {"schedule": "@daily"}, "schedule can only be used with replicated-job"),
        (JOB, {"schedule": "0 0 30 2 *"}, "there is no such day"),
        (JOB, {"schedule": "@daily", "schedule__timezone": "Mars"}, "unknown time zone"),
        (JOB, {"schedule": "@daily", "schedule__history": "0"}, "at least the last run"),
        (JOB, {"schedule__history": "3"}, "swarm.schedule is missing"),
        (GLOBAL, {"autoscale": "max=3,cpu=50%"}, "autoscale can only be used with replicated mode"),
        (REPLICATED, {"autoscale": "max=3,memory=50%"}, "needs a memory limit"),
        (REPLICATED, {"exclusive": "true", "restart__overlap": "true"}, "restarts that overlap"),
        (GLOBAL, {"rebalance": "1"}, "rebalance can only be used with replicated mode"),
    ],
)
def test_refused(mode, ours, message):
    with pytest.raises(InvalidArgument, match=message):
        check_service_options(ServiceSpec(name="web", mode=mode, labels=labels(**ours)))


def test_exclusive_is_never_start_first():
    spec = ServiceSpec(labels=labels(exclusive="true"), update_config=START_FIRST)
    with pytest.raises(InvalidArgument, match="use stop-first"):
        check_service_options(spec)


def test_what_fits():
    limits = ResourceRequirements(limits=Resources(memory_bytes=1 << 26))
    spec = ServiceSpec(
        labels=labels(autoscale="min=2,max=3,memory=50%,cooldown=1m30s", depends_on="db:healthy,cache"),
        task_template=TaskSpec(resources=limits),
    )
    options = check_service_options(spec)
    assert options.autoscale.cooldown.total_seconds() == 90
    assert [(each.service, each.condition) for each in options.depends_on] == [
        ("db", "healthy"),
        ("cache", "started"),
    ]


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"exclusiv": "true"}, "unknown option label swarm.exclusiv"),
        ({"exclusive": "yes"}, "expected true or false"),
        ({"autoscale": "max=3"}, "expected a target"),
        ({"autoscale": "min=4,max=3,cpu=1%"}, "expected min"),
        ({"autoscale": "max=3,cpu=0%"}, "expected a percentage"),
        ({"autoscale": "max=3,cpu=5%,max=4"}, "expected min=N"),
        ({"depends_on": "db:ready"}, "expected started or healthy or completed"),
        ({"depends_on": "db,,web"}, "expected a list"),
        ({"update__progress_deadline": "10"}, "expected a duration"),
        ({"placement__strategy": "random"}, "expected spread or binpack"),
        ({"rebalance": "-1"}, "expected a whole number"),
    ],
)
def test_bad_service_options(ours, message):
    with pytest.raises(InvalidArgument, match=message):
        service_options(labels(**ours))


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"exclusive": "true"}, "unknown option label swarm.exclusive"),
        ({"pid": "container:x"}, "expected host"),
        ({"shm_size": "lots"}, "expected a size"),
    ],
)
def test_bad_container_options(ours, message):
    with pytest.raises(InvalidArgument, match=message):
        container_options(labels(**ours))
