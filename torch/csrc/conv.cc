// The network's layers and their gradients, and the products of feature
// matrices, outside autograd. Feature maps are channels-last in memory. What
// cpu/kernels.h has no kernel for (another device or type, channels that fill no
// vector) is left to libtorch.
#include <ATen/ops/addcmul.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool2d_backward.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/cudnn_convolution_relu.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/max_pool2d_with_indices_backward.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/replication_pad2d.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/threshold_backward.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "cpu/kernels.h"
#include "cuda.h"
#include "guard.h"
#include "parallel.h"
#include "precision.h"

using nst::give;
using nst::guard;
using nst::tensor;
using nst::threads;

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kChannels = 32;  // kernels work on multiples of this

bool on_cpu(const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; }

nst::cpu::Maps maps(const at::Tensor& x) { return {x.size(0), x.size(2), x.size(3), x.size(1)}; }

at::Tensor empty_maps(const at::Tensor& like, int64_t c, int64_t h, int64_t w) {
  return at::empty({like.size(0), c, h, w}, like.options(), kLast);
}

float* data(const at::Tensor& t) { return t.mutable_data_ptr<float>(); }

const float* data(const std::optional<at::Tensor>& t) { return t ? t->const_data_ptr<float>() : nullptr; }

// Of one picture: how it is computed does not depend on what else is.
int64_t tiles(const at::Tensor& x) { return ((x.size(2) + 3) / 4) * ((x.size(3) + 3) / 4); }

// Accelerators' kernels count a map's values in 32 bits, libtorch's own pools and
// cuDNN's convolutions among them. Smaller tiles mend that as they mend a shortage
// of memory, and so it is one.
void within_indices(const at::Tensor& x, int64_t channels) {
  const auto values = x.numel() / std::max<int64_t>(1, x.size(1)) * channels;
  TORCH_CHECK_WITH(OutOfMemoryError, x.is_cpu() || values < int64_t{1} << 31, "maps of ", values,
                   " values are more than a GPU's kernels can count; smaller tiles will do");
}

at::Tensor masked(const at::Tensor& gradient, const std::optional<at::Tensor>& mask) {
  return mask ? at::threshold_backward(gradient, *mask, 0) : gradient;
}

// Several pictures' maps, each computed by itself: libtorch's own batches sum in
// another order, and a result would depend on its company.
template <class Compute>
at::Tensor one_by_one(const at::Tensor& x, const Compute& compute) {
  std::vector<at::Tensor> each;
  for (int64_t i = 0; i < x.size(0); i++) each.push_back(compute(x.narrow(0, i, 1), i));
  return at::cat(each);
}

// Maps of so few tiles are faster done directly, and those of so few that the
// weights' transform would cost more than the convolution keep it unasked.
constexpr int64_t kFewTiles = 10, kKeepTiles = 128;

// A 3×3 convolution of stride 1 that keeps its picture's size.
struct Convolution {
  Convolution(at::Tensor w, at::Tensor b) : weight(std::move(w)), bias(std::move(b)) {}

  at::Tensor weight, bias;
  at::Tensor transformed[2];                   // weights, forward and backward: see weights
  std::map<std::vector<int64_t>, bool> fuses;  // by the shape of its input: see fused
  std::optional<bool> is_fused;                // whether the fused one is the convolution at all
  std::mutex mutex;                            // of these: threads may share the convolution

  int64_t in() const { return weight.size(1); }
  int64_t out() const { return weight.size(0); }
  bool winograds() const { return on_cpu(weight) && in() % kChannels == 0 && out() % kChannels == 0; }
  bool first() const { return on_cpu(weight) && in() <= 4 && out() % kChannels == 0; }

  // Transformed weights take four times the memory of the plain ones, for each
  // direction: 400 MB for VGG-19, which a large picture may not be able to spare.
  at::Tensor weights(bool backward, int32_t which, const at::Tensor& x) {
    const bool keep = which == NST_KEEP_ALL || (which == NST_KEEP_SMALL && tiles(x) <= kKeepTiles);
    std::unique_lock<std::mutex> one(mutex);
    auto& kept = transformed[backward];
    if (kept.defined() && keep) return kept;
    kept = at::Tensor();
    if (!keep) one.unlock();
    const auto& k = nst::cpu::kernels();
    const int64_t from = backward ? out() : in(), to = backward ? in() : out();
    auto t = at::empty({k.winograd_size(from, to)}, weight.options());
    k.winograd_weights(weight.const_data_ptr<float>(), in(), out(), backward, data(t), threads());
    if (keep) kept = t;
    return t;
  }

