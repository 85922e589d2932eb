// cuBLAS and cuBLASLt: products of matrices, which are checked and counted, and not made.
#include "handles.h"
#include "nvidia.h"

namespace pretend {

namespace {

struct Blas : Handle {
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
  void* workspace = nullptr;
  size_t bytes = 0;
};

const char* name_of(int type) {
  switch (type) {
    case CUDA_R_32F: return "float32";
    case CUDA_R_64F: return "float64";
    case CUDA_R_16F: return "float16";
    case CUDA_R_16BF: return "bf16";
    default: return "another type";
  }
}
size_t size_of(int type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

struct Matrix {
  const void* at;
  int type;
  int64_t rows, columns, leading, apart;  // in memory: by columns, of one matrix after the other

  Span span(int64_t batch) const {
    return {at, static_cast<size_t>((batch - 1) * apart + (columns - 1) * leading + rows) * size_of(type)};
  }
};

cublasStatus_t faulty(const char* kind) {
  if (lost() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  int code;
  return fault(kind, &code) ? static_cast<cublasStatus_t>(code) : CUBLAS_STATUS_SUCCESS;
}

// C = A·B of so many matrices, where A is m×k and B k×n once they are turned as wanted.
cublasStatus_t product(cublasHandle_t handle, const char* call, cublasOperation_t turn_a, cublasOperation_t turn_b,
                       int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, Matrix c, int64_t batch, int compute) {
  Lock lock(everything);
  auto& h = *reinterpret_cast<Blas*>(handle);
  if (const auto s = faulty("cublas"); s != CUBLAS_STATUS_SUCCESS) return s;
  if (!usable(h, call)) return CUBLAS_STATUS_NOT_INITIALIZED;
  a.rows = turn_a == CUBLAS_OP_N ? m : k;
  a.columns = turn_a == CUBLAS_OP_N ? k : m;
  b.rows = turn_b == CUBLAS_OP_N ? k : n;
  b.columns = turn_b == CUBLAS_OP_N ? n : k;
  c.rows = m;
  c.columns = n;
  for (const auto* x : {&a, &b, &c})
    if (x->rows < 0 || x->columns < 0 || x->leading < std::max<int64_t>(1, x->rows)) {
      violation("%s of a matrix of %ld by %ld whose columns are %ld apart", call, x->rows, x->columns, x->leading);
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  // bfloat16 is known from compute capability 8.0 on.
  if (a.type == CUDA_R_16BF && card().capability < 80) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                    (compute == CUBLAS_COMPUTE_32F && a.type == CUDA_R_32F && h.math == CUBLAS_TF32_TENSOR_OP_MATH);
  Work work;
  work.name = std::string("cublas ") + call + " " + name_of(a.type) + " to " + name_of(c.type) + (tf32 ? " TF32" : "");
  if (k > 0) work.uses = {a.span(batch), b.span(batch)};
  work.uses.push_back(c.span(batch));
  if (h.workspace != nullptr && h.bytes > 0)
    work.uses.push_back({h.workspace, h.bytes});
  else if (capture_of(h.stream) != nullptr)
    violation("%s without a workspace of the caller's while its stream captures", call);
  return send(h.stream, std::move(work)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

struct Layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t leading;
  Span span(const void* at) const { return {at, ((columns - 1) * leading + rows) * size_of(type)}; }
};

}  // namespace
}  // namespace pretend

using namespace pretend;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* out) {
  Lock lock(everything);
  ++count(__func__).direct;
  if (const auto s = faulty("cublascreate"); s != CUBLAS_STATUS_SUCCESS) return s;
  use_device();
  if (!take(device(), kBlasBytes, __func__)) return CUBLAS_STATUS_ALLOC_FAILED;
  *out = reinterpret_cast<cublasHandle_t>(new Blas);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
  Lock lock(everything);
  auto& blas = *reinterpret_cast<Blas*>(h);
  if (!usable(blas, __func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
  blas.destroyed = true;
  give_back(blas.device, kBlasBytes);
  return CUBLAS_STATUS_SUCCESS;
}
// Its own workspace is what it has after this.
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t stream) {
  auto& blas = *reinterpret_cast<Blas*>(h);
  blas.stream = stream;
  blas.workspace = nullptr;
  blas.bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void* workspace, size_t bytes) {
  if (bytes > 0 && !live(workspace, bytes)) violation("cublasSetWorkspace of %p, which is no allocation", workspace);
  reinterpret_cast<Blas*>(h)->workspace = workspace;
  reinterpret_cast<Blas*>(h)->bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode) {
  reinterpret_cast<Blas*>(h)->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* mode) {
  *mode = reinterpret_cast<Blas*>(h)->math;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t mode) {
  reinterpret_cast<Blas*>(h)->pointers = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t* mode) {
  *mode = reinterpret_cast<Blas*>(h)->pointers;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetSmCountTarget(cublasHandle_t, int) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void*, const void* a, cudaDataType at, int lda, const void* b, cudaDataType bt,
                            int ldb, const void*, void* c, cudaDataType ct, int ldc, cublasComputeType_t compute, int) {
  return product(h, "GemmEx", ta, tb, m, n, k, {a, at, 0, 0, lda, 0}, {b, bt, 0, 0, ldb, 0}, {c, ct, 0, 0, ldc, 0}, 1,
                 compute);
}
cublasStatus_t cublasSgemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                             const float*, const void* a, cudaDataType at, int lda, const void* b, cudaDataType bt,
                             int ldb, const float*, void* c, cudaDataType ct, int ldc) {
  return product(h, "SgemmEx", ta, tb, m, n, k, {a, at, 0, 0, lda, 0}, {b, bt, 0, 0, ldb, 0}, {c, ct, 0, 0, ldc, 0}, 1,
                 CUBLAS_COMPUTE_32F);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                          int k, const void*, const void* a, cudaDataType at, int lda, long long sa,
                                          const void* b, cudaDataType bt, int ldb, long long sb, const void*, void* c,
                                          cudaDataType ct, int ldc, long long sc, int batch,
                                          cublasComputeType_t compute, int) {
  return product(h, "GemmStridedBatchedEx", ta, tb, m, n, k, {a, at, 0, 0, lda, sa}, {b, bt, 0, 0, ldb, sb},
                 {c, ct, 0, 0, ldc, sc}, batch, compute);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const double*, const double* a, int lda, const double* b, int ldb, const double*,
                              double* c, int ldc) {
  return product(h, "Dgemm", ta, tb, m, n, k, {a, CUDA_R_64F, 0, 0, lda, 0}, {b, CUDA_R_64F, 0, 0, ldb, 0},
                 {c, CUDA_R_64F, 0, 0, ldc, 0}, 1, CUBLAS_COMPUTE_64F);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                         int k, const double*, const double* a, int lda, long long sa, const double* b,
                                         int ldb, long long sb, const double*, double* c, int ldc, long long sc,
                                         int batch) {
  return product(h, "DgemmStridedBatched", ta, tb, m, n, k, {a, CUDA_R_64F, 0, 0, lda, sa},
                 {b, CUDA_R_64F, 0, 0, ldb, sb}, {c, CUDA_R_64F, 0, 0, ldc, sc}, batch, CUBLAS_COMPUTE_64F);
}
// A vector is a matrix of one column, whose values may be apart.
cublasStatus_t cublasSgemv_v2(cublasHandle_t h, cublasOperation_t turn, int m, int n, const float*, const float* a,
                              int lda, const float* x, int, const float*, float* y, int) {
  const int rows = turn == CUBLAS_OP_N ? m : n, columns = turn == CUBLAS_OP_N ? n : m;
  return product(h, "Sgemv", turn, CUBLAS_OP_N, rows, 1, columns, {a, CUDA_R_32F, 0, 0, lda, 0},
                 {x, CUDA_R_32F, 0, 0, columns, 0}, {y, CUDA_R_32F, 0, 0, rows, 0}, 1, CUBLAS_COMPUTE_32F);
}
cublasStatus_t cublasDgemv_v2(cublasHandle_t h, cublasOperation_t turn, int m, int n, const double*, const double* a,
                              int lda, const double* x, int, const double*, double* y, int) {
  const int rows = turn == CUBLAS_OP_N ? m : n, columns = turn == CUBLAS_OP_N ? n : m;
  return product(h, "Dgemv", turn, CUBLAS_OP_N, rows, 1, columns, {a, CUDA_R_64F, 0, 0, lda, 0},
                 {x, CUDA_R_64F, 0, 0, columns, 0}, {y, CUDA_R_64F, 0, 0, rows, 0}, 1, CUBLAS_COMPUTE_64F);
}

size_t cublasLtGetVersion() { return 130400; }
cublasStatus_t cublasLtMatmulDescCreate(void** out, cublasComputeType_t, cudaDataType_t) {
  *out = new int(0);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(void* d) {
  delete static_cast<int*>(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(void*, int, const void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatrixLayoutCreate(void** out, cudaDataType type, uint64_t rows, uint64_t columns,
                                          int64_t leading) {
  *out = new Layout{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(void* l) {
  delete static_cast<Layout*>(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(void*, int, const void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceCreate(void** out) { return cublasLtMatmulDescCreate(out, {}, {}); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(void* p) { return cublasLtMatmulDescDestroy(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = wanted > 0 ? 1 : 0;
  if (*found > 0) results[0] = {{}, 0, CUBLAS_STATUS_SUCCESS, 1, {}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(void*, void*, const void*, const void* a, const Layout* la, const void* b,
                              const Layout* lb, const void*, const void*, const Layout*, void* d, const Layout* ld,
                              const void*, void* workspace, size_t bytes, cudaStream_t stream) {
  Lock lock(everything);
  if (const auto s = faulty("cublas"); s != CUBLAS_STATUS_SUCCESS) return s;
  Work work{std::string("cublas LtMatmul ") + name_of(la->type) + " to " + name_of(ld->type),
            {la->span(a), lb->span(b), ld->span(d)},
            {}};
  if (workspace != nullptr && bytes > 0) work.uses.push_back({workspace, bytes});
  return send(stream, std::move(work)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
