# SPDX-License-Identifier: Apache-2.0
"""Watches a FastVideo pipeline while it generates, in whatever process it runs, and writes what an oracle writes too.

Names in `steps.safetensors`, the same on both sides:

    text/<encoder>/<call>/{input_ids,attention_mask,output}
    timesteps, sigmas, initial_noise, step_timestep/<step>
    eval/<step>/<row>/{timestep,output}     one row for each evaluation of a denoiser (a batched one is split)
    eval/000/<row>/<argument>               everything that the denoiser was given at the first step
    model_output/<step>, latents/<step>     what goes into the scheduler (guided) and what comes out
    media/<n>/..., start/...                what becomes of a picture or video: `capture_media`
    drawn/<step>/<n>                        noise that the scheduler draws in a step
    decode_input, decoded, frames           frames: (batch, time, height, width, channels) in [0, 1], before any codec
    audio                                   (batch, channels, samples); its rate is audio_sample_rate in steps.json

With official latents given, each step starts from those instead of its own (teacher forcing), so what a step does is
told from what it inherited. FastVideo is not edited: scheduler, modules and VAE are wrapped for the time of one call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fvport.models import capture_media

PRECISIONS = ("dit_precision", "vae_precision", "vae_decode_precision", "text_encoder_precisions")
PLAIN = (str, int, float, bool, type(None))
REQUEST = "capture.json"  # lies in the output folder of a call that is to be watched: {"force": file or ""}
NOT_DENOISERS = (
    "vae",
    "encoder",
    "tokenizer",
    "scheduler",
    "processor",
    "vocoder",
    "upsampler",
    "conditioner",
    "projection",
)


def watch_all(base: type, root: str = "") -> None:
    """Watch every pipeline that is built from now on, also one whose class has a `forward` of its own.

    `root`: the workspace that FastVideo should come from; what this process really has is written with each record.
    """
    original = base.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        watch(type(self), root)
        original(self, *args, **kwargs)

    base.__init__ = __init__  # type: ignore[misc]


def watch(pipeline_class: type, root: str = "") -> None:
    """Make a pipeline class look for a capture request beside its output. Idempotent."""
    original = pipeline_class.forward  # type: ignore[attr-defined]
    if getattr(original, "fvport_watched", False):
        return

    @functools.wraps(original)
    def forward(self: Any, batch: Any, fastvideo_args: Any) -> Any:
        folder = _folder(batch.output_path)
        if folder is None:
            return original(self, batch, fastvideo_args)
        if not self.post_init_called:
            self.post_init()
        recorder = Recorder(self, json.loads((folder / REQUEST).read_text())["force"])
        try:
            with _noise_of_float32():
                result = original(self, batch, fastvideo_args)
        finally:
            recorder.detach()
        recorder.write(folder, result, fastvideo_args, root)
        return result

    forward.fvport_watched = True  # type: ignore[attr-defined]
    pipeline_class.forward = forward  # type: ignore[attr-defined]


def _folder(output_path: str | None) -> Path | None:
    """The folder of this call, where it asks to be watched."""
    path = Path(output_path or ".")
    return next((p for p in (path, path.parent) if (p / REQUEST).is_file()), None)


class Recorder:
    """One generation. `tensors` holds what was seen, by the names above."""

    def __init__(self, pipeline: Any, force: str = "") -> None:
        self.tensors: dict[str, Any] = {}
        self.rows: list[int] = []
        self.step = self.row = 0
        self.text_calls: dict[str, int] = {}
        self.undo: list[Callable[[], Any]] = []
        self.pipeline = pipeline
        self.forced = _forced(force)
        for scheduler in _schedulers(pipeline):
            self._wrap(scheduler, "step", functools.partial(self._step, scheduler))
        for name, module in pipeline.modules.items():
            if not hasattr(module, "register_forward_hook"):
                continue
            if "text_encoder" in name:
                self._hook(module, functools.partial(self._text, name))
            elif name == "vae":
                self._wrap(module, "decode", self._decode)
            elif not any(word in name for word in NOT_DENOISERS):
                self._hook(module, self._evaluation)
        capture_media.watch(self, _schedulers(pipeline), pipeline.modules)

    def detach(self) -> None:
        for undo in reversed(self.undo):
            undo()

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(functools.partial(around, original)))
        self.undo.append(lambda: delattr(owner, name))

    def _hook(self, module: Any, seen: Callable[[dict[str, Any], Any], None]) -> None:
        signature = inspect.signature(module.forward)

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen(dict(signature.bind_partial(*args, **kwargs).arguments), output)

        self.undo.append(module.register_forward_hook(hook, with_kwargs=True).remove)

    def _evaluation(self, bound: dict[str, Any], output: Any) -> None:
        bound = {key: _tensor(value) for key, value in bound.items()}
        sample = bound.get("hidden_states")
        sample = sample if sample is not None else next(value for value in bound.values() if value is not None)
        for index in range(sample.shape[0]):
            prefix = f"eval/{self.step:03d}/{self.row}"
            for key, value in bound.items():
                if value is not None and (self.step == 0 or key == "timestep"):
                    whole = value.ndim == 0 or value.shape[0] != sample.shape[0]
                    self._keep(f"{prefix}/{key}", value if whole else value[index : index + 1])
            self._keep(f"{prefix}/output", _tensor(output)[index : index + 1])
            self.row += 1

    def _text(self, name: str, bound: dict[str, Any], output: Any) -> None:
        count = self.text_calls.get(name, 0)
        self.text_calls[name] = count + 1
        for key in ("input_ids", "attention_mask"):
            if _tensor(bound.get(key)) is not None:
                self._keep(f"text/{name}/{count}/{key}", bound[key])
        self._keep(f"text/{name}/{count}/output", _tensor(output))

    def _step(
        self, scheduler: Any, original: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **kw: Any
    ) -> Any:
        import torch

        if self.step == 0:
            self._keep("initial_noise", sample)
            for key in ("timesteps", "sigmas"):
                table = getattr(scheduler, key, None)
                if table is not None:
                    self._keep(key, torch.as_tensor(table))
        self._keep(f"step_timestep/{self.step:03d}", torch.as_tensor(timestep).reshape(-1))
        self._keep(f"model_output/{self.step:03d}", model_output)
        with _drawn(functools.partial(self._draw, len(self.rows))):
            result = original(model_output, timestep, sample, *args, **kw)
        self._keep(f"latents/{self.step:03d}", _tensor(result))
        result = self._force(result)
        self.rows.append(self.row)
        self.step, self.row = self.step + 1, 0
        return result

    def _draw(self, step: int, value: Any) -> None:
        count = sum(name.startswith(f"drawn/{step:03d}/") for name in self.tensors)
        self._keep(f"drawn/{step:03d}/{count:02d}", value)

    def _force(self, result: Any) -> Any:
        """The official latents of this step in place of the own ones, where they are given and have the same size."""
        official, own = self.forced.get(f"latents/{self.step:03d}"), _tensor(result)
        if official is None or official.numel() != own.numel():
            return result
        forced = official.reshape(own.shape).to(own.device, own.dtype)
        if isinstance(result, tuple):
            return (forced, *result[1:])
        if hasattr(result, "prev_sample"):
            result.prev_sample = forced
            return result
        return forced

    def _decode(self, original: Any, latents: Any, *args: Any, **kwargs: Any) -> Any:
        self._keep("decode_input", latents)
        output = original(latents, *args, **kwargs)
        self._keep("decoded", _tensor(output))
        return output

    def _keep(self, name: str, value: Any) -> None:
        self.tensors[name] = value.detach().to("cpu", copy=True).contiguous()

    def write(self, folder: Path, batch: Any, fastvideo_args: Any, root: str = "") -> None:
        from safetensors.torch import save_file

        from fvport import fastvideo_api

        extra = getattr(batch, "extra", None) or {}
        if (heard := _audio(extra)) is not None:
            self._keep("audio", heard)
        visual = not extra.get("audio_only")  # a sound alone carries frames that nobody looks at
        if batch.output is not None and batch.output.ndim == 5 and visual:
            self._keep("frames", batch.output.permute(0, 2, 3, 4, 1))
        part = folder / "steps.part"
        save_file(self.tensors, part)
        part.replace(folder / "steps.safetensors")
        info = self._info(batch, fastvideo_args) | {"environment": fastvideo_api.seen(root or ".")}
        (folder / "steps.json").write_text(json.dumps(info, indent=1, default=str) + "\n")

    def _info(self, batch: Any, fastvideo_args: Any) -> dict[str, Any]:
        config = fastvideo_args.pipeline_config
        return {
            "pipeline": type(self.pipeline).__name__,
            "pipeline_file": inspect.getfile(type(self.pipeline)),
            "config": type(config).__name__,
            "scheduler": [type(scheduler).__name__ for scheduler in _schedulers(self.pipeline)],
            "classes": {name: type(module).__name__ for name, module in self.pipeline.modules.items()},
            "stages": [type(stage).__name__ for stage in self.pipeline.stages],
            "steps": self.step,
            "evaluations": self.rows,
            "arguments": {name: getattr(batch, name) for name in _told(batch)},
            "seed": batch.seed,
            "audio_sample_rate": (getattr(batch, "extra", None) or {}).get("audio_sample_rate"),
            "precision": {key: getattr(config, key, None) for key in PRECISIONS},
        }


@contextlib.contextmanager
def _noise_of_float32() -> Iterator[None]:
    """Noise drawn in half precision is float32's, rounded, as oracle.py has it: torch would draw other numbers."""
    import torch

    original = torch.randn

    def randn(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dtype") in (torch.bfloat16, torch.float16):
            return original(*args, **{**kwargs, "dtype": torch.float32}).to(kwargs["dtype"])
        return original(*args, **kwargs)

    torch.randn = randn
    try:
        yield
    finally:
        torch.randn = original


def _audio(extra: Mapping[str, Any]) -> Any:
    """(1, channels, samples) of what a pipeline leaves for VideoGenerator to write; None where it leaves no sound.

    It may be (samples, channels) or the other way round: FastVideo takes an axis of 8 or less for the channels.
    """
    import torch

    if extra.get("audio") is None:
        return None
    sound = torch.as_tensor(extra["audio"]).float()
    sound = sound.unsqueeze(-1) if sound.ndim == 1 else sound
    if sound.ndim == 2:
        sound = (sound if sound.shape[0] <= 8 < sound.shape[1] else sound.T).unsqueeze(0)
    return sound


def _told(batch: Any) -> list[str]:
    """Names of what a batch holds as plain values: what the pipeline was told, or made of it by defaults of its own."""
    names = (
        [field.name for field in dataclasses.fields(batch)] if dataclasses.is_dataclass(batch) else list(vars(batch))
    )

    def plain(value: Any) -> bool:
        return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(plain(v) for v in value))

    return [name for name in names if plain(getattr(batch, name, None)) and name != "seed"]


