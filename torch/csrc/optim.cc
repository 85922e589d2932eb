// Optimisers of one tensor.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool2d_backward.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "guard.h"
#include "precision.h"

using nst::give;
using nst::guard;
using nst::tensor;

namespace {

using Tensors = std::vector<at::Tensor>;
using Numbers = std::vector<double>;

// What package torch calls an Optimizer.
struct Optimizer {
  virtual ~Optimizer() = default;
  virtual void step(const at::Tensor& gradient) = 0;
  virtual void set_rate(double rate) = 0;
  // The state is tensors and numbers; both are empty before the first step, and
  // such a state cannot be set.
  virtual std::pair<Tensors, Numbers> state() = 0;
  virtual void set_state(const Tensors& tensors, const Numbers& numbers) = 0;
};

Optimizer& optimizer(nst_optimizer o) { return nst::object<Optimizer>(o, "optimiser"); }

// Kingma and Ba's. torch::optim::Adam takes its square root from MKL's vector
// library, whose first call in a process, on two threads, did not always give
// the same last bits; and it reads its count of steps on the host, which a CUDA
// graph cannot record. The fused kernel does neither.
struct Adam final : Optimizer {
  at::Tensor t, m, v, steps;
  double rate, beta1, beta2, epsilon;

  Adam(const at::Tensor& t, double rate, double beta1, double beta2, double epsilon)
      : t(t), rate(rate), beta1(beta1), beta2(beta2), epsilon(epsilon) {}

  void step(const at::Tensor& gradient) override {
    c10::NoGradGuard off;
    TORCH_CHECK(gradient.sizes() == t.sizes(), "the gradient has the shape ", gradient.sizes(), ", not ", t.sizes());
    if (!m.defined()) {  // all or none: memory may run short in between
      auto first = at::zeros_like(t), second = at::zeros_like(t);
      steps = at::zeros({}, t.options().dtype(at::kFloat));
      m = std::move(first);
      v = std::move(second);
    }
    steps.add_(1);
    at::_fused_adam_({t}, {gradient.contiguous()}, {m}, {v}, {}, {steps}, rate, beta1, beta2, 0, epsilon, false, false);
  }
  void set_rate(double r) override { rate = r; }
  std::pair<Tensors, Numbers> state() override {
    if (!m.defined()) return {};
    return {{m, v}, {steps.item<double>()}};
  }
  void set_state(const Tensors& tensors, const Numbers& numbers) override {
    TORCH_CHECK(tensors.size() == 2 && numbers.size() == 1 && tensors[0].sizes() == t.sizes() &&
                    tensors[1].sizes() == t.sizes(),
                "this is no state of Adam for a tensor of shape ", t.sizes());
    m = tensors[0];
    v = tensors[1];
    steps = at::full({}, numbers[0], t.options().dtype(at::kFloat));
  }
};

// Limited-memory BFGS (Liu and Nocedal 1989) of N pictures [N,3,H,W], each by
// itself, whose values stay in [0,1]. No line is searched: a step is as long as
// the method says, but its root mean square is at most the picture's radius (and
// exactly first, where nothing is known yet).
//
// Of the last h steps it remembers how far t moved, the rows of S, and how its
// gradient changed, those of Y. The two loops over them that are usual (Nocedal
// and Wright, Numerical Optimization, algorithm 7.4) are written as products with
// T, the inverse of the upper triangle of S·Yᵀ, steps in order of age (Byrd,
// Nocedal and Schnabel 1994, theorem 2.2, has the same): with R = T⁻¹, D the
// diagonal of R, and first guess M of the inverse Hessian,
//
//   α = T·S·g,  r = M·(g − Yᵀ·α),  direction = −(r + Sᵀ·Tᵀ·(D·α − Y·r)).
//
// Rows and columns may be in any order, if all are in the same: a step takes the
// slot of the oldest. A step that taught nothing has zeros in T. Every tensor keeps
// its place and nothing is read back, so that a graph can record a step.
struct Lbfgs final : Optimizer {
  at::Tensor t;
  at::Tensor fresh, radius, scale;      // [N,1]: nothing is known yet (1 or 0); see above; of M
  at::Tensor last_gradient, last_step;  // [N,D]
  at::Tensor S, Y, T, curvature;        // [N,h,D]; [N,h,h]; D as [N,h]
  at::Tensor slot;                      // [1], of the newest
  at::Tensor zero, unit;                // [N,1]; [h,h], whose row i is 1 at i: made anew, no state
  double rate, first;
  int64_t history;
  nst_wrap wrap;

