# SPDX-License-Identifier: Apache-2.0
"""The catalogue of errors: id, sentence, cause, remedy, page. `fvport explain E0123` prints one.

`errors_catalogue.json` has one entry for each sentence in the code, by the module that says it; it is written by
`nox -s site_pages`, and a test is red when a sentence in the code has no entry. An id is never used twice. Cause and
remedy are those of the sentence's family, below; where the sentence brings its own remedy, that comes first.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from fvport.errors import UsageError

if TYPE_CHECKING:
    from fvport.rules import Rule

HOLE = "{}"


@dataclass(frozen=True)
class Family:
    """A class of trouble: why it comes up, what to do about it, and the page of the site."""

    cause: str
    remedy: str
    page: str


FAMILIES = {
    "port.toml": Family(
        "port.toml says something that this version does not read, or two of its values contradict each other",
        "Mend the line that is named. Keys, types and lists of words are on the page",
        "reference/port-toml.md",
    ),
    "answers": Family(
        "An answer to `fvport new` cannot be used, or the place to write to is taken",
        "`fvport new --list` names the keys and their defaults",
        "port-your-own.md",
    ),
    "release": Family(
        "The release on disk is not whole, or has a form that is not known",
        "Fetch the named file again; `fvport inspect PATH` says what is there",
        "port-your-own.md",
    ),
    "hub": Family(
        "The hub did not give what was asked for: no network, another name, a gated repository, no token, a wrong one, "
        "or no room on the disk",
        "Check the id in a browser; for a gated one accept its terms and set HF_TOKEN. What came stays and is used",
        "port-your-own.md",
    ),
    "lock": Family(
        "The weights or the official code are not those that port.lock.json holds",
        "If the change is meant, `fvport prep` locks again; if not, bring the locked ones back",
        "port-your-own.md",
    ),
    "conversion": Family(
        "The declared conversion does not fit the release, or could not be carried out",
        "Mend scripts/checkpoint_conversion/SLUG_to_diffusers.py, then `fvport convert`; it goes on where it was",
        "gate/conversion.md",
    ),
    "mapping": Family(
        "A mapping rule is not valid, or was not looked at in its present form",
        "`fvport mapping review` shows the rules; `fvport mapping suggest` proposes some",
        "mapping.md",
    ),
    "load tree": Family(
        "The folder that the native side loads cannot be made, or is not the one that port.toml describes",
        "`fvport prep` makes it again",
        "gate/smoke.md",
    ),
    "workspace": Family(
        "The FastVideo tree, its git state or the official repository is not as the port needs it",
        "`fvport workspace` makes the tree, with --undo it takes the registration back; `fvport doctor` looks",
        "port-your-own.md",
    ),
    "native": Family(
        "FastVideo cannot be started from the port's tree, or cannot build or load the native class",
        "The sentence names class or file; `fvport check smoke` and `fvport check keys` look from nearer by",
        "gate/smoke.md",
    ),
    "official": Family(
        "The official side cannot be run: its code, its packages, or oracle.py",
        "Run `fvport prep`; if oracle.py is named, mend it: it is the port's own file",
        "gate/parity.md",
    ),
    "comparison": Family(
        "There was nothing to compare, or the comparison itself could not be trusted",
        "Mend the port's test or oracle.py where it is named; then run the check again",
        "gate/parity.md",
    ),
    "trace": Family(
        "There is no trace to read, or it is not of this component",
        "Run `fvport trace COMPONENT` without --from first",
        "trace.md",
    ),
    "strength": Family("No fault could be planted or counted", "Run `fvport check parity` first", "strength.md"),
    "media": Family(
        "A media file or a reference cannot be read, or two cannot be compared",
        "`fvport media compare A B` looks at two files; `fvport references list` at the store",
        "gate/ssim.md",
    ),
    "evidence": Family(
        "A record of a check is not there, not whole, or not of this code",
        "Run the check that is named; `fvport status` says which is next",
        "gate/index.md",
    ),
    "cluster": Family(
        "The jobs of the gate cannot be planned or sent",
        "`fvport doctor` has a row for Slurm; runners.toml says where each check runs",
        "ci.md",
    ),
    "census": Family("The census has no such case, or cannot run here", "`fvport audit` alone runs all", "census.md"),
    "reuse": Family(
        "Whether a class of FastVideo's serves could not be found out",
        "The sentence says what lacks; `fvport reuse COMPONENT --find` looks by names and shapes",
        "port-your-own.md",
    ),
    "command line": Family(
        "The command line asks for something that is not there",
        "`fvport --help` and `fvport COMMAND --help` say what there is",
        "reference/commands.md",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One sentence of the code. `sentence` and `todo` are templates: {} stands for what is filled in."""

    id: str
    module: str
    kind: str
    sentence: str
    todo: str
    family: str

    @property
    def exit_code(self) -> int:
        return {"UsageError": 2, "BlockedError": 3}.get(self.kind, 1)

    @property
    def remedy(self) -> str:
        own = f"{self.todo}. " if self.todo and self.todo.replace(HOLE, "").strip() else ""
        return own + FAMILIES[self.family].remedy

    def to_json(self) -> dict[str, Any]:
        family = FAMILIES[self.family]
        more = {"cause": family.cause, "remedy": self.remedy, "page": family.page, "exit_code": self.exit_code}
        return {"id": self.id, "sentence": self.sentence, "from": f"fvport.{self.module}", **more}

    def text(self) -> str:
        family = FAMILIES[self.family]
        said, remedy = (words.replace(HOLE, "...") for words in (self.sentence, self.remedy))
        rows = [("says", said), ("cause", family.cause), ("do", remedy), ("page", f"docs/{family.page}")]
        return "\n".join([self.id, *(f"  {word:6} {line}" for word, line in rows)])


