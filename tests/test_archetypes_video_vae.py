# SPDX-License-Identifier: Apache-2.0
"""The native source for causal video autoencoders: what stands in it, and faults that parity sees.

Run by its path (`python tests/test_archetypes_video_vae.py OUT FOLDER`) it measures the faults through FastVideo.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import archetypes_dits as dits
import archetypes_support as support
import pytest
import tomllib

from fvport.scaffold import library
from fvport.scaffold.components import ComponentContext

ARCHETYPE, OFFICIAL = "causal_video_vae", "diffusers:AutoencoderKLWan"
CASES = {case.name: case for case in dits.dit_cases.VIDEO_VAES}
PLAIN, PATCHED = "wan_vae_two_stages", "wan_vae_residual_patches"
FACTOR = 3.0
SEEN = 10 * FACTOR
# (case, text of the source, what it becomes): each is a port that looks right and is not
FAULTS: dict[str, tuple[str, str, str]] = {
    "past kept between calls": (
        PATCHED,
        "past, parts = Past(), []",
        'past, parts = self.__dict__.setdefault(f"past{tuple(z.shape)}", Past()), []',
    ),
    "first frame convolved over time": (
        PLAIN,
        "        joined = past.joined(self, x, 1)\n        return x if past.first else self.time_conv(joined)",
        "        return self.time_conv(past.joined(self, x, 2 if past.first else 1))",
    ),
    "first chunk kept by the step up": (
        PLAIN,
        "if self.time_conv is not None and not past.first:",
        "if past.first:\n            past.joined(self.time_conv, x, 2)\n        elif self.time_conv is not None:",
    ),
    "frames of a pair exchanged": (PLAIN, ".unflatten(1, (2, -1))", ".unflatten(1, (2, -1)).flip(1)"),
    "channels repeated as a whole": (
        PATCHED,
        "x.repeat_interleave(self.repeats, dim=1)",
        "x.repeat(1, self.repeats, 1, 1, 1)",
    ),
    "first frame padded behind": (
        PATCHED,
        "(0, 0, 0, 0, -x.shape[2] % self.time, 0)",
        "(0, 0, 0, 0, 0, -x.shape[2] % self.time)",
    ),
    "nothing of the past": (PLAIN, "-count:].clone()", "-count:] * 0"),
    "mean and logvar exchanged": (
        PLAIN,
        "DiagonalGaussianDistribution(self._encode(x))",
        "DiagonalGaussianDistribution(self._encode(x).roll(self.config.z_dim, 1))",
    ),
    "not clamped": (PLAIN, "torch.clamp(x, -1.0, 1.0)", "x"),
    "tiles clamped before they are blended": (
        PATCHED,
        "            parts.append(self.decoder(latent, past))",
        "            parts.append(torch.clamp(self.decoder(latent, past), -1.0, 1.0))",
    ),
    "patches column by row": (PATCHED, "x.permute(0, 1, 6, 4, 2, 3, 5)", "x.permute(0, 1, 4, 6, 2, 3, 5)"),
    "tiles counted in pixels": (
        PATCHED,
        "self.spatial_compression_ratio // self.config.patch_size",
        "self.spatial_compression_ratio",
    ),
    "padded on both sides": (PLAIN, "nn.ZeroPad2d((0, 1, 0, 1))", "nn.ZeroPad2d((1, 0, 1, 0))"),
    "attention without a shortcut": (PLAIN, "x + _framewise(self._attend, x)", "_framewise(self._attend, x)"),
    "norm not scaled": (PLAIN, " * self.gamma.shape[0]**0.5", ""),
}


def rendered(name: str, **more: Any) -> dict[str, str]:
    config = json.loads(json.dumps(CASES[name].config))
    p, c = support.context(ARCHETYPE, OFFICIAL, config, name="vae", **more)
    return {t: support.text(ARCHETYPE, f"{t}.py.jinja", p, c) for t in ("config", "native", "oracle", "parity_test")}


@pytest.mark.parametrize("name", CASES)
def test_sources_are_as_the_formatter_leaves_them(name: str) -> None:
    """yapf with FastVideo's settings changes nothing, under a short name and a long one."""
    from yapf.yapflib.yapf_api import FormatCode

    settings = tomllib.loads((Path(__file__).parent / "data" / "fastvideo_style.toml").read_text())["yapf"]
    style = "{" + ", ".join(f"{key}: {value}" for key, value in settings.items()) + "}"
    for more in (
        {"prefix": "X", "slug": "x_one"},
        {"prefix": "AVeryLongModelForVideo", "slug": "a_very_long_name"},
    ):
        files = rendered(name, **more)
        for part in ("config", "native"):
            assert not FormatCode(files[part], style_config=style, print_diff=True)[0]


