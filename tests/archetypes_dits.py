# SPDX-License-Identifier: Apache-2.0
"""One transformer or autoencoder of an archetype, measured: native against official, and what faults are seen."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import archetypes_support as support

from benchmarks import dit_cases
from benchmarks.dit_cases import DitCase

# (case, text of the rendered source, what it becomes): each is a port that looks right and is not
FAULTS: dict[str, tuple[str, str, str]] = {
    "padded on both sides": ("kl", "F.pad(x, (0, 1, 0, 1))", "F.pad(x, (1, 0, 1, 0))"),
    "no shortcut": ("kl", "x + attended.transpose(1, 2)", "attended.transpose(1, 2)"),
    "tiles blended the other way": ("kl", "* (1 - share)", "* (share)"),
    "quant convolution left out": ("kl", "moments if self.quant_conv is None else self.quant_conv(moments)", "moments"),
    "last block's scale and shift exchanged": (
        "sd35",
        "_modulate(normed, parts[1], parts[0])",
        "_modulate(normed, parts[0], parts[1])",
    ),
    "second attention reads the first's input": ("sd35", "self.attn2(dual[0]", "self.attn2(normed"),
    "positions from the corner": ("sd3", "(self.size - height) // 2", "0"),
    "text attended without its own norms": (
        "sd35",
        "self.norm_added_q, self.norm_added_k)\n        if",
        "self.norm_q, self.norm_k)\n        if",
    ),
    "rotary embedding of the text left out": ("flux", "if text_rope is not None", "if False"),
    "timestep not scaled": ("flux", "timestep.to(image.dtype) * 1000", "timestep.to(image.dtype)"),
    "guidance left out": ("flux", "found = found + self.guidance_embedder", "found + self.guidance_embedder"),
    "gelu exact": ("flux", 'approximate="tanh"', 'approximate="none"'),
    "axes exchanged": ("flux", "ids[:, axis]", "ids[:, -axis]"),
    "mask in the order of the tokens": (
        "zimage",
        "torch.cat([image_mask, text_mask], dim=1)",
        "torch.cat([text_mask, image_mask], dim=1)",
    ),
    "filled up with the last token": ("zimage", "pad_token.expand(-len(sample)", "sample[-1:].expand(-len(sample)"),
    "image stands behind the words": ("zimage", "torch.tensor([text_len + 1,", "torch.tensor([len(words) + 1,"),
    "given images modulated as noise": ("zimage_omni", "torch.where(noisy, ", "torch.where(noisy | True, "),
    "later texts at their own places": ("zimage_omni", "(0, 2, 0, free))", "(0, 2))"),
    "features cut rows first": ("zimage_omni", "feature.permute(2, 0, 1).reshape", "feature.reshape"),
    "head norms with the other eps": ("zimage", "eps=_HEAD_EPS", "eps=config.norm_eps"),
    "padding counts in the text's mean": ("hunyuan_video", "mask[:, :, None].float()", "0 * mask[:, :, None] + 1.0"),
    "padded text attended to": ("hunyuan_video", "with _masked(words)", "with _masked(None)"),
    "turned along other axes": ("hunyuan_video", "zip(places, self", "zip(places[::-1], self"),
    "first frame modulated as noise": (
        "hunyuan_video_first_frame",
        "torch.stack([conditioning, still]",
        "torch.stack([conditioning, conditioning]",
    ),
    "guidance counts for given tokens": (
        "hunyuan_video_first_frame",
        "self.time_text_embed.without_noise(timestep, pooled_projections)",
        "self.time_text_embed(0 * timestep, pooled_projections, guidance)",
    ),
    "text mask left out": ("ltx", "attn_mask=mask)", "attn_mask=None)"),
    "every head turned alike": (
        "ltx",
        "_apply_rotary_emb(x.unsqueeze(2), *rope",
        "_apply_rotary_emb(x.unsqueeze(2), *(w[..., :1].expand_as(w) for w in rope)",
    ),
    "still values at the end": ("ltx", "(free, 0), value=1.0)", "(0, free), value=1.0)"),
    "patches not counted in positions": ("ltx_patched", "* self.patch_size[i] ", ""),
    "gate and scale exchanged": ("ltx", "shift, scale, gate, shift_ff", "shift, gate, scale, shift_ff"),
    "norms of other epsilon": ("ltx_other_norms", "eps=config.norm_eps", "eps=1e-6"),
    "one frame rate taken for granted": ("cosmos", "fps is not None", "fps == 16"),
    "pairs of neighbours turned": ("cosmos_2", "is_neox_style=True", "is_neox_style=False"),
    "patches put back the way they were taken": (
        "cosmos_2",
        "unflatten(2, (height, width, frames, -1))",
        "unflatten(2, (-1, height, width, frames)).permute(0, 1, 3, 4, 5, 2)",
    ),
    "positions added once": (
        "cosmos",
        "x = block(x + position,",
        "x = block(x + position * (block is self.transformer_blocks[0]),",
    ),
    "positions not of one length": ("cosmos", "return position / torch.add", "return position + 0 * torch.add"),
    "condition mask in front": ("cosmos_2", "[hidden_states, condition_mask]", "[condition_mask, hidden_states]"),
    "padding mask smoothed": ("cosmos", 'mode="nearest"', 'mode="bilinear"'),
    "image's tokens left out": ("cosmos_2_5_transfer", "attended = attended + self.attn(query", "self.attn(query"),
    "control behind every block's neighbour": (
        "cosmos_2_5_transfer",
        "if number in residuals:\n                x = x + residuals[number]",
        "if number + 1 in residuals:\n                x = x + residuals[number + 1]",
    ),
}
FEW = (
    "kl_attention_in_stages",
    "kl_old_names",
    "sd35",
    "flux",
    "zimage",
    "zimage_omni",
    "hunyuan_video",
    "hunyuan_video_first_frame",
    "ltx",
    "cosmos",
    "cosmos_2_5_transfer",
)  # one or two an archetype: their sources are linted
ELSEWHERE: tuple[str, ...] = ("cross_attention_dit",)  # archetypes that have cases in archetypes_matrix.py too


@dataclass
class Made:
    """An official model on disk, and `p` and `c` as a bake makes them."""

    case: DitCase
    folder: Path
    p: Any
    c: Any
    config: dict[str, Any]
    weights: dict[str, Any]

    def native(self, change: tuple[str, str] | None = None, dtype: Any = None) -> Any:
        """The native model with the official weights; `change` replaces text of its source."""
        source = support.text(self.case.archetype, "native.py.jinja", self.p, self.c)
        if change:
            assert change[0] in source, f"{change[0]!r} does not stand in the source"
            source = source.replace(*change)
        made = support.module(
            self.c.config_module, support.text(self.case.archetype, "config.py.jinja", self.p, self.c), self.folder
        )
        config = getattr(made, self.c.config_class)()
        config.update_model_arch({k: v for k, v in json.loads(json.dumps(self.config)).items() if k[0] != "_"})
        cls = getattr(support.module(self.c.native_module, source, self.folder), self.c.native_class)
        weights = {name: tensor.clone() for name, tensor in self.weights.items()}
        if self.case.kind == "vae":
            model = cls(config).eval()
            model.load_state_dict(weights)
            return model
        return support.load_dit(cls, config, iter(weights.items()), dtype)

    def compare(self, native: Any) -> dict[str, Any]:
        """{case: {output: [difference, official floor]}}, both relative to the largest value."""
        import torch

        oracle, call = (f(self.case.archetype, self.p, self.c, self.folder) for f in (support.oracle, support.call))
        name, found = self.c.name, {}
        build, run = getattr(oracle, f"build_{name}"), getattr(oracle, f"call_{name}")
        single, double = build(self.folder / "official", torch.float32), build(self.folder / "official", torch.float64)
        for key, case in getattr(oracle, f"inputs_{name}")(self.config, 0).items():
            official = run(single, case)
            floors, differences = (
                support.worst(official, run(double, case)),
                support.worst(official, call(native, case)),
            )
            found[key] = {output: [differences[output], floors[output]] for output in official}
        return found


def made(case: DitCase, folder: Path) -> Made:
    from safetensors.torch import load_file

    folder = folder / case.name
    folder.mkdir(parents=True, exist_ok=True)
    official = dit_cases.make(case, folder / "official")
    config = json.loads((official / "config.json").read_text(encoding="utf-8"))
    weights = load_file(official / "diffusion_pytorch_model.safetensors")
    tensors = {key: ("F32", tuple(value.shape)) for key, value in weights.items()}
    p, c = support.context(case.archetype, case.official, config, tensors=tensors)
    return Made(case, folder, p, c, config, weights)


def measure(case: DitCase, folder: Path) -> dict[str, Any]:
    """`cases` as compared, names and rules that are not in use, and what each fault of this case changes."""
    import re

    this = made(case, folder)
    native = this.native()
    found: dict[str, Any] = {"cases": this.compare(native)}
    rules = getattr(native, "param_names_mapping", {})
    entries = support.library.get(case.archetype).data["passthrough"]
    passing = [e["pattern"] for e in entries if all(this.config.get(key) for key in e.get("when", ()))]
    names = [*rules, *passing]
    found["unnamed"] = [key for key in this.weights if not any(re.match(pattern, key) for pattern in names)]
    found["unused"] = [pattern for pattern in rules if not any(re.match(pattern, key) for key in this.weights)]
    found["faults"] = {name: _seen(this, change) for name, (where, *change) in FAULTS.items() if where == case.name}
    return found


def _seen(this: Made, change: list[str]) -> float:
    """The largest difference of any output, as a multiple of its floor, with this fault in the source."""
    cases = this.compare(this.native((change[0], change[1])))
    return max(difference / max(floor, 1e-7) for outputs in cases.values() for difference, floor in outputs.values())


SCHEDULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "shifted": {"shift": 3.0, "num_train_timesteps": 500},
    "dynamic": {"use_dynamic_shifting": True},
    "dynamic_linear": {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.02},
    "terminal": {"shift_terminal": 0.1, "shift": 2.0},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True, "shift": 5.0},
    "beta": {"use_beta_sigmas": True},
    "inverted": {"invert_sigmas": True},
    "stochastic": {"stochastic_sampling": True, "shift": 3.0},
}


def schedules(folder: Path) -> dict[str, list[str]]:
    """{variant: what differs at all} of the native flow-match scheduler; nothing may, for the sums are the same."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    p, c = support.context("flow_match_scheduler", "diffusers:FlowMatchEulerDiscreteScheduler", {})
    source = support.text("flow_match_scheduler", "native.py.jinja", p, c)
    cls = getattr(support.module(c.native_module, source, folder), c.native_class)
    return {
        name: _schedule(FlowMatchEulerDiscreteScheduler(**given), cls(**given), "use_dynamic_shifting" in given)
        for name, given in SCHEDULES.items()
    }


