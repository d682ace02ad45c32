# SPDX-License-Identifier: Apache-2.0
"""The official side of Mist: how to build, load and call it, and the inputs of every comparison.

It runs in a process of its own where neither FastVideo nor another file of the port can be imported. Inputs are made
here once and lie on disk for both sides.
"""

from __future__ import annotations

import functools
import inspect
import json
import pathlib

import torch
from mist import MistDenoiser, MistSampler, MistTextEncoder
from safetensors.torch import save_file


def build_transformer(folder, dtype):
    return MistDenoiser.load(folder, dtype)


def inputs_transformer(config, seed):
    """Batches of one to three, several frames, not square, times off the grid, other texts, each axis long."""
    generator = torch.Generator().manual_seed(seed)
    t, h, w = config["patch"]

    def case(grid, times, tokens=64):
        frames, height, width = grid
        text = torch.randn(len(times), tokens, config["text_width"], generator=generator)
        text[-1, tokens // 3 :] = 0.0  # the pipeline puts zeros where a prompt ends
        shape = (len(times), config["channels"], frames * t, height * h, width * w)
        latents = torch.randn(*shape, generator=generator)
        return {"latents": latents, "time": torch.tensor(times), "text": text}

    return {
        "ragged": case((3, 2, 5), [998.39, 1.0]),
        "tall": case((1, 7, 3), [501.7254]),
        "three": case((2, 3, 4), [999.0, 613.2, 44.7]),
        "short_text": case((2, 3, 2), [1000.0, 0.0], tokens=37),
        "many_frames": case((41, 1, 2), [871.4]),
        "high": case((1, 64, 2), [302.8]),
        "wide": case((1, 2, 104), [120.5]),
    }


def call_transformer(built, case):
    return {"sample": built(latents=case["latents"], time=case["time"], text=case["text"])}


def build_text_encoder(folder, dtype):
    return MistTextEncoder.load(folder, dtype)


def inputs_text_encoder(config, seed):
    """Ragged batches with real masks, padded on the right; one token, and the full length."""
    generator = torch.Generator().manual_seed(seed)

    def batch(length, *valid):
        tokens = torch.zeros(len(valid), length, dtype=torch.long)
        for row, count in enumerate(valid):
            tokens[row, :count] = torch.randint(0, config["words"], (count,), generator=generator)
            tokens[row, count - 1] = 1
        mask = (torch.arange(length) < torch.tensor(valid)[:, None]).long()
        return {"tokens": tokens, "mask": mask}

    longest = config["longest"]
    return {
        "ragged": batch(24, 24, 7),
        "empty_prompt": batch(16, 1, 11),
        "one_token": batch(1, 1),
        "full_length": batch(longest, longest, longest // 2, 3),
    }


def prompts_text_encoder(folder):
    """{prompt: token ids} of prompts that are hard to tokenize alike."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pathlib.Path(folder) / "tokenizer")
    prompts = ["", "a fox runs", "A fox,  runs!\n\tfast", "\u72d0\u72f8 na\u00efve \U0001f98a \u00bd", "fox " * 100]
    return {text: tokenizer(text, max_length=64, truncation=True).input_ids for text in prompts}


def tokens_text_encoder(tokenizer, prompts):
    """Ids and mask as the official pipeline makes them of each prompt."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tokenizer)(list(prompts), padding="max_length", max_length=64, truncation=True)
    return {"ids": made["input_ids"], "mask": made["attention_mask"]}


def call_text_encoder(built, case):
    """Rows of tokens and rows of padding apart, both compared."""
    states, real = built(tokens=case["tokens"], mask=case["mask"]), case["mask"].bool()
    found = {"states": states[real]}
    if not bool(real.all()):
        found["states.padding"] = states[~real]
    return found


# --- what the model shares with others: autoencoder and schedule ------------------------------------------------------


def build_vae(folder, dtype):
    """The official autoencoder from the release's folder (or the component's own), every parameter in `dtype`."""
    from diffusers import AutoencoderKLWan

    folder = pathlib.Path(folder)
    path = folder / "vae" if (folder / "vae").is_dir() else folder
    return AutoencoderKLWan.from_pretrained(path, torch_dtype=dtype).to(dtype).eval()


def inputs_vae(config, seed):
    """Videos and latents: batch 2, not square, several chunks of frames, loud and quiet (quiet ones stay in range)."""
    generator = torch.Generator().manual_seed(seed)
    space = int(config.get("scale_factor_spatial") or 2 ** (len(config["dim_mult"]) - 1))
    time = int(config.get("scale_factor_temporal") or 2 ** sum(config["temperal_downsample"]))
    pixels, channels = 3, config["z_dim"]

    def video(batch, chunks, height, width, loudness):
        shape = (batch, pixels, 1 + time * chunks, height * space, width * space)
        return {"video": loudness * torch.randn(*shape, generator=generator)}

    def latents(batch, frames, height, width, loudness):
        return {"latents": loudness * torch.randn(batch, channels, frames, height, width, generator=generator)}

    return {
        "encode": video(2, 2, 2, 3, 0.5),
        "encode_one_frame": video(1, 0, 3, 2, 0.5),
        "encode_loud": video(1, 1, 2, 4, 3.0),
        "decode": latents(2, 3, 2, 3, 1.0),
        "decode_one_frame": latents(1, 1, 3, 2, 1.0),
        "decode_quiet": latents(1, 2, 4, 2, 0.05),
        "decode_loud": latents(1, 2, 2, 3, 4.0),
    }


def call_vae(built, case):
    """Mean and log variance of a video, or the decoded latents, also as they are before the clamp to [-1, 1]."""
    dtype = next(built.parameters()).dtype
    with torch.no_grad():
        if "video" in case:
            found = built.encode(case["video"].to(dtype)).latent_dist
            return {"mean": found.mean, "logvar": found.logvar}
        chunks = []
        hook = built.decoder.register_forward_hook(lambda module, given, result: chunks.append(result.clone()))
        try:
            decoded = built.decode(case["latents"].to(dtype)).sample
        finally:
            hook.remove()
    return {"decoded": decoded, "before_clamp": torch.cat(chunks, dim=2)}


def build_scheduler(folder, dtype):
    """The official scheduler from the release's folder (or the component's own); it has no parameters."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = pathlib.Path(folder)
    path = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    return FlowMatchEulerDiscreteScheduler.from_pretrained(path)


def inputs_scheduler(config, seed):
    """Whole runs of several lengths with fixed model outputs; shifts that depend on the resolution where they do."""
    generator = torch.Generator().manual_seed(seed)

    def run(steps, **more):
        sample = torch.randn(2, 4, 2, 3, 5, generator=generator)
        outputs = torch.randn(steps, *sample.shape, generator=generator)
        return {"steps": steps, "sample": sample, "outputs": outputs, **more}

    more = [{"mu": 0.6}, {"mu": 1.15}] if config.get("use_dynamic_shifting") else [{}]
    return {f"steps_{n:02d}_{i}": run(n, **kind) for n in (1, 2, 7, 30, 50) for i, kind in enumerate(more)}


def call_scheduler(built, case):
    """The schedule, then each step's result and the index that the scheduler keeps."""
    built.set_timesteps(int(case["steps"]), **({"mu": float(case["mu"])} if "mu" in case else {}))
    found = {"timesteps": built.timesteps.clone(), "sigmas": built.sigmas.clone()}
    sample, index = case["sample"], []
    for number, timestep in enumerate(built.timesteps):
        sample = built.step(case["outputs"][number], timestep, sample, return_dict=False)[0]
        found[f"step.{number:02d}"] = sample
        index.append(int(built.step_index))
    return {**found, "step_index": torch.tensor(index)}


# --- the pipeline -----------------------------------------------------------------------------------------------------

# The denoiser's and the encoder's arguments, by the names that both sides write.
NAMES = {
    "transformer": {"latents": "hidden_states", "time": "timestep", "text": "encoder_hidden_states"},
    "text_encoder": {"tokens": "input_ids", "mask": "attention_mask"},
}
_LOADED = {}


def build_pipeline(folder, dtype, device):
    """Every part in `dtype`; kept, so that several calls load it once."""
    key = (str(folder), str(dtype), str(device))
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = MistSampler.load(folder, dtype)
        for module in _LOADED[key].modules:
            module.to(device).eval().requires_grad_(False)
    return _LOADED[key]


def run_pipelines(folder, calls, out):
    """Several generations, one load a dtype: each goes to `out`/<its name>. One that may fail leaves why.txt."""
    for call in sorted(calls, key=lambda call: call.get("dtype", "float32")):
        place = pathlib.Path(out) / call["name"]
        try:
            run_pipeline(folder, call, place)
        except Exception as error:
            if not call.get("may_fail"):
                raise
            place.mkdir(parents=True, exist_ok=True)
            (place / "why.txt").write_text(f"{type(error).__name__}: {error}\n")


def run_pipeline(folder, call, out):
    """One official generation, written to `out`/steps.safetensors and steps.json.

    `call`: arguments (of the pipeline's __call__), optional (given where it has them), seed, dtype ("float32" ...),
    device, perturb (relative size of a random rounding error put on every part's output; 0 for none).
    """
    pipeline = build_pipeline(folder, getattr(torch, call.get("dtype", "float32")), call.get("device", "cpu"))
    known = inspect.signature(pipeline.__call__).parameters
    optional = {name: value for name, value in call.get("optional", {}).items() if name in known}
    arguments = {**call["arguments"], **optional}
    recorder = Recorder(pipeline, float(call.get("perturb", 0.0)))
    try:
        # The generator is a CPU one whatever the device, as FastVideo's is.
        result = pipeline(**arguments, generator=torch.Generator("cpu").manual_seed(int(call["seed"])))
    finally:
        recorder.detach()
    tensors = {**recorder.tensors, "frames": result["frames"]}
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, out / "steps.safetensors")
    plain = {name: p.default for name, p in known.items() if isinstance(p.default, int | float | str | None)}
    info = {
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "steps": recorder.step,
        "evaluations": recorder.rows,
        "arguments": arguments,
        "seed": call["seed"],
        "defaults": plain,
    }
    (out / "steps.json").write_text(json.dumps(info, indent=1, default=str) + "\n")


class Recorder:
    """Watches the parts of one call: what goes into each evaluation, what each step makes, what is decoded."""

    def __init__(self, pipeline, perturb):
        self.tensors, self.rows, self.step, self.perturb = {}, [], 0, perturb
        self.row, self.texts, self.undo = 0, 0, []
        self.noise = torch.Generator("cpu").manual_seed(12345)
        self.scheduler = pipeline.scheduler
        self._wrap(pipeline.scheduler, "step", self._step)
        self._wrap(pipeline.vae, "decode", self._decode)
        for name in NAMES:
            hook = functools.partial(self._called, name)
            self.undo.append(getattr(pipeline, name).register_forward_hook(hook, with_kwargs=True).remove)

    def detach(self):
        for undo in self.undo:
            undo()

    def _wrap(self, owner, name, around):
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(functools.partial(around, original)))
        self.undo.append(lambda: delattr(owner, name))

    def _shake(self, value, scale=None, times=1.0):
        if not self.perturb:
            return value
        sign = torch.randint(0, 2, value.shape, generator=self.noise).to(value.device, value.dtype) * 2 - 1
        return value + sign * (value if scale is None else scale) * (self.perturb * times)

    def _called(self, name, module, args, given, output):
        output = self._shake(output)
        if name == "text_encoder":
            prefix = f"text/{name}/{self.texts}"
            self.texts += 1
        else:
            prefix = f"eval/{self.step:03d}/{self.row}"
            self.row += 1
        for key, value in given.items():
            shown = NAMES[name][key]
            if name == "text_encoder" or self.step == 0 or shown == "timestep":
                self.tensors[f"{prefix}/{shown}"] = value.clone()
        self.tensors[f"{prefix}/output"] = output.clone()
        return output

    def _step(self, original, model_output, timestep, sample, *args, **kwargs):
        if self.step == 0:
            self.tensors["initial_noise"] = sample.clone()
            self.tensors["timesteps"] = self.scheduler.timesteps.clone()
            self.tensors["sigmas"] = self.scheduler.sigmas.clone()
        self.tensors[f"step_timestep/{self.step:03d}"] = timestep.reshape(-1).clone()
        self.tensors[f"model_output/{self.step:03d}"] = model_output.clone()
        result = original(model_output, timestep, sample, *args, **kwargs)
        result = (self._shake(result[0], model_output, 4.0), *result[1:])  # four roundings of the schedule's table
        self.tensors[f"latents/{self.step:03d}"] = result[0].clone()
        self.rows.append(self.row)
        self.step, self.row = self.step + 1, 0
        return result

    def _decode(self, original, latents, *args, **kwargs):
        self.tensors["decode_input"] = latents.clone()
        output = original(latents, *args, **kwargs)
        output = (self._shake(output[0]), *output[1:])
        self.tensors["decoded"] = output[0].clone()
        return output
