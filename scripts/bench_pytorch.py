#!/usr/bin/env python3
"""The same work in PyTorch, for `nst bench --peers`: one iteration is the costs of the preset
"balanced", their gradient by autograd, a step of Adam and the clamp to [0,1].

usage: bench_pytorch.py VGG19.pt CONTENT.png STYLE.png [--device cpu]

It serves requests, so that two programs can be timed in turns on one machine: a line
{"configuration": NAME, "size": N, "batch": N, "iterations": N, "ahead": false} on standard input is answered by
{"seconds": [one for each iteration], "total": J, "peak_memory_bytes": N} on standard output (where
more pixels are evaluated than the picture has, with "pixels_per_pixel"), or {"error": TEXT}. With
"ahead" only the last iteration is waited for, and the seconds are those of one, on the average.
The first line that it writes lists the configurations:
{"configurations": [NAME, ...], "more": [NAME, ...], "torch": VERSION}; those under "more" run only
where they are asked for. VGG19.pt is a network that nst wrote.

The configuration "spst" makes pictures of any size by blocks: see BlockWork.
"""
import argparse
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

BLOCKS = (2, 2, 4, 4, 4)
CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
ALPHA, BETA, RATE, BETAS = 1.0, 100.0, 0.02, (0.9, 0.99)


def synchronise(device):
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Network:
    """VGG-19 by torch.nn.functional, from the parameters of nst's TorchScript file."""

    def __init__(self, path, device, channels_last, scalar):
        module = torch.jit.load(path, map_location=device)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.p = {n: p.detach().to(scalar) for n, p in module.named_parameters()}
        self.p = {n: p.contiguous(memory_format=layout) if p.dim() == 4 else p for n, p in self.p.items()}
        buffers = dict(module.named_buffers())
        self.scale, self.shift = buffers["input_scale"], buffers["input_shift"]
        self.layout, self.scalar = layout, scalar

    def __call__(self, x, wanted):
        wanted, found = set(wanted), {}
        x = (x * self.scale - self.shift).to(self.scalar).contiguous(memory_format=self.layout)
        for block, convolutions in enumerate(BLOCKS, 1):
            for i in range(1, convolutions + 1):
                name = f"{block}_{i}"
                x = F.conv2d(x, self.p[f"conv{name}_weight"], self.p[f"conv{name}_bias"], padding=1)
                x = F.relu_(x)
                if "relu" + name in wanted:
                    found["relu" + name] = x.float()
                    if len(found) == len(wanted):
                        return found
            x = F.max_pool2d(x, 2)
        return found


def gram(f):
    f = f.flatten(2)
    return f @ f.transpose(1, 2) / f.shape[2]


class Work:
    """One configuration at one size: pictures, targets and optimiser."""

    def __init__(self, network, content, style, compiled, graphed):
        self.network = network
        with torch.no_grad():
            self.content, self.style = self.targets(content, style)
        self.content_unit = self.content.square().mean((1, 2, 3))
        self.style_unit = {k: g.square().sum((1, 2)) for k, g in self.style.items()}
        self.x = content.clone().requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.x], lr=RATE, betas=BETAS, capturable=graphed)
        self.objective = torch.compile(self.cost) if compiled else self.cost
        self.graph = None
        if graphed:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.iterate()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.iterate()
            self.graph = graph

    def targets(self, content, style):
        return self.network(content, [CONTENT])[CONTENT], {k: gram(v) for k, v in self.network(style, STYLE).items()}

    def cost(self, x):
        f = self.network(x, (CONTENT,) + STYLE)
        content = (f[CONTENT] - self.content).square().mean((1, 2, 3)) / self.content_unit
        style = sum((gram(f[k]) - self.style[k]).square().sum((1, 2)) / self.style_unit[k] for k in STYLE) / len(STYLE)
        return (ALPHA * content + BETA * style).sum()

    def iterate(self):
        if self.graph is not None:
            self.graph.replay()
            return self.total
        self.optimizer.zero_grad(set_to_none=True)
        total = self.objective(self.x)
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.x.clamp_(0, 1)
        self.total = total.detach()
        return self.total


