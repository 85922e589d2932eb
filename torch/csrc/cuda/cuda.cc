// libnstcuda.so: what nst needs of CUDA beyond libtorch's device-neutral interface.
// It is compiled against headers alone, and libnsttorch.so loads it after
// libtorch_cuda.so, whose symbols it finds there. Each function has the shape of
// nsttorch.h's; a message is freed with free.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <optional>
#include <string>

#include "../guard.h"

using nst::guard;

// ATen/cuda/CUDAContextLight.h has these two, and asks for the headers of cuSPARSE,
// cuBLAS and cuSOLVER, which libtorch's wheel for the CPU alone does not bring.
namespace at::cuda {
cudaDeviceProp* getDeviceProperties(c10::DeviceIndex device);
void clearCublasWorkspaces();
}  // namespace at::cuda

namespace {

// at::cuda::CUDAGraph on a stream of its own: CUDA's default stream cannot be
// recorded. Its memory is a pool whose name we know, because in older libtorches a
// recording that fails leaves the allocator filling it (capture_end throws before it
// says stop, and from then on every emptyCache asserts).
struct Graph {
  std::optional<c10::DeviceGuard> device;
  c10::cuda::CUDAStream before, side;
  c10::MempoolId_t pool;
  at::cuda::CUDAGraph graph;

  explicit Graph(c10::DeviceIndex index)
      : device(c10::Device(c10::kCUDA, index)),
        before(c10::cuda::getCurrentCUDAStream(index)),
        side(c10::cuda::getStreamFromPool(false, index)),
        pool(at::cuda::graph_pool_handle()) {
    before.synchronize();
    c10::cuda::setCurrentCUDAStream(side);
    try {
      graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      abandon();
      throw;
    }
  }

  void end() {
    try {
      graph.capture_end();
    } catch (...) {
      abandon();
      throw;
    }
    leave();
  }

  void leave() {
    c10::cuda::setCurrentCUDAStream(before);
    device.reset();
  }

