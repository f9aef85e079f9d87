from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.image_reference import parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("nginx", "docker.io/library/nginx", "nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/nginx", "docker.io/library/nginx", "nginx"),
        ("index.docker.io/user/app:2", "docker.io/user/app:2", "user/app:2"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app", "127.0.0.1:5000/app"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"),
        ("Host/app", "Host/app", "Host/app"),
        ("ghcr.io/a/b/c__d:V1.0-rc_1", "ghcr.io/a/b/c__d:V1.0-rc_1", "ghcr.io/a/b/c__d:V1.0-rc_1"),
        (f"web@{DIGEST}", f"docker.io/library/web@{DIGEST}", f"web@{DIGEST}"),
        (f"r.io:1/web:2@{DIGEST}", f"r.io:1/web:2@{DIGEST}", f"r.io:1/web:2@{DIGEST}"),
        ("docker.io/library/a", "docker.io/library/a", "a"),
    ],
)
def test_references_have_a_full_and_a_familiar_form(text: str, full: str, short: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar()) == (full, short)
    assert parse_reference(full) == parse_reference(short) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        "/a",
        "a/",
        "a//b",
        "-a",
        "a@",
        "a@sha256:12",
        f"a@sha512:{'a' * 128}",
        "a:b:c",
        "a b",
        "a:\n",
    ],
)
def test_malformed_references_are_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid reference format"):
        parse_reference(text)


def test_upper_case_repositories_get_the_reason() -> None:
    with pytest.raises(InvalidArgument, match=r"repository name \(library/Nginx\) must be lowercase"):
        parse_reference("Nginx")


def test_an_image_id_is_not_a_name() -> None:
    with pytest.raises(InvalidArgument, match="cannot specify 64-byte hexadecimal strings"):
        parse_reference("a" * 64)


def test_very_long_names_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="must not be more than 255 characters"):
        parse_reference("a/" * 130 + "a")


def test_latest_is_added_only_to_a_bare_name() -> None:
    assert str(parse_reference("web").with_default_tag()) == "docker.io/library/web:latest"
    assert parse_reference(f"web@{DIGEST}").with_default_tag().tag is None
