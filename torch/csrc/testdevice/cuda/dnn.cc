// cuDNN's backend interface, as its front end in libtorch calls it for convolutions: graphs of
// operations, engines that can do them, plans, and their execution, which does nothing.
#include <cstdio>
#include <cstring>
#include <memory>

#include "handles.h"
#include "nvidia.h"

namespace pretend {

namespace {

struct Content;
using Shared = std::shared_ptr<Content>;

struct Value {
  int64_t count = 0;
  std::string bytes;
  std::vector<Shared> descriptors;  // in place of bytes
};

// What a descriptor is; descriptors share it.
struct Content {
  int type;
  bool finished = false;
  std::map<int, Value> values;
};
struct Descriptor {
  Shared content;
};

Shared& content(cudnnBackendDescriptor_t d) { return static_cast<Descriptor*>(d)->content; }

size_t size_of(int type) {
  switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
    case CUDNN_TYPE_FRACTION: return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    default: return 4;  // enumerations
  }
}

std::vector<int64_t> integers(const Shared& of, int attribute) {
  const auto found = of->values.find(attribute);
  if (found == of->values.end() || found->second.count == 0) return {};
  const auto& v = found->second;
  const size_t each = v.bytes.size() / v.count;
  std::vector<int64_t> out(v.count);
  for (int64_t i = 0; i < v.count; i++) std::memcpy(&out[i], v.bytes.data() + i * each, std::min<size_t>(each, 8));
  return out;
}
int64_t integer(const Shared& of, int attribute) {
  const auto all = integers(of, attribute);
  return all.empty() ? 0 : all[0];
}
std::vector<Shared> descriptors(const Shared& of, int attribute) {
  const auto found = of->values.find(attribute);
  return found == of->values.end() ? std::vector<Shared>{} : found->second.descriptors;
}
Shared descriptor(const Shared& of, int attribute) {
  const auto all = descriptors(of, attribute);
  return all.empty() ? nullptr : all[0];
}

size_t bytes_of(const Shared& tensor) {
  if (tensor == nullptr) return 0;
  const auto sizes = integers(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS);
  const auto strides = integers(tensor, CUDNN_ATTR_TENSOR_STRIDES);
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size() && i < strides.size(); i++) last += (sizes[i] - 1) * strides[i];
  const auto type = integer(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE);
  return (last + 1) * (type == CUDNN_DATA_DOUBLE ? 8 : type == CUDNN_DATA_HALF || type == CUDNN_DATA_BFLOAT16 ? 2 : 4);
}

