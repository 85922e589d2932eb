// libtorch's optimisers, each of one tensor whose gradient has been stored.
#include <ATen/ops/scalar_tensor.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>

#include <algorithm>
#include <deque>
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

// Adam's state is its number of steps and [m, v]; L-BFGS's is [function
// evaluations, iterations, t, last loss] and [d, H, last gradient], then the
// remembered directions, changes of the gradient and their products, a third of
// the rest each. Either is empty before the first step.
const char* nst_optimizer_state(nst_optimizer o, nst_tensor* tensors, int64_t* tensor_count,
                                double* numbers, int64_t* number_count) {
  return guard([&] {
    auto& chosen = optimizer(o);
    std::vector<at::Tensor> found;
    std::vector<double> scalars;
    for (auto& entry : chosen.state()) {
      if (dynamic_cast<torch::optim::Adam*>(&chosen)) {
        auto& state = static_cast<torch::optim::AdamParamState&>(*entry.second);
        scalars = {static_cast<double>(state.step())};
        found = {state.exp_avg(), state.exp_avg_sq()};
        continue;
      }
      auto& state = static_cast<torch::optim::LBFGSParamState&>(*entry.second);
      scalars = {static_cast<double>(state.func_evals()), static_cast<double>(state.n_iter()),
                 state.t(), state.prev_loss()};
      found = {state.d(), state.H_diag(), state.prev_flat_grad()};
      for (auto* list : {&state.old_dirs(), &state.old_stps(), &state.ro()}) {
        found.insert(found.end(), list->begin(), list->end());
      }
    }
    TORCH_CHECK(static_cast<int64_t>(found.size()) <= *tensor_count &&
                    static_cast<int64_t>(scalars.size()) <= *number_count,
                "an optimiser's state of ", found.size(), " tensors does not fit");
    *tensor_count = static_cast<int64_t>(found.size());
    *number_count = static_cast<int64_t>(scalars.size());
    std::copy(scalars.begin(), scalars.end(), numbers);
    for (size_t i = 0; i < found.size(); i++) tensors[i] = nst::give(found[i].clone());
  });
}

const char* nst_optimizer_set_state(nst_optimizer o, const nst_tensor* tensors,
                                    int64_t tensor_count, const double* numbers,
                                    int64_t number_count) {
  return guard([&] {
    auto& chosen = optimizer(o);
    chosen.state().clear();
    if (tensor_count == 0 && number_count == 0) return;
    auto* parameter = chosen.param_groups()[0].params()[0].unsafeGetTensorImpl();
    auto at = [&](int64_t i) { return tensor(tensors[i]).clone(); };
    if (dynamic_cast<torch::optim::Adam*>(&chosen)) {
      TORCH_CHECK(tensor_count == 2 && number_count == 1, "this is no state of Adam");
      auto state = std::make_unique<torch::optim::AdamParamState>();
      state->step(static_cast<int64_t>(numbers[0]));
      state->exp_avg(at(0));
      state->exp_avg_sq(at(1));
      chosen.state()[parameter] = std::move(state);
      return;
    }
    TORCH_CHECK(tensor_count >= 3 && tensor_count % 3 == 0 && number_count == 4,
                "this is no state of L-BFGS");
    auto state = std::make_unique<torch::optim::LBFGSParamState>();
    state->func_evals(static_cast<int64_t>(numbers[0]));
    state->n_iter(static_cast<int64_t>(numbers[1]));
    state->t(numbers[2]);
    state->prev_loss(numbers[3]);
    state->d(at(0));
    state->H_diag(at(1));
    state->prev_flat_grad(at(2));
    std::deque<at::Tensor> lists[3];
    const int64_t remembered = tensor_count / 3 - 1;
    for (int64_t i = 0; i < 3 * remembered; i++) lists[i / remembered].push_back(at(3 + i));
    state->old_dirs(lists[0]);
    state->old_stps(lists[1]);
    state->ro(lists[2]);
    chosen.state()[parameter] = std::move(state);
  });
}

const char* nst_optimizer_set_rate(nst_optimizer o, double rate) {
  return guard([&] {
    for (auto& group : optimizer(o).param_groups()) group.options().set_lr(rate);
  });
}

void nst_optimizer_free(nst_optimizer o) { delete static_cast<Optimizer*>(o); }
