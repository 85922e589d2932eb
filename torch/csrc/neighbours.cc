// Features as directions: unit vectors, and which of many is nearest.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/pixel_shuffle.h>
#include <ATen/ops/pixel_unshuffle.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <stdexcept>

#include "guard.h"
#include "precision.h"

using nst::give;
using nst::guard;
using nst::tensor;

namespace {

// The scores of so many queries are held at once, in bytes at most.
constexpr int64_t kScoreBytes = 64 << 20;

// A vector that is shorter than this, or this part of the mean, has no direction but what rounding gives it.
constexpr double kShortest = 1e-12, kPart = 1e-4;

}  // namespace

const char* nst_nearest(nst_tensor queries, nst_tensor candidates, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto q = tensor(queries).t();
    const auto& c = tensor(candidates);
    const nst::Math math(c);
    if (c.size(1) == 0) throw std::invalid_argument("there is no candidate");
    auto found = at::empty({q.size(0)}, c.options().dtype(at::kLong));
    const int64_t rows = std::max<int64_t>(1, kScoreBytes / (c.size(1) * static_cast<int64_t>(c.itemsize())));
    for (int64_t i = 0; i < q.size(0); i += rows) {
      const int64_t n = std::min(rows, q.size(0) - i);
      found.narrow(0, i, n).copy_(at::matmul(q.narrow(0, i, n), c).argmax(1));
    }
    *out = give(found);
  });
}

const char* nst_units(nst_tensor f, nst_tensor mean, nst_tensor* lengths, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    auto x = mean == nullptr ? tensor(f).clone() : tensor(f) - tensor(mean);
    auto length = at::linalg_vector_norm(x, 2, {1}, /*keepdim=*/true).clamp_min_(kShortest);
    if (mean != nullptr) {
      length = at::maximum(length, at::linalg_vector_norm(tensor(mean), 2, {1}, /*keepdim=*/true).mul_(kPart));
    }
    *out = give(x.div_(length));
    *lengths = give(length);
  });
}

const char* nst_units_backward_in_place(nst_tensor gradient, nst_tensor units, nst_tensor lengths) {
  return guard([&] {
    c10::NoGradGuard off;
    auto &g = tensor(gradient), &u = tensor(units);
    const auto along = (u * g).sum({1}, /*keepdim=*/true);
    g.sub_(u.mul_(along)).div_(tensor(lengths));
  });
}

const char* nst_tensor_index_select(nst_tensor t, int64_t dim, nst_tensor index, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).index_select(dim, tensor(index))); });
}

const char* nst_tensor_every(nst_tensor t, int64_t dim, int64_t first, int64_t step, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).slice(dim, first, tensor(t).size(dim), step)); });
}

const char* nst_tensor_pixel_unshuffle(nst_tensor t, int64_t factor, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    *out = give(at::pixel_unshuffle(tensor(t), factor).contiguous());
  });
}

const char* nst_tensor_pixel_shuffle(nst_tensor t, int64_t factor, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    *out = give(at::pixel_shuffle(tensor(t), factor));
  });
}