  Lbfgs(const at::Tensor& t, double rate, int64_t history, double first, double radius, nst_wrap wrap)
      : t(t), fresh(at::ones({t.size(0), 1}, t.options())), radius(at::full({t.size(0), 1}, radius, t.options())),
        scale(at::ones({t.size(0), 1}, t.options())), zero(at::zeros({t.size(0), 1}, t.options())), rate(rate),
        first(first), history(history), wrap(wrap) {
    TORCH_CHECK(t.dim() == 4 && t.is_contiguous(), "L-BFGS is for pictures [N,C,H,W] in row order");
  }

  static at::Tensor dot(const at::Tensor& a, const at::Tensor& b) { return nst::sums(a.mul(b)).unsqueeze(1); }
  at::Tensor rows(const at::Tensor& pictures) const { return pictures.contiguous().view({t.size(0), -1}); }

  // Matrices [N,m,n] times vectors [N,n]. On the CPU picture by picture: see
  // nst_tensor_bmm.
  static at::Tensor times(const at::Tensor& matrices, const at::Tensor& vectors) {
    if (!matrices.is_cpu()) return matrices.bmm(vectors.unsqueeze(2)).squeeze(2);
    std::vector<at::Tensor> each;
    for (int64_t i = 0; i < matrices.size(0); i++) each.push_back(matrices[i].mv(vectors[i]));
    return at::stack(each);
  }
  // a − matrices·vectors.
  static at::Tensor minus(const at::Tensor& a, const at::Tensor& matrices, const at::Tensor& vectors) {
    if (a.is_cpu()) return a - times(matrices, vectors);
    return at::baddbmm(a.unsqueeze(2), matrices, vectors.unsqueeze(2), 1, -1).squeeze(2);
  }

  // M·x, where scale·M is the first guess of the inverse Hessian, which is taken
  // for a multiple of the identity as a rule. The costs' curvature is much larger
  // along fine detail than along what is smooth, so M adds to x its smooth parts,
  //
  //   M = 1 + Σ_k (3/2)^(k−1) · 4^k · S_kᵀ S_k,  S_k = H·…·H,
  //
  // where H halves a picture by the means of 4×4 pixels, two apart (again and again
  // that is a smooth kernel; means of 2×2 would be blocks): symmetric and positive,
  // as M has to be, and without atomic additions on a GPU. It saves a third of the
  // steps (measured; other weights, and kernels like 1 2 2 1 and 1 7 7 1, made no
  // difference beyond a run's own chance). Pictures that come round are halved so too,
  // as long as their sides are even: else M would know of the seam.
  at::Tensor precondition(const at::Tensor& x) const {
    constexpr int64_t kLevels = 7;
    std::vector<at::Tensor> halves{x.view({-1, t.size(1), t.size(2), t.size(3)})};
    const auto can_halve = [&](const at::Tensor& p) {
      return std::min(p.size(2), p.size(3)) >= 4 && !(wrap.y && p.size(2) % 2) && !(wrap.x && p.size(3) % 2);
    };
    while (static_cast<int64_t>(halves.size()) <= kLevels && can_halve(halves.back()))
      halves.push_back(halved(halves.back()));
    auto sum = halves.back();
    for (size_t k = halves.size() - 1; k > 0; k--) {
      const auto wider = halved_backward(sum, halves[k - 1]);
      halves.pop_back();
      sum = at::add(halves.back(), wider, k == 1 ? 4 : 6);
    }
    return sum.view(x.sizes());
  }

