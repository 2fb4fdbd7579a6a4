"""Small networks of sound, video, time series, diffusion and prompts with random weights, for `architectures.py`."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import torchvision
import transformers
from exported import CLASSES, Architecture, Outputs, pixels
from hugging_face import BLOCKS, LABELS, SIZE, TEXT
from torch import Tensor, nn

LAYERS = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 128))}
LAYERS |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
NETWORKS: dict[str, Callable[[], Architecture]] = {}


def listed(builder: Callable[[], Architecture]) -> Callable[[], Architecture]:
    """List a builder under its own name."""
    NETWORKS[builder.__name__] = builder
    return builder


def _of(module: nn.Module, pick: Callable[..., Any], **inputs: Tensor) -> Architecture:
    """A network whose batch is open in every input."""
    return Architecture(Outputs(module, pick), inputs, {name: {0: "batch"} for name in inputs})


def _eager(name: str, **options: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(**options)
    config._attn_implementation = "eager"
    return config


def _boxes(module: nn.Module, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    found = module(*inputs)
    return found.logits, found.pred_boxes


# --- detection ---------------------------------------------------------------


def _heads_of_regions(module: Any, last: str) -> Architecture:
    """A detector in two stages without what sorts its boxes: these are an input."""

    def heads(m: Any, image: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        maps, regions, sizes = m.backbone(image), m.roi_heads, [image.shape[2:]]
        first = regions.box_predictor(regions.box_head(regions.box_roi_pool(maps, [boxes], sizes)))
        pool, head, end = (getattr(regions, f"{last}_{part}") for part in ("roi_pool", "head", "predictor"))
        proposals = [x for part in m.rpn.head(list(maps.values())) for x in part]
        return (*first, end(head(pool(maps, [boxes], sizes))), *proposals)

    boxes = torch.tensor([[4.0, 4.0, 40.0, 50.0], [10.0, 20.0, 80.0, 90.0]])
    inputs = {"image": torch.randn(1, 3, 96, 96), "boxes": boxes}
    return Architecture(Outputs(module, heads), inputs, {"image": {}, "boxes": {0: "boxes"}})


def _pyramid() -> nn.Module:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet18", weights=None)


@listed
def mask_rcnn() -> Architecture:
    return _heads_of_regions(torchvision.models.detection.MaskRCNN(_pyramid(), num_classes=CLASSES), "mask")


@listed
def keypoint_rcnn() -> Architecture:
    return _heads_of_regions(torchvision.models.detection.KeypointRCNN(_pyramid(), num_classes=CLASSES), "keypoint")


@listed
def table_transformer() -> Architecture:
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    plain = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    config = transformers.TableTransformerConfig(
        **LAYERS, **plain, **LABELS, d_model=64, num_queries=10, backbone_config=backbone
    )
    return pixels(Outputs(transformers.TableTransformerForObjectDetection(config), _boxes), 96, sides=False)


# --- motion ------------------------------------------------------------------


@listed
def raft_small() -> Architecture:
    whole = torchvision.models.optical_flow.raft_small(weights=None)
    frames = {name: torch.randn(1, 3, 128, 128) for name in ("before", "after")}
    return _of(whole, lambda m, a, b: m(a, b, num_flow_updates=2)[-1], **frames)


def _film(kind: str, **options: Any) -> Architecture:
    config = _eager(kind, **SIZE, **LABELS, image_size=32, patch_size=8, num_frames=4, **options)
    whole = getattr(transformers, f"{kind}ForVideoClassification")(config)
    return _of(whole, lambda m, x: m(x).logits, frames=torch.randn(1, 4, 3, 32, 32))


@listed
def timesformer() -> Architecture:
    return _film("Timesformer")


@listed
def videomae() -> Architecture:
    return _film("VideoMAE", tubelet_size=2)


class SlowFast(nn.Module):
    """Two pathways, and the fast one's channels beside the slow one's.  Feichtenhofer et al., arXiv 1812.03982."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = _block(3, 32, (1, 7, 7), (1, 2, 2)), _block(3, 8, (5, 7, 7), (1, 2, 2))
        self.lateral = _block(8, 16, (5, 1, 1), (4, 1, 1))
        self.slower, self.faster = _block(48, 64, (1, 3, 3)), _block(8, 16, (3, 3, 3))
        self.head = nn.Linear(80, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        slow, fast = self.slow(x[:, :, ::4]), self.fast(x)
        slow, fast = self.slower(torch.cat([slow, self.lateral(fast)], 1)), self.faster(fast)
        return self.head(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1))


