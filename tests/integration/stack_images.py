"""Images for the example stacks, under the examples' names, in a registry that all hosts of a lab can reach.

Each is busybox with the demo's web server and a few scripts of a line or two; `db` and `redis` are the same
small store of lines behind HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from swarm.lab.demo_image import Entry, recipe, write_archive
from tests.integration.registry import push, serving

_HEAD = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n"
_SCRIPTS = {
    # ?add=LINE keeps a line, ?take gives the oldest, ?count and ?all tell what there is.
    "www/cgi-bin/rows": _HEAD
    + """touch /data/rows
case $QUERY_STRING in
add=*) echo "${QUERY_STRING#add=}" >> /data/rows ;;
take) head -n 1 /data/rows; sed -i 1d /data/rows ;;
count) wc -l < /data/rows ;;
*) cat /data/rows ;;
esac
""",
    "www/cgi-bin/app": _HEAD + 'ask "$DB_HOST" "/cgi-bin/rows?$QUERY_STRING"\n',
    "www/cgi-bin/vote": _HEAD + 'ask redis "/cgi-bin/rows?add=$QUERY_STRING"\n',
    "www/cgi-bin/result": _HEAD + 'ask db "/cgi-bin/rows?count"\n',
    # A static busybox can ask for names by nslookup only, and its wget wants to know the number of "http".
    "bin/ask": """#!/bin/sh
address=$(nslookup "$1" 127.0.0.11 | awk '/^Name/ {n = 1} n && /^Address/ {print $2; exit}')
printf 'GET %s HTTP/1.0\r\n\r\n' "$2" | nc -w 3 "$address" 80 | sed '1,/^\r*$/d'
""",
    "www/cgi-bin/env": _HEAD + "env\n",
    "worker": """#!/bin/sh
while sleep 0.2; do
    vote=$(ask redis "/cgi-bin/rows?take") || continue
    [ -z "$vote" ] || ask db "/cgi-bin/rows?add=$vote"
done
""",
}
_NAMES = (
    *("web", "visualizer", "db", "app", "redis", "vote", "result", "worker"),
    *("node-exporter", "cadvisor", "prometheus", "alertmanager", "grafana"),
)


@contextmanager
def registry(folder: Path, address: str) -> Iterator[str]:
    """A registry at `address`, which has the images; the value is its host and port."""
    with serving(folder, address) as found:
        _fill(folder, found)
        yield found


def _fill(folder: Path, registry: str) -> None:
    web = recipe("web")
    scripts = tuple(Entry(path=path, content=text.encode()) for path, text in _SCRIPTS.items())
    layers = (*web.layers, (*scripts, Entry(path="data")))
    for name in _NAMES:
        made = replace(web, layers=layers, cmd=("/worker",) if name == "worker" else web.cmd)
        archive = folder / f"{name}.tar"
        write_archive(made, f"{name}:1", archive)
        push(archive, f"{registry}/{name}:1")
