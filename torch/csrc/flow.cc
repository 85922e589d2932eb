// Motion between pictures in memory of the caller's: how they move, and moving them. See cpu/flow.cc.
#include "cpu/kernels.h"
#include "guard.h"
#include "parallel.h"

const char* nst_flow(const float* from, const float* to, int64_t height, int64_t width, float* out) {
  return nst::guard([&] { nst::cpu::kernels().flow(from, to, height, width, out, nst::threads()); });
}

const char* nst_warp(const float* data, int64_t planes, const float* flow, int64_t height, int64_t width, float* out) {
  return nst::guard([&] { nst::cpu::kernels().warp(data, planes, flow, height, width, out, nst::threads()); });
}
