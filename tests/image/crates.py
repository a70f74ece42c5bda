"""Prints the crates that `cargo auditable` wrote into a binary, a name and a version a line."""

import json
import subprocess
import sys
import tempfile
import zlib

with tempfile.NamedTemporaryFile() as section:
    subprocess.run(["objcopy", "--dump-section", f".dep-v0={section.name}", sys.argv[1], "/dev/null"], check=True)
    audit = json.loads(zlib.decompress(section.read()))
for package in audit["packages"]:
    print(package["name"], package["version"])
