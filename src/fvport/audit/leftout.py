# SPDX-License-Identifier: Apache-2.0
"""Native classes without a case, each with its reason. `tests/test_audit_census.py` proves that none is forgotten."""

from __future__ import annotations

D, E, V = "fastvideo.models.dits", "fastvideo.models.encoders", "fastvideo.models.vaes"
NO_TWIN = "no class of diffusers or transformers implements this model"
SAME = "it loads and calls the official class itself: a comparison would be of that class with itself"
MISSING = "the registry names a module that is not in the wheel"
FIXED = (
    "its constructor fixes the full size (hundreds of megabytes): no tiny twin can be built; its architecture is "
    "AutoencoderKLWan's, which has cases"
)

LEFT_OUT: dict[str, str] = {
    f"{D}.causal_wanvideo:CausalWanTransformer3DModel": f"{NO_TWIN} (causal rollout of Wan with a key-value cache)",
    f"{D}.dreamx_world:DreamXWorldTransformer3DModel": NO_TWIN,
    f"{D}.dreamx_world_ar:DreamXWorldARTransformer3DModel": NO_TWIN,
    f"{D}.gen3c:Gen3CTransformer3DModel": f"{NO_TWIN} (Cosmos with camera control; other inputs and weights)",
    f"{D}.hunyuangamecraft:HunyuanGameCraftTransformer3DModel": NO_TWIN,
    f"{D}.hyworld:HYWorldTransformer3DModel": NO_TWIN,
    f"{D}.hyworld.hyworld:HYWorldTransformer3DModel": NO_TWIN,
    f"{D}.lingbot_video:LingBotVideoTransformer3DModel": NO_TWIN,
    f"{D}.lingbotworld:LingBotWorldTransformer3DModel": NO_TWIN,
    f"{D}.lingbotworld.model:LingBotWorldTransformer3DModel": NO_TWIN,
    f"{D}.lingbotworld2:LingBotWorld2CausalFastTransformer3DModel": NO_TWIN,
    f"{D}.lingbotworld2.causal_fast:LingBotWorld2CausalFastTransformer3DModel": NO_TWIN,
    f"{D}.longcat:LongCatTransformer3DModel": f"{NO_TWIN} (diffusers has LongCat-Image and LongCat-Audio only)",
    f"{D}.longcat_video_dit:LongCatVideoTransformer3DModel": MISSING,
    f"{D}.magi_human:MagiHumanDiT": NO_TWIN,
    f"{D}.matrixgame2:MatrixGame2WanModel": NO_TWIN,
    f"{D}.matrixgame2:CausalMatrixGame2WanModel": NO_TWIN,
    f"{D}.matrixgame2.model:MatrixGame2WanModel": NO_TWIN,
    f"{D}.matrixgame2.causal_model:CausalMatrixGame2WanModel": NO_TWIN,
    f"{D}.matrixgame3:MatrixGame3WanModel": NO_TWIN,
    f"{D}.matrixgame3.model:MatrixGame3WanModel": NO_TWIN,
    f"{D}.mmaudio:MMAudioTransformer": NO_TWIN,
    f"{E}.glm_image_ar_loader:GlmImageARLoader": SAME,
    f"{E}.mistral3:Mistral3ForConditionalGeneration": SAME,
    f"{E}.t5_hf:T5EncoderModel": f"{SAME}; discovery puts t5:T5EncoderModel, which has cases, in its place",
    f"{E}.t5gemma:T5GemmaEncoderModel": SAME,
    f"{E}.reason1:Reason1TextEncoder": (
        "its constructor fetches a processor from the hub and builds flash attention: it cannot be built offline on a "
        "CPU; its language model is Qwen2.5-VL's, which has cases"
    ),
    f"{E}.mmaudio_synchformer:MMAudioSynchformerVisualEncoder": NO_TWIN,
    f"{V}.cosmos25wanvae:Cosmos25WanVAE": FIXED,
    f"{V}.gamecraftvae:GameCraftVAE": f"{NO_TWIN} (AutoencoderKLCausal3D of Tencent's own repository)",
    f"{V}.gen3c_tokenizer_vae:AutoencoderKLGen3CTokenizer": f"{NO_TWIN}; it wraps compiled (TorchScript) modules",
    f"{V}.lingbotworld2_wanvae:LingBotWorld2WanVAE": FIXED,
    f"{V}.sa_audio:SAAudioVAEModel": "a lazy wrapper of OobleckVAE, which has cases",
    f"{V}.minimax_h3_audio:MiniMaxH3AudioVAE": "the base of AutoencoderKLMiniMaxH3Audio, which has cases",
    f"{V}.stepvideovae:AutoencoderKLStepvideo": MISSING,
    "fastvideo.models.audio.mmaudio_vae:MMAudioVAE": (
        "its widths are fixed by mode (384 or 512 channels and more): no tiny twin of diffusers' MMAudioVAE can "
        "be built"
    ),
    "fastvideo.models.upsamplers.hunyuan15:SRTo720pUpsampler": NO_TWIN,
    "fastvideo.models.upsamplers.hunyuan15:SRTo1080pUpsampler": NO_TWIN,
    "fastvideo.models.schedulers.scheduling_rcm:RCMScheduler": f"{NO_TWIN} (diffusers' SCM takes other steps)",
    "fastvideo.models.schedulers.scheduling_self_forcing_flow_match:SelfForcingFlowMatchScheduler": NO_TWIN,
}
