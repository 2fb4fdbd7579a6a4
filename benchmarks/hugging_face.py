"""Small networks of transformers and diffusers with random weights, for `architectures.py`."""

from collections.abc import Callable
from functools import partial

import diffusers
import torch
import transformers
from exported import CLASSES, Architecture, Outputs, pixels, tokens
from torch import Tensor, nn

LABELS = {"num_labels": CLASSES}
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SIZE, "vocab_size": 300, "use_cache": False}


def _logits(module: nn.Module) -> nn.Module:
    return Outputs(module, lambda m, x: m(x).logits)


def _bert() -> Architecture:
    return tokens(_logits(transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT, **LABELS))))


def _gpt2() -> Architecture:
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "use_cache": False}
    return tokens(_logits(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))))


def _llama() -> Architecture:
    return tokens(_logits(transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, num_key_value_heads=2))))


def _t5() -> Architecture:
    shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 300}
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**shape, use_cache=False))
    module = Outputs(whole, lambda m, x, y: m(input_ids=x, decoder_input_ids=y).logits)
    return tokens(module, names="ids answer")


def _whisper() -> Architecture:
    shape = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 128))}
    shape |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 64, "num_mel_bins": 20}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    longest = {"max_source_positions": 40, "max_target_positions": 24}
    config = transformers.WhisperConfig(**shape, **ends, **longest, vocab_size=300, use_cache=False)
    whole = transformers.WhisperForConditionalGeneration(config)
    module = Outputs(whole, lambda m, x, y: m(input_features=x, decoder_input_ids=y).logits)
    inputs = {"sound": torch.randn(1, 20, 80), "ids": torch.randint(0, 3, (1, 6))}
    return Architecture(module, inputs, {"sound": {0: "batch"}, "ids": {0: "batch", 1: "length"}})


def _vit() -> Architecture:
    config = transformers.ViTConfig(**SIZE, **LABELS, image_size=64)
    return pixels(_logits(transformers.ViTForImageClassification(config)), sides=False)


def _swin() -> Architecture:
    shape = {"embed_dim": 32, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4, "image_size": 64}
    return pixels(
        _logits(transformers.SwinForImageClassification(transformers.SwinConfig(**shape, **LABELS))), sides=False
    )


def _convnextv2() -> Architecture:
    config = transformers.ConvNextV2Config(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1], **LABELS)
    return pixels(_logits(transformers.ConvNextV2ForImageClassification(config)))


def _segformer() -> Architecture:
    shape = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "decoder_hidden_size": 64}
    config = transformers.SegformerConfig(**shape, **LABELS)
    return pixels(_logits(transformers.SegformerForSemanticSegmentation(config)))


def _mobilevit() -> Architecture:
    shape = {"hidden_sizes": [48, 64, 80], "neck_hidden_sizes": [16, 16, 32, 48, 64, 80, 160]}
    config = transformers.MobileViTConfig(**shape, **LABELS)
    return pixels(_logits(transformers.MobileViTForImageClassification(config)), sides=False)


