// Quantiles of weighted values, one distribution at a time, so that they take little memory.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <c10/core/GradMode.h>

#include <utility>

#include "guard.h"

using nst::give;
using nst::guard;
using nst::tensor;

namespace {

// (i + 0.5)/count.
at::Tensor middles(int64_t count, const at::Tensor& like) {
  return at::arange(count, like.options().dtype(at::kDouble)).add_(0.5).div_(static_cast<double>(count));
}

// The ranks of sorted values, in the middle of their weights; order is where they were.
at::Tensor ranks(const at::Tensor& order, const at::Tensor& weights) {
  if (!weights.defined()) return middles(order.size(0), order);
  const auto sorted = weights.index_select(0, order).to(at::kDouble);
  return sorted.cumsum(0).sub_(sorted, 0.5);
}

// A function, linear between the points (at, values), of which at ascends, and constant beyond them.
at::Tensor interpolate(const at::Tensor& at, const at::Tensor& values, const at::Tensor& x) {
  const int64_t last = at.size(0) - 1;
  if (last == 0) return values.expand_as(x).clone();
  const auto right = at::searchsorted(at, x).clamp_(1, last);
  const auto left = right - 1;
  const auto from = at.index_select(0, left), to = at.index_select(0, right);
  const auto part = ((x - from) / (to - from).clamp_min_(1e-300)).clamp_(0, 1).to(values.scalar_type());
  const auto low = values.index_select(0, left);
  return low + part * (values.index_select(0, right) - low);
}

// Calls do_one for each distribution of x [N,K,P]: its values, its weights, and its indices.
template <class DoOne>
void each(const at::Tensor& x, nst_tensor weights, const DoOne& do_one) {
  for (int64_t n = 0; n < x.size(0); n++) {
    const auto w = weights == nullptr ? at::Tensor() : tensor(weights)[n];
    for (int64_t k = 0; k < x.size(1); k++) do_one(x[n][k], w, n, k);
  }
}

}  // namespace

const char* nst_quantiles(nst_tensor x, nst_tensor weights, int64_t count, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto& values = tensor(x);
    auto made = at::empty({values.size(0), values.size(1), count}, values.options());
    const auto wanted = middles(count, values);
    each(values, weights, [&](const at::Tensor& v, const at::Tensor& w, int64_t n, int64_t k) {
      const auto [sorted, order] = v.sort();
      made[n][k].copy_(interpolate(ranks(order, w), sorted, wanted));
    });
    *out = give(made);
  });
}

const char* nst_quantile_differences(nst_tensor x, nst_tensor weights, nst_tensor quantiles, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto &values = tensor(x), &table = tensor(quantiles);
    auto made = at::empty(values.sizes(), values.options());
    const auto at = middles(table.size(2), values);
    each(values, weights, [&](const at::Tensor& v, const at::Tensor& w, int64_t n, int64_t k) {
      const auto [sorted, order] = v.sort();
      made[n][k].index_copy_(0, order, sorted - interpolate(at, table[n][k], ranks(order, w)));
    });
    *out = give(made);
  });
}
