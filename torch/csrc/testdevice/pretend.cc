// The pretend accelerator: a libtorch device named "pretend", with two
// devices, whose memory is host memory and whose operations run on the CPU. It
// exists so that what would only fail on a GPU fails in CI:
//
//  - an operation given a CPU tensor (but a scalar of no dimension, which CUDA
//    allows too) or tensors of two devices is an error;
//  - copies to the device, copies to the host and synchronisations are counted;
//  - a memory limit raises libtorch's own OutOfMemoryError;
//  - a fault can be ordered for the n-th operation from now, and pretend:1 be slow;
//  - what it is sent can be recorded and sent again, as with CUDA graphs: after
//    the recording nothing has been done, and what needs the host is an error;
//  - a journal of what it was sent can be kept, to be audited;
//  - it can round as TF32 units do, where libtorch's settings allow it, and be wrong.
//
// It is loaded as any vendor's backend is (NST_DEVICE_LIBRARY), and never
// linked into the program. nst_device_library_control and _journal are its only exports.
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/replication_pad2d.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#if __has_include(<ATen/accelerator/Graph.h>)
#include <ATen/accelerator/Graph.h>
#define GRAPHS
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr c10::DeviceIndex kDevices = 2;
constexpr auto kPretend = c10::DeviceType::PrivateUse1;

// What has happened, and what has been ordered to happen.
struct {
  std::atomic<int64_t> to_device{0}, to_host{0}, synchronisations{0}, operations{0};
  std::atomic<int64_t> memory_limit{0};  // bytes of each device; 0: none
  std::atomic<int64_t> fault{0};         // operations until the fault; 0: none
  std::atomic<int64_t> fault_kind{0};    // which of kFaults
  std::atomic<int64_t> graphs{1};        // whether there are any
  std::atomic<int64_t> replays{0};
  std::atomic<int64_t> error{0};  // parts per million that convolutions are too large by
  std::atomic<int64_t> tf32{0};  // whether it has TF32, as NVIDIA's cards have from Ampere on
  std::atomic<int64_t> slow{0};  // microseconds that an operation on pretend:1 takes longer
} state;

