# SPDX-License-Identifier: Apache-2.0
{% if p.is_stable_audio %}
"""Regression of {{ p.pipeline_class }} in FastVideo's own suite: its latents, as that suite compares sound (CUDA)."""
import os

import pytest

from fastvideo.logger import init_logger
from fastvideo.tests.ssim.inference_similarity_utils import resolve_inference_device_reference_folder
from fastvideo.tests.ssim.latent_similarity_utils import (AUDIO_FIRST_8_TIMESTEPS_SPEC,
                                                          run_text_to_latent_similarity_test)

logger = init_logger(__name__)

REQUIRED_GPUS = 1

device_reference_folder = resolve_inference_device_reference_folder(logger)

PARAMS = {
    "num_gpus": 1,
    "model_path": {{ ("converted_weights/" ~ p.slug) | pyrepr }},
    "height": 8,
    "width": 8,
    "num_frames": 1,
{% for name in ["num_inference_steps", "guidance_scale"] %}
{% if name in p.call %}
    "{{ name }}": {{ p.call[name] | pyrepr }},
{% endif %}
{% endfor %}
    "seed": {{ p.seeds[0] }},
    "sp_size": 1,
    "tp_size": 1,
    "fps": {{ p.fps }},
}

MODEL_TO_PARAMS = {
    "{{ p.slug }}": PARAMS,
}

PROMPTS = [
{% for prompt in p.prompts %}
    {{ prompt | pyrepr }},
{% endfor %}
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("attention_backend_name", ["TORCH_SDPA"])
@pytest.mark.parametrize("model_id", list(MODEL_TO_PARAMS))
def test_{{ p.slug }}_similarity(prompt: str, attention_backend_name: str, model_id: str) -> None:
    run_text_to_latent_similarity_test(
        logger=logger,
        script_dir=os.path.dirname(os.path.abspath(__file__)),
        device_reference_folder=device_reference_folder,
        prompt=prompt,
        attention_backend_name=attention_backend_name,
        model_id=model_id,
        default_params_map=MODEL_TO_PARAMS,
        full_quality_params_map=MODEL_TO_PARAMS,
        init_kwargs_override={"workload_type": "{{ p.workload }}"},
        slice_spec=AUDIO_FIRST_8_TIMESTEPS_SPEC,
    )
{% else %}
{% set runner = "image" if p.workload == "i2v" else "text" %}
"""Media regression of {{ p.pipeline_class }} in FastVideo's own suite (MS-SSIM, CUDA, its reference store)."""
import os
{% if p.takes_image or p.takes_video %}
from pathlib import Path
{% endif %}

{% if p.takes_video %}
import imageio
import numpy
{% endif %}
import pytest
{% if p.takes_image %}
from PIL import Image
{% endif %}

from fastvideo.logger import init_logger
from fastvideo.tests.ssim.inference_similarity_utils import (resolve_inference_device_reference_folder,
                                                             run_{{ runner }}_to_video_similarity_test)

logger = init_logger(__name__)

REQUIRED_GPUS = 1

device_reference_folder = resolve_inference_device_reference_folder(logger)

PARAMS = {
    "num_gpus": 1,
    "model_path": {{ ("converted_weights/" ~ p.slug) | pyrepr }},
{% for name in ["height", "width", "num_frames", "num_inference_steps", "guidance_scale"] %}
{% if name in p.call %}
    "{{ name }}": {{ p.call[name] | pyrepr }},
{% endif %}
{% endfor %}
{% if p.is_image %}
    "num_frames": 1,
{% endif %}
    "seed": {{ p.seeds[0] }},
    "sp_size": 1,
    "tp_size": 1,
    "fps": {{ p.fps }},
    "neg_prompt": {{ p.negative_prompt | pyrepr }},
}

MODEL_TO_PARAMS = {
    "{{ p.slug }}": PARAMS,
}

PROMPTS = [
{% for prompt in p.prompts %}
    {{ prompt | pyrepr }},
{% endfor %}
]

{% if p.takes_image %}

def picture(folder: Path) -> str:
    """The image that the {{ "image" if p.is_image else "video" }} begins with, drawn here: smooth colours in one direction, stripes in the other."""
    size = (PARAMS["width"], PARAMS["height"])
    red, green = Image.linear_gradient("L").resize(size), Image.radial_gradient("L").resize(size)
    file = folder / "picture.png"
    Image.merge("RGB", (red, green, red.rotate(180))).save(file)
    return str(file)

{% elif p.takes_video %}

def clip(folder: Path) -> str:
    """The video that the video begins with, drawn here: a slope of colours that moves one pixel a frame."""
    y, x = numpy.mgrid[0:PARAMS["height"], 0:PARAMS["width"]]
    frames = [numpy.stack([(x + n) % 256, (y * 2) % 256, (x + y) % 256], axis=-1) for n in range(PARAMS["num_frames"])]
    imageio.mimsave(folder / "clip.mp4", [frame.astype(numpy.uint8) for frame in frames], fps=PARAMS["fps"])
    return str(folder / "clip.mp4")

{% endif %}

@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("attention_backend_name", ["TORCH_SDPA"])
@pytest.mark.parametrize("model_id", list(MODEL_TO_PARAMS))
def test_{{ p.slug }}_similarity(
    prompt: str,
    attention_backend_name: str,
    model_id: str,
{% if p.takes_image or p.takes_video %}
    tmp_path: Path,
{% endif %}
) -> None:
    run_{{ runner }}_to_video_similarity_test(
        logger=logger,
        script_dir=os.path.dirname(os.path.abspath(__file__)),
        device_reference_folder=device_reference_folder,
        prompt=prompt,
{% if p.workload == "i2v" %}
        image_path=picture(tmp_path),
{% elif p.takes_image or p.takes_video %}
        generation_kwargs_override={
            "{{ "video" if p.takes_video else "image" }}_path": {{ "clip" if p.takes_video else "picture" }}(tmp_path),
{% if "strength" in p.call %}
            "strength": {{ p.call["strength"] | pyrepr }},
{% endif %}
        },
{% endif %}
        attention_backend_name=attention_backend_name,
        model_id=model_id,
        default_params_map=MODEL_TO_PARAMS,
        full_quality_params_map=MODEL_TO_PARAMS,
        min_acceptable_ssim=0.98,
{% if p.is_image %}
        init_kwargs_override={"workload_type": "{{ p.workload }}"},
        media_extension=".png",
{% endif %}
    )
{% endif %}
