// Optimisers of one tensor: Adam by libtorch's fused kernel, L-BFGS by its own.
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/optim/lbfgs.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "guard.h"

using nst::give;
using nst::guard;
using nst::tensor;
using torch::optim::LBFGSParamState;

namespace {

using Tensors = std::vector<at::Tensor>;
using Numbers = std::vector<double>;

// What package torch calls an Optimizer.
struct Optimizer {
  virtual ~Optimizer() = default;
  virtual void step(const at::Tensor& gradient, double loss) = 0;
  virtual void set_rate(double rate) = 0;
  // The state is tensors and numbers; both are empty before the first step.
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

  void step(const at::Tensor& gradient, double) override {
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
    m = v = steps = at::Tensor();
    if (tensors.empty() && numbers.empty()) return;
    TORCH_CHECK(tensors.size() == 2 && numbers.size() == 1 && tensors[0].sizes() == t.sizes() &&
                    tensors[1].sizes() == t.sizes(),
                "this is no state of Adam for a tensor of shape ", t.sizes());
    m = tensors[0];
    v = tensors[1];
    steps = at::full({}, numbers[0], t.options().dtype(at::kFloat));
  }
};

// One evaluation and one step a call (max_iter 1, no line search), with the
// history kept from call to call: so the caller evaluates first and both
// optimisers are driven alike. libtorch's own stopping rules are off.
struct Lbfgs final : Optimizer {
  at::Tensor t;
  torch::optim::LBFGS own;

  Lbfgs(const at::Tensor& t, double rate, int64_t history)
      : t(t),
        own({t}, torch::optim::LBFGSOptions(rate).max_iter(1).max_eval(1).history_size(history).tolerance_grad(0)
                     .tolerance_change(0)) {}

  LBFGSParamState* found() {
    for (auto& entry : own.state()) return static_cast<LBFGSParamState*>(entry.second.get());
    return nullptr;
  }
  void step(const at::Tensor& gradient, double loss) override {
    t.mutable_grad() = gradient;
    own.step([loss] { return at::scalar_tensor(loss, at::kDouble); });
    t.mutable_grad() = at::Tensor();
  }
  void set_rate(double rate) override {
    for (auto& group : own.param_groups()) group.options().set_lr(rate);
  }
  // Tensors are d, H and the last gradient, then the remembered directions,
  // changes of the gradient and their products, a third of the rest each.
  std::pair<Tensors, Numbers> state() override {
    auto* s = found();
    if (s == nullptr) return {};
    Tensors tensors{s->d(), s->H_diag(), s->prev_flat_grad()};
    for (auto* list : {&s->old_dirs(), &s->old_stps(), &s->ro()}) tensors.insert(tensors.end(), list->begin(), list->end());
    return {tensors, {static_cast<double>(s->func_evals()), static_cast<double>(s->n_iter()), s->t(), s->prev_loss()}};
  }
  void set_state(const Tensors& tensors, const Numbers& numbers) override {
    own.state().clear();
    if (tensors.empty() && numbers.empty()) return;
    TORCH_CHECK(tensors.size() >= 3 && tensors.size() % 3 == 0 && numbers.size() == 4, "this is no state of L-BFGS");
    auto s = std::make_unique<LBFGSParamState>();
    s->func_evals(static_cast<int64_t>(numbers[0]));
    s->n_iter(static_cast<int64_t>(numbers[1]));
    s->t(numbers[2]);
    s->prev_loss(numbers[3]);
    s->d(tensors[0]);
    s->H_diag(tensors[1]);
    s->prev_flat_grad(tensors[2]);
    std::deque<at::Tensor> lists[3];
    const size_t remembered = tensors.size() / 3 - 1;
    for (size_t i = 0; i < 3 * remembered; i++) lists[i / remembered].push_back(tensors[3 + i]);
    s->old_dirs(lists[0]);
    s->old_stps(lists[1]);
    s->ro(lists[2]);
    own.state()[t.unsafeGetTensorImpl()] = std::move(s);
  }
};

}  // namespace

const char* nst_adam_new(nst_tensor t, double rate, double beta1, double beta2, double epsilon,
                         nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Adam(tensor(t), rate, beta1, beta2, epsilon)); });
}

const char* nst_lbfgs_new(nst_tensor t, double rate, int64_t history, nst_optimizer* out) {
  return guard([&] { *out = static_cast<Optimizer*>(new Lbfgs(tensor(t), rate, history)); });
}

const char* nst_optimizer_step(nst_optimizer o, nst_tensor gradient, double loss) {
  return guard([&] { optimizer(o).step(tensor(gradient), loss); });
}

// The next step learns its curvature from d·t, the step it believes it made.
const char* nst_lbfgs_moved(nst_optimizer o, nst_tensor displacement) {
  return guard([&] {
    auto* lbfgs = dynamic_cast<Lbfgs*>(&optimizer(o));
    auto* state = lbfgs == nullptr ? nullptr : lbfgs->found();
    TORCH_CHECK(state != nullptr, "only L-BFGS that has made a step can be told how far it moved");
    state->d(tensor(displacement).flatten());
    state->t(1);
  });
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
