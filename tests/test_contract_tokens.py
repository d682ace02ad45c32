# SPDX-License-Identifier: Apache-2.0
"""Tokenization, the first stage of the walk: a fault of each kind is named, and what has no effect is a note."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import walk_support

from fvport.checks import _fields
from fvport.contract import points, root, tokenizer, tokens
from fvport.contract.walk import walk

BOS, EOS, PAD, LENGTH = 1, 2, 0, 12
WORDS = {
    "empty": [""],
    "plain": ["a b c"],
    "long": ["x " * 40],
    "unicode": ["\u72d0 na\u00efve \U0001f98a"],
    "batch": ["a", "b c d e f", ""],
}


class Tokenizer:
    """Words by the sum of their characters, with the settings that real ones have."""

    def __init__(self, side: str = "right", bos: bool = True, eos: bool = True, pad: int | None = PAD) -> None:
        self.padding_side, self.truncation_side, self.model_max_length = side, "right", 64
        self.bos_token, self.eos_token, self.bos_token_id, self.eos_token_id = "<s>", "</s>", BOS, EOS
        self.pad_token, self.pad_token_id = ("<pad>", pad) if pad is not None else (None, None)
        self.bos, self.eos, self.chat_template = bos, eos, None

    def __len__(self) -> int:
        return 100

    def __call__(self, texts: list[str], length: int = LENGTH, prefix: str = "") -> dict[str, Any]:
        ids, mask = [], []
        for text in texts:
            row = [3 + sum(map(ord, word)) % 90 for word in (prefix + text).split()]
            room = length - self.bos - self.eos
            row = [BOS] * self.bos + row[:room] + [EOS] * self.eos
            rest = [self.pad_token_id if self.pad_token_id is not None else EOS] * (length - len(row))
            left = self.padding_side == "left"
            ids.append(rest + row if left else row + rest)
            mask.append([0] * len(rest) + [1] * len(row) if left else [1] * len(row) + [0] * len(rest))
        return {"ids": ids, "mask": mask}


def side(made: Tokenizer, **more: Any) -> dict[str, Any]:
    cases = {case: made(texts, **more) for case, texts in WORDS.items()}
    return {"facts": tokenizer.facts(made), "cases": cases, "kwargs": {"max_length": more.get("length", LENGTH)}}


FAULTS = {
    "padding side": (Tokenizer(side="left"), {}, "padding is on the left, officially on the right"),
    "one special token less": (Tokenizer(eos=False), {}, "special token 2 at the end is not there natively"),
    "no first token": (Tokenizer(bos=False), {}, "special token 1 at the start is not there natively"),
    "truncation by one": (Tokenizer(), {"length": LENGTH - 1}, "max"),
    "another pad": (Tokenizer(pad=7), {}, "padding is token 7, officially 0"),
    "no pad token": (Tokenizer(pad=None), {}, "padding is token 2, officially 0"),
    "a prefix": (Tokenizer(), {"prefix": "system: "}, "is part of the longer one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tokenizer_fault(fault: str) -> None:
    """Each fault of a tokenizer is the walk's first stage, with the words that say what it is."""
    native, more, words = FAULTS[fault]
    found, _ = tokens.compare(side(Tokenizer()), side(native, **more))
    done = walk(None, found)
    assert (done.stage, words in done.sentence) == ("tokenization", True), done


def test_equal_tokenizers() -> None:
    """Nothing is found where ids and masks agree; a setting without effect is a note, never silence."""
    assert tokens.compare(side(Tokenizer()), side(Tokenizer())) == ([], [])
    other = Tokenizer()
    other.model_max_length = 128
    found, notes = tokens.compare(side(Tokenizer()), side(other))
    assert not found
    assert "maximum length is 128, officially 64" in notes[0]


def test_truncation_is_seen_on_the_long_prompt() -> None:
    """With rows padded to their own length, a limit lower by one shows on the long prompt alone."""
    official, native = side(Tokenizer()), side(Tokenizer(), length=LENGTH - 1)
    for one in (official, native):
        for rows in one["cases"].values():
            keep = [sum(mask) for mask in rows["mask"]]
            rows["ids"] = [ids[:n] for ids, n in zip(rows["ids"], keep, strict=True)]
            rows["mask"] = [mask[:n] for mask, n in zip(rows["mask"], keep, strict=True)]
    found, _ = tokens.compare(official, native)
    assert [point.name for point in found] == ["truncation"]
    assert "11 tokens are kept, officially 12" in found[0].sentence
    assert "long prompt" in found[0].sentence


def test_second_encoder_gets_the_first_ones_side() -> None:
    """FastVideo's loader gives all tokenizers the first encoder's padding side and puts the end token for no pad."""
    native = side(Tokenizer(side="left"))
    native["first_side"] = "left"
    found, _ = tokens.compare(side(Tokenizer()), native)
    assert found[0].name == "padding side"
    assert "padding_side of the first text encoder's config (left)" in found[0].sentence
    official, native = side(Tokenizer(pad=None)), side(Tokenizer(pad=EOS))
    native["facts"]["special"]["pad_token"] = ["</s>", EOS]
    found, notes = tokens.compare(official, native)
    assert not found
    assert "puts the end token where there is none" in notes[0]