// What a fault says, after what CUDA's libraries say when they are short of memory
// or cannot serve a card.
const std::array<const char*, 9> kFaults{
    "the fault ordered for this operation",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: no kernel image is available for execution on the device"};

// What was sent while the log is on, a line each: an operation's name, then its
// tensors as f32[1,3,64,64], an arrow, and what it made; or what it did with the host.
struct {
  std::mutex mutex;
  bool on = false;
  std::string text;

  void add(const std::string& line) {
    std::lock_guard<std::mutex> lock(mutex);
    if (on) text += line + "\n";
  }
} journal;

std::string describe(const at::Tensor& t) {
  if (!t.defined()) return "none";
  std::string sizes;
  for (auto n : t.sizes()) sizes += (sizes.empty() ? "" : ",") + std::to_string(n);
  return t.device().str() + "/" + c10::toString(t.scalar_type()) + "[" + sizes + "]";
}

std::string describe(const c10::IValue& v) {
  std::string text;
  if (v.isTensor()) return " " + describe(v.toTensor());
  if (v.isTensorList())
    for (const at::Tensor& t : v.toTensorList()) text += " " + describe(t);
  return text;
}

// How CUDA would compute a convolution or a product of matrices, for the journal.
std::string settings(bool convolution) {
  const auto& context = at::globalContext();
  std::string text;
  if (convolution ? context.allowTF32CuDNN() : context.allowTF32CuBLAS()) text += " tf32";
  if (convolution && context.benchmarkCuDNN()) text += " autotuned";
  if (convolution && context.deterministicCuDNN()) text += " deterministic";
  return text;
}

// What is being recorded on this thread. It is done meanwhile, to know what
// comes of it, and undone in the end.
struct Recording {
  std::vector<std::function<void()>> work;
  std::vector<std::pair<at::Tensor, at::Tensor>> before;  // memory that was written, as it was
  bool broken = false;

  void writes(const at::Tensor& t) {
    if (t.numel() > 0) before.emplace_back(t, t.clone());
  }
  void undo() {
    for (auto i = before.rbegin(); i != before.rend(); ++i) i->first.copy_(i->second);
    before.clear();
  }
};
thread_local Recording* recording = nullptr;

// Notes what needs the host, or refuses it while recording, as CUDA does.
void with_host(std::atomic<int64_t>& count, const char* what) {
  count++;
  journal.add(what);
  if (recording == nullptr) return;
  recording->broken = true;
  TORCH_CHECK(false, what, " cannot be recorded");
}

struct Usage {
  std::atomic<int64_t> current{0}, peak{0};
};
std::array<Usage, kDevices> usage;

thread_local c10::DeviceIndex current_device = 0;

// ---- Memory

void account(c10::DeviceIndex device, int64_t bytes) {
  auto& used = usage[device];
  auto limit = state.memory_limit.load();
  TORCH_CHECK_WITH(OutOfMemoryError, limit == 0 || used.current + bytes <= limit,
                   "pretend:", static_cast<int>(device), " out of memory: tried to allocate ", bytes,
                   " bytes beside ", used.current.load(), " of ", limit);
  auto now = used.current += bytes;
  for (auto peak = used.peak.load(); peak < now && !used.peak.compare_exchange_weak(peak, now);) {
  }
}

// One allocation: host memory of its own, or that of a CPU tensor wrapped.
struct Block {
  void* data;
  int64_t bytes;
  c10::DeviceIndex device;
  at::Tensor wrapped;

  static void release(void* block) {
    auto* b = static_cast<Block*>(block);
    usage[b->device].current -= b->bytes;
    if (!b->wrapped.defined()) c10::free_cpu(b->data);
    delete b;
  }

  c10::DataPtr pointer() { return {data, this, &Block::release, c10::Device(kPretend, device)}; }
};

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    account(current_device, static_cast<int64_t>(bytes));
    auto* block = new Block{nullptr, static_cast<int64_t>(bytes), current_device, {}};
    block->data = c10::alloc_cpu(bytes);
    return block->pointer();
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    auto& bytes = stats.allocated_bytes[0];
    bytes.current = usage[device].current;
    bytes.peak = usage[device].peak;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    usage[device].peak = usage[device].current.load();
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    int64_t total = state.memory_limit ? state.memory_limit.load() : int64_t{1} << 40;
    return {total - usage[device].current, total};
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(kPretend, &allocator)

// ---- The device guard and the hooks

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kPretend;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return kPretend; }
  c10::Device exchangeDevice(c10::Device d) const override {
    auto before = getDevice();
    setDevice(d);
    return before;
  }
  c10::Device getDevice() const override { return {kPretend, current_device}; }
  void setDevice(c10::Device d) const override {
    TORCH_CHECK(d.index() < kDevices, "there is no ", d, ": pretend has ",
                static_cast<int>(kDevices), " devices");
    if (d.index() >= 0) current_device = d.index();
  }
  void uncheckedSetDevice(c10::Device d) const noexcept override { current_device = d.index(); }
  c10::Stream getStream(c10::Device d) const override {
    return c10::Stream(c10::Stream::DEFAULT, d);
  }
  c10::Stream getDefaultStream(c10::Device d) const override { return getStream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return getStream(s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {
    with_host(state.synchronisations, "a synchronisation");
  }
  void synchronizeEvent(void*) const override {
    with_host(state.synchronisations, "a synchronisation");
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    with_host(state.synchronisations, "a synchronisation");
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  void setCurrentDevice(c10::DeviceIndex d) const override { Guard().setDevice({kPretend, d}); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex d) const override {
    return Guard().exchangeDevice({kPretend, d}).index();
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex d) const override {
    return d < 0 ? current_device : exchangeDevice(d);
  }
};

// ---- Operations

// The one device of an operation's tensors, as strict as CUDA.
struct OneDevice {
  const std::string operation;
  c10::Device device{c10::kCPU};

  explicit OneDevice(std::string name) : operation(std::move(name)) {
    state.operations++;
    if (state.fault > 0 && --state.fault == 0)
      TORCH_CHECK(false, kFaults[state.fault_kind], ", ", operation);
  }
  void see(c10::Device d) {
    TORCH_CHECK(device.is_cpu() || device == d, "Expected all tensors to be on the same device, but found ",
                device, " and ", d, " in ", operation);
    device = d;
  }
  void see(const at::Tensor& t) {
    if (t.defined() && t.device().type() == kPretend) see(t.device());
  }
  ~OneDevice() {
    if (device.type() == kPretend && device.index() == 1 && state.slow > 0)
      std::this_thread::sleep_for(std::chrono::microseconds(state.slow));
  }
  void check(const at::Tensor& t) const {
    TORCH_CHECK(!t.defined() || t.device() == device || (t.device().is_cpu() && t.dim() == 0),
                "Expected all tensors to be on the same device, but found ", device, " and ",
                t.device(), " in ", operation);
  }
  template <class Compute>
  at::Tensor wrap_and_record(const std::string& line, const Compute& compute) const;
};

// The same memory as a CPU tensor.
at::Tensor on_cpu(const at::Tensor& t) {
  if (!t.defined() || t.device().type() != kPretend) return t;
  return at::from_blob(const_cast<void*>(t.storage().data()), t.sizes(), t.strides(), t.storage_offset(),
                       [keep = t.storage()](void*) {}, t.options().device(c10::kCPU).requires_grad(false));
}

// A pretend tensor over a new CPU tensor's memory.
at::Tensor wrap(const at::Tensor& cpu, c10::Device device) {
  auto bytes = static_cast<int64_t>(cpu.storage().nbytes());
  account(device.index(), bytes);
  auto* block = new Block{const_cast<void*>(cpu.storage().data()), bytes, device.index(), cpu};
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, block->pointer(), &allocator, false);
  auto t = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), cpu.dtype());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
  return t;
}