  // Beside what comes round lies one pixel of its other side.
  at::Tensor beside(const at::Tensor& x) const {
    auto out = x;
    for (const int64_t dim : {2, 3})
      if (dim == 2 ? wrap.y : wrap.x)
        out = at::cat({out.narrow(dim, out.size(dim) - 1, 1), out, out.narrow(dim, 0, 1)}, dim);
    return out;
  }
  std::array<int64_t, 2> padding() const { return {wrap.y ? 0 : 1, wrap.x ? 0 : 1}; }
  at::Tensor halved(const at::Tensor& x) const { return at::avg_pool2d(beside(x), {4, 4}, {2, 2}, padding()); }
  at::Tensor halved_backward(const at::Tensor& gradient, const at::Tensor& x) const {
    auto out = at::avg_pool2d_backward(gradient, beside(x), {4, 4}, {2, 2}, padding(), /*ceil_mode=*/false,
                                       /*count_include_pad=*/true, std::nullopt);
    for (const int64_t dim : {3, 2}) {
      if (!(dim == 2 ? wrap.y : wrap.x)) continue;
      const int64_t n = out.size(dim) - 2;
      const auto inner = out.narrow(dim, 1, n);
      inner.narrow(dim, n - 1, 1).add_(out.narrow(dim, 0, 1));
      inner.narrow(dim, 0, 1).add_(out.narrow(dim, n + 1, 1));
      out = inner;
    }
    return out;
  }
  // M·a and M·b: on a GPU at once, which takes half as many kernels.
  std::pair<at::Tensor, at::Tensor> precondition(const at::Tensor& a, const at::Tensor& b) const {
    if (a.is_cpu()) return {precondition(a), precondition(b)};
    const auto both = precondition(at::cat({a, b}));
    return {both.narrow(0, 0, a.size(0)), both.narrow(0, a.size(0), a.size(0))};
  }

  void begin() {
    const int64_t n = t.size(0), d = t.numel() / n;
    last_gradient = at::zeros({n, d}, t.options());
    last_step = at::zeros({n, d}, t.options());
    S = at::zeros({n, history, d}, t.options());
    Y = at::zeros({n, history, d}, t.options());
    T = at::zeros({n, history, history}, t.options());
    curvature = at::zeros({n, history}, t.options());
    slot = at::zeros({1}, t.options().dtype(at::kLong));
    unit = at::eye(history, t.options());
  }

  void step(const at::Tensor& gradient) override {
    c10::NoGradGuard off;
    TORCH_CHECK(gradient.sizes() == t.sizes(), "the gradient has the shape ", gradient.sizes(), ", not ", t.sizes());
    if (!S.defined()) begin();
    const nst::Math exact(t, nst::Math::kExact);
    const auto g = rows(gradient);

    // Remember the last step in the place of the oldest.
    const auto y = g - last_gradient;
    slot.add_(1).remainder_(history);
    S.index_copy_(1, slot, last_step.unsqueeze(1));
    Y.index_copy_(1, slot, y.unsqueeze(1));
    const auto sy = times(S, y);
    const auto ys = sy.index_select(1, slot).mul_(1 - fresh);
    const auto curved = ys > 1e-10;
    const auto inverse = at::where(curved, ys.reciprocal(), zero);
    curvature.index_copy_(1, slot, ys);
    // The inverse of [R r; 0 ys] is [T −T·r/ys; 0 1/ys].
    T.index_fill_(1, slot, 0).index_fill_(2, slot, 0);
    const auto column = (unit.index_select(0, slot) - times(T, sy)).mul_(inverse);
    T.index_copy_(2, slot, column.unsqueeze(2));

    const auto alpha = times(T, times(S, g));
    auto [my, r] = precondition(y, minus(g, Y.transpose(1, 2), alpha));
    at::where_out(scale, curved, ys / dot(y, my), scale);
    my = at::Tensor();
    r.mul_(scale);
    const auto correction = times(T.transpose(1, 2), at::addcmul(times(Y, r), curvature, alpha, -1));
    r = minus(r, S.transpose(1, 2), correction);

    const double root = std::sqrt(static_cast<double>(r.size(1)));
    auto norm = nst::norms(r).unsqueeze(1);
    const auto length = norm.mul(rate / root);
    const auto longest = at::where(fresh > 0, radius.clamp_max(first * rate), radius.minimum(length));
    last_step.copy_(rows(t));
    t.add_(r.mul_(longest.div_(norm.clamp_min_(1e-30))).view(t.sizes()), -root).clamp_(0, 1);
    at::sub_out(last_step, rows(t), last_step);
    last_gradient.copy_(g);
    fresh.mul_(length == 0);  // where nothing moved, nothing was learnt
  }
  // Pictures of the mask [N] have been moved elsewhere: what is known of them does
  // not hold there.
  void restart(const at::Tensor& mask) {
    const auto moved = mask.to(t.scalar_type()).unsqueeze(1);
    at::maximum_out(fresh, fresh, moved);
    radius.addcmul_(radius, moved, -0.5);
    if (T.defined()) T.addcmul_(T, moved.unsqueeze(2), -1);
  }
  void set_rate(double r) override { rate = r; }
  std::pair<Tensors, Numbers> state() override {
    if (!S.defined()) return {};
    return {{fresh, radius, scale, last_gradient, last_step, S, Y, T, curvature, slot.view({1, 1})}, {}};
  }
  void set_state(const Tensors& tensors, const Numbers& numbers) override {
    begin();
    const auto now = state().first;
    bool fits = numbers.empty() && tensors.size() == now.size();
    for (size_t i = 0; fits && i < now.size(); i++)
      fits = tensors[i].sizes() == now[i].sizes() && tensors[i].scalar_type() == now[i].scalar_type();
    TORCH_CHECK(fits, "this is no state of L-BFGS with ", history, " steps for a tensor of shape ", t.sizes());
    for (size_t i = 0; i < now.size(); i++) now[i].copy_(tensors[i]);
  }
};

}  // namespace

