# SPDX-License-Identifier: Apache-2.0
"""Media regression of {{ p.pipeline_class }} in FastVideo's own suite (MS-SSIM, CUDA, its reference store)."""
import os

import pytest

from fastvideo.logger import init_logger
from fastvideo.tests.ssim.inference_similarity_utils import (resolve_inference_device_reference_folder,
                                                             run_text_to_video_similarity_test)

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


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("attention_backend_name", ["TORCH_SDPA"])
@pytest.mark.parametrize("model_id", list(MODEL_TO_PARAMS))
def test_{{ p.slug }}_similarity(
    prompt: str,
    attention_backend_name: str,
    model_id: str,
) -> None:
    run_text_to_video_similarity_test(
        logger=logger,
        script_dir=os.path.dirname(os.path.abspath(__file__)),
        device_reference_folder=device_reference_folder,
        prompt=prompt,
        attention_backend_name=attention_backend_name,
        model_id=model_id,
        default_params_map=MODEL_TO_PARAMS,
        full_quality_params_map=MODEL_TO_PARAMS,
        min_acceptable_ssim=0.98,
    )