def _detr() -> Architecture:
    backbone = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    shape = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 128))}
    shape |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 64, "num_queries": 10}
    plain = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    config = transformers.DetrConfig(**shape, **plain, backbone_config=backbone, **LABELS)

    def boxes(m: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        given = m(x)
        return given.logits, given.pred_boxes

    return pixels(Outputs(transformers.DetrForObjectDetection(config), boxes), 96, sides=False)


def _noise(module: nn.Module, **more: Tensor) -> Architecture:
    """A network that finds the noise in a latent image at a time."""
    inputs = {"latent": torch.randn(1, 4, 16, 16), "time": torch.tensor([5.0])} | more
    axes = {"latent": {0: "batch", 2: "height", 3: "width"}, "time": {0: "batch"}}
    axes |= {name: {0: "batch"} | ({1: "length"} if x.dim() > 1 else {}) for name, x in more.items()}
    return Architecture(Outputs(module, lambda m, *x: m(*x).sample), inputs, axes)


BLOCKS = {"block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 1}


def _vae() -> Architecture:
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    whole = diffusers.AutoencoderKL(**BLOCKS, **kinds)
    return pixels(Outputs(whole, lambda m, x: m.decode(m.encode(x).latent_dist.mode()).sample), 32)


def _tiny_vae() -> Architecture:
    return pixels(Outputs(diffusers.AutoencoderTiny(), lambda m, x: m(x).sample), 32)


def _unet() -> Architecture:
    kinds = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return _noise(diffusers.UNet2DModel(**BLOCKS, **kinds, in_channels=4, out_channels=4))


def _unet_text() -> Architecture:
    kinds = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    whole = diffusers.UNet2DConditionModel(**BLOCKS, **kinds, cross_attention_dim=24, attention_head_dim=8)
    return _noise(whole, text=torch.randn(1, 7, 24))


def _dit() -> Architecture:
    shape = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2, "sample_size": 16, "in_channels": 4}
    whole = diffusers.DiTTransformer2DModel(**shape, norm_num_groups=8, num_embeds_ada_norm=40)
    found = _noise(whole, label=torch.tensor([3]))
    inputs = found.inputs | {"time": torch.tensor([5])}
    return Architecture(found.module, inputs, {name: {0: "batch"} for name in inputs})


ENCODERS = {  # of texts -> name of the model, and what its configuration has beside TEXT
    "distilbert": ("DistilBert", {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}),
    "albert": ("Albert", {"embedding_size": 32}),
    "deberta": ("DebertaV2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "electra": ("Electra", {"embedding_size": 32}),
    "modernbert": ("ModernBert", {"pad_token_id": 0, "reference_compile": False}),
}
DECODERS = {  # of texts, likewise
    "mistral": ("Mistral", {"num_key_value_heads": 2}),
    "gemma": ("Gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2", {"num_key_value_heads": 2, "head_dim": 16}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "mixtral": ("Mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}),
    "phi": ("Phi", {"pad_token_id": 0}),
    "phi3": ("Phi3", {"pad_token_id": 0, "num_key_value_heads": 2}),
    "gptneox": ("GPTNeoX", {}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "opt": ("OPT", {"ffn_dim": 128, "word_embed_proj_dim": 64, "pad_token_id": 0}),
    "falcon": ("Falcon", {"multi_query": True}),
    "mamba": ("Mamba", {"state_size": 8}),
}


def _text(name: str, more: dict[str, object], end: str) -> Architecture:
    config = getattr(transformers, f"{name}Config")(**{**TEXT, **LABELS, **more})
    config._attn_implementation = "eager"
    return tokens(_logits(getattr(transformers, f"{name}{end}")(config)))


IMAGES = {  # networks of images -> class of the model, the output that is taken, side, and the configuration
    "deit": ("DeiTForImageClassification", "logits", 64, {**SIZE, "image_size": 64}),
    "beit": (
        "BeitForImageClassification",
        "logits",
        64,
        {**SIZE, "image_size": 64, "use_relative_position_bias": True},
    ),
    "dinov2": ("Dinov2ForImageClassification", "logits", 70, {**SIZE, "mlp_ratio": 2, "image_size": 70}),
    "dinov2_registers": (
        "Dinov2WithRegistersForImageClassification",
        "logits",
        70,
        {**SIZE, "mlp_ratio": 2, "image_size": 70},
    ),
    "siglip": ("SiglipVisionModel", "pooler_output", 64, {**SIZE, "image_size": 64}),
    "clip_vision": ("CLIPVisionModel", "pooler_output", 64, {**SIZE, "image_size": 64, "patch_size": 16}),
    "poolformer": (
        "PoolFormerForImageClassification",
        "logits",
        64,
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    ),
    "mobilevitv2": ("MobileViTV2ForImageClassification", "logits", 64, {"image_size": 64, "width_multiplier": 0.5}),
    "cvt": (
        "CvtForImageClassification",
        "logits",
        64,
        {"embed_dim": [16, 32, 64], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    ),
    "levit": (
        "LevitForImageClassification",
        "logits",
        128,
        {
            "image_size": 128,
            "hidden_sizes": [32, 64, 96],
            "num_attention_heads": [2, 2, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "swinv2": (
        "Swinv2ForImageClassification",
        "logits",
        64,
        {"embed_dim": 32, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4, "image_size": 64},
    ),
    "pvt": (
        "PvtForImageClassification",
        "logits",
        64,
        {"hidden_sizes": [16, 32, 64, 64], "depths": [1] * 4, "num_attention_heads": [1, 2, 4, 4], "image_size": 64},
    ),
    "yolos": (
        "YolosForObjectDetection",
        "logits",
        64,
        {**SIZE, "image_size": [64, 64], "num_detection_tokens": 5, "use_mid_position_embeddings": False},
    ),
    "dpt": (
        "DPTForDepthEstimation",
        "predicted_depth",
        64,
        {
            **SIZE,
            "num_hidden_layers": 4,
            "image_size": 64,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [16, 32, 48, 64],
            "fusion_hidden_size": 32,
            "is_hybrid": False,
            "readout_type": "project",
        },
    ),
    "glpn": (
        "GLPNForDepthEstimation",
        "predicted_depth",
        64,
        {
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 32,
        },
    ),
}


def _image(model: str, output: str, side: int, shape: dict[str, object]) -> Architecture:
    kind = getattr(transformers, model)
    config = kind.config_class(**{**shape, **LABELS})
    config._attn_implementation = "eager"
    return pixels(Outputs(kind(config), lambda m, x: getattr(m(x), output)), side, sides=False)


def _clip() -> Architecture:
    text = {**TEXT, "max_position_embeddings": 24, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**SIZE, "image_size": 64, "patch_size": 16}, projection_dim=32
    )
    whole = transformers.CLIPModel(config)
    module = Outputs(whole, lambda m, ids, image: m(input_ids=ids, pixel_values=image).logits_per_image)
    inputs = {"ids": torch.randint(0, 3, (1, 12)), "image": torch.randn(1, 3, 64, 64)}
    return Architecture(module, inputs, {"ids": {0: "texts"}, "image": {0: "batch"}})


def _sound(name: str) -> Architecture:
    shape = {**SIZE, "conv_dim": (16, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "vocab_size": 30}
    shape |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "pad_token_id": 0}
    kind = getattr(transformers, f"{name}ForCTC")
    whole = kind(kind.config_class(**shape))
    return Architecture(_logits(whole), {"sound": torch.randn(1, 2000)}, {"sound": {0: "batch", 1: "samples"}})


def _sam() -> Architecture:
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 128, "mlp_dim": 128}
    vision |= {"output_channels": 32, "global_attn_indexes": [1], "window_size": 3, "num_pos_feats": 16}
    config = transformers.SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64,
                             "iou_head_hidden_dim": 32},
    )  # fmt: skip
    module = Outputs(
        transformers.SamModel(config),
        lambda m, x, p: m(pixel_values=x, input_points=p, multimask_output=True).pred_masks,
    )
    inputs = {"image": torch.randn(1, 3, 128, 128), "points": torch.rand(1, 1, 2, 2) * 100}
    return Architecture(module, inputs, {"image": {0: "batch"}, "points": {0: "batch"}})


def _mae() -> Architecture:
    config = transformers.ViTMAEConfig(**SIZE, image_size=64, mask_ratio=0.0)
    return pixels(Outputs(transformers.ViTMAEModel(config), lambda m, x: m(x).last_hidden_state), 64, sides=False)


def _backbone() -> object:
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def _mask2former() -> Architecture:
    shape = {"hidden_dim": 32, "mask_feature_size": 32, "feature_size": 32, "encoder_feedforward_dim": 64}
    shape |= {
        "dim_feedforward": 64,
        "decoder_layers": 2,
        "encoder_layers": 1,
        "num_queries": 5,
        "num_attention_heads": 4,
    }
    config = transformers.Mask2FormerConfig(backbone_config=_backbone(), **shape, **LABELS)
    whole = transformers.Mask2FormerForUniversalSegmentation(config)
    return pixels(Outputs(whole, lambda m, x: m(x).masks_queries_logits), 96, sides=False)


def _upernet() -> Architecture:
    config = transformers.UperNetConfig(
        backbone_config=_backbone(), hidden_size=32, auxiliary_channels=16, auxiliary_in_channels=48, **LABELS
    )
    return pixels(_logits(transformers.UperNetForSemanticSegmentation(config)), 96)


def _depth_anything() -> Architecture:
    backbone = transformers.Dinov2Config(
        **SIZE, mlp_ratio=2, image_size=70, reshape_hidden_states=False, out_indices=[1, 2], apply_layernorm=True
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=64, neck_hidden_sizes=[16, 32], fusion_hidden_size=16,
        reassemble_factors=[2, 1], head_hidden_size=8,
    )  # fmt: skip
    whole = transformers.DepthAnythingForDepthEstimation(config)
    return pixels(Outputs(whole, lambda m, x: m(x).predicted_depth), 70, sides=False)


NETWORKS: dict[str, Callable[[], Architecture]] = {
    **{f"transformers:{k}": partial(_text, *row, "ForSequenceClassification") for k, row in ENCODERS.items()},
    **{f"transformers:{k}": partial(_text, *row, "ForCausalLM") for k, row in DECODERS.items()},
    **{f"transformers:{k}": partial(_image, *row) for k, row in IMAGES.items()},
    **{f"transformers:{k.lower()}": partial(_sound, k) for k in ("Wav2Vec2", "Hubert")},
    "transformers:clip": _clip,
    "transformers:sam": _sam,
    "transformers:mae": _mae,
    "transformers:mask2former": _mask2former,
    "transformers:upernet": _upernet,
    "transformers:depth_anything": _depth_anything,
    "transformers:bert": _bert,
    "transformers:gpt2": _gpt2,
    "transformers:llama": _llama,
    "transformers:t5": _t5,
    "transformers:whisper": _whisper,
    "transformers:vit": _vit,
    "transformers:swin": _swin,
    "transformers:convnextv2": _convnextv2,
    "transformers:segformer": _segformer,
    "transformers:mobilevit": _mobilevit,
    "transformers:detr": _detr,
    "diffusers:vae": _vae,
    "diffusers:tiny_vae": _tiny_vae,
    "diffusers:unet": _unet,
    "diffusers:unet_text": _unet_text,
    "diffusers:dit": _dit,
}
