"""Write lock.txt and licences.csv beside this file, from what pip reports it would install (`make lock`).

python requirements/lock.py REPORT.json...
"""

import csv
import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OWN = "ctnet-ray"
PERMISSIVE = re.compile(r"Apache|MIT|BSD|ISC|PSF|Python|Unlicense|Zlib|HPND|CC0", re.I)
OTHERS = re.compile(r"GPL|MPL|Mozilla|EPL|CDDL|proprietary", re.I)


def licence(name: str) -> str:
    """Return what an installed package says of its licence: an expression, classifiers, or a first line."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in said.get_all("Classifier", ())
        if entry.startswith("License ::") and not entry.endswith("OSI Approved")
    ]
    text = said.get("License-Expression") or " AND ".join(classifiers) or said.get("License") or ""
    return text.strip().splitlines()[0][:80] if text.strip() else "not said"


def is_permissive(said: str) -> bool:
    """Whether a licence asks for no more than its notice; what says nothing known is not."""
    return bool(PERMISSIVE.search(said)) and not OTHERS.search(said)


def read(reports: Iterable[str]) -> list[dict[str, Any]]:
    """Return what would be installed, by name."""
    entries = [entry for path in reports for entry in json.loads(Path(path).read_text())["install"]]
    kept = {entry["metadata"]["name"].lower(): entry for entry in entries}
    return [kept[name] for name in sorted(kept) if name != OWN]


def main() -> None:
    """Write both files, and print what is not permissive."""
    entries = read(sys.argv[1:])
    lines = ["# Made by `make lock` on Linux, x86-64, CPython 3.11: what pip takes there, with its SHA-256."]
    rows = []
    for entry in entries:
        name, hashes = entry["metadata"]["name"], entry["download_info"]["archive_info"]["hashes"]
        # The CPU build of torch has a local version.
        version = entry["metadata"]["version"].partition("+")[0]
        lines.append(f"{name}=={version} --hash=sha256:{hashes['sha256']}")
        said = licence(name)
        rows.append((name, version, said, "yes" if is_permissive(said) else "no"))
    (HERE / "lock.txt").write_text("\n".join(lines) + "\n")
    with (HERE / "licences.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("package", "version", "licence", "permissive"))
        writer.writerows(rows)
    for row in rows:
        if row[-1] == "no":
            print(*row[:-1])  # noqa: T201


if __name__ == "__main__":
    main()