def test_only_settings_where_ids_cannot_be_seen() -> None:
    """Without the official ids a setting that differs is a finding, not a note."""
    official = {**side(Tokenizer()), "cases": {}}
    found, notes = tokens.compare(official, side(Tokenizer(side="left")))
    assert found[0].name == "padding side"
    assert "could not be seen" in notes[0]


def test_mask_with_equal_ids() -> None:
    """Equal ids with another mask are told as the mask."""
    native = side(Tokenizer())
    native["cases"]["batch"]["mask"][0] = [1] * LENGTH
    found, _ = tokens.compare(side(Tokenizer()), native)
    assert found[0].name == "mask"


def test_native_tokenizer_that_cannot_be_loaded() -> None:
    """An error of FastVideo's loader is the finding."""
    found, _ = tokens.compare(side(Tokenizer()), {"error": "ValueError: no pad token"})
    assert "FastVideo cannot tokenize" in found[0].sentence


class Picture:
    """An image processor: values in [0, 1], or as a fault says."""

    def __init__(self, scale: float = 255.0, size: int = 8) -> None:
        self.scale, self.size = scale, size

    def __call__(self, image: Any, return_tensors: str) -> dict[str, Any]:
        import torch

        pixels = torch.as_tensor(image).permute(2, 0, 1)[None].float() / self.scale
        return {"pixel_values": torch.nn.functional.interpolate(pixels, (self.size, self.size))}


@pytest.mark.parametrize(
    ("native", "words"), [(Picture(127.5), "differs by"), (Picture(size=9), "has shape [1, 3, 9, 9]")]
)
def test_preprocessor(native: Picture, words: str) -> None:
    """Pixels are compared before any tower sees them."""
    official = {"class": "Picture", "cases": tokenizer.processed(Picture())}
    assert tokens.preprocessed(official, copy.deepcopy(official)) == ([], [])
    found, _ = tokens.preprocessed(official, {"class": "Picture", "cases": tokenizer.processed(native)})
    assert words in found[0].sentence
    assert found[0].stage == "tokenization"
    found, _ = tokens.preprocessed({"error": "ImportError: requires the torchvision library"}, official)
    assert "cannot run officially" in found[0].sentence


ANSWER = {"container": "BaseEncoderOutput", "fields": {"last_hidden_state": ["float32", [2, 4, 8]]}}


@pytest.mark.parametrize(
    ("change", "stage", "words"),
    [
        ({"container": "tuple"}, "output packing", "FastVideo's pipelines read a BaseEncoderOutput"),
        ({"fields": {"last_hidden_state": ["bfloat16", [2, 4, 8]]}}, "dtype/autocast", "bfloat16, officially float32"),
    ],
)
def test_container_and_dtype(change: dict[str, Any], stage: str, words: str) -> None:
    """Container and dtype are compared although every number agrees."""
    official = {"cases": {"one": {**ANSWER, "container": "BaseModelOutput"}}, "behaviour": {}}
    found, done = points.compare({"cases": {"one": ANSWER}, "behaviour": {}}, official, own=True)
    assert (found, done) == ([], ["container", "fields", "dtypes"])
    found, _ = points.compare({"cases": {"one": {**ANSWER, **change}}, "behaviour": {}}, official, own=True)
    assert (found[0].stage, words in found[0].sentence) == (stage, True)


@pytest.mark.parametrize("answer", ["refused: RuntimeError", "another shape", float("nan"), float("inf")])
def test_behaviour_that_is_no_figure(answer: Any) -> None:
    """A refusal or a value that is not finite, natively alone, is a finding; on both sides it is told."""
    official: dict[str, Any] = {"cases": {}, "behaviour": {"padding": 0.0}}
    native: dict[str, Any] = {"cases": {}, "behaviour": {"padding": answer}}
    found, done = points.compare(native, official, own=True)
    assert ([p.name for p in found], done) == (["padding"], [])
    assert points.unsaid(native, official, own=True) == []
    assert points.compare(native, native, own=True) == ([], [])
    assert "not compared" in points.unsaid(native, native, own=True)[0]
    assert "officially" in points.unsaid(official, native, own=True)[0]


def test_a_form_that_only_fastvideos_own_class_refuses() -> None:
    """A port's class must take a mask as the official one does; of FastVideo's own a refused form is a note."""
    native, official = ({"cases": {}, "behaviour": {"mask.float": v}} for v in ("refused: RuntimeError", 0.0))
    assert [p.name for p in points.compare(native, official, own=True)[0]] == ["mask.float"]
    assert points.compare(native, official, own=False) == ([], [])
    assert "not compared" in points.unsaid(native, official, own=False)[0]


