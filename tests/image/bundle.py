"""Writes the bundle with which runc runs an image: as the image's configuration says, with a read-only root, without capabilities, in the host's network.

Usage: bundle.py INSPECT_JSON ROOTFS BUNDLE [--bind SOURCE TARGET ro|rw]... -- [ARGUMENT...]
"""

import json
import pathlib
import sys


def main() -> None:
    inspect, rootfs, bundle, *rest = sys.argv[1:]
    binds, arguments = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    image = json.loads(pathlib.Path(inspect).read_text())["Docker"]["config"]
    uid, gid = map(int, image["User"].split(":"))
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    ]
    for _, source, target, mode in zip(*[iter(binds)] * 4):
        mounts.append({"destination": target, "type": "bind", "source": source, "options": ["bind", mode]})
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": image["Entrypoint"] + (arguments or image["Cmd"]),
            "env": image["Env"],
            "cwd": image["WorkingDir"],
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts")]},
    }
    path = pathlib.Path(bundle)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))


main()
