// Automatic differentiation: the grad mode, leaves, and backward by given
// gradients.
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "guard.h"
#include "precision.h"

using nst::guard;
using nst::tensor;

const char* nst_grad_mode(int32_t enabled, int32_t* before) {
  return guard([&] {
    *before = c10::GradMode::is_enabled() ? 1 : 0;
    c10::GradMode::set_enabled(enabled != 0);
  });
}

const char* nst_requires_grad(nst_tensor t, int32_t needed) {
  return guard([&] { tensor(t).requires_grad_(needed != 0); });
}

const char* nst_backward(const nst_tensor* tensors, const nst_tensor* gradients, int64_t count) {
  return guard([&] {
    std::vector<at::Tensor> roots, seeds;
    for (int64_t i = 0; i < count; i++) {
      roots.push_back(tensor(tensors[i]));
      seeds.push_back(gradients == nullptr ? at::Tensor() : tensor(gradients[i]));
    }
    TORCH_CHECK(!roots.empty(), "backward of nothing");
    const nst::Math math(roots.front());
    torch::autograd::backward(roots, seeds);
  });
}

const char* nst_gradient(nst_tensor t, nst_tensor* out) {
  return guard([&] {
    const auto& gradient = tensor(t).grad();
    TORCH_CHECK(gradient.defined(), "the tensor has no gradient: backward has not reached it");
    *out = nst::give(gradient);
  });
}

// NULL clears it, so that the next backward stores its gradient and adds nothing.
const char* nst_set_gradient(nst_tensor t, nst_tensor gradient) {
  return guard([&] {
    tensor(t).mutable_grad() = gradient == nullptr ? at::Tensor() : tensor(gradient);
  });
}