  // Whether there is a kernel for these maps.
  bool has_kernel(const at::Tensor& x) const {
    return on_cpu(x) && (first() || (winograds() && tiles(x) >= kFewTiles));
  }

  // cuDNN's convolution with bias and ReLU; undefined where it cannot be had. It is
  // tried once for each shape, since cuDNN chooses anew, in memory that was full of NaN
  // before: libtorch gives cuDNN the output's own memory to add in, times 0, and not
  // every kernel need know that nothing times 0 is 0. (The trial waits for the device;
  // a scale's first evaluation, which is never recorded, meets all shapes.)
  at::Tensor fused(const at::Tensor& x, int64_t pad) {
    const auto compute = [&] { return at::cudnn_convolution_relu(x, weight, bias, {1, 1}, {pad, pad}, {1, 1}, 1); };
    const auto length = [](const at::Tensor& t) {
      return at::linalg_vector_norm(t, 2, std::nullopt, false, at::kFloat).item().toDouble();
    };
    auto shape = x.sizes().vec();
    shape.push_back(pad);
    std::unique_lock<std::mutex> one(mutex);
    const auto known = fuses.find(shape);
    if (known != fuses.end()) {
      one.unlock();
      return known->second ? compute() : at::Tensor();
    }
    auto& verdict = fuses[shape];
    try {
      if (!is_fused) {
        const auto small = at::full({1, in(), 16, 16}, 0.5, weight.options()).contiguous(kLast);
        const auto want = at::conv2d(small, weight, bias, 1, 1).relu_();
        const auto got = at::cudnn_convolution_relu(small, weight, bias, {1, 1}, {1, 1}, {1, 1}, 1);
        is_fused = length(got.sub(want)) <= 2e-2 * length(want);
      }
      if (!*is_fused) return {};
      at::full({x.size(0), out(), x.size(2) + 2 * pad - 2, x.size(3) + 2 * pad - 2}, std::nan(""), x.options());
      auto y = compute();
      verdict = std::isfinite(length(y));
      return verdict ? y : at::Tensor();
    } catch (const std::exception& e) {  // cuDNN's front end throws others than libtorch's
      if (nst::is_of_device(e)) {
        fuses.erase(shape);
        throw;
      }
      return {};  // another vendor's device, or no such kernel
    }
  }

  at::Tensor forward(at::Tensor x, nst_convolution_mode mode, bool relu) {
    TORCH_CHECK(x.dim() == 4 && x.size(1) == in(), "the convolution takes [N,", in(), ",H,W], not ", x.sizes());
    x = x.contiguous(kLast);
    if (mode.fast && !mode.replicate && has_kernel(x)) {
      auto y = empty_maps(x, out(), x.size(2), x.size(3));
      const auto& k = nst::cpu::kernels();
      if (first())
        k.first(data(x), maps(x), weight.contiguous().const_data_ptr<float>(), bias.const_data_ptr<float>(), relu,
                data(y), out(), threads());
      else
        k.winograd(data(x), nullptr, maps(x), data(weights(false, mode.keep, x)),
                   bias.const_data_ptr<float>(), relu, data(y), out(), threads());
      return y;
    }
    if (x.is_cpu() && x.size(0) > 1)
      return one_by_one(x, [&](const at::Tensor& one, int64_t) { return forward(one, mode, relu); });
    within_indices(x, std::max(in(), out()));
    const nst::Math math(x);
    const int64_t pad = mode.replicate ? 0 : 1;
    if (mode.replicate) x = at::replication_pad2d(x, {1, 1, 1, 1});
    if (relu && mode.fused && !x.is_cpu())
      if (auto y = fused(x, pad); y.defined()) return y;
    auto y = at::conv2d(x, weight, bias, 1, pad);
    return relu ? at::relu_(y) : y;
  }