// What a TF32 unit makes of what it multiplies, if libtorch allows it: float32 with 10
// bits of mantissa, rounded to the nearest.
at::Tensor rounded(const at::Tensor& t, bool allowed) {
  if (state.tf32 == 0 || !allowed || t.scalar_type() != at::kFloat) return t;
  auto bits = t.clone();
  auto* words = static_cast<uint32_t*>(bits.mutable_data_ptr());
  for (int64_t i = 0; i < bits.numel(); i++) words[i] = (words[i] + 0x1000) & ~uint32_t{0x1fff};
  return bits;
}
at::Tensor for_convolution(const at::Tensor& t) { return rounded(t, at::globalContext().allowTF32CuDNN()); }
at::Tensor for_product(const at::Tensor& t) { return rounded(t, at::globalContext().allowTF32CuBLAS()); }

// Gives an empty output the memory and sizes of another tensor.
void adopt(const at::Tensor& output, const at::Tensor& from) {
  auto* t = output.unsafeGetTensorImpl();
  t->set_storage_keep_dtype(from.storage());
  t->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
}

// What CUDA's kernels do not take, whatever the device's memory: a resize with
// antialiasing keeps its taps in 48 KiB of shared memory (UpSampleBilinear2d.cu).
void as_cuda_refuses(const std::string& operation, const at::ArrayRef<c10::IValue>& values) {
  if (operation.rfind("aten::_upsample_", 0) != 0 || operation.find("_aa") == std::string::npos) return;
  const auto from = operation.find("backward") == std::string::npos ? values[0].toTensor().sizes().vec()
                                                                    : values[2].toIntVector();
  const auto to = values[1].toIntVector();
  const double reach = operation.find("bicubic") == std::string::npos ? 1 : 2;
  const auto taps = [&](int dim) {
    const double scale = static_cast<double>(from[dim + 2]) / static_cast<double>(to[dim]);
    return 1 + 2 * static_cast<int64_t>(std::ceil(reach * std::max(1.0, scale)));
  };
  const int64_t item = values[0].toTensor().itemsize();
  TORCH_CHECK(item * (32 * taps(1) + 33 * taps(0)) <= 49152,
              "Provided interpolation parameters can not be handled with current algorithm implementation: ",
              operation);
}

