"""The lock on a node's keys, and the outside of a backup: what opens them, and that nothing else does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from swarm.node.vault import create_vault, open_vault
from swarm.secrets.archive import ArchiveKey, KeyKind, archive_kind, open_archive, seal_archive
from swarm.secrets.unlock import (
    Locked,
    WrongUnlockKey,
    count_keys,
    make_lock,
    new_locker_key,
    new_unlock_key,
    open_lock,
    parse_unlock_key,
)

KEY, OTHER = new_unlock_key(), new_unlock_key()
LOCKER = new_locker_key()
CLOSED = make_lock(LOCKER, KEY)
BY_KEY = ArchiveKey(KeyKind.UNLOCK_KEY, KEY)
ARCHIVE = seal_archive(b"all there is" * 20, BY_KEY)


def test_an_unlock_key_is_docker_s_shape():
    assert KEY.startswith("SWMKEY-1-")
    assert len(parse_unlock_key(f" {KEY}\n")) == 32
    assert parse_unlock_key(KEY) != parse_unlock_key(OTHER)


@pytest.mark.parametrize(
    "text",
    ["", "SWMKEY-1-", "SWMKEY-2-" + KEY[9:], KEY[:-4], KEY + "AAAA", KEY[9:], KEY + "!"],
    ids=["nothing", "no key", "another version", "too short", "too long", "no prefix", "no base64"],
)
def test_what_is_no_unlock_key(text):
    with pytest.raises(InvalidArgument, match="invalid key string"):
        parse_unlock_key(text)


def test_a_lock_opens_with_its_key_only():
    assert open_lock(CLOSED, KEY) == LOCKER
    assert LOCKER not in CLOSED
    with pytest.raises(Locked):
        open_lock(CLOSED, "")
    with pytest.raises(WrongUnlockKey, match="swarm could not be unlocked: invalid key provided"):
        open_lock(CLOSED, OTHER)
    assert open_lock(make_lock(LOCKER, ""), "") == LOCKER


@given(st.integers(0, len(CLOSED) - 1), st.integers(1, 255))
def test_a_lock_with_a_changed_byte_opens_nothing(place, change):
    changed = bytearray(CLOSED)
    changed[place] ^= change
    with pytest.raises((WrongUnlockKey, FailedPrecondition)):
        open_lock(bytes(changed), KEY)


def test_a_vault_s_files_open_there_under_their_names_only(tmp_path):
    vault = create_vault(tmp_path / "one")
    vault.write(tmp_path / "one" / "a.key", b"secret")
    vault.write(tmp_path / "one" / "b.key", b"other")
    assert vault.read(tmp_path / "one" / "a.key") == b"secret"
    (tmp_path / "one" / "b.key").replace(tmp_path / "one" / "a.key")
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        vault.read(tmp_path / "one" / "a.key")
    vault.write(tmp_path / "one" / "a.key", b"secret")
    with pytest.raises(FailedPrecondition):
        create_vault(tmp_path / "two").read(tmp_path / "one" / "a.key")


def test_locking_again_replaces_the_lock_and_nothing_else(tmp_path):
    vault = create_vault(tmp_path, KEY)
    vault.write(tmp_path / "a.key", b"secret")
    before = (tmp_path / "a.key").read_bytes()
    for _ in range(2):
        vault.lock_with(OTHER)
    with pytest.raises(WrongUnlockKey):
        open_vault(tmp_path, KEY)
    with pytest.raises(Locked):
        open_vault(tmp_path)
    again = open_vault(tmp_path, OTHER)
    assert again.read(tmp_path / "a.key") == b"secret"
    again.lock_with("")
    assert open_vault(tmp_path).read(tmp_path / "a.key") == b"secret"
    assert (tmp_path / "a.key").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"lock", "a.key"}


def test_two_keys_open_a_lock_until_one_is_dropped(tmp_path):
    vault = create_vault(tmp_path, KEY)
    vault.write(tmp_path / "a.key", b"secret")
    vault.lock_with(KEY, OTHER)
    for key in (KEY, OTHER):
        assert open_vault(tmp_path, key).read(tmp_path / "a.key") == b"secret"
    with pytest.raises(Locked):
        open_vault(tmp_path)
    with pytest.raises(WrongUnlockKey):
        open_vault(tmp_path, new_unlock_key())
    open_vault(tmp_path, OTHER).lock_with(OTHER)
    with pytest.raises(WrongUnlockKey):
        open_vault(tmp_path, KEY)
    assert open_vault(tmp_path, OTHER).read(tmp_path / "a.key") == b"secret"


def test_an_open_lock_stays_open_for_a_key_to_come(tmp_path):
    create_vault(tmp_path).lock_with("", KEY)
    open_vault(tmp_path)


def test_locks_count_their_keys():
    assert [count_keys(make_lock(LOCKER, *keys)) for keys in (("",), (KEY,), (KEY, OTHER), ("", KEY))] == [
        0, 1, 2, 0,
    ]  # fmt: skip


def test_a_key_for_an_open_lock_is_not_taken_for_its_key(tmp_path):
    create_vault(tmp_path)
    open_vault(tmp_path, KEY).lock_with(KEY)
    with pytest.raises(Locked):
        open_vault(tmp_path)


def test_a_missing_lock_is_said(tmp_path):
    with pytest.raises(FailedPrecondition, match="lock is missing"):
        open_vault(tmp_path)


def test_a_backup_opens_with_its_passphrase_only():
    archive = seal_archive(b"content", ArchiveKey(KeyKind.PASSPHRASE, "correct horse"))
    assert archive_kind(archive) is KeyKind.PASSPHRASE
    assert open_archive(archive, "correct horse") == b"content"
    with pytest.raises(PermissionDenied, match="does not open with this passphrase"):
        open_archive(archive, "wrong")


def test_a_backup_opens_with_its_unlock_key_only():
    assert open_archive(ARCHIVE, KEY) == b"all there is" * 20
    with pytest.raises(PermissionDenied, match="does not open with this unlock key"):
        open_archive(ARCHIVE, OTHER)
    assert KEY not in repr(BY_KEY)
    assert parse_unlock_key(KEY) not in ARCHIVE
    assert base64.b64decode(KEY[9:] + "=") not in ARCHIVE


@given(st.integers(0, len(ARCHIVE) - 1), st.integers(1, 255))
def test_a_backup_with_a_changed_byte_is_refused(place, change):
    changed = bytearray(ARCHIVE)
    changed[place] ^= change
    with pytest.raises(InvalidArgument):
        open_archive(bytes(changed), KEY)


@settings(max_examples=50)
@given(st.integers(0, len(ARCHIVE) - 1))
def test_a_backup_that_is_cut_is_refused(length):
    with pytest.raises(InvalidArgument):
        open_archive(ARCHIVE[:length], KEY)
    with pytest.raises(InvalidArgument):
        open_archive(ARCHIVE + ARCHIVE[:length][-1:] + b"x", KEY)


@given(st.integers(0, len(ARCHIVE) - 33), st.integers(1, 255))
def test_a_forged_checksum_does_not_help(place, change):
    import hashlib

    changed = bytearray(ARCHIVE[:-32])
    changed[place] ^= change
    forged = bytes(changed) + hashlib.sha256(changed).digest()
    with pytest.raises((InvalidArgument, PermissionDenied)):
        open_archive(forged, KEY)
