# SPDX-License-Identifier: Apache-2.0
"""The site: `nox -s site`. mkdocs, strictly, then every link of the pages that came out; addresses outside are listed.

The site's tools have an environment of their own, from docker/site.lock, in .nox/site-env. Nothing of .venv is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ci import env as environment

ROOT = Path(__file__).resolve().parent.parent
LOCK = "docker/site.lock"
SITE = ROOT / "build" / "site"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, default=ROOT / ".nox" / "site-env", help="where mkdocs is installed")
    parser.add_argument("--out", type=Path, default=SITE, help="where the pages are written")
    options = parser.parse_args(argv)
    install(options.env)
    if code := build(options.env, options.out):
        print("site: mkdocs is red", file=sys.stderr)
        return code
    broken, outside = links(options.out)
    for line in broken:
        print(f"site: {line}", file=sys.stderr)
    (options.out.parent / "site-outside.txt").write_text("".join(f"{a}\n" for a in outside), encoding="utf-8")
    pages = len(list(options.out.rglob("*.html")))
    print(
        f"site: {pages} pages in {options.out}, {len(broken)} broken links; "
        f"{len(outside)} addresses outside, not asked:"
    )
    print("".join(f"  {address}\n" for address in outside), end="")
    return 1 if broken else 0


def install(env: Path) -> None:
    """The tools from their lock; kept while the lock is the same."""
    stamp, wanted = env / ".built-from", (ROOT / LOCK).read_bytes()
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    print(f"Installing the site's tools in {env}", flush=True)
    shutil.rmtree(env, ignore_errors=True)
    settings = environment.index_settings(dict(os.environ))
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(env)], check=True, env=settings)
    sync = [*uv, "pip", "sync", "-q", "--python", str(env / "bin" / "python"), "--require-hashes", LOCK]
    subprocess.run(sync, check=True, env=settings, cwd=ROOT)
    stamp.write_bytes(wanted)


def build(env: Path, out: Path) -> int:
    """mkdocs with every warning an error. Its own notices about other versions of itself are left out."""
    command = [str(env / "bin" / "mkdocs"), "build", "--strict", "--quiet", "--clean", "--site-dir", str(out)]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    return subprocess.run(command, check=False, cwd=ROOT, env=settings).returncode


class _Page(HTMLParser):
    """Where a page points to, and which places in it can be pointed to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.places.add(value)
            elif name in ("href", "src"):
                self.targets.append(value)


def links(site: Path) -> tuple[list[str], list[str]]:
    """(broken links inside the site as `page: target`, addresses outside), both sorted. Nothing outside is asked."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    broken, outside = set(), set()
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # written for the root of a server
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                outside.add(target)
            elif not _leads(path, parts.path, unquote(parts.fragment), pages):
                broken.add(f"{path.relative_to(site)}: {target}")
    return sorted(broken), sorted(outside)


def _leads(page: Path, path: str, fragment: str, pages: dict[Path, _Page]) -> bool:
    target = (page.parent / unquote(path)).resolve() if path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    return not fragment or fragment == "__top" or target not in pages or fragment in pages[target].places


if __name__ == "__main__":
    sys.exit(main())
