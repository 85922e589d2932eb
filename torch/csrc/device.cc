// Devices: finding them, their memory, and the calling thread's OpenMP pool.
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <omp.h>
#include <torch/version.h>

#include <mutex>
#include <string>

#include "cuda.h"
#include "guard.h"
#include "precision.h"

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

// A file that lies beside another.
std::string beside(const std::string& path, const char* name) { return path.substr(0, path.rfind('/') + 1) + name; }

template <class Function>
void find(void* library, const char* name, Function*& out) {
  out = reinterpret_cast<Function*>(dlsym(library, name));
  TORCH_CHECK(out != nullptr, dlerror());
}

// Loads libnstcuda.so, which is beside this library, after libtorch_cuda.so.
void load_nstcuda() {
  Dl_info info{};
  TORCH_CHECK(dladdr(reinterpret_cast<void*>(&nst_load_cuda), &info) && info.dli_fname,
              "the loader hides this library");
  const auto path = beside(info.dli_fname, "libnstcuda.so");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    nst::cuda().missing = std::string("CUDA graphs need libnstcuda.so, which cannot be loaded: ") + (why ? why : path);
    return;
  }
  auto& cuda = nst::cuda();
  find(library, "nstcuda_graph_begin", cuda.graph_begin);
  find(library, "nstcuda_graph_end", cuda.graph_end);
  find(library, "nstcuda_graph_replay", cuda.graph_replay);
  find(library, "nstcuda_graph_free", cuda.graph_free);
  find(library, "nstcuda_why", cuda.why);
  find(library, "nstcuda_card", cuda.card);
  find(library, "nstcuda_bus", cuda.bus);
  find(library, "nstcuda_capability", cuda.capability);
  find(library, "nstcuda_limit", cuda.limit);
  find(library, "nstcuda_lost", cuda.lost);
  cuda.missing.clear();
}

// Whether CUDA has a device. libtorch warns at length where a driver is too old; what we
// say of it is one line.
bool has_cuda() {
  const nst::Silence meanwhile;
  return at::globalContext().hasCUDA();
}

using control_function = const char* (*)(const char*, int64_t, int64_t*);
control_function device_control = nullptr;
using journal_function = const char* (*)();
journal_function device_journal = nullptr;

}  // namespace

const char* nst_version(void) { return TORCH_VERSION; }
const char* nst_load(void) { return nullptr; }
const char* nst_abi(void) { return NST_ABI; }

const char* nst_library_path(char** path) {
  return guard([&] { *path = nst::copy(library_path()); });
}

const char* nst_load_device_library(const char* path) {
  return guard([&] {
    void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    TORCH_CHECK(library != nullptr, dlerror());
    device_control =
        reinterpret_cast<control_function>(dlsym(library, "nst_device_library_control"));
    device_journal = reinterpret_cast<journal_function>(dlsym(library, "nst_device_library_journal"));
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
    path = beside(path, "libtorch_cuda.so");
    TORCH_CHECK(dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr, "libtorch's CUDA library cannot be loaded: ",
                dlerror(), "; where nvidia-smi shows a GPU, nst install cuda fetches what it needs");
    if (nst::cuda().graph_begin == nullptr) load_nstcuda();
    if (!has_cuda()) {
      char* why = nullptr;
      if (nst::cuda().why != nullptr) nst::check(nst::cuda().why(&why));
      const std::string text = why ? why : "libtorch finds no CUDA driver or GPU";
      free(why);
      TORCH_CHECK(false, text);
    }
    at::globalContext().lazyInitDevice(c10::kCUDA);
    loaded = true;
  });
}

nst::Cuda& nst::cuda() {
  static Cuda cuda;
  return cuda;
}

// A card for which this libtorch has no code says so at its first kernel.
const char* nst_try_device(const char* name) {
  return guard([&] {
    const c10::Device device(name);
    try {
      at::ones({2}, at::TensorOptions(device)).add_(1).cpu();
    } catch (const c10::Error& e) {
      const std::string what = e.what_without_backtrace();
      if (what.find("no kernel image") == std::string::npos) throw;
      char* card = nullptr;
      if (device.is_cuda() && nst::cuda().card != nullptr) nst::check(nst::cuda().card(device.index(), &card));
      const std::string text = card ? std::string(card) + "," : "this card";
      free(card);
      TORCH_CHECK(false, text, " is older or newer than the cards that libtorch ", TORCH_VERSION,
                  " has code for; a Python torch made for it will do (pip install torch, then NST_PYTHON), "
                  "or --device cpu");
    }
  });
}

namespace {
// What CUDA's part has to say of a device.
template <class Answer>
const char* of_card(const char* name, const char* (*ask)(int32_t, Answer*), Answer* answer) {
  return guard([&] {
    const c10::Device device(name);
    TORCH_CHECK(device.is_cuda() && ask != nullptr, device, " is no CUDA device");
    nst::check(ask(device.index(), answer));
  });
}
}  // namespace

const char* nst_device_card(const char* name, char** card) { return of_card(name, nst::cuda().card, card); }
const char* nst_device_bus(const char* name, char** bus) { return of_card(name, nst::cuda().bus, bus); }

const char* nst_device_capability(const char* name, int32_t* capability) {
  return of_card(name, nst::cuda().capability, capability);
}

const char* nst_device_limit(const char* name, int64_t bytes) {
  return guard([&] {
    const c10::Device device(name);
    TORCH_CHECK(device.is_cuda() && nst::cuda().limit != nullptr, device, " is no CUDA device");
    nst::check(nst::cuda().limit(device.index(), bytes));
  });
}

const char* nst_cuda_thread(const char* name) {
  static struct : c10::WarningHandler {
    void process(const c10::Warning& warning) override {
      if (warning.msg().find("CUDA warning") == std::string::npos) before->process(warning);
    }
    c10::WarningHandler* before = c10::WarningUtils::get_warning_handler();
  } handler;
  c10::WarningUtils::set_warning_handler(&handler);
  return guard([&] {
    const c10::Device device(name);
    c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
  });
}

const char* nst_device_lost(int32_t any, char** why) {
  return guard([&] {
    *why = nullptr;
    if (nst::cuda().lost != nullptr) nst::check(nst::cuda().lost(any, why));
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

const char* nst_device_journal(char** text) {
  return guard([&] {
    TORCH_CHECK(device_journal != nullptr, "no device library that keeps a journal is loaded (NST_DEVICE_LIBRARY)");
    *text = nst::copy(device_journal());
  });
}

namespace {

struct MathMode {
  bool tf32 = false, autotune = false, deterministic = false;
};
thread_local MathMode chosen;
std::mutex in_use;

}  // namespace

nst::Math::Math(const at::Tensor& on, Products products) {
  if (on.is_cpu()) return;
  lock = std::unique_lock<std::mutex>(in_use);
  auto& context = at::globalContext();
  const bool products_tf32 = chosen.tf32 && products == kAsChosen;
  if (context.allowTF32CuDNN() != chosen.tf32) context.setAllowTF32CuDNN(chosen.tf32);
  if (context.allowTF32CuBLAS() != products_tf32) context.setAllowTF32CuBLAS(products_tf32);
  if (context.benchmarkCuDNN() != chosen.autotune) context.setBenchmarkCuDNN(chosen.autotune);
  if (context.deterministicCuDNN() != chosen.deterministic) context.setDeterministicCuDNN(chosen.deterministic);
}

const char* nst_set_math(int32_t tf32, int32_t autotune, int32_t deterministic) {
  chosen = {tf32 != 0, autotune != 0, deterministic != 0};
  return nullptr;
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