def _schedulers(pipeline: Any) -> list[Any]:
    """Every scheduler that the pipeline or one of its stages holds, once."""
    holders = [pipeline.modules.get("scheduler"), *(getattr(stage, "scheduler", None) for stage in pipeline.stages)]
    found = [holder for holder in holders if callable(getattr(holder, "step", None))]
    return list({id(scheduler): scheduler for scheduler in found}.values())


@contextlib.contextmanager
def _drawn(keep: Callable[[Any], None]) -> Iterator[None]:
    """Hands over what a scheduler's step draws: torch.randn, and increments of torchsde's Brownian paths."""
    import torch

    places: list[tuple[Any, str]] = [(torch, "randn")]
    with contextlib.suppress(ImportError):  # a step may be the first to import it
        import torchsde

        places += [(torchsde.BrownianInterval, name) for name in ("__init__", "__call__")]
    kept = [getattr(owner, name) for owner, name in places]
    depth = [0]

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            try:
                value = original(*args, **kwargs)
            finally:
                depth[0] -= 1
            if torch.is_tensor(value) and not depth[0]:  # not what a path draws for itself
                keep(value)
            return value

        return draw

    for (owner, name), original in zip(places, kept, strict=True):
        setattr(owner, name, watched(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(places, kept, strict=True):
            setattr(owner, name, original)


def _tensor(value: Any) -> Any:
    """The main tensor of an argument or an output: itself, the first of a list, or a field of an output object."""
    import torch

    if value is None or torch.is_tensor(value):
        return value
    if isinstance(value, (tuple, list)):
        return _tensor(value[0]) if value else None
    if isinstance(value, Mapping):
        return _tensor(next(iter(value.values()), None))
    for name in ("prev_sample", "last_hidden_state", "sample", "pooler_output"):
        if torch.is_tensor(getattr(value, name, None)):
            return getattr(value, name)
    return None


def _forced(file: str) -> dict[str, Any]:
    if not file:
        return {}
    from safetensors.torch import load_file

    return {name: value for name, value in load_file(file).items() if name.startswith("latents/")}