def _block(n: int, m: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1), group: int = 1) -> nn.Module:
    conv = nn.Conv3d(n, m, kernel, stride, tuple(k // 2 for k in kernel), groups=group, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(m), nn.ReLU())


class Expanded(nn.Module):
    """Bottlenecks of depthwise convolutions in time and space.  Feichtenhofer, arXiv 2004.04730."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 24, (1, 3, 3), (1, 2, 2)), _block(24, 24, (5, 1, 1), group=24))
        self.wide = nn.ModuleList(
            nn.Sequential(_block(24, 54, (1, 1, 1)), _block(54, 54, (3, 3, 3), group=54)) for _ in range(2)
        )
        self.gates = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(54, 8, 1), nn.ReLU(), nn.Conv3d(8, 54, 1), nn.Sigmoid())
            for _ in range(2)
        )
        self.narrow = nn.ModuleList(_block(54, 24, (1, 1, 1)) for _ in range(2))
        self.end, self.head = _block(24, 128, (1, 1, 1)), nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for wide, gate, narrow in zip(self.wide, self.gates, self.narrow, strict=True):
            y = wide(x)
            x = x + narrow(y * gate(y))
        return self.head(self.end(x).mean((2, 3, 4)))


def _clip(module: nn.Module, **axes: int) -> Architecture:
    open_axes = {0: "batch"} | {axis: name for name, axis in axes.items()}
    return Architecture(module, {"clip": torch.randn(1, 3, 8, 48, 48)}, {"clip": open_axes})


@listed
def slowfast() -> Architecture:
    return _clip(SlowFast(), height=3, width=4)


@listed
def x3d() -> Architecture:
    return _clip(Expanded(), frames=2, height=3, width=4)


# --- sound, texts, series ----------------------------------------------------


@listed
def dac() -> Architecture:
    config = transformers.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=64, hidden_size=32, n_codebooks=2,
        codebook_size=32, codebook_dim=8,
    )  # fmt: skip
    return _of(transformers.DacModel(config), lambda m, x: m.decoder(m.encoder(x)), sound=torch.randn(1, 1, 512))


@listed
def musicgen() -> Architecture:
    config = _eager(
        "MusicgenDecoder", vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=128,
        num_codebooks=2, max_position_embeddings=64, use_cache=False, pad_token_id=64, bos_token_id=64,
    )  # fmt: skip

    def logits(m: nn.Module, ids: Tensor, text: Tensor) -> Tensor:
        return m(input_ids=ids, encoder_hidden_states=text).logits

    inputs = {"ids": torch.randint(0, 60, (2, 8)), "text": torch.randn(1, 5, 64)}
    whole = Outputs(transformers.MusicgenForCausalLM(config), logits)
    return Architecture(whole, inputs, {"ids": {1: "length"}, "text": {1: "words"}})


@listed
def mamba2() -> Architecture:
    config = transformers.Mamba2Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=2,
        chunk_size=8, use_cache=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return _of(transformers.Mamba2ForCausalLM(config), lambda m, x: m(x).logits, ids=torch.randint(0, 3, (1, 12)))


@listed
def rwkv() -> Architecture:
    config = transformers.RwkvConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, intermediate_size=128, context_length=16, use_cache=False
    )
    return _of(transformers.RwkvForCausalLM(config), lambda m, x: m(x).logits, ids=torch.randint(0, 3, (1, 6)))


@listed
def patchtst() -> Architecture:
    config = _eager(
        "PatchTST", num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, num_hidden_layers=2,
        d_model=32, num_attention_heads=4, ffn_dim=64, prediction_length=8, loss="mse", scaling=None,
    )  # fmt: skip
    whole = transformers.PatchTSTForPrediction(config)
    return _of(whole, lambda m, x: m(x).prediction_outputs, series=torch.randn(1, 32, 3))


@listed
def blip() -> Architecture:
    ends = {"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    text = {**TEXT, **ends, "encoder_hidden_size": 64, "projection_dim": 32, "max_position_embeddings": 24}
    image = {**SIZE, "image_size": 64, "patch_size": 16, "projection_dim": 32}
    config = _eager("Blip", text_config=text, vision_config=image, projection_dim=32, image_text_hidden_size=32)

    def score(m: nn.Module, ids: Tensor, image: Tensor) -> Tensor:
        return m(input_ids=ids, pixel_values=image, use_itm_head=True).itm_score

    inputs = {"ids": torch.randint(3, 30, (1, 8)), "image": torch.randn(1, 3, 64, 64)}
    return _of(transformers.BlipForImageTextRetrieval(config), score, **inputs)


# --- diffusion ---------------------------------------------------------------


@listed
def controlnet() -> Architecture:
    kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    whole = diffusers.ControlNetModel(
        **BLOCKS, **kinds, cross_attention_dim=24, attention_head_dim=8, conditioning_embedding_out_channels=(8, 16)
    )

    def residuals(m: nn.Module, *x: Tensor) -> tuple[Tensor, ...]:
        found = m(*x)
        return *found.down_block_res_samples, found.mid_block_res_sample

    inputs = {"latent": torch.randn(1, 4, 16, 16), "time": torch.tensor([5.0]), "text": torch.randn(1, 7, 24)}
    return _of(whole, residuals, **inputs, hint=torch.randn(1, 3, 32, 32))


@listed
def sd3() -> Architecture:
    whole = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=24, caption_projection_dim=64, pooled_projection_dim=24, out_channels=4,
        pos_embed_max_size=16,
    )  # fmt: skip
    inputs = {"latent": torch.randn(1, 4, 16, 16), "text": torch.randn(1, 7, 24), "pool": torch.randn(1, 24)}
    return _of(whole, lambda m, *x: m(*x).sample, **inputs, time=torch.tensor([5.0]))