@functools.cache
def entries() -> dict[str, Entry]:
    """{id: entry}, in order of ids."""
    text = resources.files("fvport").joinpath("errors_catalogue.json").read_text(encoding="utf-8")
    return {row["id"]: Entry(**row) for row in json.loads(text)["entries"]}


def by_id(word: str) -> Entry | Rule:
    """The entry of an id, or the numbered rule, in any case. UsageError for one that there is not."""
    found = entries().get(word.upper())
    if found is not None:
        return found
    from fvport import rules

    rule = rules.known().get(word.upper())
    if rule is None:
        listed = f"{min(entries())} to {max(entries())} (docs/reference/errors.md)"
        todo = f"Errors are {listed}, rules such as FV113 (docs/rules/)"
        raise UsageError(f'no error or rule has the id "{word}"', todo=todo)
    return rule


def find(error: BaseException) -> Entry | None:
    """The entry of an error that was raised: by what it says and the module that raised it, else by what it says."""
    said = str(getattr(error, "what", "")) or str(error)
    module = _module(error)
    matching = [entry for entry in entries().values() if _matches(entry, said)]
    mine = [entry for entry in matching if entry.module == module]
    telling = mine or [entry for entry in matching if entry.sentence.replace(HOLE, "").strip(" :.,")]
    return max(telling, key=lambda entry: len(entry.sentence.replace(HOLE, "")), default=None)


def _module(error: BaseException) -> str:
    """The module of fvport whose line raised the error, without the package's name."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        module = name.removeprefix("fvport.") if name.startswith("fvport.") else module
        trace = trace.tb_next
    return module


def _matches(entry: Entry, said: str) -> bool:
    parts = entry.sentence.split(HOLE)
    if not all(part.strip() in said for part in parts):
        return False  # cheap, and it is nearly always the answer
    return _pattern(parts).fullmatch(said.strip()) is not None


def _pattern(parts: list[str]) -> re.Pattern[str]:
    return re.compile(r"\s*.*\s*".join(re.escape(part.strip()) for part in parts), re.DOTALL)