  at::Tensor backward(at::Tensor gradient, std::optional<at::Tensor> mask, nst_convolution_mode mode) {
    TORCH_CHECK(gradient.dim() == 4 && gradient.size(1) == out(), "the convolution's gradient is [N,", out(),
                ",H,W], not ", gradient.sizes());
    gradient = gradient.contiguous(kLast);
    if (mask) mask = mask->contiguous(kLast);
    const int64_t h = gradient.size(2), w = gradient.size(3);
    if (mode.fast && !mode.replicate && has_kernel(gradient)) {
      auto dx = empty_maps(gradient, in(), h, w);
      const auto& k = nst::cpu::kernels();
      if (first())
        k.first_backward(data(gradient), data(mask), maps(gradient), weight.contiguous().const_data_ptr<float>(),
                         data(dx), in(), threads());
      else
        k.winograd(data(gradient), data(mask), maps(gradient), data(weights(true, mode.keep, gradient)), nullptr,
                   false, data(dx), in(), threads());
      return dx;
    }
    if (gradient.is_cpu() && gradient.size(0) > 1) {
      return one_by_one(gradient, [&](const at::Tensor& one, int64_t i) {
        return backward(one, mask ? std::optional<at::Tensor>(mask->narrow(0, i, 1)) : std::nullopt, mode);
      });
    }
    within_indices(gradient, std::max(in(), out()));
    const nst::Math math(gradient);
    gradient = masked(gradient, mask);
    const int64_t pad = mode.replicate ? 0 : 1;
    auto dx = gradient.is_cpu() ? on_host(gradient, pad)
                                : at::convolution(gradient, weight, {}, {1, 1}, {pad, pad}, {1, 1}, true, {0, 0}, 1);
    return mode.replicate ? without_margin(dx) : dx;
  }

  // On the CPU libtorch has the gradient only as a part of another, and of the input
  // it wants the shape.
  at::Tensor on_host(const at::Tensor& gradient, int64_t pad) const {
    const int64_t margin = 2 * (1 - pad);
    const auto x = at::empty({1}, gradient.options())
                       .expand({gradient.size(0), in(), gradient.size(2) + margin, gradient.size(3) + margin});
    return std::get<0>(at::convolution_backward(gradient, x, weight, at::OptionalIntArrayRef(), {1, 1}, {pad, pad},
                                                {1, 1}, false, {0, 0}, 1, {true, false, false}));
  }

  // The gradient of maps that were padded by their outermost values, from that of the
  // padded: libtorch's own adds atomically on a GPU, in no fixed order.
  static at::Tensor without_margin(const at::Tensor& padded) {
    for (int64_t dim : {2, 3}) {
      const int64_t last = padded.size(dim) - 1;
      padded.select(dim, 1).add_(padded.select(dim, 0));
      padded.select(dim, last - 1).add_(padded.select(dim, last));
    }
    return padded.narrow(2, 1, padded.size(2) - 2).narrow(3, 1, padded.size(3) - 2).contiguous(kLast);
  }
};

Convolution& convolution(nst_convolution c) { return nst::object<Convolution>(c, "convolution"); }

std::optional<at::Tensor> optional_tensor(nst_tensor t) {
  return t == nullptr ? std::nullopt : std::optional<at::Tensor>(tensor(t));
}

bool pools(const at::Tensor& x) { return on_cpu(x) && x.size(1) % kChannels == 0; }

const c10::IntArrayRef two() {
  static constexpr std::array<int64_t, 2> sides{2, 2};
  return sides;
}

// What libtorch divides a pool's sums by, which it takes for whole numbers alone.
int64_t divisor(double scale) {
  const auto n = static_cast<int64_t>(std::lround(1 / scale));
  TORCH_CHECK(n > 0 && 1 / static_cast<double>(n) == scale, "a pool's scale is one over a whole number, not ", scale);
  return n;
}

// Sums of half precision are made in float32.
bool is_half(const at::Tensor& t) { return t.scalar_type() == at::kBFloat16 || t.scalar_type() == at::kHalf; }

// scale·f·fᵀ of matrices f [N,C,P], in float32 if f is of half precision.
at::Tensor product(const at::Tensor& f, double scale) {
  if (is_half(f) && !f.is_cpu() && !f.requires_grad()) {
    auto sum = at::empty({f.size(0), f.size(1), f.size(1)}, f.options().dtype(at::kFloat));
    return at::baddbmm_out(sum, sum, f, f.transpose(1, 2), at::kFloat, 0, scale);
  }
  const auto a = is_half(f) ? f.to(at::kFloat) : f;
  return at::baddbmm(at::empty({}, a.options()), a, a.transpose(1, 2), 0, scale);
}