def test_a_call_that_cannot_be_made_again_says_so() -> None:
    """Where the model refuses its own call, no refusal of another one is laid at its door."""

    class Positional(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            return args[0] * 1.0

    ids = torch.ones(2, 3, 4)
    told = root.behave(Positional(), {"*0": ids}, ids)
    assert told == {"again": "refused: IndexError"}
    assert points.compare({"behaviour": told}, {"behaviour": {"row 1 alone": 0.0}}, own=True) == ([], [])
    assert "no behaviour was tried" in points.unsaid({"behaviour": told}, {"behaviour": {}}, own=True)[0]


def unmasked() -> dict[str, Any]:
    found = side(Tokenizer())
    found["cases"] = {case: {**rows, "mask": None} for case, rows in found["cases"].items()}
    return found


@pytest.mark.parametrize(
    ("more", "wrong", "words"),
    [
        ({"mask_moves": {"real": 0.4, "all": 0.5}}, True, "the native class reads it"),
        ({"mask_moves": {"real": 0.0, "all": 0.0}}, False, ""),  # an encoder that takes no mask, or leaves it alone
        ({"mask_moves": {"real": 0.0, "all": 0.5}}, False, "at real tokens not"),  # causal, padded on the right
        ({"mask_moves": {"real": 0.4, "all": 0.5}, "own_stage": True}, False, "own stage must not"),
        ({}, False, "could not be told"),
    ],
)
def test_no_official_mask(more: dict[str, Any], wrong: bool, words: str) -> None:
    """Officially padding counts: a mask that natively hides it is a finding where the native class reads it."""
    found, notes = tokens.compare(unmasked(), side(Tokenizer()) | more)
    assert [point.name for point in found] == (["mask"] * wrong and ["mask"] * len(found))
    assert bool(found) == wrong
    told = [point.sentence for point in found] if wrong else notes
    assert (words in told[0]) if words else told == []
    assert tokens.compare(unmasked(), unmasked() | more) == ([], [])


@pytest.mark.parametrize("reads", [True, False])
def test_what_a_mask_moves(reads: bool) -> None:
    """Whether an encoder reads its mask is measured; a causal one moves at padding alone."""
    model = walk_support.Encoder("" if reads else "mask ignored")
    found = root.mask_moves(model, {"input_ids": torch.tensor([[5, 6, 7, 8], [5, 9, 9, 9]])})
    assert (found["real"] > 1e-3) == reads
    assert (found["all"] > 1e-3) == reads


def test_prompts_without_official_ids() -> None:
    """A prompt that the official side never tokenized is told."""
    official = side(Tokenizer())
    del official["cases"]["unicode"]
    assert tokens.compare(official, side(Tokenizer()))[1] == ["the official side gave no ids for the unicode prompts"]


def test_a_mask_as_attention_takes_it() -> None:
    """(rows, 1, 1, tokens), additive or not, is read as one value a token; any other form is told, not compared."""
    official, other, additive = (side(Tokenizer()) for _ in range(3))
    for one, low in ((official, 0), (additive, 1)):
        for rows in one["cases"].values():
            rows["mask"] = [[[[-1e9 * (1 - v) if low else v for v in row]]] for row in rows["mask"]]
    assert tokens.compare(official, side(Tokenizer())) == ([], [])
    assert tokens.compare(additive, side(Tokenizer())) == ([], [])
    native = side(Tokenizer())
    native["cases"]["batch"]["mask"][0] = [1] * LENGTH
    assert [point.name for point in tokens.compare(official, native)[0]] == ["mask"]
    for rows in other["cases"].values():
        rows["mask"] = [[[[int(k <= q) for k in range(LENGTH)] for q in range(LENGTH)]] for _ in rows["mask"]]
    found, notes = tokens.compare(other, side(Tokenizer()))
    assert (found, "another form" in notes[0]) == ([], True)


def test_the_config_check_says_where_officially_no_mask_is_given() -> None:
    """`config` sees no model: it does not say that masks agree where one side has none."""
    official, native = unmasked()["cases"], side(Tokenizer())
    (item,) = _fields.token_items("text_encoder", official, native)
    assert (item.verdict, "no mask" in item.reason) == ("pass", True)
    (item,) = _fields.token_items("text_encoder", side(Tokenizer())["cases"], native)
    assert "masks are the official ones" in item.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite(value: float) -> None:
    """A preprocessor that answers what is no number is never equal to one that does."""
    official = {"class": "Picture", "cases": tokenizer.processed(Picture())}
    native = copy.deepcopy(official)
    for outputs in native["cases"].values():
        outputs["pixel_values"]["values"] = [value] * len(outputs["pixel_values"]["values"])
    found, _ = tokens.preprocessed(official, native)
    assert "not finite" in found[0].sentence
    assert tokens.preprocessed(native, official)[0]
    assert tokens.preprocessed(native, copy.deepcopy(native)) == ([], [])


@pytest.mark.parametrize("name", points.SAYS)
def test_behaviour(name: str) -> None:
    """A behaviour that only one side has is a finding; one that both have is none."""
    official: dict[str, Any] = {"cases": {}, "behaviour": {name: 0.0}}
    assert points.compare({"cases": {}, "behaviour": {name: 3e-7}}, official, own=True)[0] == []
    found, _ = points.compare({"cases": {}, "behaviour": {name: 0.2}}, official, own=True)
    assert found[0].stage == points.SAYS[name][0]