// Every operation without a kernel here: its tensors are aliased as CPU
// tensors, the CPU kernel runs, and what is new comes back as pretend tensors.
void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  OneDevice one(c10::toString(op.operator_name()));
  const auto arguments = op.schema().arguments().size();
  auto values = torch::jit::last(*stack, arguments);
  for (const auto& v : values) {
    if (v.isTensor()) one.see(v.toTensor());
    if (v.isTensorList())
      for (const at::Tensor& t : v.toTensorList()) one.see(t);
    if (v.isDevice() && v.toDevice().type() == kPretend)
      one.see(v.toDevice().has_index() ? v.toDevice() : Guard().getDevice());
  }
  std::string line = one.operation;
  for (const auto& v : values) line += describe(v);
  as_cuda_refuses(one.operation, values);
  std::vector<std::pair<at::Tensor, at::Tensor>> aliases;  // pretend, CPU
  auto enter = [&](const at::Tensor& t, bool written) {
    one.check(t);
    if (!t.defined() || t.device().type() != kPretend) return t;
    // An empty output is there to be resized, which a view of memory cannot be.
    auto cpu = written && t.numel() == 0 ? at::empty({0}, t.options().device(c10::kCPU)) : on_cpu(t);
    aliases.emplace_back(t, cpu);
    return cpu;
  };
  for (size_t i = 0; i < arguments; i++) {
    auto& v = (*stack)[stack->size() - arguments + i];
    if (v.isTensor()) {
      const auto* info = op.schema().arguments()[i].alias_info();
      v = enter(v.toTensor(), info != nullptr && info->isWrite());
    } else if (v.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : v.toTensorList()) list.push_back(enter(t, false));
      v = list;
    } else if (v.isDevice()) {
      v = c10::Device(c10::kCPU);
    }
  }
  const bool product = one.operation == "aten::bmm.out" || one.operation == "aten::baddbmm.out" ||
                       one.operation == "aten::mm.out";
  if (product) line += settings(false);
  auto compute = [op, product](torch::jit::Stack* values) {
    at::AutoDispatchBelowADInplaceOrView below;
    if (product && state.tf32 != 0) {
      const auto& arguments = op.schema().arguments();
      for (size_t i = 0; i < arguments.size(); i++) {
        const auto& name = arguments[i].name();
        auto& v = (*values)[values->size() - arguments.size() + i];
        if (name == "batch1" || name == "batch2" || name == "mat2" ||
            (name == "self" && op.schema().name() != "aten::baddbmm"))
          v = for_product(v.toTensor());
      }
    }
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), values);
  };
  const torch::jit::Stack recorded = recording ? torch::jit::last(*stack, arguments).vec() : torch::jit::Stack();
  for (size_t i = 0; i < recorded.size(); i++) {
    const auto* info = op.schema().arguments()[i].alias_info();
    if (info == nullptr || !info->isWrite()) continue;
    if (recorded[i].isTensor()) recording->writes(recorded[i].toTensor());
    if (recorded[i].isTensorList())
      for (const at::Tensor& t : recorded[i].toTensorList()) recording->writes(t);
  }
  compute(stack);
  if (recording != nullptr) {
    auto results = torch::jit::last(*stack, op.schema().returns().size()).vec();
    recording->work.emplace_back([compute, recorded, results] {
      auto values = recorded;
      compute(&values);
      auto keep = [](const at::Tensor& place, const at::Tensor& result) {
        if (place.defined() && !place.is_same(result)) place.copy_(result);
      };
      for (size_t i = 0; i < results.size(); i++) {
        if (results[i].isTensor()) keep(results[i].toTensor(), values[i].toTensor());
        if (results[i].isTensorList())
          for (size_t k = 0; k < results[i].toTensorList().size(); k++)
            keep(results[i].toTensorList().get(k), values[i].toTensorList().get(k));
      }
    });
  }
  auto leave = [&](const at::Tensor& result) -> at::Tensor {
    if (!result.defined()) return result;
    for (const auto& [pretend, cpu] : aliases) {
      if (result.is_same(cpu)) {
        if (pretend.numel() != cpu.numel()) adopt(pretend, wrap(cpu, one.device));
        return pretend;
      }
      TORCH_INTERNAL_ASSERT(result.numel() == 0 || !result.storage().is_alias_of(cpu.storage()), one.operation,
                            " made a view; the pretend device needs a kernel for it");
    }
    return wrap(result, one.device);
  };
  const auto returns = op.schema().returns().size();
  for (size_t i = 0; i < returns; i++) {
    auto& v = (*stack)[stack->size() - returns + i];
    if (v.isTensor()) {
      v = leave(v.toTensor());
    } else if (v.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : v.toTensorList()) list.push_back(leave(t));
      v = list;
    }
  }
  line += " ->";
  for (size_t i = 0; i < returns; i++) line += describe((*stack)[stack->size() - returns + i]);
  journal.add(line);
}

// What compute makes on the CPU, as a pretend tensor; recorded if need be.
template <class Compute>
at::Tensor OneDevice::wrap_and_record(const std::string& line, const Compute& compute) const {
  const auto y = compute();
  if (recording != nullptr) recording->work.emplace_back([compute, y] { y.copy_(compute()); });
  const auto made = wrap(y, device);
  journal.add(line + " -> " + describe(made));
  return made;
}

c10::DeviceGuard on(std::optional<c10::Device> device) {
  return c10::DeviceGuard(device.value_or(c10::Device(kPretend, current_device)));
}