def test_only_what_the_model_needs_is_written() -> None:
    """Residual shortcuts and patches stand in the source of a model that has them, and in no other."""
    plain, patched = rendered(PLAIN)["native"], rendered(PATCHED)["native"]
    for word in ("class Averaged", "class Repeated", "class DownStage", "avg_shortcut", "_patches(", "spatial_tiled"):
        assert word in patched
        assert word not in plain
    names = {node.name for node in ast.parse(plain).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert all(plain.count(name) > 1 for name in names), "something is defined and not used"


def test_a_release_without_a_config_gets_the_official_defaults() -> None:
    """Values that a config.json leaves out are those of the official constructor, mean and deviation of latents too."""
    p, c = support.context(ARCHETYPE, OFFICIAL, {}, name="vae")
    tree = ast.parse(support.text(ARCHETYPE, "config.py.jinja", p, c))
    arch = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == c.arch_class)
    found = {}
    for line in (node for node in arch.body if isinstance(node, ast.AnnAssign)):
        value = line.value.keywords[0].value.body if isinstance(line.value, ast.Call) else line.value  # type: ignore
        found[line.target.id] = ast.literal_eval(value)  # type: ignore[union-attr]
    assert found == official_defaults()


def official_defaults() -> dict[str, Any]:
    """Of the official constructor, read from its source: the import would take longer than all of this file."""
    spec = importlib.util.find_spec("diffusers")
    assert spec
    assert spec.origin
    file = Path(spec.origin).parent / "models/autoencoders/autoencoder_kl_wan.py"
    cls = next(n for n in ast.parse(file.read_text()).body if getattr(n, "name", "") == "AutoencoderKLWan")
    init = next(n for n in cls.body if getattr(n, "name", "") == "__init__")  # type: ignore[attr-defined]
    names = [argument.arg for argument in init.args.args[1:]]
    return dict(zip(names, map(ast.literal_eval, init.args.defaults), strict=True))


def test_a_reused_class_is_checked_as_before() -> None:
    """FastVideo's own class keeps its declared names, inputs and call: it ignores tiles where it has a cache."""
    archetype = library.get(ARCHETYPE)
    assert archetype.can_port
    c = ComponentContext(
        "vae", "vae", "reuse", "diffusers", "AutoencoderKLWan", archetype=ARCHETYPE, data=archetype.data
    )
    assert c.passthrough == ["^(encoder|decoder|quant_conv|post_quant_conv)\\."]
    p, other = support.context(ARCHETYPE, OFFICIAL, {}, name="vae")
    other.native_module = "fastvideo.models.vaes.wanvae"
    for template in ("oracle.py.jinja", "parity_test.py.jinja"):
        assert "tile" not in support.text(ARCHETYPE, template, p, other)


@pytest.mark.parametrize(
    ("archetype", "official", "module"),
    [
        (ARCHETYPE, OFFICIAL, ""),
        ("autoencoder_kl", "diffusers:AutoencoderKL", ""),
        ("autoencoder_kl", "diffusers:AutoencoderKL", "fastvideo.models.vaes.autoencoder_kl"),
    ],
)
def test_a_call_leaves_the_tiles_as_they_were(archetype: str, official: str, module: str) -> None:
    """Parity refuses a call that changes the native object: sides and steps of tiles are put back, also by an error."""
    p, c = support.context(archetype, official, {}, name="vae")
    c.native_module = module or c.native_module
    space: dict[str, Any] = {}
    source = support.text(archetype, "parity_test.py.jinja", p, c)
    exec(source.replace("from fvport.models.native import", "from test_archetypes_video_vae import"), space)  # noqa: S102
    native, tiles = Native(), 3 if archetype == "autoencoder_kl" else {"tile_sample_min_height": 3}
    before = dict(vars(native))
    with pytest.raises(ZeroDivisionError):
        space["call"](native, {"video": native, "image": native, "tiles": tiles})
    assert native.seen != before
    assert {**vars(native), "seen": {}} == before


@contextlib.contextmanager
def forward_context() -> Iterator[None]:
    yield