class BlockWork(Work):
    """The arithmetic of SPST (Galerne et al., Scaling Painting Style Transfer, arXiv:2212.13459): Gram
    sums over blocks of 512 pixels that overlap by 256, first without a gradient, then, when the
    whole picture's Gram matrices are known, each block again with its gradient. Written from the
    paper. The costs are those of the whole picture; a position counts in the block that has it
    in its middle, and what the block's margin lacks of what the deepest layer sees, is lost."""

    BLOCK, OVERLAP = 512, 256

    def __init__(self, network, content, style):
        super().__init__(network, content, style, False, False)
        self.blocks = self.cut(content)
        evaluated = sum((r[1] - r[0]) * (c[1] - c[0]) for r, c in self.blocks)
        self.pixels_per_pixel = evaluated / (content.shape[2] * content.shape[3])

    def cut(self, x):
        return [(rows, columns) for rows in self.spans(x.shape[2]) for columns in self.spans(x.shape[3])]

    def windows(self, x):
        return [(b, x[:, :, b[0][0] : b[0][1], b[1][0] : b[1][1]]) for b in self.cut(x)]

    def targets(self, content, style):
        kept = content.new_empty(content.shape[0], 512, content.shape[2] // 8, content.shape[3] // 8)
        for block, x in self.windows(content):
            (_, _, top, bottom), (_, _, left, right) = block
            kept[:, :, top // 8 : bottom // 8, left // 8 : right // 8] = self.features(x, block)[CONTENT]
        return kept, self.grams(style)

    def grams(self, picture):
        """The Gram matrices of a picture, summed over its blocks."""
        sums = {k: 0 for k in STYLE}
        for block, x in self.windows(picture):
            for k, f in self.features(x, block).items():
                if k in sums:
                    f = f.flatten(2)
                    sums[k] = sums[k] + f @ f.transpose(1, 2) / self.positions(picture, k)
        return sums

    @staticmethod
    def positions(picture, name):
        s = 2 ** (int(name[4]) - 1)
        return picture.shape[2] // s * (picture.shape[3] // s)

    def spans(self, n):
        """(first, last) of each block, then of its middle, along a side."""
        step, margin = self.BLOCK - self.OVERLAP, self.OVERLAP // 2
        middles = [(at, min(at + step, n)) for at in range(0, n, step)]
        return [(max(0, a - margin), min(n, b + margin), a, b) for a, b in middles]

    def features(self, x, block):
        """The maps at the positions of the block's middle."""
        (top, _, first, last), (left, _, start, end) = block
        found = self.network(x, (CONTENT,) + STYLE)
        for name, f in found.items():
            s = 2 ** (int(name[4]) - 1)
            found[name] = f[:, :, (first - top) // s : (last - top) // s, (start - left) // s : (end - left) // s]
        return found

    def iterate(self):
        with torch.no_grad():
            grams = self.grams(self.x)
        leaves = {k: g.requires_grad_(True) for k, g in grams.items()}
        total = BETA * sum(
            (leaves[k] - self.style[k]).square().sum((1, 2)) / self.style_unit[k] for k in STYLE
        ).sum() / len(STYLE)
        total.backward()
        gradient, total = torch.zeros_like(self.x), total.detach()
        for block, x in self.windows(self.x.detach()):
            x = x.clone().requires_grad_(True)
            f = self.features(x, block)
            (_, _, top, bottom), (_, _, left, right) = block
            target = self.content[:, :, top // 8 : bottom // 8, left // 8 : right // 8]
            part = (f[CONTENT] - target).square().sum((1, 2, 3)) / self.content[0].numel() / self.content_unit
            local = ALPHA * part.sum()
            total += local.detach()
            for k in STYLE:
                m = f[k].flatten(2)
                local = local + (leaves[k].grad * (m @ m.transpose(1, 2))).sum() / self.positions(self.x, k)
            local.backward()
            gradient[:, :, block[0][0] : block[0][1], block[1][0] : block[1][1]] += x.grad
        self.x.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            self.x.clamp_(0, 1)
        self.total = total
        return self.total


def picture(path, size, batch, device):
    """The picture with its longest side made size; nst hands over PNG files."""
    import numpy
    from PIL import Image

    image = Image.open(path).convert("RGB")
    factor = size / max(image.size)
    image = image.resize([max(1, round(s * factor)) for s in image.size], Image.BICUBIC)
    t = torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1).float().div(255)
    return t.expand(batch, -1, -1, -1).contiguous().to(device)


def forget_peak_of_host():
    """Has the kernel count the peak of this process's memory anew; where it cannot, the peak is of all so far."""
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass


def peak_of_host():
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Server:
    def __init__(self, arguments):
        self.arguments, self.device = arguments, torch.device(arguments.device)
        self.networks, self.works = {}, {}
        self.more = {"spst": {"channels_last": True, "blocks": True}}
        self.configurations = {"nchw": {}, "channels-last": {"channels_last": True}}
        if not arguments.no_compile:
            self.configurations["compiled"] = {"channels_last": True, "compiled": True}
        if self.device.type == "cuda":
            last = {"channels_last": True}
            self.configurations["graph"] = last | {"graphed": True}
            for name, how in (("tf32", {"tf32": True}), ("bf16", {"scalar": torch.bfloat16, "tf32": True})):
                for suffix, more in (("", {}), ("-graph", {"graphed": True}), ("-compiled", {"compiled": True}),
                                     ("-compiled-graph", {"compiled": True, "graphed": True})):
                    if not (arguments.no_compile and "compiled" in more):
                        self.configurations[name + suffix] = last | how | more

    def work(self, name, size, batch):
        key = (name, size, batch)
        if key not in self.works:
            self.works.clear()  # one at a time, as in a run: nst starts a process for each configuration
            c = (self.configurations | self.more)[name]
            how = (c.get("channels_last", False), c.get("scalar", torch.float32))
            if how not in self.networks:
                self.networks.clear()
                self.networks[how] = Network(self.arguments.model, self.device, *how)
            pictures = [picture(p, size, batch, self.device) for p in (self.arguments.content, self.arguments.style)]
            network = self.networks[how]
            if c.get("blocks"):
                self.works[key] = BlockWork(network, *pictures)
            else:
                self.works[key] = Work(network, *pictures, c.get("compiled", False), c.get("graphed", False))
        return self.works[key]

    def answer(self, request):
        name = request["configuration"]
        exact = not (self.configurations | self.more)[name].get("tf32", False)
        if (name, request["size"], request.get("batch", 1)) not in self.works:
            self.works.clear()
            forget_peak_of_host()
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact
            torch.cuda.reset_peak_memory_stats(self.device)
        work, seconds, total = self.work(name, request["size"], request.get("batch", 1)), [], 0.0
        if request.get("ahead"):
            begin = time.perf_counter()
            for _ in range(request["iterations"]):
                total = work.iterate()
            total = float(total)
            synchronise(self.device)
            seconds.append((time.perf_counter() - begin) / request["iterations"])
        else:
            for _ in range(request["iterations"]):
                begin = time.perf_counter()
                total = float(work.iterate())
                synchronise(self.device)
                seconds.append(time.perf_counter() - begin)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = peak_of_host()
        answer = {"seconds": seconds, "total": total, "peak_memory_bytes": peak}
        if hasattr(work, "pixels_per_pixel"):
            answer["pixels_per_pixel"] = work.pixels_per_pixel
        return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "content", "style"):
        parser.add_argument(name)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    server = Server(parser.parse_args())
    hello = {"configurations": list(server.configurations), "more": list(server.more), "torch": torch.__version__}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        try:
            reply = server.answer(json.loads(line))
        except Exception as error:  # whatever it is, the program that asks goes on
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
