"""Writes what is in an image as a bill of materials (CycloneDX 1.6): packages of Debian, libraries of Python, ComfyUI.

    python3 tools/sbom.py comfy-serverless:cpu out/sbom-cpu.json

The image itself is asked, in a container without a network: not the files that it was meant to be built from. Standard
library only. Any scanner reads it: see `tools/scan.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]

_ASK = r"""
. /etc/os-release
echo "os|$ID|$VERSION_ID"
dpkg-query -W -f 'deb|${binary:Package}|${Version}|${Architecture}|${source:Package}\n'
find / -xdev -path '*.dist-info/METADATA' 2>/dev/null | while read -r file; do
  echo "py|$(sed -n 's/^Name: *//p;/^$/q' "$file" | head -n 1)|$(sed -n 's/^Version: *//p;/^$/q' "$file" | head -n 1)"
done
sed -n 's/^__version__ *= *"\(.*\)"/comfyui|\1/p' /opt/comfyui/comfyui_version.py 2>/dev/null
python3 - <<'END'
import json, os
release, packs = "/opt/release.json", "/opt/comfyui/custom_nodes"
# The images without ComfyUI have one, too, which tells what the worker is built from: it names no packs.
versions = json.load(open(release)).get("packs", {}) if os.path.exists(release) else {}
for name in sorted(os.listdir(packs)) if os.path.isdir(packs) else ():
    if not name.startswith(("__", ".")) and (name in versions or os.path.isdir(os.path.join(packs, name))):
        print("pack|%s|%s" % (name, versions.get(name, "")))
END
"""


def main(image: str, target: str) -> int:
    """Write the bill; answers the exit code."""
    try:
        bill = bill_of(image, _docker("image", "inspect", "--format", "{{.Id}}", image).strip(), _facts(image))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{image} cannot be asked what is in it: it must be built, and a container engine must run ({error})")
        return 2
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill, indent=1), encoding="utf-8")
    print(f"{path}: {len(bill['components'])} components of {image}")
    return 0


def bill_of(image: str, digest: str, facts: str) -> dict[str, Any]:
    """The bill of an image, from the lines that it has said of itself."""
    components = sorted(_components(facts), key=lambda component: str(component["bom-ref"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest + facts)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {"type": "container", "bom-ref": "image", "name": image, "version": digest},
        },
        "components": list({component["bom-ref"]: component for component in components}.values()),
    }


def _components(facts: str) -> Iterator[Component]:
    distribution = "debian"
    for line in facts.splitlines():
        match line.split("|"):
            case ["os", name, version]:
                distribution = f"{name}-{version}"
                yield {"type": "operating-system", "bom-ref": "os", "name": name, "version": version}
            case ["deb", name, version, architecture, source]:
                # Scanners know vulnerabilities by the package of the source.
                qualifiers = f"arch={architecture}&distro={distribution}&upstream={quote(source, safe='')}"
                yield _library("deb/debian", name.partition(":")[0], version, f"?{qualifiers}")
            case ["py", name, version] if name and version:
                yield _library("pypi", re.sub(r"[-_.]+", "-", name).lower(), version)
            case ["comfyui", version]:
                yield _library("github/comfyanonymous", "comfyui", f"v{version}") | {"type": "application"}
            case ["pack", name, version]:
                pack = {"type": "library", "group": "custom_nodes", "bom-ref": f"pack:{name}", "name": name}
                yield pack | ({"version": version} if version else {})


def _library(kind: str, name: str, version: str, qualifiers: str = "") -> Component:
    purl = f"pkg:{kind}/{quote(name, safe='')}@{quote(version, safe='')}{qualifiers}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _facts(image: str) -> str:
    return _docker("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", image, "-c", _ASK)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
