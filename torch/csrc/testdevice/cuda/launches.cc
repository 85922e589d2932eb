// Kernels: how libtorch registers them, and their launches, which do nothing but are checked.
#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <unordered_map>

#include "pretend.h"

namespace pretend {

namespace {

struct Kernel {
  std::string name;
  int most_shared = 48 << 10;  // bytes of dynamic shared memory that it may have
  std::set<int> loaded;        // devices
};

// What a kernel takes of a device when it is first launched there.
constexpr int64_t kLoaded = 64 << 10;

// By the host's function, and by the handle that cudaGetKernel gives for it.
std::unordered_map<const void*, Kernel*>& kernels() {
  static auto* all = new std::unordered_map<const void*, Kernel*>;
  return *all;
}

Kernel* find_kernel(const void* of) {
  if (const auto found = kernels().find(of); found != kernels().end()) return found->second;
  violation("the kernel %p is none", of);
  return nullptr;
}
#define FIND_KERNEL(name, of)     \
  auto* name = find_kernel(of); \
  if (name == nullptr) return fail(cudaErrorInvalidDeviceFunction)

// A kernel's name without what says nothing.
std::string readable(const char* mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = text != nullptr ? text : mangled;
  std::free(text);
  for (const char* noise :
       {"void ", "at::native::", "at::cuda::", "(anonymous namespace)::", "c10::", "detail::", "std::"})
    for (size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, std::strlen(noise));
  return name.substr(0, 170);
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;

// Dynamic shared memory that a block may ask for.
int opt_in() {
  const int c = card().capability;
  if (c == 90 || c / 10 == 10 || c / 10 == 11) return 227 << 10;
  if (c == 80 || c == 87) return 163 << 10;
  return c >= 86 ? 99 << 10 : 64 << 10;
}

// Whether libtorch has code that the card runs: of its generation, and no newer than it.
bool has_code() {
  constexpr int kCode[] = {75, 80, 86, 90, 100, 120};
  const int c = card().capability;
  for (const int code : kCode)
    if (code / 10 == c / 10 && code <= c) return true;
  return false;
}

cudaError_t launch(Kernel* kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  use_device();
  if (!has_code()) return fail(cudaErrorNoKernelImageForDevice);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const char* wrong = nullptr;
  if (threads == 0 || threads > 1024 || block.z > 64) wrong = "the block";
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    wrong = "the grid";
  if (shared > static_cast<size_t>(kernel->most_shared)) wrong = "the shared memory";
  if (wrong != nullptr) {
    violation("a launch with %s out of bounds: grid %u,%u,%u block %u,%u,%u shared %zu: %s", wrong, grid.x, grid.y,
              grid.z, block.x, block.y, block.z, shared, kernel->name.c_str());
    return fail(cudaErrorInvalidConfiguration);
  }
  if (kernel->loaded.count(device()) == 0) {
    if (int code; fault("load", &code)) return fail(code);
    if (!take(device(), kLoaded, "the first launch of a kernel")) return fail(cudaErrorMemoryAllocation);
    kernel->loaded.insert(device());
  }
  if (int code; fault("launch", &code)) return fail(code);
  if (int code; fault("later", &code)) lose_later(code);
  return send(stream, {"kernel " + kernel->name, {}, {}});
}

cudaError_t set_shared(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > opt_in()) return fail(cudaErrorInvalidValue);
  kernel->most_shared = std::max(value, 48 << 10);
  return cudaSuccess;
}

}  // namespace

int shared_opt_in() { return opt_in(); }

void forget_kernels() {
  for (const auto& [_, kernel] : kernels()) {
    for (const int d : kernel->loaded) give_back(d, kLoaded);
    kernel->loaded.clear();
  }
}

}  // namespace pretend

using namespace pretend;

extern "C" {

void** __cudaRegisterFatBinary(void* binary) { return new void*[2]{binary, nullptr}; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Lock lock(everything);
  auto*& kernel = kernels()[host];
  if (kernel == nullptr) kernel = new Kernel;
  auto* made = kernel;
  kernels()[made] = made;
  made->name = name;  // made readable when it is launched: there are thousands
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterManagedVar(void**, void**, char*, const char*, int, size_t, int, int) {}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations.empty()) return fail(cudaErrorMissingConfiguration);
  const auto c = configurations.back();
  configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t cudaGetKernel(cudaKernel_t* out, const void* of) {
  CALL;
  FIND_KERNEL(kernel, of);
  if (kernel->name.rfind("_Z", 0) == 0) kernel->name = readable(kernel->name.c_str());
  *out = reinterpret_cast<cudaKernel_t>(kernel);
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* out, const void* of) { return cudaGetKernel(out, of); }

cudaError_t cudaLaunchKernel(const void* of, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t stream) {
  CALL;
  FIND_KERNEL(kernel, of);
  if (kernel->name.rfind("_Z", 0) == 0) kernel->name = readable(kernel->name.c_str());
  return launch(kernel, grid, block, shared, stream);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t of, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return cudaLaunchKernel(of, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchCooperativeKernel(const void* of, dim3 grid, dim3 block, void** arguments, size_t shared,
                                        cudaStream_t stream) {
  return cudaLaunchKernel(of, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* of, void** arguments) {
  return cudaLaunchKernel(of, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* of) {
  CALL;
  use_device();
  FIND_KERNEL(kernel, of);
  if (!has_code()) return fail(cudaErrorNoKernelImageForDevice);
  *out = {};
  out->maxThreadsPerBlock = 1024;
  out->numRegs = 32;
  out->binaryVersion = out->ptxVersion = card().capability;
  out->maxDynamicSharedSizeBytes = kernel->most_shared;
  out->preferredShmemCarveout = -1;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* of, cudaFuncAttribute attribute, int value) {
  CALL;
  FIND_KERNEL(kernel, of);
  return set_shared(kernel, attribute, value);
}
cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t of, cudaFuncAttribute attribute, int value, int) {
  CALL;
  FIND_KERNEL(kernel, of);
  return set_shared(kernel, attribute, value);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int threads, size_t,
                                                                   unsigned) {
  CALL;
  *blocks = std::max(1, 2048 / std::max(1, threads));
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* of, int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, of, threads, shared, 0);
}

}  // extern "C"
