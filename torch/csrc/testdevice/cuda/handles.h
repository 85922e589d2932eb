// What the handles of cuBLAS, cuDNN and cuSOLVER have in common.
#pragma once

#include "pretend.h"

namespace pretend {

struct Handle {
  int device = pretend::device();
  cudaStream_t stream = nullptr;
  bool destroyed = false;
};

// What is wrong with calling a library by a handle.
inline bool usable(const Handle& h, const char* call) {
  if (h.destroyed) violation("%s with a handle that was destroyed", call);
  if (h.device != device()) violation("%s with a handle of device %d while %d is current", call, h.device, device());
  return !h.destroyed;
}

// What a handle takes of its device.
constexpr int64_t kBlasBytes = 12 << 20, kDnnBytes = 8 << 20, kSolverBytes = 8 << 20;

}  // namespace pretend