at::Tensor empty(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  auto guard = on(device);
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(sizes), &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type.value_or(at::kFloat), format);
}

at::Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                         std::optional<at::ScalarType> type, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  auto guard = on(device);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), &allocator,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type.value_or(at::kFloat));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.device().is_cpu()) with_host(state.to_device, "a copy from the host");
  if (to.device().is_cpu()) with_host(state.to_host, "a copy to the host");
  if (!from.device().is_cpu() && !to.device().is_cpu())
    journal.add("aten::copy_ " + describe(to) + " " + describe(from));
  auto copy = [target = on_cpu(to), source = on_cpu(from)] { target.copy_(source); };
  if (recording != nullptr) {
    recording->writes(on_cpu(to));
    recording->work.emplace_back(copy);
  }
  copy();
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& t) {
  with_host(state.to_host, "reading a value back");
  return at::_local_scalar_dense(on_cpu(t));
}

// By libtorch's own way for a device without a kernel, the operation with an output, the
// values came out wrong here, and not the same each time.
at::Tensor replication_pad2d(const at::Tensor& input, at::IntArrayRef padding) {
  OneDevice one("aten::replication_pad2d");
  one.see(input);
  one.check(input);
  auto compute = [in = on_cpu(input), p = padding.vec()] { return at::replication_pad2d(in, p); };
  return one.wrap_and_record("aten::replication_pad2d " + describe(input), compute);
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  OneDevice one("aten::convolution_overrideable");
  auto b = bias.value_or(at::Tensor());
  for (const auto& t : {input, weight, b}) one.see(t);
  for (const auto& t : {input, weight, b}) one.check(t);
  auto compute = [in = on_cpu(input), kernel = on_cpu(weight), b = on_cpu(b), s = stride.vec(), p = padding.vec(),
                  d = dilation.vec(),
                  transposed, o = output_padding.vec(), groups] {
    const auto x = for_convolution(in), w = for_convolution(kernel);
    if (!transposed) return at::convolution(x, w, b, s, p, d, false, o, groups).mul_(1 + 1e-6 * state.error);
    // The CPU's own transposed convolution is slow: this is the gradient that it is.
    std::vector<int64_t> sizes{x.size(0), w.size(1) * groups};
    for (int64_t i = 0; i < 2; i++)
      sizes.push_back((x.size(i + 2) - 1) * s[i] - 2 * p[i] + d[i] * (w.size(i + 2) - 1) + 1);
    const auto input = at::empty({1}, x.options()).expand(sizes);
    return std::get<0>(at::convolution_backward(x, input, w, at::OptionalIntArrayRef(), s, p, d, false, {0, 0}, groups,
                                                {true, false, false}));
  };
  const std::string name = transposed ? "aten::convolution_transpose " : "aten::convolution ";
  return one.wrap_and_record(name + describe(input) + " " + describe(weight) + " " + describe(b) + settings(true),
                             compute);
}

// cuDNN's convolution with its bias and ReLU, of which libtorch has an operation.
at::Tensor convolution_relu(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  OneDevice one("aten::cudnn_convolution_relu");
  auto b = bias.value_or(at::Tensor());
  for (const auto& t : {input, weight, b}) one.see(t);
  for (const auto& t : {input, weight, b}) one.check(t);
  auto compute = [in = on_cpu(input), kernel = on_cpu(weight), b = on_cpu(b), s = stride.vec(), p = padding.vec(),
                  d = dilation.vec(), groups] {
    const auto x = for_convolution(in), w = for_convolution(kernel);
    return at::convolution(x, w, b, s, p, d, false, {0, 0}, groups).relu_();
  };
  return one.wrap_and_record("aten::cudnn_convolution_relu " + describe(input) + " " + describe(weight) + " " +
                                 describe(b) + settings(true),
                             compute);
}

