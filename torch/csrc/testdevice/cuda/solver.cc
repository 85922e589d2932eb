// cuSOLVER: the eigenvalues of symmetric matrices.
#include "handles.h"
#include "nvidia.h"

namespace pretend {

namespace {

size_t size_of(int type) { return type == CUDA_R_64F ? 8 : 4; }

cusolverStatus_t solve(cusolverDnHandle_t handle, const char* call, std::vector<Span> uses) {
  Lock lock(everything);
  if (lost() != cudaSuccess) return CUSOLVER_STATUS_EXECUTION_FAILED;
  if (int code; fault("cusolver", &code)) return static_cast<cusolverStatus_t>(code);
  auto& h = *reinterpret_cast<Handle*>(handle);
  if (!usable(h, call)) return CUSOLVER_STATUS_EXECUTION_FAILED;
  if (capture_of(h.stream) != nullptr) violation("%s while its stream captures", call);
  return send(h.stream, {std::string("cusolver ") + call, std::move(uses), {}}) == cudaSuccess
             ? CUSOLVER_STATUS_SUCCESS
             : CUSOLVER_STATUS_EXECUTION_FAILED;
}

}  // namespace
}  // namespace pretend

using namespace pretend;

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* out) {
  Lock lock(everything);
  use_device();
  if (!take(device(), kSolverBytes, __func__)) return CUSOLVER_STATUS_ALLOC_FAILED;
  *out = reinterpret_cast<cusolverDnHandle_t>(new Handle);
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t h) {
  reinterpret_cast<Handle*>(h)->destroyed = true;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t stream) {
  reinterpret_cast<Handle*>(h)->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* out) {
  *out = reinterpret_cast<cusolverDnParams_t>(new int(0));
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t p) {
  delete reinterpret_cast<int*>(p);
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, int, int, int64_t n, cudaDataType,
                                             const void*, int64_t, cudaDataType, const void*, cudaDataType type,
                                             size_t* device, size_t* host) {
  *device = n * n * 3 * size_of(type);
  *host = 4096;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t h, cusolverDnParams_t, int, int, int64_t n, cudaDataType type,
                                  void* a, int64_t lda, cudaDataType, void* w, cudaDataType, void* buffer,
                                  size_t bytes, void*, size_t, int* info) {
  return solve(h, "Xsyevd",
               {{a, ((n - 1) * lda + n) * size_of(type)},
                {w, n * size_of(type)},
                {buffer, bytes},
                {info, sizeof *info}});
}
cusolverStatus_t cusolverDnXsyevBatched_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, int, int, int64_t n,
                                                   cudaDataType, const void*, int64_t, cudaDataType, const void*,
                                                   cudaDataType type, size_t* device, size_t* host, int64_t batch) {
  *device = n * n * 3 * batch * size_of(type);
  *host = 4096;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXsyevBatched(cusolverDnHandle_t h, cusolverDnParams_t, int, int, int64_t n,
                                        cudaDataType type, void* a, int64_t lda, cudaDataType, void* w, cudaDataType,
                                        void* buffer, size_t bytes, void*, size_t, int* info, int64_t batch) {
  return solve(h, "XsyevBatched",
               {{a, n * lda * size_of(type) * batch},
                {w, n * size_of(type) * batch},
                {buffer, bytes},
                {info, sizeof *info * batch}});
}

}  // extern "C"
