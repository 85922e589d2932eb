// Tensors: making, reading, moving, and the arithmetic that gotorch lacks.
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <tuple>
#include <vector>

#include "guard.h"
#include "precision.h"

using nst::give;
using nst::guard;
using nst::tensor;

namespace {

constexpr int64_t kMaxDims = 8;
constexpr bool kAlignCorners = false;

at::IntArrayRef shape(const int64_t* sizes, int64_t dims) {
  return at::IntArrayRef(sizes, static_cast<size_t>(dims));
}

// The caller's floats as a tensor, which must not outlive the call.
at::Tensor borrow(const float* data, at::IntArrayRef sizes) {
  return at::from_blob(const_cast<float*>(data), sizes, at::kFloat);
}

// Calls do for the runs of positions first to first + count of a dimension of n that comes round: from where of the
// dimension, how many, and after how many others.
template <class Do>
void runs_around(int64_t n, int64_t first, int64_t count, const Do& do_run) {
  int64_t from = ((first % n) + n) % n;
  for (int64_t done = 0; done < count; from = 0) {
    const int64_t length = std::min(count - done, n - from);
    do_run(from, length, done);
    done += length;
  }
}

// A view of those positions, where they are one run, else a copy.
at::Tensor around(const at::Tensor& t, int64_t dim, int64_t first, int64_t count) {
  std::vector<at::Tensor> parts;
  runs_around(t.size(dim), first, count,
              [&](int64_t from, int64_t length, int64_t) { parts.push_back(t.narrow(dim, from, length)); });
  return parts.size() == 1 ? parts[0] : at::cat(parts, dim);
}

// So many positions beyond each end of a dimension that comes round that resizing it sees past both ends, and that they
// are a whole number at the new size, or as nearly as one of some hundreds is: far less than a pixel off.
int64_t resize_margin(int64_t from, int64_t to) {
  const int64_t least = 4 * std::max<int64_t>(1, (from + to - 1) / to);
  int64_t best = least;
  double off = 1;
  for (int64_t margin = least; margin < least + 256 && off > 0; margin++) {
    const int64_t rest = margin * to % from;
    const double here = static_cast<double>(std::min(rest, from - rest)) / static_cast<double>(from);
    if (here < off) {
      off = here;
      best = margin;
    }
  }
  return best;
}

// The kernel is widened by the scale when it shrinks, so nothing aliases.
at::Tensor resized(const at::Tensor& t, int64_t height, int64_t width, bool cubic, nst_wrap wrap) {
  const int64_t rows = t.size(2), columns = t.size(3);
  const int64_t y = wrap.y ? resize_margin(rows, height) : 0, x = wrap.x ? resize_margin(columns, width) : 0;
  const int64_t top = (2 * y * height + rows) / (2 * rows), left = (2 * x * width + columns) / (2 * columns);
  const auto source = around(around(t, 2, -y, rows + 2 * y), 3, -x, columns + 2 * x);
  const std::array<int64_t, 2> to{height + 2 * top, width + 2 * left};
  const auto out = cubic ? at::_upsample_bicubic2d_aa(source, to, kAlignCorners)
                         : at::_upsample_bilinear2d_aa(source, to, kAlignCorners);
  return out.narrow(2, top, height).narrow(3, left, width).contiguous();
}

}  // namespace

namespace {

// reduce, which takes rows [N,…] and the dimensions to reduce, of x: on the CPU
// picture by picture, since libtorch's own batches sum in another order.
template <class Reduce>
at::Tensor by_picture(const at::Tensor& x, const Reduce& reduce) {
  const auto rows = x.dim() < 2 ? x.unsqueeze(1) : x;
  std::vector<int64_t> dims;
  for (int64_t d = 1; d < rows.dim(); d++) dims.push_back(d);
  if (!x.is_cpu() || x.size(0) == 1) return reduce(rows, dims);
  std::vector<at::Tensor> each;
  for (int64_t i = 0; i < rows.size(0); i++) each.push_back(reduce(rows.narrow(0, i, 1), dims));
  return at::cat(each);
}

}  // namespace

at::Tensor nst::sums(const at::Tensor& x) {
  return by_picture(x, [](const at::Tensor& rows, at::IntArrayRef dims) { return rows.sum(dims); });
}

at::Tensor nst::norms(const at::Tensor& x) {
  return by_picture(x, [](const at::Tensor& rows, at::IntArrayRef dims) {
    const auto type = rows.itemsize() < 4 ? std::optional<at::ScalarType>(at::kFloat) : std::nullopt;
    return at::linalg_vector_norm(rows, 2, dims, /*keepdim=*/false, type);
  });
}

