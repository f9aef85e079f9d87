"""Secrets and configs as users make them: what is refused, how, and that the store stays as it was then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, InvalidArgument, NotFound, OutOfSequence
from swarm.base.ids import SequentialIds
from swarm.manager.control import Control
from swarm.manager.control.payloads import DELETED_AT_ONCE
from swarm.model.objects import Config, Payload, Secret, payload_id
from swarm.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.types import Mount, MountType
from tests.fakes.fake_store import FakeStore

START = datetime(2026, 1, 1, tzinfo=UTC)
SECRET_LIMIT = 500 * 1024
CONFIG_LIMIT = 1000 * 1024


class Here:
    def __init__(self) -> None:
        clock = FakeClock(START)
        self.store = FakeStore(clock)
        self.control = Control(self.store, clock, SequentialIds("id"), lambda _: True)
        self.payloads = self.control.payloads

    async def refuses(self, error, sentence, action):
        """`action` is refused in these words and has changed nothing."""
        before = self.store.revision
        with pytest.raises(error) as caught:
            await action
        assert sentence in str(caught.value)
        assert self.store.revision == before

    async def secret(self, name="s", data=b"x"):
        return await self.payloads.create_secret(SecretSpec(name=name, data=data))


@pytest.fixture
def here():
    return Here()


def service(name="web", secrets=(), configs=(), **container):
    spec = ContainerSpec(image="busybox", secrets=secrets, configs=configs, **container)
    return ServiceSpec(name=name, task_template=TaskSpec(container_spec=spec))


def uses(secret, target="password", **more):
    file = {"name": target} | {k: more.pop(k) for k in ("uid", "gid", "mode") if k in more}
    return SecretReference(secret_id=secret.id, secret_name=secret.spec.name, file=FileTarget(**file), **more)


async def test_the_object_never_has_the_data(here):
    secret = await here.secret(data=b"hunter2")
    stored = here.store.view.get(Secret, secret.id)
    assert stored.spec.data == b""
    assert here.store.view.get(Payload, payload_id(secret.id, 1)).data == b"hunter2"
    assert "hunter2" not in repr(here.store.commits)


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "-a", "a-", ".", "a b", "a/b", "../a", "a\n", "ä", "a\0b", "_a"]
)
async def test_bad_names(here, name):
    sentence = "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"
    await here.refuses(InvalidArgument, sentence, here.secret(name))
    config = here.payloads.create_config(ConfigSpec(name=name, data=b"x"))
    await here.refuses(InvalidArgument, sentence, config)


async def test_sizes(here):
    await here.secret("fits", b"x" * (SECRET_LIMIT - 1))
    await here.payloads.create_config(ConfigSpec(name="fits", data=b"x" * (CONFIG_LIMIT - 1)))
    for size in (0, SECRET_LIMIT):
        sentence = f"secret data must be larger than 0 and less than {SECRET_LIMIT} bytes"
        await here.refuses(InvalidArgument, sentence, here.secret("wrong", b"x" * size))
    for size in (0, CONFIG_LIMIT):
        sentence = f"config data must be larger than 0 and less than {CONFIG_LIMIT} bytes"
        config = here.payloads.create_config(ConfigSpec(name="wrong", data=b"x" * size))
        await here.refuses(InvalidArgument, sentence, config)


async def test_a_name_is_taken_once_of_each_kind(here):
    await here.secret("n")
    await here.refuses(AlreadyExists, "secret n already exists", here.secret("n"))
    await here.payloads.create_config(ConfigSpec(name="n", data=b"x"))


async def test_only_labels_are_updated(here):
    await here.payloads.create_secret(SecretSpec(name="s", data=b"x", labels={"a": "1"}))
    stored = here.store.view.named(Secret, "s")[0]
    version = stored.meta.version.index
    sentence = "only updates to Labels are allowed"
    for spec in (
        replace(stored.spec, name="t"),
        replace(stored.spec, data=b"y"),
    ):
        await here.refuses(InvalidArgument, sentence, here.payloads.relabel_secret("s", version, spec))
    await here.refuses(
        OutOfSequence, "out of sequence", here.payloads.relabel_secret("s", version - 1, stored.spec)
    )
    await here.payloads.relabel_secret("s", version, replace(stored.spec, data=b"x", labels={"b": "2"}))
    assert here.store.view.named(Secret, "s")[0].spec == SecretSpec(name="s", labels={"b": "2"})


async def test_what_is_used_is_not_removed(here):
    secret = await here.secret("db_pass")
    for name in ("one", "two"):
        await here.control.create_service(service(name, secrets=(uses(secret),)))
    sentence = "secret 'db_pass' is in use by the following services: one, two"
    await here.refuses(InvalidArgument, sentence, here.payloads.remove(Secret, "db_pass"))
    await here.control.remove_service("two")
    sentence = "secret 'db_pass' is in use by the following service: one"
    await here.refuses(InvalidArgument, sentence, here.payloads.remove(Secret, "db_pass"))
    await here.control.remove_service("one")
    await here.payloads.remove(Secret, "db_pass")
    assert here.store.view.list(Secret) == here.store.view.list(Payload) == ()
    await here.refuses(NotFound, "secret db_pass not found", here.payloads.remove(Secret, "db_pass"))


async def test_all_versions_go_with_it(here):
    config = await here.payloads.create_config(ConfigSpec(name="c", data=b"x"))
    last = DELETED_AT_ONCE * 2 + 1
    for number in range(2, last + 1):
        here.store.put(Payload(id=payload_id(config.id, number), data=b"y"))
    here.store.put(replace(here.store.view.get(Config, config.id), last=last))
    await here.payloads.remove(Config, "c")
    assert here.store.view.list(Config) == here.store.view.list(Payload) == ()


CASES = [
    ({"target": ""}, "invalid target file name provided"),
    ({"target": "../x"}, "invalid target file name provided"),
    ({"target": "/a/../../etc/shadow"}, "invalid target file name provided"),
    ({"target": "a\nb"}, "invalid target file name provided"),
    ({"target": "dir/"}, "invalid target file name provided"),
    ({"target": "/"}, "invalid target file name provided"),
    ({"target": "/dev/null"}, "no file can be put at '/dev/null'"),
    ({"target": "/sys/x"}, "no file can be put at '/sys/x'"),
    ({"uid": "root"}, "invalid uid 'root': it must be a number from 0 to 4294967294"),
    ({"uid": ""}, "invalid uid ''"),
    ({"uid": "4294967295"}, "invalid uid '4294967295'"),
    ({"gid": "-1"}, "invalid gid '-1'"),
    ({"gid": "1" * 5000}, "invalid gid '111"),
    ({"gid": "\u0661"}, "invalid gid '\u0661'"),
    ({"mode": -1}, "invalid mode"),
    ({"mode": 0o10000}, "invalid mode 10000"),
    ({"version": -1}, "versions are counted from 1"),
    ({"version": 2}, "secret not found: s (version 2)"),
]


@pytest.mark.parametrize(("change", "sentence"), CASES, ids=str)
async def test_bad_references(here, change, sentence):
    secret = await here.secret()
    spec = service(secrets=(uses(secret, **change),))
    await here.refuses(InvalidArgument, sentence, here.control.create_service(spec))


async def test_references_to_what_is_not_there(here):
    gone = replace(await here.secret("other"), id="nowhere")
    missing = replace(uses(gone), secret_name="a"), replace(uses(gone, "p2"), secret_name="b")
    await here.refuses(
        InvalidArgument, "secrets not found: a, b", here.control.create_service(service(secrets=missing))
    )
    config = ConfigReference(config_id="nowhere", config_name="c", file=FileTarget(name="c"))
    await here.refuses(
        InvalidArgument, "config not found: c", here.control.create_service(service(configs=(config,)))
    )
    for broken in (SecretReference(secret_name="other"), replace(uses(gone), secret_name="")):
        await here.refuses(
            InvalidArgument,
            "malformed secret reference",
            here.control.create_service(service(secrets=(broken,))),
        )
    no_file = replace(uses(gone), file=None)
    await here.refuses(
        InvalidArgument, "names no target file", here.control.create_service(service(secrets=(no_file,)))
    )


async def test_one_place_for_two_files(here):
    one, two = await here.secret("one"), await here.secret("two")
    made = await here.payloads.create_config(ConfigSpec(name="conf", data=b"x"))
    config = ConfigReference(
        config_id=made.id, config_name="conf", file=FileTarget(name="/run/secrets/password")
    )
    mount = Mount(type=MountType.TMPFS, target="/run/secrets/password/")
    cases = [
        (
            service(secrets=(uses(one), uses(two))),
            "secret references 'one' and 'two' have a conflicting target",
        ),
        (
            service(secrets=(uses(one), uses(two, "./password"))),
            "conflicting target: '/run/secrets/password'",
        ),
        (
            service(secrets=(uses(one, "password/x"), uses(two))),
            "conflicting target: '/run/secrets/password'",
        ),
        (service(secrets=(uses(one),), configs=(config,)), "secret and config references 'one' and 'conf'"),
        (service(secrets=(uses(one),), mounts=(mount,)), "and a mount have a conflicting target"),
    ]
    for spec, sentence in cases:
        await here.refuses(InvalidArgument, sentence, here.control.create_service(spec))


async def test_a_rollback_to_a_secret_that_is_gone_is_refused(here):
    old, new = await here.secret("old"), await here.secret("new")
    made = await here.control.create_service(service(secrets=(uses(old),)))
    await here.control.update_service("web", made.meta.version.index, service(secrets=(uses(new),)))
    await here.payloads.remove(Secret, "old")
    version = here.store.view.list(type(made))[0].meta.version.index
    await here.refuses(
        InvalidArgument, "secret not found: old", here.control.rollback_service("web", version)
    )
