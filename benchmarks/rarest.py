"""More small networks with random weights: detectors by queries and prompts, sound, time series, diffusion."""

from typing import Any

import diffusers
import torch
import transformers
from exported import Architecture, Outputs, pixels
from hugging_face import LABELS, SIZE, TEXT
from rarer import LAYERS, _boxes, _eager, _of, listed
from torch import Tensor, nn

WITHOUT_TIMM = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}


@listed
def owlvit() -> Architecture:
    text = {**TEXT, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    image = {**SIZE, "image_size": 64, "patch_size": 16}
    config = _eager("OwlViT", text_config=text, vision_config=image, projection_dim=64)

    def found(m: nn.Module, ids: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        given = m(input_ids=ids, pixel_values=x, attention_mask=torch.ones_like(ids))
        return given.logits, given.pred_boxes

    inputs = {"ids": torch.randint(3, 30, (1, 8)), "image": torch.randn(1, 3, 64, 64)}
    whole = Outputs(transformers.OwlViTForObjectDetection(config), found)
    return Architecture(whole, inputs, {name: {} for name in inputs})


@listed
def deformable_detr() -> Architecture:
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1] * 4, layer_type="basic",
        out_features=["stage3", "stage4"],
    )  # fmt: skip
    config = _eager(
        "DeformableDetr", **LAYERS | {"encoder_layers": 2, "decoder_layers": 2}, **WITHOUT_TIMM, **LABELS, d_model=64,
        num_queries=10, num_feature_levels=2, disable_custom_kernels=True, backbone_config=backbone,
    )  # fmt: skip
    return pixels(Outputs(transformers.DeformableDetrForObjectDetection(config), _boxes), 96, sides=False)


@listed
def d_fine() -> Architecture:
    backbone = transformers.HGNetV2Config(
        embedding_size=16, stem_channels=[3, 8, 16], hidden_sizes=[16, 32, 48, 64], depths=[1] * 4,
        stage_in_channels=[16, 16, 32, 48], stage_mid_channels=[8, 16, 16, 32], stage_out_channels=[16, 32, 48, 64],
        stage_num_blocks=[1] * 4, stage_numb_of_layers=[2] * 4, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = _eager(
        "DFine", backbone_config=backbone, use_pretrained_backbone=False, encoder_hidden_dim=32,
        encoder_in_channels=[32, 48, 64], encoder_layers=1, encoder_ffn_dim=64, encoder_attention_heads=4, d_model=32,
        num_queries=10, decoder_in_channels=[32] * 3, decoder_ffn_dim=64, num_feature_levels=3,
        decoder_n_points=[2] * 3, decoder_layers=2, decoder_attention_heads=4, num_denoising=0, anchor_image_size=None,
        **LABELS,
    )  # fmt: skip
    return pixels(Outputs(transformers.DFineForObjectDetection(config), _boxes), 96, sides=False)


@listed
def encodec() -> Architecture:
    """Of sounds that are whole frames, which are not padded by what a tensor says."""
    config = transformers.EncodecConfig(
        num_filters=8, upsampling_ratios=[4, 2], hidden_size=32, codebook_size=64, codebook_dim=32, num_lstm_layers=1,
        target_bandwidths=[1.5],
    )  # fmt: skip
    whole = transformers.EncodecModel(config)
    for part in whole.modules():
        if hasattr(part, "_get_extra_padding_for_conv1d"):
            total = int(part.padding_total)
            del part.padding_total
            part.padding_total, part._get_extra_padding_for_conv1d = total, lambda x: 0
    return _of(whole, lambda m, x: m.decoder(m.encoder(x)), sound=torch.randn(1, 1, 512))


@listed
def informer() -> Architecture:
    config = _eager(
        "Informer", prediction_length=6, context_length=12, input_size=1, lags_sequence=[1, 2], num_time_features=2,
        num_static_categorical_features=0, scaling=False, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, d_model=32, use_cache=False, distil=False,
    )  # fmt: skip
    whole = nn.ModuleList([transformers.InformerModel(config), nn.Linear(32, 5)])

    def ahead(m: Any, past: Tensor, times: Tensor, future: Tensor, following: Tensor) -> Tensor:
        given = m[0](
            past_values=past, past_time_features=times, past_observed_mask=torch.ones_like(past), future_values=future,
            future_time_features=following,
        )  # fmt: skip
        return m[1](given.last_hidden_state)

    past, future = torch.randn(1, 14), torch.randn(1, 6)
    return _of(whole, ahead, past=past, times=torch.randn(1, 14, 2), future=future, following=torch.randn(1, 6, 2))


@listed
def flux() -> Architecture:
    whole = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0))

    def noise(m: nn.Module, x: Tensor, text: Tensor, pool: Tensor, time: Tensor) -> Tensor:
        given = {"encoder_hidden_states": text, "pooled_projections": pool, "timestep": time}
        return m(hidden_states=x, **given, img_ids=places, txt_ids=torch.zeros(7, 3)).sample

    inputs = {"latent": torch.randn(1, 16, 4), "text": torch.randn(1, 7, 32), "pool": torch.randn(1, 32)}
    return _of(whole, noise, **inputs, time=torch.tensor([0.5]))
