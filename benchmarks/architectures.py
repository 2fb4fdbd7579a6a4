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
    "vit_ deit swin xcit cait pit mixer gmlp resmlp levit coat_ crossvit mvit gcvit maxvit maxxvit coatnet coatnext "
    "nest tnt convit tiny_vit efficientformer efficientvit_m volo visformer hiera davit twins beit eva0 "
    "sequencer botnet26t halonet halo lamhalo lambda eca_botnext samvit vitamin test_vit test_maxvit test_coatnet "
    "mobilenetv4_hybrid mobilenetv5 nextvit"
).split()
UNTOLD = tuple(
    "tiny_vit botnet halo lambda lamhalo eca_botnext mobilenetv4 mobilenetv5 nextvit visformer davit".split()
)
SMALL_VIT: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_heads": 3}
FEW: dict[str, Any] = {"depths": (1, 1, 1, 1)}
TIMM_OPTIONS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 2},
    **dict.fromkeys(
        (
            "deit3_small_patch16_224 vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224 "
            "vit_small_patch14_reg4_dinov2 vit_base_patch16_siglip_224 samvit_base_patch16 "
            "vit_medium_patch16_rope_reg1_gap_256 vit_small_patch16_dinov3"
        ).split(),
        SMALL_VIT,
    ),
    "samvit_base_patch16": {**SMALL_VIT, "global_attn_indexes": (1,), "window_size": 2},
    "vit_tiny_r_s16_p8_224": {"depth": 2},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 96, "num_heads": 4},
    "eva02_tiny_patch14_224": {"depth": 2, "patch_size": 16},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2, 1), "embed_dim": 48, "num_heads": (2, 4, 8), "window_size": 4},
    "swinv2_tiny_window8_256": {"depths": (1, 2, 1), "embed_dim": 48, "num_heads": (2, 4, 8), "window_size": 4},
    "swinv2_cr_tiny_ns_224": {"depths": (1, 2, 1), "embed_dim": 48, "num_heads": (2, 4, 8), "window_size": 4},
    "cait_xxs24_224": {"depth": 2},
    "xcit_nano_12_p16_224": {"depth": 2},
    "coat_lite_tiny": {"serial_depths": (1, 1, 1, 1)},
    "twins_pcpvt_small": FEW,
    "twins_svt_small": FEW,
    "davit_tiny": {**FEW, "embed_dims": (48, 96, 192, 384), "num_heads": (2, 4, 8, 16)},
    "inception_next_atto": FEW,
    "convnext_atto": FEW,
    "convnext_atto_ols": FEW,
    "convnextv2_atto": FEW,
    "rdnet_tiny": {"num_blocks_list": (1, 1, 1, 1, 1, 1, 1)} | {"growth_rates": (32, 52, 64, 64, 64, 64, 112)},
    "sequencer2d_s": {"layers": (1, 1, 1, 1)},
    "hiera_tiny_224": {"stages": (1, 1, 2, 1)},
    "tnt_s_legacy_patch16_224": {"depth": 2},
    "convit_tiny": {"depth": 3, "local_up_to_layer": 2},
    "repvit_m0_9": {"depth": (1, 1, 1, 1)},
    "coatnet_pico_rw_224": FEW,
    "maxvit_rmlp_pico_rw_256": FEW,
    "tresnet_m": {"layers": (1, 1, 1, 1)},
    "res2net50_14w_8s": {"layers": (1, 1, 1, 1)},
    "resnetv2_50d_frn": {"layers": (1, 1, 1, 1)},
    "dpn68": {"k_sec": (1, 1, 2, 1)},
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

    if kind.startswith("ssd"):
        module: nn.Module = getattr(detection, kind)(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        build = {"retinanet": detection.RetinaNet, "fcos": detection.FCOS, "faster_rcnn": detection.FasterRCNN}[kind]
        module = build(resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=CLASSES)
    return pixels(Outputs(module, _levels), 304 if kind == "ssd300_vgg16" else 96)


DETECTORS = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large", "retinanet", "fcos", "faster_rcnn")


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


def of_rarer(name: str) -> Architecture:
    import rarest  # noqa: F401  (which lists its own among them)
    from rarer import NETWORKS

    return NETWORKS[name]()


LIBRARIES: dict[str, Callable[[str], Architecture]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "ultralytics": of_ultralytics,
    "transformers": lambda name: of_hugging_face(f"transformers:{name}"),
    "diffusers": lambda name: of_hugging_face(f"diffusers:{name}"),
    "rarer": of_rarer,
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
        "swin_t deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large fcn_resnet50 ssd300_vgg16 "
        "ssdlite320_mobilenet_v3_large retinanet fcos faster_rcnn"
    ),
    "timm": (
        # residual
        "resnet10t resnetv2_18 resnetblur18 resnetaa34d legacy_seresnet18 seresnet33ts res2net50_14w_8s res2next50 "
        "resnetrs50 resnet50_gn resnest14d skresnet18 ecaresnet26t ecaresnext26t_32x4d gcresnext26ts bat_resnext26ts "
        "resnetv2_50d_frn resnetv2_50d_evos test_resnet test_byobnet regnetx_002 regnety_002 regnetz_005 regnetz_b16 "
        "regnetv_040 nf_regnet_b0 nf_resnet26 nf_seresnet26 eca_nfnet_l0 test_nfnet tresnet_m gernet_s "
        # efficient
        "efficientnet_b0 efficientnet_lite0 efficientnet_blur_b0 efficientnet_cc_b0_4e efficientnet_es "
        "tf_efficientnet_b0 tf_efficientnetv2_b0 test_efficientnet test_efficientnet_gn test_efficientnet_ln "
        "test_efficientnet_evos mixnet_s mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 "
        "mobilenetv4_conv_small mobilenetv4_hybrid_medium_075@64 mobilenetv5_base@64 mobilenet_edgetpu_v2_xs "
        "mnasnet_small semnasnet_050 fbnetc_100 fbnetv3_b spnasnet_100 tinynet_e lcnet_035 hardcorenas_a rexnet_100 "
        "ghostnet_050 ghostnetv2_100 ghostnetv3_050 repghostnet_050 repvgg_a0 repvit_m0_9 mobileone_s0 starnet_s1 "
        "fasternet_t0 shvit_s1 fastvit_t8 "
        # dense, branches
        "densenet121 dpn68 rdnet_tiny hrnet_w18_small ese_vovnet19b_slim ese_vovnet19b_slim_dw dla46_c dla46x_c "
        "hgnet_tiny hgnetv2_b0 inception_v3@96 inception_v4@96 inception_next_atto xception41 legacy_xception "
        "selecsls42 cspresnet50 cspdarknet53 cs3darknet_s cs3sedarknet_l darknet17 vgg11_bn "
        # modern convolutions
        "convnext_atto convnext_atto_ols convnextv2_atto test_convnext test_convnext2 test_convnext3 convmixer_768_32 "
        "mambaout_femto test_mambaout focalnet_tiny_srf poolformer_s12 poolformerv2_s12 convformer_s18 csatv2 "
        # attention in convolutions
        "efficientvit_b0 efficientvit_m0@128 mobilevit_xxs mobilevitv2_050 edgenext_xx_small efficientformer_l1@64 "
        "efficientformerv2_s0@224 swiftformer_xs levit_128s@128 coat_lite_tiny coatnet_pico_rw_224 "
        "coatnext_nano_rw_224 test_coatnet maxvit_rmlp_pico_rw_256 test_maxvit botnet26t_256@256 halonet26t@256 "
        "lambda_resnet26t@256 lamhalobotnet50ts_256@256 eca_botnext26ts_256@256 visformer_tiny@224 nextvit_small@64 "
        "caformer_s18 vit_tiny_r_s16_p8_224@64 vitamin_small_224@64 "
        # transformers
        "vit_tiny_patch16_224 deit3_small_patch16_224 vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224 "
        "vit_small_patch14_reg4_dinov2@70 vit_base_patch16_siglip_224 samvit_base_patch16@64 "
        "vit_medium_patch16_rope_reg1_gap_256@64 vit_small_patch16_dinov3@64 test_vit test_vit2 test_vit3 test_vit4 "
        "beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 convit_tiny@64 "
        "crossvit_tiny_240@240 pit_ti_224@224 tnt_s_legacy_patch16_224@64 volo_d1_224@64 swin_tiny_patch4_window7_224 "
        "swinv2_tiny_window8_256 swinv2_cr_tiny_ns_224@64 pvt_v2_b0 mvitv2_tiny gcvit_xxtiny twins_pcpvt_small@64 "
        "twins_svt_small@64 nest_tiny@64 davit_tiny@64 hiera_tiny_224@64 tiny_vit_5m_224@224 mixer_s32_224 "
        "gmlp_s16_224 resmlp_12_224 sequencer2d_s@64"
    ),
    "ultralytics": (
        "yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov9t yolov10n yolo11n yolo11n-obb yolo11n-pose yolo11n-seg "
        "yolo12n rtdetr-l"
    ),
    "transformers": (
        "bert distilbert albert deberta electra modernbert gpt2 llama mistral mixtral gemma gemma2 qwen2 qwen3 phi "
        "phi3 gptneox bloom opt falcon mamba t5 whisper wav2vec2 hubert clip clip_vision siglip vit deit beit dinov2 "
        "dinov2_registers mae swin swinv2 cvt pvt poolformer levit convnextv2 segformer mobilevit mobilevitv2 detr "
        "yolos sam dpt glpn depth_anything upernet mask2former"
    ),
    "diffusers": "vae tiny_vae unet unet_text dit",
    "rarer": (
        "mask_rcnn keypoint_rcnn table_transformer raft_small timesformer videomae slowfast x3d dac musicgen mamba2 "
        "rwkv patchtst blip controlnet sd3 owlvit deformable_detr d_fine encodec informer flux"
    ),
}
