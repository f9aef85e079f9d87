"""The image store on this machine: real archives, a real registry, and death at any moment."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from swarm.base.errors import FailedPrecondition, SwarmError, Temporary, Unavailable
from swarm.base.log import Secret
from swarm.lab.demo_image import Entry, Recipe, build, layer_tar, write_archive
from swarm.worker.images import unpack
from swarm.worker.images.errors import ImageInUse, ImageNotFound, InvalidImage
from swarm.worker.images.image import Image
from swarm.worker.images.layers import LayerStore
from swarm.worker.images.pull import Progress
from swarm.worker.images.registry import RegistryAuth
from swarm.worker.images.sandbox import UnpackLimits
from swarm.worker.images.store import ImageStore
from swarm.worker.images.zstd import decompressed
from tests.integration.registry import PASSWORD, push, serving

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    paths = {name: folder / f"{name}.tar" for name in ("busybox", "web")}
    for name, path in paths.items():
        build(name, path)
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    store = ImageStore(tmp_path / "images")
    store.open()
    yield store
    store.close()


async def execute(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def until(condition: Callable[[], bool]) -> None:
    """For the state of other processes, which sends no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


class TestLoad:
    async def test_layers_are_shared_and_named(self, store: ImageStore, archives: dict[str, Path]) -> None:
        (web,) = await store.load(archives["web"])
        (busybox,) = await store.load(archives["busybox"])
        assert web.repo_tags == ("web:latest",)
        assert web.config.exposed_ports == ("80/tcp",)
        assert store.get("web") == store.get(web.id) == store.get(web.short_id) == web
        assert store.lower_dirs(web)[1:] == store.lower_dirs(busybox)
        assert store.layers_size() == web.size < web.size + busybox.size
        shell = store.lower_dirs(busybox)[0] / "bin" / "sh"
        assert os.readlink(shell) == "busybox"
        assert stat.S_IMODE((store.lower_dirs(busybox)[0] / "tmp").stat().st_mode) == 0o1777

    async def test_docker_archives_and_compressed_streams(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        saved = tmp_path / "saved.tar"
        await execute(
            *(
                "skopeo",
                "copy",
                "--quiet",
                f"oci-archive:{archives['web']}",
                f"docker-archive:{saved}:web:saved",
            )
        )
        packed = gzip.compress(saved.read_bytes(), 1)

        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, len(packed), 65536):
                yield packed[start : start + 65536]

        (image,) = await store.load(stream())
        assert image.repo_tags == ("web:saved",)
        assert (store.lower_dirs(image)[0] / "start").exists()

    async def test_zstd_layers(self, store: ImageStore, tmp_path: Path) -> None:
        plain, packed = tmp_path / "layer.tar", tmp_path / "layer.tar.zst"
        plain.write_bytes(layer_tar([Entry(path="a", content=b"1")]))
        await execute("zstd", "-q", str(plain), "-o", str(packed))
        diff_id = "sha256:" + hashlib.sha256(plain.read_bytes()).hexdigest()
        layers = LayerStore(tmp_path / "images", UnpackLimits())
        layer = await layers.add(diff_id, packed)
        assert (layer.folder / "a").read_bytes() == b"1"

    async def test_broken_zstd_is_the_images_fault(self, store: ImageStore, tmp_path: Path) -> None:
        plain, packed = tmp_path / "layer.tar", tmp_path / "layer.tar.zst"
        plain.write_bytes(os.urandom(100_000))
        await execute("zstd", "-q", str(plain), "-o", str(packed))
        packed.write_bytes(packed.read_bytes()[:50_000])
        with pytest.raises(InvalidImage, match="not valid zstd"):
            await LayerStore(tmp_path / "images", UnpackLimits()).add("sha256:" + "0" * 64, packed)

    async def test_a_killed_zstd_is_not(self, tmp_path: Path) -> None:
        plain, packed = tmp_path / "layer.tar", tmp_path / "layer.tar.zst"
        plain.write_bytes(bytes(10_000_000))
        await execute("zstd", "-q", str(plain), "-o", str(packed))
        with packed.open("rb") as file:
            async with decompressed(file.fileno()) as stream:
                os.kill(stream.pid, signal.SIGKILL)
                with pytest.raises(Temporary, match="zstd was ended by SIGKILL"):
                    await stream.check()

    async def test_a_reader_that_has_enough_is_no_failure(self, tmp_path: Path) -> None:
        plain, packed = tmp_path / "layer.tar", tmp_path / "layer.tar.zst"
        plain.write_bytes(bytes(10_000_000))
        await execute("zstd", "-q", str(plain), "-o", str(packed))
        with packed.open("rb") as file:
            async with decompressed(file.fileno()) as stream:
                assert os.read(stream.output, 10) == bytes(10)
                await stream.check()

    async def test_a_repeated_layer_is_mounted_once(self, store: ImageStore, tmp_path: Path) -> None:
        one, two = (Entry(path="a", content=b"1"),), (Entry(path="b", content=b"2"),)
        write_archive(Recipe(layers=(one, two, one), cmd=()), "x:1", tmp_path / "x.tar")
        (image,) = await store.load(tmp_path / "x.tar")
        tops = [sorted(p.name for p in folder.iterdir()) for folder in store.lower_dirs(image)]
        assert tops == [["a"], ["b"]]

    async def test_upper_layers_hide_what_they_deleted(self, store: ImageStore, tmp_path: Path) -> None:
        """The whole way: tar whiteouts, unpacked, as the kernel's overlayfs sees them."""
        below = (Entry(path="gone", content=b"1"), Entry(path="d"), Entry(path="d/old", content=b"1"))
        above = (
            *(
                Entry(path=".wh.gone", content=b""),
                Entry(path="d"),
                Entry(path="d/.wh..wh..opq", content=b""),
            ),
            Entry(path="d/new", content=b"2"),
        )
        write_archive(Recipe(layers=(below, above), cmd=()), "x:1", tmp_path / "x.tar")
        (image,) = await store.load(tmp_path / "x.tar")
        for name in ("upper", "work", "root"):
            (tmp_path / name).mkdir()
        lower = ":".join(str(folder) for folder in store.lower_dirs(image))
        options = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        script = 'mount -t overlay overlay -o "$1" "$2" && cd "$2" && find . | sort > "$3"'
        await execute(
            "unshare", "-m", "sh", "-ec", script, "sh", options, f"{tmp_path}/root", f"{tmp_path}/seen"
        )
        assert (tmp_path / "seen").read_text().split() == [".", "./d", "./d/new"]

    async def test_an_image_without_layers_can_be_mounted(self, store: ImageStore, tmp_path: Path) -> None:
        write_archive(Recipe(layers=(), cmd=()), "x:1", tmp_path / "x.tar")
        (image,) = await store.load(tmp_path / "x.tar")
        assert [p.is_dir() for p in store.lower_dirs(image)] == [True]

    async def test_damaged_archives_are_refused(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        whole = archives["web"].read_bytes()
        for number, content in enumerate(
            (b"", b"hello" * 1000, whole[: len(whole) // 2], whole.replace(b"linux", b"LINUX"))
        ):
            path = tmp_path / f"{number}.tar"
            path.write_bytes(content)
            with pytest.raises(InvalidImage):
                await store.load(path)
        assert store.list() == ()
        assert list((tmp_path / "images" / "tmp").iterdir()) == []


class TestRemove:
    async def test_names_containers_and_layers(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        (web,) = await store.load(archives["web"])
        (busybox,) = await store.load(archives["busybox"])
        store.tag("web", "localhost/mine")
        assert [r.name for r in await store.remove("localhost/mine")] == ["localhost/mine:latest"]
        store.retain(web, "c1")
        with pytest.raises(ImageInUse, match="container c1 is using"):
            await store.remove("web")
        store.close()
        store.open()
        with pytest.raises(ImageInUse):
            await store.remove(web.id, force=True)
        assert store.retained() == ("c1",)
        assert store.image_of("c1").id == web.id
        assert store.image_of("c9") is None
        store.release("c1")
        top = store.lower_dirs(web)[0]
        assert [r.kind for r in await store.remove("web")] == ["untagged", "deleted"]
        assert not top.exists()
        assert store.lower_dirs(busybox)[0].exists()
        with pytest.raises(ImageNotFound, match=r"^No such image: web:latest$"):
            store.get("web")
        with pytest.raises(ImageNotFound):
            store.retain(web, "c2")
        items, freed = await store.prune(unused=True)
        assert freed == busybox.size
        assert [r.kind for r in items] == ["untagged", "deleted"]
        assert list((tmp_path / "images" / "l").iterdir()) == []

    def test_one_process_at_a_time(self, store: ImageStore, tmp_path: Path) -> None:
        with pytest.raises(FailedPrecondition, match="in use by another process"):
            ImageStore(tmp_path / "images").open()


class TestPull:
    async def test_pull_share_and_cache(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        with serving(tmp_path / "registry") as registry:
            push(archives["busybox"], f"{registry}/busybox:1")
            push(archives["web"], f"{registry}/web:1")
            await store.pull(f"{registry}/busybox:1")
            told: list[Progress] = []
            web = await store.pull(f"{registry}/web:1", progress=told.append)
            assert [p.status for p in told if p.id][:3] == [
                "Pulling from web",
                "Already exists",
                "Pulling fs layer",
            ]
            assert told[-1].status == f"Status: Downloaded newer image for {registry}/web:1"
            assert web.repo_tags == (f"{registry}/web:1",)
            again = await store.pull(f"{registry}/web:1", progress=told.append)
            assert again == web
            assert told[-1].status.startswith("Status: Image is up to date")
            described = await store.resolve(f"{registry}/web:1")
            assert web.repo_digests == (f"{registry}/web@{described.digest}",)
            assert [str(p) for p in described.platforms] == [str(store.host)]
        # The registry is gone: a digest that is here needs none, a tag says why it cannot be looked up.
        assert await store.pull(web.repo_digests[0]) == web
        with pytest.raises(Unavailable, match="connection refused"):
            await store.pull(f"{registry}/web:1")

    async def test_many_at_once_do_the_work_once(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        with serving(tmp_path / "registry") as registry:
            push(archives["web"], f"{registry}/web:1")
            told: list[Progress] = []
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(store.pull(f"{registry}/web:1", progress=told.append)) for _ in range(8)
                ]
        assert len({task.result() for task in map(_IdOf, tasks)}) == 1
        assert [p.status for p in told].count("Extracting") == 2

    async def test_what_is_not_there_says_so(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        with serving(tmp_path / "registry", login=True) as registry:
            push(archives["web"], f"{registry}/web:1", login=True)
            ann = RegistryAuth(username="ann", password=Secret(PASSWORD))
            eve = RegistryAuth(username="eve", password=Secret("guess"))
            for auth in (None, eve):
                with pytest.raises(
                    ImageNotFound, match=f"^pull access denied for {registry}/web, repository"
                ):
                    await store.pull(f"{registry}/web:1", auth)
            with pytest.raises(
                ImageNotFound, match=f"^manifest for {registry}/web:2 not found: manifest unknown"
            ):
                await store.pull(f"{registry}/web:2", ann)
            image = await store.pull(f"{registry}/web:1", ann)
            assert image.repo_tags == (f"{registry}/web:1",)
        assert PASSWORD not in "".join(
            p.read_text(errors="replace") for p in tmp_path.glob("images/**/*.json")
        )

    async def test_a_tampered_layer_is_never_unpacked(
        self, store: ImageStore, archives: dict[str, Path], tmp_path: Path
    ) -> None:
        with serving(tmp_path / "registry") as registry:
            push(archives["busybox"], f"{registry}/busybox:1")
            blobs = [p for p in (tmp_path / "registry").rglob("data") if p.stat().st_size > 100_000]
            content = bytearray(blobs[0].read_bytes())
            content[5000] ^= 1
            blobs[0].write_bytes(content)
            with pytest.raises(SwarmError):
                await store.pull(f"{registry}/busybox:1")
        assert list((tmp_path / "images" / "l").iterdir()) == []
        assert list((tmp_path / "images" / "tmp").iterdir()) == []

    async def test_a_silent_registry_is_given_up_and_cancelling_leaves_nothing(
        self, store: ImageStore, tmp_path: Path
    ) -> None:
        connected = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            try:
                await _reader.read()
            finally:
                writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            pull = asyncio.ensure_future(store.pull(f"127.0.0.1:{port}/web:1"))
            await asyncio.wait_for(connected.wait(), 10)
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
        finally:
            server.close()
            await server.wait_closed()
        assert running_in(tmp_path) == []
        assert list((tmp_path / "images" / "tmp").iterdir()) == []


class _IdOf:
    """A finished pull reduced to its image's id (images are not hashable: labels are a dict)."""

    def __init__(self, task: asyncio.Task[Image]) -> None:
        self._task = task

    def result(self) -> str:
        return self._task.result().id


def running_in(folder: Path) -> list[str]:
    """Command lines of processes that name `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


CHILD = """
import asyncio, sys
from pathlib import Path
from swarm.worker.images.layers import LayerStore
from swarm.worker.images.sandbox import UnpackLimits
async def main():
    layers = LayerStore(Path(sys.argv[1]), UnpackLimits())
    layers.recover()
    await layers.add(sys.argv[2], Path(sys.argv[3]), lambda: print("unpacking", flush=True))
    print("done", flush=True)
asyncio.run(main())
"""


class TestCrash:
    @pytest.mark.parametrize("files_seen", [0, 1, 500])
    async def test_killed_while_unpacking(self, tmp_path: Path, files_seen: int) -> None:
        """A whole layer or none, no helper left, and the next start works."""
        plain = layer_tar(Entry(path=f"f{n:05}", content=b"x" * 100) for n in range(5000))
        diff_id = "sha256:" + hashlib.sha256(plain).hexdigest()
        whole, endless = tmp_path / "layer.tar", tmp_path / "endless.tar"
        for path in (whole, endless):
            path.write_bytes(plain)
        os.truncate(endless, 32 << 30)  # a hole behind the last entry: reading it takes longer than any kill
        root = tmp_path / "images"
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, str(root), diff_id, str(endless)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout
        assert await asyncio.wait_for(child.stdout.readline(), 20) == b"unpacking\n"
        await until(lambda: sum(len(os.listdir(folder)) for folder in (root / "l").iterdir()) >= files_seen)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await until(lambda: not running_in(root))
        layers = LayerStore(root, UnpackLimits())
        layers.recover()
        assert layers.find(diff_id) is None
        assert list((root / "l").iterdir()) == []
        layer = await layers.add(diff_id, whole)
        assert len(list(layer.folder.iterdir())) == 5000

    async def test_a_program_whose_parent_died_before_it_began_does_nothing(self, tmp_path: Path) -> None:
        folder, tar = tmp_path / "layer", tmp_path / "layer.tar"
        folder.mkdir()
        tar.write_bytes(layer_tar([Entry(path="a", content=b"1")]))
        limits = ("--max-bytes", "1000000", "--max-entries", "10")
        for parent, code, seen in ((os.getpid(), 0, ["a"]), (1, 1, [])):
            argv = ("--kind", "layer", "--folder", str(folder), "--parent", str(parent), *limits)
            with tar.open("rb") as stdin:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-S",
                    unpack.__file__,
                    *argv,
                    stdin=stdin,
                    stdout=asyncio.subprocess.DEVNULL,
                )
            assert await asyncio.wait_for(process.wait(), 20) == code
            assert [path.name for path in folder.iterdir()] == seen
            for path in folder.iterdir():
                path.unlink()

    async def test_lost_pieces_are_forgotten(self, tmp_path: Path, archives: dict[str, Path]) -> None:
        store = ImageStore(tmp_path / "images")
        store.open()
        (web,) = await store.load(archives["web"])
        store.lower_dirs(web)[0].rename(tmp_path / "stolen")
        (tmp_path / "images" / "tmp" / "half").mkdir()
        store.close()
        store.open()
        assert store.list() == ()
        (again,) = await store.load(archives["web"])
        assert again.id == web.id
        store.close()
