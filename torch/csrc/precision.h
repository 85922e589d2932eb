// How CUDA computes, as the calling thread wants it.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>

namespace nst {

// While a Math lives, libtorch's settings are those that the thread chose by
// nst_set_math, for work on the tensor's device. libtorch has them for the whole
// process alone, so threads with other wishes wait, while work is sent and not while it
// is done; on the CPU they mean nothing, and nobody waits. Products of matrices are
// TF32 only if said so, whatever was chosen: what L-BFGS remembers may not be rounded.
class Math {
 public:
  enum Products { kAsChosen, kExact };
  explicit Math(const at::Tensor& on, Products products = kAsChosen);

 private:
  std::unique_lock<std::mutex> lock;
};

}  // namespace nst
