"""Small networks of transformers and diffusers with random weights, for `architectures.py`."""

from collections.abc import Callable

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


NETWORKS: dict[str, Callable[[], Architecture]] = {
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