// The same on a GPU. Of long thin matrices C×C products would leave most of it idle:
// they are cut into pieces, whose products are added up.
at::Tensor product_of_pieces(const at::Tensor& f, double scale) {
  const int64_t n = f.size(0), c = f.size(1), p = f.size(2);
  constexpr int64_t kTile = 128, kTiles = 128, kLeast = 512;  // of a product; to fill a GPU; positions of a piece
  const int64_t tiles = n * ((c + kTile - 1) / kTile) * ((c + kTile - 1) / kTile);
  const int64_t pieces = std::min(kTiles / tiles, p / kLeast);
  const int64_t each = pieces > 0 ? p / pieces : p, rest = pieces > 0 ? p % pieces : 0;
  if (pieces < 4 || (n > 1 && rest > 0)) return product(f, scale);
  const auto cut = f.as_strided({n, pieces, c, each}, {f.stride(0), each * f.stride(2), f.stride(1), f.stride(2)});
  auto sum = product(cut.reshape({n * pieces, c, each}), scale).view({n, pieces, c, c}).sum(1);
  if (rest > 0) {
    const auto last = f.narrow(2, p - rest, rest);
    if (is_half(f))
      at::baddbmm_out(sum, sum, last, last.transpose(1, 2), at::kFloat, 1, scale);
    else
      sum.baddbmm_(last, last.transpose(1, 2), 1, scale);
  }
  return sum;
}

// f [N,C,P] as rows of C floats, one after the other: channels-last maps.
bool rows_of_channels(const at::Tensor& f) {
  return on_cpu(f) && f.dim() == 3 && f.size(1) % kChannels == 0 && f.stride(1) == 1 && f.stride(2) == f.size(1) &&
         (f.size(0) == 1 || f.stride(0) == f.size(1) * f.size(2));
}

}  // namespace

const char* nst_kernels_name(void) { return nst::cpu::kernels().name; }

const char* nst_convolution_new(nst_tensor weight, nst_tensor bias, nst_convolution* out) {
  return guard([&] {
    const auto& w = tensor(weight);
    TORCH_CHECK(w.dim() == 4 && w.size(2) == 3 && w.size(3) == 3, "a convolution's weights are [out,in,3,3], not ",
                w.sizes());
    *out = new Convolution(w.detach().contiguous(kLast), tensor(bias).detach().contiguous());
  });
}

void nst_convolution_free(nst_convolution c) { delete static_cast<Convolution*>(c); }

const char* nst_convolution_forward(nst_convolution c, nst_tensor x, nst_convolution_mode mode, int32_t relu,
                                    nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    *out = give(convolution(c).forward(tensor(x), mode, relu));
  });
}

const char* nst_convolution_backward(nst_convolution c, nst_tensor gradient, nst_tensor mask,
                                     nst_convolution_mode mode, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    *out = give(convolution(c).backward(tensor(gradient), optional_tensor(mask), mode));
  });
}

const char* nst_normalise(nst_tensor x, nst_tensor scale, nst_tensor offset, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto &image = tensor(x), &factor = tensor(scale);
    auto y = at::empty(image.sizes(), factor.options(), kLast);
    at::addcmul_out(y, tensor(offset), image, factor);
    *out = give(y);
  });
}

const char* nst_normalise_backward(nst_tensor g, nst_tensor scale, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto &gradient = tensor(g), &factor = tensor(scale);
    auto dx = at::empty(gradient.sizes(), factor.options());
    at::mul_out(dx, gradient, factor);
    *out = give(dx);
  });
}

const char* nst_relu(nst_tensor x, nst_tensor* out) {
  return guard([&] { *out = give(at::relu(tensor(x))); });
}

const char* nst_relu_backward(nst_tensor gradient, nst_tensor y, nst_tensor* out) {
  return guard([&] { *out = give(at::threshold_backward(tensor(gradient), tensor(y), 0)); });
}

const char* nst_pool(nst_tensor t, double scale, nst_tensor* out, nst_tensor* chosen) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto x = tensor(t).contiguous(kLast);
    *chosen = nullptr;
    if (pools(x)) {
      const auto& k = nst::cpu::kernels();
      auto y = empty_maps(x, x.size(1), x.size(2) / 2, x.size(3) / 2);
      if (scale != 0) {
        k.average_pool(data(x), maps(x), static_cast<float>(scale), data(y), threads());
      } else {
        auto which = at::empty(y.sizes(), y.options().dtype(at::kByte), kLast);
        k.max_pool(data(x), maps(x), data(y), which.mutable_data_ptr<uint8_t>(), threads());
        *chosen = give(which);
      }
      *out = give(y);
    } else if (scale == 0) {
      within_indices(x, x.size(1));
      auto [y, indices] = at::max_pool2d_with_indices(x, two(), two());
      *chosen = give(indices);
      *out = give(y);
    } else {
      *out = give(at::avg_pool2d(x, two(), two(), {0, 0}, false, true, divisor(scale)));
    }
  });
}

