"""Networks of public libraries with random weights, as small as their builders allow: what `coverage.py` exports.

A name is `library:network`; libraries are imported when they are asked for.
"""

from collections.abc import Callable
from typing import Any

import torch
from exported import CLASSES, Architecture, Outputs, pixels
from torch import Tensor, nn


def lively(found: Architecture) -> Architecture:
    """The network in evaluation, with statistics of random inputs, and without zeros that hide what stands before."""
    norms = [m for m in found.module.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that passes
        norm.train()
    for weight in found.module.parameters():
        if weight.numel() > 1 and weight.detach().abs().max() < 1e-3:
            nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        several = (x.repeat(4, *[1] * (x.dim() - 1)) for x in found.inputs.values())
        found.module(*(torch.randn_like(x) if x.is_floating_point() else x for x in several))
    found.module.eval()
    return found


def of_timm(name: str) -> Architecture:
    import timm

    name, _, size = name.partition("@")
    fixed = any(name.startswith(start) for start in FIXED)
    options: dict[str, Any] = {"num_classes": CLASSES} | TIMM_OPTIONS.get(name, {})
    options |= {"img_size": int(size or 64)} if fixed and not name.startswith(UNTOLD) else {}
    module = timm.create_model(name, pretrained=False, exportable=True, **options)
    return pixels(module, int(size or 64), sides=not fixed)


# Those that are built for one size of image; and those of them that are not told which.
FIXED = (
    "vit_tiny deit swin xcit cait pit mixer gmlp resmlp levit coat_ crossvit mvit gcvit maxvit coatnet nest tnt "
    "convit tiny_vit efficientformer efficientvit_m volo visformer hiera davit twins beit eva0 focalnet sequencer"
).split()
UNTOLD = ("tiny_vit",)
TIMM_OPTIONS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 2},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2, 1), "embed_dim": 48, "num_heads": (2, 4, 8), "window_size": 4},
    "swinv2_tiny_window8_256": {"depths": (1, 2, 1), "embed_dim": 48, "num_heads": (2, 4, 8), "window_size": 4},
    "cait_xxs24_224": {"depth": 2},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 96, "num_heads": 4},
    "eva02_tiny_patch14_224": {"depth": 2, "patch_size": 16},
}


def of_torchvision(name: str) -> Architecture:
    from torchvision import models

    if name in DETECTORS:
        return _detector(name)
    builder, options = models.get_model_builder(name), dict[str, Any](weights=None, num_classes=CLASSES)
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "transform_input": False, "init_weights": False}
    if builder.__module__.startswith("torchvision.models.segmentation"):
        whole = builder(**options, weights_backbone=None)
        return pixels(Outputs(whole, lambda m, x: m(x)["out"]), 96)
    fixed = name in ("vit_b_16", "maxvit_t")
    return pixels(
        builder(**options), {"inception_v3": 128, "alexnet": 96}.get(name, 224 if fixed else 64), sides=not fixed
    )


def _levels(m: nn.Module, x: Tensor) -> list[Tensor]:
    """What a head of torchvision gives for the levels of a backbone."""
    found = m.backbone(x)
    levels = list(found.values()) if isinstance(found, dict) else [found]
    given = m.head(levels) if hasattr(m, "head") else m.rpn.head(levels)
    if isinstance(given, dict):
        return list(given.values())
    return [x for part in given for x in part]


def _detector(kind: str) -> Architecture:
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    if kind == "ssdlite320_mobilenet_v3_large":
        module: nn.Module = detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES
        )
    else:
        build = {"retinanet": detection.RetinaNet, "fcos": detection.FCOS, "faster_rcnn": detection.FasterRCNN}[kind]
        module = build(resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=CLASSES)
    return pixels(Outputs(module, _levels), 96)


DETECTORS = ("ssdlite320_mobilenet_v3_large", "retinanet", "fcos", "faster_rcnn")


def of_ultralytics(name: str) -> Architecture:
    from ultralytics.nn import tasks

    kinds = {
        "seg": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "cls": tasks.ClassificationModel,
        "obb": tasks.OBBModel,
    }
    kind = kinds.get(name.rpartition("-")[2], tasks.DetectionModel)
    kind = tasks.RTDETRDetectionModel if "rtdetr" in name else kind
    module = kind(f"{name}.yaml", nc=CLASSES, verbose=False).eval()
    for part in module.modules():
        if hasattr(part, "export"):
            part.export, part.format, part.dynamic = True, "onnx", True
    return pixels(Outputs(module, lambda m, x: m(x)), 160 if "rtdetr" in name else 96, sides="rtdetr" not in name)


def of_hugging_face(name: str) -> Architecture:
    from hugging_face import NETWORKS

    return NETWORKS[name]()


LIBRARIES: dict[str, Callable[[str], Architecture]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "ultralytics": of_ultralytics,
    "transformers": lambda name: of_hugging_face(f"transformers:{name}"),
    "diffusers": lambda name: of_hugging_face(f"diffusers:{name}"),
}


def architecture(name: str) -> Architecture:
    """A network by its name, with weights that the same name always gives."""
    torch.manual_seed(0)
    library, _, network = name.partition(":")
    return lively(LIBRARIES[library](network))


NAMES = {
    "torchvision": (
        "alexnet densenet121 efficientnet_b0 googlenet inception_v3 mnasnet1_0 mobilenet_v2 mobilenet_v3_small "
        "regnet_y_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_0 vgg11_bn convnext_tiny "
        "swin_t deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large ssdlite320_mobilenet_v3_large retinanet fcos "
        "faster_rcnn"
    ),
    "timm": (
        "convnextv2_atto efficientvit_b0 efficientvit_m0@128 tf_efficientnetv2_b0 mixnet_s ghostnet_050 resnest14d "
        "skresnet18 ecaresnet26t nf_regnet_b0 mobilevit_xxs mobilevitv2_050 edgenext_xx_small levit_128s@128 "
        "coat_lite_tiny pvt_v2_b0 mvitv2_tiny gcvit_xxtiny poolformer_s12 mobilenetv4_conv_small fastvit_t8 "
        "repvit_m0_9 hrnet_w18_small dla46_c mixer_s32_224 starnet_s1 tiny_vit_5m_224@224 inception_next_atto "
        "xcit_nano_12_p16_224 vit_tiny_patch16_224 swin_tiny_patch4_window7_224"
    ),
    "ultralytics": "yolov5n yolov8n yolov8n-seg yolov9t yolov10n yolo11n yolo12n rtdetr-l",
    "transformers": "bert gpt2 llama t5 whisper vit swin convnextv2 segformer mobilevit detr",
    "diffusers": "vae tiny_vae unet unet_text dit",
}