namespace {

// A copy in page-locked memory, from which a device reads at its own pace while
// the host goes on; undefined where there is none. Small tensors are not worth it.
at::Tensor pinned(const at::Tensor& t, c10::Device target) {
  constexpr int64_t kWorth = 1 << 16;
  if (target.is_cpu() || t.numel() < kWorth) return {};
  try {
    auto copy = at::empty(t.sizes(), t.options().pinned_memory(true));
    return copy.copy_(t);
  } catch (const c10::Error&) {
    return {};  // a backend without such memory, or no more of it
  }
}

}  // namespace

void nst_message_free(const char* message) {
  if (message != nst::kNoMemory) free(const_cast<char*>(message));
}

void nst_tensor_free(nst_tensor t) { delete static_cast<at::Tensor*>(t); }

const char* nst_tensor_from_floats(const float* data, const int64_t* sizes, int64_t dims,
                                   const char* device, nst_tensor* out) {
  return guard([&] {
    const auto borrowed = borrow(data, shape(sizes, dims));
    const c10::Device target(device);
    if (auto staged = pinned(borrowed, target); staged.defined()) {
      *out = give(staged.to(target, /*non_blocking=*/true));
    } else {
      *out = give(borrowed.to(target, at::kFloat, /*non_blocking=*/false, /*copy=*/true));
    }
  });
}

const char* nst_tensor_from_floats_part(const float* data, int64_t planes, int64_t height, int64_t width, int64_t top,
                                        int64_t left, int64_t h, int64_t w, nst_tensor* out) {
  return guard([&] {
    const auto whole = borrow(data, {1, planes, height, width});
    *out = give(around(around(whole, 2, top, h), 3, left, w).clone(at::MemoryFormat::Contiguous));
  });
}

const char* nst_tensor_from_bytes(const void* data, int64_t bytes, int32_t dtype,
                                  const int64_t* sizes, int64_t dims, nst_tensor* out) {
  return guard([&] {
    auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype));
    auto t = at::empty(shape(sizes, dims), options);
    TORCH_CHECK(static_cast<int64_t>(t.nbytes()) == bytes, "a tensor of shape ", t.sizes(),
                " and type ", t.scalar_type(), " takes ", t.nbytes(), " bytes, not ", bytes);
    std::memcpy(t.mutable_data_ptr(), data, bytes);
    *out = give(t);
  });
}

const char* nst_tensor_full(double value, const int64_t* sizes, int64_t dims, const char* device,
                            nst_tensor* out) {
  return guard([&] {
    auto options = at::TensorOptions().dtype(at::kFloat).device(c10::Device(device));
    *out = give(at::full(shape(sizes, dims), value, options));
  });
}

const char* nst_tensor_floats(nst_tensor t, float* out, int64_t count) {
  return guard([&] {
    const auto& source = tensor(t);
    TORCH_CHECK(source.numel() == count, "the tensor has ", source.numel(), " elements, not ",
                count);
    auto target = borrow(out, source.sizes());
    c10::NoGradGuard off;
    target.copy_(source);
  });
}

const char* nst_tensor_bytes(nst_tensor t, void* out, int64_t bytes) {
  return guard([&] {
    auto source = tensor(t).detach().cpu().contiguous();
    TORCH_CHECK(static_cast<int64_t>(source.nbytes()) == bytes, "the tensor takes ",
                source.nbytes(), " bytes, not ", bytes);
    std::memcpy(out, source.const_data_ptr(), bytes);
  });
}

const char* nst_tensor_type(nst_tensor t, int32_t* dtype, int64_t* item_bytes) {
  return guard([&] {
    *dtype = static_cast<int32_t>(tensor(t).scalar_type());
    *item_bytes = static_cast<int64_t>(tensor(t).itemsize());
  });
}

const char* nst_tensor_sizes(nst_tensor t, int64_t* sizes, int64_t* dims) {
  return guard([&] {
    const auto& source = tensor(t);
    TORCH_CHECK(source.dim() <= kMaxDims, "the tensor has ", source.dim(), " dimensions");
    *dims = source.dim();
    for (int64_t i = 0; i < source.dim(); i++) sizes[i] = source.size(i);
  });
}

const char* nst_tensor_device(nst_tensor t, char** name) {
  return guard([&] { *name = nst::copy(tensor(t).device().str()); });
}