def _schedule(official: Any, native: Any, dynamic: bool) -> list[str]:
    import torch

    def seeded(number: int) -> Any:
        return torch.Generator().manual_seed(number)

    sides, more, wrong = (official, native), {"mu": 0.6} if dynamic else {}, []
    tables: list[dict[str, Any]] = [{"num_inference_steps": steps} for steps in (2, 7, 50)]
    tables += [{"sigmas": [1.0, 0.7, 0.2]}, {"sigmas": [1.0, 0.7, 0.2], "timesteps": [900.0, 500.0, 100.0]}]
    for table in tables:
        for side in sides:
            side.set_timesteps(**table, **more)
        wrong += [f"{key} {table}" for key in ("sigmas", "timesteps") if not _same([getattr(s, key) for s in sides])]
        samples = [torch.randn(2, 3, 4, generator=seeded(0))] * 2
        for number, step in enumerate(official.timesteps):
            output = torch.randn(2, 3, 4, generator=seeded(number + 1))
            pairs = zip(sides, samples, strict=True)
            samples = [s.step(output, step, x, generator=seeded(9), return_dict=False)[0] for s, x in pairs]
        wrong += [f"steps {table}"] * (not _same(samples)) + ["index"] * (official.step_index != native.step_index)
    for side in sides:
        side.set_timesteps(5, **more)
    x, noise = torch.randn(2, 3, 4, generator=seeded(3)), torch.randn(2, 3, 4, generator=seeded(4))
    wrong += ["noise"] * (not _same([s.scale_noise(x, s.timesteps[[1, 3]], noise) for s in sides]))
    tokens = {"per_token_timesteps": torch.rand(2, 3, generator=seeded(5)) * 900, "return_dict": False}
    apart = [s.step(noise, s.timesteps[0], x, generator=seeded(9), **tokens)[0] for s in sides]
    return wrong + ["a timestep a token"] * (not _same(apart))