// The convolution that a graph of operations is.
struct Convolution {
  const char* name = "another graph";
  Shared from, weights, to;
};
Convolution convolution(const Shared& graph) {
  const auto operations = descriptors(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
  for (const auto& o : operations) {
    const auto make = [&](const char* name, int from, int weights, int to) {
      return Convolution{name, descriptor(o, from), descriptor(o, weights), descriptor(o, to)};
    };
    switch (o->type) {
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return make(operations.size() > 1 ? "convolution with ReLU" : "convolution",
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return make("convolution's gradient", CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX);
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return make("convolution's gradient of weights", CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY);
    }
  }
  return {};
}

bool is_fused(const Shared& graph) { return std::strcmp(convolution(graph).name, "convolution with ReLU") == 0; }

bool is_bf16(const Shared& tensor) {
  return tensor != nullptr && integer(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16;
}

void set(const Shared& c, int attribute, int type, const std::vector<int64_t>& values) {
  auto& v = c->values[attribute];
  v.count = static_cast<int64_t>(values.size());
  for (const auto value : values) v.bytes.append(reinterpret_cast<const char*>(&value), size_of(type));
}
void set(const Shared& c, int attribute, const Shared& descriptor) { c->values[attribute] = {1, "", {descriptor}}; }

// Engines, the best first: 0 wants workspace and has tensor cores; 1 wants less, and sums in no
// fixed order; 2 has neither.
constexpr int kEngines = 3;

std::vector<Shared> engines(const Shared& heuristics) {
  const auto graph = descriptor(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  if (is_fused(graph) && card().fused != 1) return {};
  // bfloat16 is known from compute capability 8.0 on.
  if (is_bf16(convolution(graph).from) && card().capability < 80) return {};
  const bool fallback = integer(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK;
  std::vector<Shared> found;
  for (int i = fallback ? kEngines - 1 : 0; i < kEngines; i++) {
    const auto engine = std::make_shared<Content>(Content{CUDNN_BACKEND_ENGINE_DESCRIPTOR, true, {}});
    set(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, {i});
    set(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    std::vector<int64_t> notes;
    if (i < 2) notes.push_back(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    if (i == 1) notes.push_back(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    set(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, notes);
    const auto configuration = std::make_shared<Content>(Content{CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, true, {}});
    set(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    found.push_back(configuration);
  }
  return found;
}

// The engine of a plan.
Shared engine(const Shared& plan) {
  return descriptor(descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), CUDNN_ATTR_ENGINECFG_ENGINE);
}

int64_t workspace(const Shared& plan) {
  const auto e = engine(plan);
  const auto c = convolution(descriptor(e, CUDNN_ATTR_ENGINE_OPERATION_GRAPH));
  switch (integer(e, CUDNN_ATTR_ENGINE_GLOBAL_INDEX)) {
    case 0: return static_cast<int64_t>(bytes_of(c.from) + bytes_of(c.to)) * card().workspace / 100;
    case 1: return static_cast<int64_t>(bytes_of(c.weights)) * 2;
    default: return 0;
  }
}

const char* type_name(const Shared& tensor) {
  if (tensor == nullptr) return "";
  switch (integer(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE)) {
    case CUDNN_DATA_FLOAT: return " float32";
    case CUDNN_DATA_DOUBLE: return " float64";
    case CUDNN_DATA_HALF: return " float16";
    case CUDNN_DATA_BFLOAT16: return " bf16";
    default: return " of another type";
  }
}

}  // namespace
}  // namespace pretend

using namespace pretend;

extern "C" {

size_t cudnnGetVersion() { return 92600; }
size_t cudnnGetCudartVersion() { return CUDART_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_INTERNAL_ERROR: return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
      return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
    case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    case CUDNN_STATUS_EXECUTION_FAILED_CUDART: return "CUDNN_STATUS_EXECUTION_FAILED_CUDART";
  }
  return "CUDNN_UNKNOWN_STATUS";
}
void cudnnGetLastErrorString(char* text, size_t length) {
  if (length > 0) std::snprintf(text, length, "the fault that was ordered");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* out) {
  Lock lock(everything);
  ++count(__func__).direct;
  if (lost() != cudaSuccess) return CUDNN_STATUS_NOT_INITIALIZED;
  if (int code; fault("cudnncreate", &code)) return static_cast<cudnnStatus_t>(code);
  use_device();
  if (!take(device(), kDnnBytes, __func__)) return CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  *out = reinterpret_cast<cudnnHandle_t>(new Handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t h) {
  Lock lock(everything);
  auto& handle = *reinterpret_cast<Handle*>(h);
  if (!usable(handle, __func__)) return CUDNN_STATUS_BAD_PARAM;
  handle.destroyed = true;
  give_back(handle.device, kDnnBytes);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream) {
  reinterpret_cast<Handle*>(h)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t h, cudaStream_t* stream) {
  *stream = reinterpret_cast<Handle*>(h)->stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* out) {
  *out = new Descriptor{std::make_shared<Content>(Content{type, false, {}})};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  delete static_cast<Descriptor*>(d);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
  Lock lock(everything);
  const auto& c = content(d);
  if (c->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && card().fused < 0 &&
      is_fused(descriptor(c, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)))
    return CUDNN_STATUS_NOT_SUPPORTED;
  if (c->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
    if (int code; fault("plan", &code)) return static_cast<cudnnStatus_t>(code);
  c->finished = true;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t attribute,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  const auto& c = content(d);
  if (c->finished) return CUDNN_STATUS_NOT_INITIALIZED;
  Value v{count, "", {}};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    for (int64_t i = 0; i < count; i++) v.descriptors.push_back(content(static_cast<void* const*>(values)[i]));
  else
    v.bytes.assign(static_cast<const char*>(values), count * size_of(type));
  c->values[attribute] = std::move(v);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t attribute,
                                       cudnnBackendAttributeType_t type, int64_t wanted, int64_t* found, void* values) {
  Lock lock(everything);
  const auto& c = content(d);
  Value v;
  if (c->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && attribute == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    v.descriptors = engines(c);
    v.count = static_cast<int64_t>(v.descriptors.size());
  } else if (c->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR &&
             attribute == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    const auto bytes = workspace(c);
    v = {1, std::string(reinterpret_cast<const char*>(&bytes), sizeof bytes), {}};
  } else if (const auto kept = c->values.find(attribute); kept != c->values.end()) {
    v = kept->second;
  }
  const auto n = std::min(wanted, v.count);
  if (values == nullptr) {
    if (found != nullptr) *found = v.count;
    return CUDNN_STATUS_SUCCESS;
  }
  if (found != nullptr) *found = n;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    for (int64_t i = 0; i < n; i++) content(static_cast<void**>(values)[i]) = v.descriptors[i];
  else
    std::memcpy(values, v.bytes.data(), std::min<size_t>(n * size_of(type), v.bytes.size()));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  Lock lock(everything);
  if (lost() != cudaSuccess) return CUDNN_STATUS_EXECUTION_FAILED;
  if (int code; fault("cudnn", &code)) return static_cast<cudnnStatus_t>(code);
  auto& handle = *reinterpret_cast<Handle*>(h);
  if (!usable(handle, __func__)) return CUDNN_STATUS_NOT_INITIALIZED;
  const auto e = engine(content(plan));
  const auto graph = descriptor(e, CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
  const auto c = convolution(graph);
  std::map<int64_t, size_t> sizes;  // of the tensors that are in memory, by their names
  for (const auto& o : descriptors(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS))
    for (const auto& [_, value] : o->values)
      for (const auto& t : value.descriptors)
        if (t->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR && integer(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL) == 0)
          sizes[integer(t, CUDNN_ATTR_TENSOR_UNIQUE_ID)] = bytes_of(t);
  Work work{std::string("cudnn ") + c.name + type_name(c.from) + ", engine " +
                std::to_string(integer(e, CUDNN_ATTR_ENGINE_GLOBAL_INDEX)),
            {},
            {}};
  const auto names = integers(content(pack), CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
             pointers = integers(content(pack), CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  for (size_t i = 0; i < names.size() && i < pointers.size(); i++) {
    if (sizes.count(names[i]) == 0)
      violation("cudnnBackendExecute: the tensor %ld is not of the graph", names[i]);
    else
      work.uses.push_back({reinterpret_cast<void*>(pointers[i]), sizes[names[i]]});
  }
  if (const auto bytes = workspace(content(plan)); bytes > 0)
    work.uses.push_back({reinterpret_cast<void*>(integer(content(pack), CUDNN_ATTR_VARIANT_PACK_WORKSPACE)),
                         static_cast<size_t>(bytes)});
  return send(handle.stream, std::move(work)) == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
