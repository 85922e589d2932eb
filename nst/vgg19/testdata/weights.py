"""How weights.pth, weights-legacy.pth and weights.safetensors were made (torch 2.15, safetensors): the first two
blocks of a VGG-19 with 16 times fewer channels, by torchvision's names, and what they answer."""
import json, sys
import torch
from safetensors.torch import save_file
sys.path.insert(0, "../../../scripts")
from export_vgg19 import FeatureNetwork, fixture_image, small

features = small(16)
state = {f"features.{k}": v for k, v in features.state_dict().items() if int(k.split(".")[0]) < 10}
state["classifier.0.weight"] = torch.ones(2, 2)
torch.save(state, "weights.pth")
torch.save(state, "weights-legacy.pth", _use_new_zipfile_serialization=False)
save_file({k: v.half() if "bias" in k else v.contiguous() for k, v in state.items()}, "weights.safetensors")
