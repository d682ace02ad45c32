# SPDX-License-Identifier: Apache-2.0
"""How a release whose parts lie as their authors published them becomes Diffusers layout: a declaration, and a call.

    fvport convert                                                                     # in the port
    python scripts/checkpoint_conversion/real_bert_to_diffusers.py SOURCE TARGET       # anywhere

fvport reads the literals below and executes nothing of them.
"""

PIPELINE = ["diffusers", "WanPipeline"]
INDEX = {"boundary_ratio": None, "expand_timesteps": False, "transformer_2": [None, None]}
COMPONENTS = {
    "text_encoder": {
        "class": ["transformers", "BertModel"],
        "files": ["sentences/model.safetensors"],
        "prefix": "",
        "config": "sentences/config.json",
        "skip": {r"embeddings\.position_ids": "a buffer of old releases: 0, 1, 2 ..."},
    },
    "tokenizer": {
        "class": ["transformers", "BertTokenizer"],
        "folder": "sentences",
        "only": ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"],
    },
    "transformer": {
        "class": ["diffusers", "WanTransformer3DModel"],
        "files": ["denoiser/*"],
        "prefix": "",
        "config": "denoiser/config.json",
    },
    "vae": {"class": ["diffusers", "AutoencoderKLWan"], "folder": "vae"},
    "scheduler": {"class": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "folder": "scheduler"},
}

if __name__ == "__main__":
    from fvport.weights.converter import main

    main(__file__)