const char* nst_tensor_clone(nst_tensor t, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).clone()); });
}

const char* nst_tensor_to(nst_tensor t, const char* device, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).to(c10::Device(device))); });
}

const char* nst_tensor_cast(nst_tensor t, int32_t dtype, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).to(static_cast<at::ScalarType>(dtype))); });
}

const char* nst_tensor_copy(nst_tensor destination, nst_tensor source) {
  return guard([&] {
    c10::NoGradGuard off;
    tensor(destination).copy_(tensor(source));
  });
}

const char* nst_tensor_contiguous(nst_tensor t, int32_t channels_last, nst_tensor* out) {
  return guard([&] {
    *out = give(tensor(t).contiguous(channels_last ? at::MemoryFormat::ChannelsLast
                                                   : at::MemoryFormat::Contiguous));
  });
}

const char* nst_tensor_scale(nst_tensor t, double factor, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).mul(factor)); });
}

const char* nst_tensor_scale_in_place(nst_tensor t, double factor) {
  return guard([&] { tensor(t).mul_(factor); });
}

const char* nst_tensor_pow(nst_tensor t, double exponent, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).pow(exponent)); });
}

// Outside autograd: a step's clamp is no part of the cost.
const char* nst_tensor_clamp_in_place(nst_tensor t, double low, double high) {
  return guard([&] {
    c10::NoGradGuard off;
    tensor(t).clamp_(low, high);
  });
}

const char* nst_tensor_lerp_in_place(nst_tensor t, nst_tensor target, double weight) {
  return guard([&] { tensor(t).lerp_(tensor(target), weight); });
}

const char* nst_tensor_avg_pool2d(nst_tensor t, nst_tensor* out) {
  return guard([&] { *out = give(at::avg_pool2d(tensor(t), {2, 2}, {2, 2})); });
}

const char* nst_tensor_flip(nst_tensor t, int64_t dim, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).flip({dim})); });
}

const char* nst_tensor_slice(nst_tensor t, int64_t dim, int64_t start, int64_t end,
                             nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).slice(dim, start, end)); });
}

// On the CPU each picture of several is computed by itself: libtorch's own
// batches sum in another order, which would make a result depend on its company.
const char* nst_tensor_bmm(nst_tensor a, nst_tensor b, nst_tensor* out) {
  return guard([&] {
    const auto &x = tensor(a), &y = tensor(b);
    const nst::Math math(x);
    if (!x.is_cpu() || x.dim() != 3 || x.size(0) == 1) {
      *out = give(at::matmul(x, y));
      return;
    }
    std::vector<at::Tensor> each;
    for (int64_t i = 0; i < x.size(0); i++)
      each.push_back(at::matmul(x.narrow(0, i, 1), y.dim() == 3 ? y.narrow(0, i, 1) : y));
    *out = give(at::cat(each));
  });
}

const char* nst_tensor_eigh(nst_tensor t, nst_tensor* values, nst_tensor* vectors) {
  return guard([&] {
    const auto& matrices = tensor(t);
    at::Tensor l, v;
    try {
      std::tie(l, v) = at::linalg_eigh(matrices);
    } catch (const c10::LinAlgError&) {  // of what are no numbers: the costs tell of it
      v = at::full_like(matrices, std::numeric_limits<double>::quiet_NaN());
      l = v.select(-1, 0);
    }
    *values = give(l);
    *vectors = give(v);
  });
}

const char* nst_tensor_diagonal(nst_tensor t, nst_tensor* out) {
  return guard([&] { *out = give(tensor(t).diagonal(0, -2, -1)); });
}

const char* nst_tensor_add_in_place(nst_tensor t, nst_tensor other, double factor) {
  return guard([&] {
    c10::NoGradGuard off;
    tensor(t).add_(tensor(other), factor);
  });
}

const char* nst_tensor_subtract(nst_tensor t, nst_tensor a, nst_tensor b) {
  return guard([&] {
    c10::NoGradGuard off;
    at::sub_out(tensor(t), tensor(a), tensor(b));
  });
}

const char* nst_tensor_mul_in_place(nst_tensor t, nst_tensor other) {
  return guard([&] {
    c10::NoGradGuard off;
    tensor(t).mul_(tensor(other));
  });
}

// Sums over all dimensions but the first.
const char* nst_tensor_sums(nst_tensor t, nst_tensor* out) {
  return guard([&] { *out = give(nst::sums(tensor(t))); });
}

