// libtorch's optimisers, each of one tensor whose gradient has been stored.
#include <ATen/ops/scalar_tensor.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>

#include <memory>
#include <vector>

#include "guard.h"

using nst::guard;
using nst::tensor;
using torch::optim::Optimizer;

namespace {

Optimizer& optimizer(nst_optimizer o) { return nst::object<Optimizer>(o, "optimiser"); }

}  // namespace

const char* nst_adam_new(nst_tensor t, double rate, double beta1, double beta2, double epsilon,
                         nst_optimizer* out) {
  return guard([&] {
    auto options = torch::optim::AdamOptions(rate).betas({beta1, beta2}).eps(epsilon);
    *out = new torch::optim::Adam({tensor(t)}, options);
  });
}

// One evaluation and one step a call (max_iter 1, no line search), with the
// history kept from call to call: so the caller evaluates first and both
// optimisers are driven alike. libtorch's own stopping rules are off.
const char* nst_lbfgs_new(nst_tensor t, double rate, int64_t history, nst_optimizer* out) {
  return guard([&] {
    auto options = torch::optim::LBFGSOptions(rate)
                       .max_iter(1)
                       .max_eval(1)
                       .history_size(history)
                       .tolerance_grad(0)
                       .tolerance_change(0);
    *out = new torch::optim::LBFGS({tensor(t)}, options);
  });
}

const char* nst_optimizer_step(nst_optimizer o, double loss) {
  return guard([&] {
    auto& chosen = optimizer(o);
    chosen.step([loss] { return at::scalar_tensor(loss, at::kDouble); });
  });
}

// The next step learns its curvature from d·t, the step it believes it made.
const char* nst_lbfgs_moved(nst_optimizer o, nst_tensor displacement) {
  return guard([&] {
    for (auto& entry : optimizer(o).state()) {
      auto& state = static_cast<torch::optim::LBFGSParamState&>(*entry.second);
      state.d(tensor(displacement).flatten());
      state.t(1);
    }
  });
}

const char* nst_optimizer_set_rate(nst_optimizer o, double rate) {
  return guard([&] {
    for (auto& group : optimizer(o).param_groups()) group.options().set_lr(rate);
  });
}

void nst_optimizer_free(nst_optimizer o) { delete static_cast<Optimizer*>(o); }
