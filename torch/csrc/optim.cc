// Optimisers of one tensor.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa_backward.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "guard.h"

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
    if (!m.defined()) {
      m = at::zeros_like(t);
      v = at::zeros_like(t);
      steps = at::zeros({}, t.options().dtype(at::kFloat));
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

// Limited-memory BFGS (Liu and Nocedal 1989; Nocedal and Wright, Numerical
// Optimization, algorithms 7.4 and 7.5) of N pictures [N,3,H,W], each by itself,
// whose values stay in [0,1]. No line is searched: a step is as long as the
// method says, but its root mean square is at most the picture's radius (and
// exactly first, where nothing is known yet). Nothing is read back to the host.
struct Lbfgs final : Optimizer {
  // A remembered step: s is how far t moved, y how its gradient changed, both
  // [N,D]; rho is 1/(s·y), [N,1], or 0 where the step showed no curvature.
  struct Pair {
    at::Tensor s, y, rho;
  };
  at::Tensor t;
  at::Tensor fresh, radius, scale;     // [N,1]: nothing is known yet (1 or 0); see above; of M
  at::Tensor last_gradient, last_step;  // [N,D]
  std::deque<Pair> pairs;
  double rate, first;
  size_t history;

  Lbfgs(const at::Tensor& t, double rate, int64_t history, double first, double radius)
      : t(t), fresh(at::ones({t.size(0), 1}, t.options())), radius(at::full({t.size(0), 1}, radius, t.options())),
        scale(at::ones({t.size(0), 1}, t.options())), rate(rate), first(first), history(static_cast<size_t>(history)) {
    TORCH_CHECK(t.dim() == 4 && t.is_contiguous(), "L-BFGS is for pictures [N,C,H,W] in row order");
  }

  static at::Tensor dot(const at::Tensor& a, const at::Tensor& b) { return nst::sums(a.mul(b)).unsqueeze(1); }
  at::Tensor rows(const at::Tensor& pictures) const { return pictures.contiguous().view({t.size(0), -1}); }

  // M g, where scale·M is the first guess of the inverse Hessian, which is taken
  // for a multiple of the identity as a rule. The costs' curvature is much larger
  // along fine detail than along what is smooth, so M adds to g its smooth parts,
  //
  //   M = 1 + Σ_k 2^(k−1) · 4^k · S_kᵀ S_k,
  //
  // S_k shrinking a picture 2^k times: symmetric and positive, as M has to be. It
  // saves a third of the steps (measured; 2^(k−1) times a half to four made little
  // difference).
  at::Tensor precondition(const at::Tensor& g) const {
    const auto pictures = g.view(t.sizes());
    auto sum = pictures.clone();
    double weight = 1;
    for (int64_t k = 1; k <= 7; k++, weight *= 2) {
      const int64_t h = t.size(2) >> k, w = t.size(3) >> k;
      if (h < 2 || w < 2) break;
      const auto small = at::_upsample_bilinear2d_aa(pictures, {h, w}, /*align_corners=*/false);
      const double area = static_cast<double>(t.size(2) * t.size(3)) / static_cast<double>(h * w);
      sum.add_(at::_upsample_bilinear2d_aa_backward(small, {h, w}, t.sizes(), /*align_corners=*/false), weight * area);
    }
    return sum.view(g.sizes());
  }

  void step(const at::Tensor& gradient) override {
    c10::NoGradGuard off;
    TORCH_CHECK(gradient.sizes() == t.sizes(), "the gradient has the shape ", gradient.sizes(), ", not ", t.sizes());
    const auto g = rows(gradient);
    const auto is_fresh = fresh > 0;
    if (last_gradient.defined()) {
      const auto y = g - last_gradient, ys = dot(y, last_step);
      const auto curved = (ys > 1e-10).logical_and(is_fresh.logical_not());
      if (pairs.size() == history) pairs.pop_front();
      pairs.push_back({last_step, y, at::where(curved, 1 / ys, at::zeros_like(ys))});
      scale = at::where(curved, ys / dot(y, precondition(y)), scale);
    }
    auto d = g.neg();
    std::vector<at::Tensor> alphas;
    for (auto p = pairs.rbegin(); p != pairs.rend(); ++p) {
      alphas.push_back(dot(p->s, d) * p->rho);
      d.addcmul_(p->y, alphas.back(), -1);
    }
    d = precondition(d).mul_(scale);
    for (const auto& p : pairs) {
      d.addcmul_(p.s, alphas.back() - dot(p.y, d) * p.rho);
      alphas.pop_back();
    }
    d.mul_(rate);
    const auto length = dot(d, d).div_(d.size(1)).sqrt_();
    const auto longest = at::where(is_fresh, radius.clamp_max(first * rate), radius.minimum(length));
    d.mul_(at::where(length > 0, longest / length, at::zeros_like(length)));
    const auto before = rows(t).clone();
    t.add_(d.view(t.sizes())).clamp_(0, 1);
    last_gradient = g.clone();
    last_step = rows(t) - before;
    fresh = fresh.mul(length == 0);  // where nothing moved, nothing was learnt
  }
  // Picture i has been moved elsewhere: what is known of it does not hold there.
  void restart(int64_t i) {
    fresh.select(0, i).fill_(1);
    radius.select(0, i).mul_(0.5);
    for (auto& p : pairs) p.rho.select(0, i).zero_();
  }
  void set_rate(double r) override { rate = r; }
  std::pair<Tensors, Numbers> state() override {
    if (!last_gradient.defined()) return {};
    Tensors tensors{fresh, radius, scale, last_gradient, last_step};
    for (const auto& p : pairs) tensors.insert(tensors.end(), {p.s, p.y, p.rho});
    return {tensors, {}};
  }
  void set_state(const Tensors& tensors, const Numbers& numbers) override {
    TORCH_CHECK(tensors.size() >= 5 && tensors.size() % 3 == 2 && numbers.empty() && tensors[3].numel() == t.numel() &&
                    tensors[0].size(0) == t.size(0),
                "this is no state of L-BFGS for a tensor of shape ", t.sizes());
    fresh = tensors[0];
    radius = tensors[1];
    scale = tensors[2];
    last_gradient = tensors[3];
    last_step = tensors[4];
    pairs.clear();
    for (size_t i = 5; i < tensors.size(); i += 3) pairs.push_back({tensors[i], tensors[i + 1], tensors[i + 2]});
  }
};

}  // namespace

const char* nst_adam_new(nst_tensor t, double rate, double beta1, double beta2, double epsilon,
                         nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Adam(tensor(t), rate, beta1, beta2, epsilon)); });
}

const char* nst_lbfgs_new(nst_tensor t, double rate, int64_t history, double first, double radius,
                          nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Lbfgs(tensor(t), rate, history, first, radius)); });
}

const char* nst_lbfgs_restart(nst_optimizer o, int64_t picture) {
  return guard([&] {
    auto* lbfgs = dynamic_cast<Lbfgs*>(&optimizer(o));
    TORCH_CHECK(lbfgs != nullptr, "only L-BFGS can be restarted");
    lbfgs->restart(picture);
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
    for (size_t i = 0; i < found.size(); i++) tensors[i] = give(found[i].clone());
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
