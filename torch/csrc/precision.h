// How CUDA computes, as the calling thread wants it.
#pragma once

namespace nst {

// While a Math lives, libtorch's settings are those that the thread chose by
// nst_set_math, which libtorch itself has for the whole process alone: threads with
// other wishes wait. It is held while work is sent, not while it is done. Products
// of matrices are TF32 only if said so, whatever was chosen: what L-BFGS remembers
// may not be rounded.
class Math {
 public:
  enum Products { kAsChosen, kExact };
  explicit Math(Products products = kAsChosen);
  ~Math();
  Math(const Math&) = delete;
  Math& operator=(const Math&) = delete;
};

}  // namespace nst
