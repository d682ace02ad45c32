# SPDX-License-Identifier: Apache-2.0
"""Generate one {{ "video" if p.workload.endswith("2v") else ("image" if p.workload.endswith("2i") else "audio clip") }} with {{ p.pipeline_class }}.

    python examples/inference/basic/basic_{{ p.slug }}.py {{ "--image picture.png " if p.takes_image else "--video clip.mp4 " if p.takes_video }}--output outputs

The defaults are the official pipeline's. MODEL is the folder that `nox -s prep workspace conversion` makes.
"""
import argparse

import torch

from fastvideo import VideoGenerator

MODEL = {{ ("converted_weights/" ~ p.slug) | pyrepr }}
PROMPT = {{ p.prompts[0] | pyrepr }}
NEGATIVE_PROMPT = {{ p.negative_prompt | pyrepr }}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="folder or hub id")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--negative-prompt", default=NEGATIVE_PROMPT)
    parser.add_argument("--output", default="outputs", help="folder, or a file that does not exist yet")
    parser.add_argument("--seed", type=int, default={{ p.seeds[0] }})
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--offload",
                        action=argparse.BooleanOptionalAction,
                        default=torch.cuda.is_available(),
                        help="keep idle components in host memory")
{% if not p.is_image and not p.is_stable_audio %}
    parser.add_argument("--fps", type=int, default={{ p.fps }})
{% endif %}
{% for name, value in p.call.items() %}
{% set usual = p.defaults.get(name, (value, ""))[0] %}
{% if usual is number %}
    parser.add_argument("--{{ name | replace("_", "-") }}", type={{ "float" if usual is float or "guidance" in name or name == "strength" else "int" }}, default={{ usual | pyrepr }})
{% endif %}
{% endfor %}
{% if p.takes_image %}
    parser.add_argument("--image", required=True, help="file or address of the image that it begins with")
{% elif p.takes_video %}
    parser.add_argument("--video", required=True, help="file or address of the video that it begins with")
{% endif %}
    args = vars(parser.parse_args())

    offload = args.pop("offload")
    generator = VideoGenerator.from_pretrained(
        args.pop("model"),
        num_gpus=args.pop("num_gpus"),
{% if p.is_image or p.is_audio %}
        workload_type="{{ p.workload }}",
{% endif %}
        dit_cpu_offload=offload,
        vae_cpu_offload=offload,
        text_encoder_cpu_offload=offload,
        image_encoder_cpu_offload=offload,
        dit_layerwise_offload=False,
        pin_cpu_memory=offload,
    )
{% if p.takes_image %}
    args["image_path"] = args.pop("image")
{% elif p.takes_video %}
    args["video_path"] = args.pop("video")
{% endif %}
    result = generator.generate_video(args.pop("prompt"), output_path=args.pop("output"), save_video=True, **args)
    print(f"written: {result['video_path']}")
    generator.shutdown()


if __name__ == "__main__":
    main()