  // Brings stream and allocator back to where they were.
  void abandon() noexcept {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(side.stream(), &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
      cudaGraph_t unfinished = nullptr;
      cudaStreamEndCapture(side.stream(), &unfinished);
      if (unfinished != nullptr) cudaGraphDestroy(unfinished);
    }
    (void)cudaGetLastError();
    const auto index = side.device_index();
    leave();
    // cuBLAS's workspace of the side stream lies in the pool. Newer libtorches release
    // the pool when the graph is reset; older ones go on filling it.
    const auto attempt = [](const auto& step) {
      try {
        step();
      } catch (...) {  // it had been done already
      }
    };
    attempt([] { at::cuda::clearCublasWorkspaces(); });
    attempt([&] { graph.reset(); });
    int users = 0;
    attempt([&] { users = c10::cuda::CUDACachingAllocator::getPoolUseCount(index, pool); });
    if (users == 0) return;
    attempt([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(index, pool); });
    attempt([&] { c10::cuda::CUDACachingAllocator::releasePool(index, pool); });
  }
};

// A card by name and compute capability.
std::string describe(const char* name, int major, int minor) {
  return std::string(name) + ", compute capability " + std::to_string(major) + "." + std::to_string(minor);
}

// The driver, and the first card, as NVML shows them: CUDA says neither of a driver that
// is too old for it. Where NVML says nothing, it is "the NVIDIA driver".
std::string driver_and_card() {
  void* nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  const auto ask = [nvml](const char* function, auto... arguments) {
    void* found = nvml == nullptr ? nullptr : dlsym(nvml, function);
    return found != nullptr && reinterpret_cast<int (*)(decltype(arguments)...)>(found)(arguments...) == 0;
  };
  char version[96] = "", name[96] = "";
  const unsigned room = sizeof version;
  void* card = nullptr;
  int major = 0, minor = 0;
  std::string text = "the NVIDIA driver";
  if (ask("nvmlInit_v2") && ask("nvmlSystemGetDriverVersion", version, room)) text += std::string(" ") + version;
  if (ask("nvmlDeviceGetHandleByIndex_v2", 0u, &card) && ask("nvmlDeviceGetName", card, name, room) &&
      ask("nvmlDeviceGetCudaComputeCapability", card, &major, &minor))
    text += " (" + describe(name, major, minor) + ")";
  return text;
}

// After these errors CUDA wants another process: they are given again by every call.
bool is_final(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorCooperativeLaunchTooLarge:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorContained:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

// A version of CUDA as its functions number it.
std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

extern "C" {

const char* nstcuda_graph_begin(int32_t index, void** out) {
  return guard([&] { *out = new Graph(static_cast<c10::DeviceIndex>(index)); });
}
const char* nstcuda_graph_end(void* g) {
  return guard([&] { static_cast<Graph*>(g)->end(); });
}
const char* nstcuda_graph_replay(void* g) {
  return guard([&] { static_cast<Graph*>(g)->graph.replay(); });
}
void nstcuda_graph_free(void* g) {
  delete static_cast<Graph*>(g);
  try {
    at::cuda::clearCublasWorkspaces();  // one of them may have lain in the graph's pool
  } catch (...) {
  }
}

// Why there is no CUDA device.
const char* nstcuda_why(char** why) {
  return guard([&] {
    int driver = 0, runtime = 0, count = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const auto error = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    std::string text;
    if (driver == 0) {
      text = "there is no NVIDIA driver; where there is a GPU, install its driver";
    } else if (error == cudaErrorInsufficientDriver) {
      text = driver_and_card() + " is too old: it is for CUDA " + version(driver) + ", and this libtorch is CUDA " +
             version(runtime) + "'s; a newer driver will do, or a Python torch made for the driver " +
             "(pip install torch, then NST_PYTHON)";
    } else {
      text = driver_and_card() + " shows no GPU: " +
             (error == cudaSuccess ? "none is visible" : cudaGetErrorString(error)) +
             "; nvidia-smi and CUDA_VISIBLE_DEVICES may say why";
    }
    *why = nst::copy(text);
  });
}

const char* nstcuda_capability(int32_t index, int32_t* capability) {
  return guard([&] {
    const auto* card = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    *capability = 10 * card->major + card->minor;
  });
}

const char* nstcuda_card(int32_t index, char** name) {
  return guard([&] {
    const auto* card = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    *name = nst::copy(describe(card->name, card->major, card->minor));
  });
}

const char* nstcuda_limit(int32_t index, int64_t bytes) {
  return guard([&] {
    const auto i = static_cast<c10::DeviceIndex>(index);
    const auto total = static_cast<double>(at::cuda::getDeviceProperties(i)->totalGlobalMem);
    const double fraction = bytes > 0 ? std::min(1.0, static_cast<double>(bytes) / total) : 1;
    c10::cuda::CUDACachingAllocator::setMemoryFraction(fraction, i);
  });
}

const char* nstcuda_lost(int32_t any, char** why) {
  return guard([&] {
    *why = nullptr;
    int mine = 0, count = 0, now = 0;
    auto error = cudaGetDevice(&mine);
    if (error == cudaSuccess) error = cudaGetDeviceCount(&count);
    const auto say = [&](int index) {
      *why = nst::copy("cuda:" + std::to_string(index) + " is lost: " + cudaGetErrorString(error) + " (CUDA error " +
                       std::to_string(error) + ")");
    };
    if (is_final(error)) say(mine);
    auto mode = cudaStreamCaptureModeRelaxed;  // the thread may be recording
    cudaThreadExchangeStreamCaptureMode(&mode);
    now = mine;
    for (int step = 0; error == cudaSuccess && step < (any ? count : 1) && *why == nullptr; step++) {
      const int index = (mine + step) % count;
      if (!c10::cuda::hasPrimaryContext(static_cast<c10::DeviceIndex>(index))) continue;  // nor is one made
      if (index != now) error = cudaSetDevice(now = index);
      if (error == cudaSuccess) error = cudaFree(nullptr);  // does nothing, and tells
      if (is_final(error)) say(index);
      error = cudaSuccess;
    }
    if (now != mine) (void)cudaSetDevice(mine);
    cudaThreadExchangeStreamCaptureMode(&mode);
    (void)cudaGetLastError();  // of the asking
  });
}

const char* nstcuda_bus(int32_t index, char** bus) {
  return guard([&] {
    char text[32] = "";
    const auto error = cudaDeviceGetPCIBusId(text, sizeof text, index);
    TORCH_CHECK(error == cudaSuccess, cudaGetErrorString(error));
    *bus = nst::copy(text);
  });
}

}  // extern "C"