namespace {

// On the CPU piece by piece, so that no second tensor of that size is needed; in the
// order in which the elements lie.
at::Tensor square_sums_on_host(const at::Tensor& x) {
  constexpr int64_t kPiece = 1 << 22;
  std::vector<at::Tensor> each;
  for (int64_t i = 0; i < x.size(0); i++) {
    const auto one = x.select(0, i);
    const auto row = one.is_non_overlapping_and_dense() ? one.as_strided({one.numel()}, {1}) : one.reshape({-1});
    auto sum = at::zeros({}, x.options().dtype(x.itemsize() < 4 ? at::kFloat : x.scalar_type()));
    for (int64_t begin = 0; begin < row.numel(); begin += kPiece)
      sum.add_(row.narrow(0, begin, std::min(kPiece, row.numel() - begin)).to(sum.scalar_type()).square().sum());
    each.push_back(sum);
  }
  return at::stack(each);
}

}  // namespace

const char* nst_tensor_square_sums(nst_tensor t, nst_tensor* out) {
  return guard([&] {
    const auto& x = tensor(t);
    if (c10::GradMode::is_enabled() && x.requires_grad()) {
      *out = give(nst::sums(x.square()));
      return;
    }
    c10::NoGradGuard off;
    *out = give(x.is_cpu() ? square_sums_on_host(x) : nst::norms(x).square_());
  });
}

const char* nst_tensor_norms(nst_tensor t, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto& x = tensor(t);
    *out = give(x.is_cpu() ? square_sums_on_host(x).sqrt_() : nst::norms(x));
  });
}

const char* nst_tensor_crop(nst_tensor t, int64_t top, int64_t left, int64_t h, int64_t w, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto part = around(around(tensor(t), 2, top, h), 3, left, w);
    *out = give(part.contiguous(part.suggest_memory_format()));
  });
}

const char* nst_tensor_add_around(nst_tensor t, nst_tensor part, int64_t top, int64_t left) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto &whole = tensor(t), &p = tensor(part);
    runs_around(whole.size(2), top, p.size(2), [&](int64_t row, int64_t rows, int64_t y) {
      runs_around(whole.size(3), left, p.size(3), [&](int64_t column, int64_t columns, int64_t x) {
        whole.narrow(2, row, rows).narrow(3, column, columns).add_(p.narrow(2, y, rows).narrow(3, x, columns));
      });
    });
  });
}

const char* nst_tensor_pad(nst_tensor t, int64_t top, int64_t left, int64_t h, int64_t w, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto& part = tensor(t);
    auto whole = at::empty({part.size(0), part.size(1), h, w}, part.options(), part.suggest_memory_format()).zero_();
    whole.narrow(2, top, part.size(2)).narrow(3, left, part.size(3)).copy_(part);
    *out = give(whole);
  });
}

const char* nst_tensor_lt(nst_tensor a, nst_tensor b, nst_tensor* out) {
  return guard([&] { *out = give(tensor(a).lt(tensor(b))); });
}

const char* nst_tensor_where_in_place(nst_tensor t, nst_tensor mask, nst_tensor other) {
  return guard([&] {
    c10::NoGradGuard off;
    auto& target = tensor(t);
    auto m = tensor(mask);
    while (m.dim() < target.dim()) m = m.unsqueeze(m.dim());
    at::where_out(target, m, tensor(other), target);
  });
}

const char* nst_tensor_empty_like(nst_tensor t, nst_tensor* out) {
  return guard([&] { *out = give(at::empty_like(tensor(t))); });
}

const char* nst_tensor_resize(nst_tensor t, int64_t height, int64_t width, int32_t cubic, nst_wrap wrap,
                              nst_tensor* out) {
  return guard([&] { *out = give(resized(tensor(t), height, width, cubic, wrap)); });
}

const char* nst_floats_resize(const float* data, int64_t planes, int64_t height, int64_t width, float* out,
                              int64_t to_height, int64_t to_width, nst_wrap wrap) {
  return guard([&] {
    c10::NoGradGuard off;
    const auto from = borrow(data, {1, planes, height, width});
    auto to = borrow(out, {1, planes, to_height, to_width});
    if (wrap.x || wrap.y) {
      to.copy_(resized(from, to_height, to_width, /*cubic=*/true, wrap));
    } else {
      at::_upsample_bicubic2d_aa_out(to, from, {to_height, to_width}, kAlignCorners);
    }
  });
}
