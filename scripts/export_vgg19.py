#!/usr/bin/env python3
"""Writes torchvision's VGG-19 as the TorchScript network that nst loads.

    scripts/export_vgg19.py -o vgg19.pt                   torchvision's own weights (downloaded by torchvision)
    scripts/export_vgg19.py -o vgg19.pt --weights F.pth   a state dictionary with torchvision's names
    nst stylize photo.jpg painting.jpg -o out.png --model vgg19.pt

Needs Python's torch and torchvision. `nst weights F.pth -o vgg19.pt` does the same without Python.

With --divide N the network has N times fewer channels and random weights, and --fixture FILE.json records its
activations: that is how the test data under nst/vgg19/testdata were made.
"""
import argparse
import hashlib
import json
import math
import os
from typing import Dict, List

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

# How the weights want their input: image * scale - shift, RGB in [0,1].
NORMALISATIONS = {
    "torchvision": ([1 / 0.229, 1 / 0.224, 1 / 0.225], [0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225]),
    "caffe": ([255.0] * 3, [123.68, 116.779, 103.939]),
}
BLOCKS = [(2, 64), (2, 128), (4, 256), (4, 512), (4, 512)]


class FeatureNetwork(nn.Module):
    """forward(image [N,3,H,W] RGB in [0,1], layers) -> the layers' feature maps."""

    def __init__(self, features: nn.Sequential, normalisation: str, source: str):
        super().__init__()
        scale, shift = NORMALISATIONS[normalisation]
        self.register_buffer("input_scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("input_shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.convolutions = nn.ModuleList(m for m in features if isinstance(m, nn.Conv2d))
        ids = [f"{b + 1}_{c + 1}" for b, (n, _) in enumerate(BLOCKS) for c in range(n)]
        self.ids: List[str] = ids
        self.pools: List[str] = [
            f"pool{b + 1}" if c + 1 == n else "" for b, (n, _) in enumerate(BLOCKS) for c in range(n)
        ]
        self.names: List[str] = [
            name for i, p in zip(ids, self.pools) for name in ([f"conv{i}", f"relu{i}"] + ([p] if p else []))]
        self.pooling: str = "max"
        self.padding: str = "zeros"
        self.normalisation: str = normalisation
        self.source: str = source

    def forward(self, image: Tensor, layers: List[str]) -> List[Tensor]:
        depth = -1
        for layer in layers:
            assert layer in self.names, "the network has no layer " + layer
            depth = max(depth, self.names.index(layer))
        found: Dict[str, Tensor] = {}
        x = image * self.input_scale - self.input_shift
        for i, convolution in enumerate(self.convolutions):
            conv, relu, pool = "conv" + self.ids[i], "relu" + self.ids[i], self.pools[i]
            if self.names.index(conv) <= depth:
                if self.padding == "zeros":
                    x = convolution(x)
                else:
                    x = F.conv2d(F.pad(x, [1, 1, 1, 1], mode="replicate"), convolution.weight, convolution.bias)
                if conv in layers:
                    found[conv] = x
                    if self.names.index(conv) < depth:
                        x = torch.relu(x)
                else:
                    x = torch.relu_(x)  # the convolution's gradient does not need its output
                if relu in layers:
                    found[relu] = x
            if pool != "" and self.names.index(pool) <= depth:
                if self.pooling == "max":
                    x = F.max_pool2d(x, 2)
                else:
                    x = F.avg_pool2d(x, 2, divisor_override=4 if self.pooling == "avg" else 2)
                if pool in layers:
                    found[pool] = x
        return [found[layer] for layer in layers]


def small(divide: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: List[nn.Module] = []
    channels = 3
    for convolutions, out in BLOCKS:
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, out // divide, 3, padding=1), nn.ReLU()]
            channels = out // divide
            nn.init.kaiming_normal_(layers[-2].weight)
            nn.init.uniform_(layers[-2].bias, -0.1, 0.1)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def fixture_image() -> Tensor:
    """[1,3,48,40], each value (7·y + 11·x + 5·c) mod 17 / 16: simple to make again elsewhere."""
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(48), torch.arange(40), indexing="ij")
    return (((7 * y + 11 * x + 5 * c) % 17) / 16).to(torch.float32)[None]


def record(network: torch.jit.ScriptModule, names: List[str]) -> Dict[str, dict]:
    out = {}
    for pooling, padding in (("max", "zeros"), ("avg", "zeros"), ("avg-rescaled", "zeros"), ("max", "replicate")):
        network.pooling, network.padding = pooling, padding
        with torch.no_grad():
            for name, f in zip(names, network(fixture_image(), names)):
                out[f"{pooling} {padding} {name}"] = {
                    "shape": list(f.shape),
                    "mean": f.double().mean().item(),
                    "l2": math.sqrt(f.double().pow(2).sum().item()),
                    "first": f.flatten()[:4].tolist(), "last": f.flatten()[-4:].tolist()}
    network.pooling, network.padding = "max", "zeros"
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--weights", help="a state dictionary with torchvision's names")
    parser.add_argument("--normalisation", choices=sorted(NORMALISATIONS), default="torchvision")
    parser.add_argument("--divide", type=int, default=0, help="a small random network, for tests")
    parser.add_argument("--fixture", help="write the small network's activations here")
    args = parser.parse_args()
    if args.divide:
        features, source = small(args.divide), f"random, channels divided by {args.divide}"
    elif args.weights:
        state = torch.load(args.weights, map_location="cpu", weights_only=True)
        features = torchvision.models.vgg19(weights=None).features
        features.load_state_dict(
            {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
        )
        with open(args.weights, "rb") as f:
            source = f"{os.path.basename(args.weights)} sha256:{hashlib.sha256(f.read()).hexdigest()}"
    else:
        features = torchvision.models.vgg19(weights="IMAGENET1K_V1").features
        source = f"torchvision {torchvision.__version__} IMAGENET1K_V1"
    if args.normalisation == "caffe":  # those weights want blue first
        first = features[0].weight
        first.data = first.data.flip(1).contiguous()
    network = FeatureNetwork(features, args.normalisation, source).eval().requires_grad_(False)
    scripted = torch.jit.script(network)
    scripted.save(args.output)
    if args.fixture:
        with open(args.fixture, "w") as f:
            json.dump(record(scripted, network.names), f, indent=1)


if __name__ == "__main__":
    main()