const char* nst_max_pool_backward(nst_tensor which, nst_tensor y, nst_tensor g, int64_t h, int64_t w, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto gradient = tensor(g).contiguous(kLast);
    const auto& chosen = tensor(which);
    TORCH_CHECK(chosen.sizes() == gradient.sizes() && h / 2 == gradient.size(2) && w / 2 == gradient.size(3),
                "the pool's choices are ", chosen.sizes(), " of ", h, "x", w, ", its gradient is ", gradient.sizes());
    auto dx = empty_maps(gradient, gradient.size(1), h, w);
    if (chosen.scalar_type() == at::kByte) {
      TORCH_CHECK(on_cpu(gradient) && chosen.is_contiguous(kLast), "these choices are of another pool's");
      nst::cpu::kernels().max_pool_backward(chosen.const_data_ptr<uint8_t>(), data(gradient), maps(dx), data(dx),
                                            threads());
    } else {
      // Of the input the shape counts, which dx has; and a mask of the pool's output is
      // as good as one of its input, and a quarter as large.
      at::max_pool2d_with_indices_backward_out(dx, masked(gradient, tensor(y)), dx, two(), two(), {0, 0}, {1, 1}, false,
                                               chosen);
    }
    *out = give(dx);
  });
}

const char* nst_average_pool_backward(nst_tensor g, double scale, int64_t h, int64_t w, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto gradient = tensor(g).contiguous(kLast);
    TORCH_CHECK(h / 2 == gradient.size(2) && w / 2 == gradient.size(3), "a pool of ", h, "x", w, " has no gradient of ",
                gradient.sizes());
    const auto x = empty_maps(gradient, gradient.size(1), h, w);
    if (pools(gradient)) {
      nst::cpu::kernels().average_pool_backward(data(gradient), maps(x), static_cast<float>(scale), data(x), threads());
      *out = give(x);
    } else {
      *out = give(at::avg_pool2d_backward(gradient, x, two(), two(), {0, 0}, false, true, divisor(scale)));
    }
  });
}

const char* nst_syrk(nst_tensor t, double scale, nst_tensor* out) {
  return guard([&] {
    const auto& f = tensor(t);
    if (!rows_of_channels(f) || (c10::GradMode::is_enabled() && f.requires_grad())) {
      const nst::Math math(f);
      *out = give(f.is_cpu() || f.requires_grad() ? product(f, scale) : product_of_pieces(f, scale));
      return;
    }
    const int64_t n = f.size(0), c = f.size(1), p = f.size(2);
    auto products = at::empty({n, c, c}, f.options());
    for (int64_t i = 0; i < n; i++)
      nst::cpu::kernels().syrk(data(f) + i * c * p, p, c, static_cast<float>(scale), data(products) + i * c * c,
                               threads());
    *out = give(products);
  });
}

// d is symmetric, so the rows of sum and f may be taken for columns.
const char* nst_baddbmm_in_place(nst_tensor sum, nst_tensor d, nst_tensor f, double beta, double alpha) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto &s = tensor(sum), &a = tensor(f), m = tensor(d);
    const bool kernel = rows_of_channels(s) && rows_of_channels(a) && on_cpu(m) && m.is_contiguous() &&
                        s.sizes() == a.sizes() && m.dim() == 3 && m.size(0) == a.size(0) && m.size(1) == a.size(1) &&
                        m.size(2) == a.size(1) && (beta == 0 || beta == 1);
    if (!kernel) {
      const nst::Math math(a);
      if (is_half(a) && a.is_cpu()) {
        s.copy_(at::baddbmm(s.to(at::kFloat), m, a.to(at::kFloat), beta, alpha));
        return;
      }
      s.baddbmm_(m.to(a.scalar_type()), a, beta, alpha);
      return;
    }
    const int64_t c = a.size(1), p = a.size(2);
    for (int64_t i = 0; i < a.size(0); i++)
      nst::cpu::kernels().addmm(data(s) + i * c * p, data(a) + i * c * p, data(m) + i * c * c, p, c, c,
                                static_cast<float>(beta), static_cast<float>(alpha), threads());
  });
}