class Native:
    """What such a call touches of a model, which is itself its only input; it fails while it encodes."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(block_out_channels=[1, 1])
        self.use_tiling, self.seen, self.dtype = False, dict[str, Any](), None
        self.tile_size = self.latent_tile_size = self.tile_latent_min_size = self.tile_sample_min_size = 64
        self.tile_sample_min_height = 256

    def parameters(self) -> Iterator[Native]:
        return iter([self])

    def to(self, _: Any) -> Native:
        return self

    def enable_tiling(self) -> None:
        self.use_tiling = True

    def disable_tiling(self) -> None:
        self.use_tiling = False

    def encode(self, _: Native) -> None:
        self.seen = dict(vars(self))
        raise ZeroDivisionError


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every fault, and what the base class does, through FastVideo in one process of its own."""
    folder = tmp_path_factory.mktemp("video_vae")
    command = [sys.executable, __file__, str(folder / "out.json"), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.heavy
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(measured: dict[str, Any], fault: str) -> None:
    """A source with one thing wrong is far outside of what passes, in an output that this fault concerns."""
    assert measured["faults"][fault] > SEEN


@pytest.mark.heavy
@pytest.mark.parametrize("name", [PLAIN, PATCHED])
def test_the_right_source_is_within_the_floor(measured: dict[str, Any], name: str) -> None:
    """Without a fault every output is within three times the official model's own floor."""
    assert measured["right"][name] <= FACTOR


@pytest.mark.heavy
def test_what_the_base_class_offers(measured: dict[str, Any]) -> None:
    """Tiles of frames give each frame once, as its tile decodes it; the latents' scale is float32 in any case."""
    assert measured["frames"] == [25, 25]
    assert measured["apart"] < 1e-5
    assert measured["scale"] == ["torch.float32", 0.0]


class Compared:
    """A case's official results, in both precisions, to hold native ones against."""

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        self.this = dits.made(CASES[name], folder)
        parts = (ARCHETYPE, self.this.p, self.this.c, folder)
        oracle, self.call = support.oracle(*parts), support.call(*parts)
        single, double = (oracle.build_vae(self.this.folder / "official", d) for d in (torch.float32, torch.float64))
        self.inputs = oracle.inputs_vae(self.this.config, 0)
        self.official = {key: oracle.call_vae(single, case) for key, case in self.inputs.items()}
        self.floors = {
            key: support.worst(self.official[key], oracle.call_vae(double, case)) for key, case in self.inputs.items()
        }

    def ratio(self, change: tuple[str, str] | None = None) -> float:
        """The largest difference of any output as a multiple of its floor (of a fault: the first that is far outside);
        infinite where it raises."""
        native, found = self.this.native(change), 0.0
        try:
            for key, case in self.inputs.items():
                if change and found > SEEN:
                    break
                for output, apart in support.worst(self.official[key], self.call(native, case)).items():
                    found = max(found, apart / max(self.floors[key][output], 1.2e-7))
        except (AssertionError, RuntimeError):
            return float("inf")
        return found


def base_class(native: Any, std: list[float]) -> dict[str, Any]:
    """Frames and difference with tiles over time; dtype and error of the latents' scale in half precision."""
    import torch

    latents = 0.05 * torch.randn(1, native.config.z_dim, 13, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        native.use_tiling = False
        whole = native.decode(latents)
        native.enable_tiling(
            tile_sample_min_num_frames=12, tile_sample_stride_num_frames=8, use_temporal_tiling=True, blend_num_frames=4
        )
        tiled = native.decode(latents)
        native.use_tiling = False
        second = native.decode(latents[:, :, 4:11])  # the tile that begins where the first one's step ends
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    native.config.update_model_arch({"latents_std": std})
    torch.set_default_dtype(before)
    scale = native.scaling_factor
    error = float((scale.flatten() - 1.0 / torch.tensor(std)).abs().max())
    pairs = ((tiled[:, :, :9], whole[:, :, :9]), (tiled[:, :, 13:17], second[:, :, 5:9]))  # outside of what is blended
    apart = max(float((a - b).abs().max()) for a, b in pairs)
    return {"frames": [whole.shape[2], tiled.shape[2]], "apart": apart, "scale": [str(scale.dtype), error]}


def main(out: Path, folder: Path) -> None:
    from fvport import fastvideo_api

    fastvideo_api.boot(support.SITE, "cpu", distributed=False)
    sides = {name: Compared(name, folder) for name in (PLAIN, PATCHED)}
    right = {name: side.ratio() for name, side in sides.items()}
    faults = {name: sides[case].ratio(change) for name, (case, *change) in FAULTS.items()}
    found = {"right": right, "faults": faults} | base_class(sides[PLAIN].this.native(), [1.5, 0.8, 2.0, 1.1])
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
