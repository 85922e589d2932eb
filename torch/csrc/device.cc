// Devices: finding them, their memory, and the calling thread's OpenMP pool.
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <omp.h>
#include <torch/version.h>

#include <mutex>
#include <string>

#include "guard.h"

using nst::guard;

namespace {

// The path of libtorch_cpu.so, whose folder libtorch_cuda.so is in. Taking the
// address asks nothing of libtorch.
std::string library_path() {
  Dl_info info{};
  TORCH_CHECK(dladdr(reinterpret_cast<void*>(&at::globalContext), &info) && info.dli_fname,
              "the loader does not say where libtorch_cpu.so is");
  return info.dli_fname;
}

using control_function = const char* (*)(const char*, int64_t, int64_t*);
control_function device_control = nullptr;

}  // namespace

const char* nst_version(void) { return TORCH_VERSION; }

const char* nst_library_path(char** path) {
  return guard([&] { *path = nst::copy(library_path()); });
}

const char* nst_load_device_library(const char* path) {
  return guard([&] {
    void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    TORCH_CHECK(library != nullptr, dlerror());
    device_control =
        reinterpret_cast<control_function>(dlsym(library, "nst_device_library_control"));
  });
}

// libtorch looks its CUDA hooks up once and keeps the answer, so nothing may
// ask them anything before this has loaded libtorch_cuda.so.
const char* nst_load_cuda(void) {
  return guard([&] {
    static std::mutex mutex;
    static bool loaded = false;
    std::lock_guard<std::mutex> lock(mutex);
    if (loaded) return;
    auto path = library_path();
    path = path.substr(0, path.rfind('/') + 1) + "libtorch_cuda.so";
    TORCH_CHECK(dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr, "looked for ", path,
                ": ", dlerror());
    loaded = true;
    TORCH_CHECK(at::globalContext().hasCUDA(), path, " loaded, but it finds no CUDA driver or GPU");
    at::globalContext().lazyInitDevice(c10::kCUDA);
  });
}

const char* nst_device_count(const char* type, int64_t* count) {
  return guard([&] {
    auto kind = c10::Device(type).type();
    *count = kind == c10::kCPU ? 1
             : c10::impl::hasDeviceGuardImpl(kind)
                 ? c10::impl::VirtualGuardImpl(kind).deviceCount()
                 : 0;
  });
}

const char* nst_device_synchronize(const char* device) {
  return guard([&] {
    c10::Device d(device);
    if (!d.is_cpu()) c10::impl::VirtualGuardImpl(d.type()).synchronizeDevice(d.index());
  });
}

const char* nst_device_memory(const char* device, int64_t* free_bytes, int64_t* total_bytes,
                              int64_t* allocated, int64_t* peak) {
  return guard([&] {
    c10::Device d(device);
    auto* allocator = at::getDeviceAllocator(d.type());
    std::pair<size_t, size_t> memory{0, 0};
    try {
      memory = allocator->getMemoryInfo(d.index());
    } catch (const c10::NotImplementedError&) {
      // An older backend's allocator does not know; its own counts still do.
    }
    auto stats = allocator->getDeviceStats(d.index());
    const auto& bytes = stats.allocated_bytes[static_cast<size_t>(
        c10::CachingAllocator::StatType::AGGREGATE)];
    *free_bytes = static_cast<int64_t>(memory.first);
    *total_bytes = static_cast<int64_t>(memory.second);
    *allocated = bytes.current;
    *peak = bytes.peak;
  });
}

const char* nst_device_reset_peak(const char* device) {
  return guard([&] {
    c10::Device d(device);
    at::getDeviceAllocator(d.type())->resetPeakStats(d.index());
  });
}

const char* nst_device_empty_cache(const char* device) {
  return guard([&] { at::getDeviceAllocator(c10::Device(device).type())->emptyCache(); });
}

const char* nst_device_control(const char* command, int64_t value, int64_t* result) {
  return guard([&] {
    TORCH_CHECK(device_control != nullptr,
                "no device library that can be controlled is loaded (NST_DEVICE_LIBRARY)");
    const char* message = device_control(command, value, result);
    TORCH_CHECK(message == nullptr, message);
  });
}

// CUDA's; they mean nothing to other devices. Matrix products are never TF32:
// Gram matrices are sums of many products.
const char* nst_set_math(int32_t tf32, int32_t autotune) {
  return guard([&] {
    auto& context = at::globalContext();
    context.setAllowTF32CuDNN(tf32 != 0);
    context.setAllowTF32CuBLAS(false);
    context.setBenchmarkCuDNN(autotune != 0);
  });
}

const char* nst_threads(int64_t* count) {
  return guard([&] { *count = at::get_num_threads(); });
}

// OpenMP's own setting is the calling thread's; at::set_num_threads would change
// MKL's, which is the process's.
const char* nst_set_threads(int64_t count) {
  return guard([&] {
    at::get_num_threads();  // a thread's first use of libtorch sets it
    omp_set_num_threads(static_cast<int>(count));
  });
}