// A product of half precision with a float32 result, which the CPU does not have.
at::Tensor& baddbmm_dtype(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b, at::ScalarType type,
                          const at::Scalar& beta, const at::Scalar& alpha, at::Tensor& out) {
  OneDevice one("aten::baddbmm.dtype_out");
  for (const auto& t : {self, a, b, out}) one.see(t);
  for (const auto& t : {self, a, b, out}) one.check(t);
  auto compute = [s = on_cpu(self), x = on_cpu(a), y = on_cpu(b), o = on_cpu(out), type, beta, alpha] {
    o.copy_(at::baddbmm(s, x.to(type), y.to(type), beta, alpha));
  };
  if (recording != nullptr) {
    recording->writes(on_cpu(out));
    recording->work.emplace_back(compute);
  }
  compute();
  journal.add("aten::baddbmm.dtype_out " + describe(a) + " " + describe(b) + " -> " + describe(out));
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> mask) {
  OneDevice one("aten::convolution_backward_overrideable");
  for (const auto& t : {gradient, input, weight}) one.see(t);
  for (const auto& t : {gradient, input, weight}) one.check(t);
  auto compute = [g = on_cpu(gradient), x = on_cpu(input), w = on_cpu(weight), s = stride.vec(), p = padding.vec(),
                  d = dilation.vec(), transposed, o = output_padding.vec(), groups, mask] {
    return at::convolution_backward(g, x, w, at::OptionalIntArrayRef(w.size(0)), s, p, d, transposed, o, groups, mask);
  };
  const auto all = compute();
  if (recording != nullptr) {
    TORCH_CHECK(mask[0] && !mask[1] && !mask[2], "only the gradient of a convolution's input can be recorded");
    recording->work.emplace_back([compute, dx = std::get<0>(all)] { dx.copy_(std::get<0>(compute())); });
  }
  journal.add("aten::convolution_backward " + describe(gradient) + " " + describe(input) + " " + describe(weight));
  auto give = [&](const at::Tensor& t) { return t.defined() ? wrap(t, one.device) : t; };
  return {give(std::get<0>(all)), give(std::get<1>(all)), give(std::get<2>(all))};
}

#ifdef GRAPHS
struct Graph final : at::GraphImplInterface {
  Recording recorded;
  explicit Graph(const at::GraphImplArgs&) {}
  void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
    TORCH_CHECK(state.graphs != 0, "graphs are switched off");
    recording = &recorded;
  }
  void capture_end() override {
    recording = nullptr;
    recorded.undo();
    TORCH_CHECK(!recorded.broken, "what was recorded needed the host");
  }
  void instantiate() override {}
  void replay() override {
    state.replays++;
    for (const auto& work : recorded.work) work();
  }
  void reset() override { recorded = {}; }
  at::MempoolId_t pool() const override { return {0, 0}; }
  void enable_debug_mode() override {}
  void debug_dump(const std::string&) override {}
};

}  // namespace
namespace at {
REGISTER_GRAPH_IMPL(PRETEND, Graph)
}  // namespace at
namespace {
#endif

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("convolution_overrideable", convolution);
  m.impl("replication_pad2d", replication_pad2d);
  m.impl("cudnn_convolution_relu", convolution_relu);
  m.impl("baddbmm.dtype_out", baddbmm_dtype);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

const bool registered = [] {
  c10::register_privateuse1_backend("pretend");
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace

// Reads a counter, or gives an order; NULL, or what is wrong (a static text).
extern "C" const char* nst_device_library_control(const char* command, int64_t value, int64_t* result) {
  const std::string c = command;
  if (c == "copies-to-device") {
    *result = state.to_device;
  } else if (c == "copies-to-host") {
    *result = state.to_host;
  } else if (c == "synchronisations") {
    *result = state.synchronisations;
  } else if (c == "operations") {
    *result = state.operations;
  } else if (c == "memory-limit") {
    *result = state.memory_limit.exchange(value);
  } else if (c == "fault") {
    *result = state.fault.exchange(value);
  } else if (c == "fault-kind") {
    if (value < 0 || value >= static_cast<int64_t>(kFaults.size())) return "there is no such fault";
    *result = state.fault_kind.exchange(value);
  } else if (c == "graphs") {
    *result = state.graphs.exchange(value);
  } else if (c == "slow") {
    *result = state.slow.exchange(value);
  } else if (c == "error") {
    *result = state.error.exchange(value);
  } else if (c == "tf32") {
    *result = state.tf32.exchange(value);
  } else if (c == "replays") {
    *result = state.replays;
  } else if (c == "journal") {
    std::lock_guard<std::mutex> lock(journal.mutex);
    journal.on = value != 0;
    if (journal.on) journal.text.clear();
    *result = static_cast<int64_t>(journal.text.size());
  } else {
    return "the pretend device knows copies-to-device, copies-to-host, synchronisations, operations, "
           "memory-limit, fault, fault-kind, graphs, tf32, error, replays, slow and journal";
  }
  return nullptr;
}

// What the journal has, once it is off; it stays until the next.
extern "C" const char* nst_device_library_journal() { return journal.text.c_str(); }