const char* nst_adam_new(nst_tensor t, double rate, double beta1, double beta2, double epsilon,
                         nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Adam(tensor(t), rate, beta1, beta2, epsilon)); });
}

const char* nst_lbfgs_new(nst_tensor t, double rate, int64_t history, double first, double radius, nst_wrap wrap,
                          nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Lbfgs(tensor(t), rate, history, first, radius, wrap)); });
}

const char* nst_lbfgs_restart(nst_optimizer o, nst_tensor mask) {
  return guard([&] {
    auto* lbfgs = dynamic_cast<Lbfgs*>(&optimizer(o));
    TORCH_CHECK(lbfgs != nullptr, "only L-BFGS can be restarted");
    lbfgs->restart(tensor(mask));
  });
}

const char* nst_optimizer_step(nst_optimizer o, nst_tensor gradient) {
  return guard([&] { optimizer(o).step(tensor(gradient)); });
}

const char* nst_optimizer_state(nst_optimizer o, nst_tensor* tensors, int64_t* tensor_count,
                                double* numbers, int64_t* number_count) {
  return guard([&] {
    const auto [found, scalars] = optimizer(o).state();
    TORCH_CHECK(static_cast<int64_t>(found.size()) <= *tensor_count &&
                    static_cast<int64_t>(scalars.size()) <= *number_count,
                "an optimiser's state of ", found.size(), " tensors does not fit");
    *tensor_count = static_cast<int64_t>(found.size());
    *number_count = static_cast<int64_t>(scalars.size());
    std::copy(scalars.begin(), scalars.end(), numbers);
    for (size_t i = 0; i < found.size(); i++) tensors[i] = give(found[i]);
  });
}

const char* nst_optimizer_set_state(nst_optimizer o, const nst_tensor* tensors,
                                    int64_t tensor_count, const double* numbers,
                                    int64_t number_count) {
  return guard([&] {
    Tensors copies;
    for (int64_t i = 0; i < tensor_count; i++) copies.push_back(tensor(tensors[i]).clone());
    optimizer(o).set_state(copies, Numbers(numbers, numbers + number_count));
  });
}

const char* nst_optimizer_set_rate(nst_optimizer o, double rate) {
  return guard([&] { optimizer(o).set_rate(rate); });
}

void nst_optimizer_free(nst_optimizer o) { delete static_cast<Optimizer*>(o); }
