# SPDX-License-Identifier: Apache-2.0
"""What a person writes into oracle.py: the official encoder is read from the folder that it was published in, never
from the converted tree."""

import pathlib


def build_text_encoder(folder, dtype):
    """The official encoder from the release's folder, every parameter in `dtype`."""
    from transformers import BertModel

    return BertModel.from_pretrained(pathlib.Path(folder) / "sentences", dtype=dtype).to(dtype).eval()