def _same(pair: list[Any]) -> bool:
    import torch

    return torch.equal(pair[0], pair[1])


SPLIT = (  # their sequence split over two processes
    "sd35",
    "flux",
    "zimage",
    "zimage_omni",
    "hunyuan_video",
    "hunyuan_video_first_frame",
    "wan_i2v",
    "ltx",
    "cosmos",
    "cosmos_2_5_transfer",
)


def split(folder: Path) -> dict[str, Any]:
    """What `compare` finds where two processes share each sequence, as the first of them sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "split.json"
    port = _free_port()
    children = [_process(rank, port, folder, out) for rank in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], f"the two processes ended with {codes}"
    return json.loads(out.read_text(encoding="utf-8"))


def _process(rank: int, port: int, folder: Path, out: Path) -> int:
    """Fork one of two processes that hold half of every sequence. Must come before any other distributed state."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from fastvideo.distributed import maybe_init_distributed_environment_and_model_parallel

        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(port)
        maybe_init_distributed_environment_and_model_parallel(tp_size=1, sp_size=2)
        found = {}
        for name in SPLIT:
            this = made(dit_cases.CASES[name], folder / f"rank{rank}")
            found[name] = this.compare(this.native())
        if rank == 0:
            out.write_text(json.dumps(found), encoding="utf-8")
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must end here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main(out: Path, folder: Path) -> None:
    """Two processes first, while there is no distributed state to inherit; then every case in this one."""
    from fvport import fastvideo_api

    fastvideo_api.boot(support.SITE, "cpu", distributed=False)
    shared = split(folder / "split")
    fastvideo_api.init_distributed()
    found = {name: measure(case, folder) for name, case in dit_cases.CASES.items()}
    found |= {"split": shared, "schedules": schedules(folder)}
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
