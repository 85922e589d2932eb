// TorchScript modules: writing one, loading one, running one.
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/profiling_graph_executor_impl.h>
#include <torch/csrc/jit/serialization/import.h>

#include <sstream>
#include <vector>

#include "guard.h"
#include "precision.h"

using nst::give;
using nst::guard;
using nst::tensor;
using torch::jit::Module;

namespace {

Module& module(nst_module m) { return nst::object<Module>(m, "module"); }

}  // namespace

const char* nst_module_new(const char* name, nst_module* out) {
  return guard([&] { *out = new Module(std::string("__torch__.") + name); });
}

// The executor's profiling and re-optimising runs make no difference to a
// chain of convolutions (measured) and would make the first
// iterations differ from the rest, so the graph is run as it is written.
const char* nst_module_load(const char* path, const char* device, nst_module* out) {
  return guard([&] {
    torch::jit::getProfilingMode() = false;
    torch::jit::getExecutorMode() = false;
    torch::jit::setGraphExecutorOptimize(false);
    auto loaded = torch::jit::load(path, c10::Device(device), /*load_debug_files=*/false);
    loaded.eval();
    for (auto p : loaded.parameters()) {
      p.requires_grad_(false);
      // As convolutions on channels-last maps want their weights.
      if (p.dim() == 4) p.set_data(p.contiguous(at::MemoryFormat::ChannelsLast));
    }
    *out = new Module(std::move(loaded));
  });
}

void nst_module_free(nst_module m) { delete static_cast<Module*>(m); }

const char* nst_module_add_parameter(nst_module m, const char* name, nst_tensor value) {
  return guard([&] {
    auto& t = tensor(value);
    t.requires_grad_(false);
    module(m).register_parameter(name, t, /*is_buffer=*/false);
  });
}

const char* nst_module_add_buffer(nst_module m, const char* name, nst_tensor value) {
  return guard([&] { module(m).register_buffer(name, tensor(value)); });
}

const char* nst_module_add_string(nst_module m, const char* name, const char* value) {
  return guard([&] {
    module(m).register_attribute(name, c10::StringType::get(), std::string(value));
  });
}

const char* nst_module_define(nst_module m, const char* source) {
  return guard([&] { module(m).define(source); });
}

const char* nst_module_save(nst_module m, const char* path) {
  return guard([&] { module(m).save(path); });
}

// Writes NULL where the module has no such method.
const char* nst_module_schema(nst_module m, const char* method, char** schema) {
  return guard([&] {
    auto found = module(m).find_method(method);
    if (!found) {
      *schema = nullptr;
      return;
    }
    std::ostringstream text;
    text << found->function().getSchema();
    *schema = nst::copy(text.str());
  });
}

// Writes NULL where the module has no such attribute or it is no string.
const char* nst_module_string(nst_module m, const char* name, char** value) {
  return guard([&] {
    *value = nullptr;
    if (!module(m).hasattr(name)) return;
    auto attribute = module(m).attr(name);
    if (attribute.isString()) *value = nst::copy(attribute.toStringRef());
  });
}

const char* nst_module_set_string(nst_module m, const char* name, const char* value) {
  return guard([&] { module(m).setattr(name, std::string(value)); });
}

const char* nst_module_cast(nst_module m, int32_t dtype) {
  return guard([&] { module(m).to(static_cast<at::ScalarType>(dtype)); });
}

const char* nst_module_parameters(nst_module m, char** names) {
  return guard([&] {
    std::string joined;
    for (const auto& p : module(m).named_parameters()) joined += p.name + "\n";
    for (const auto& b : module(m).named_buffers()) joined += b.name + "\n";
    *names = nst::copy(joined);
  });
}

const char* nst_module_parameter(nst_module m, const char* name, nst_tensor* out) {
  return guard([&] {
    for (const auto& p : module(m).named_parameters())
      if (p.name == name) return void(*out = give(p.value));
    for (const auto& b : module(m).named_buffers())
      if (b.name == name) return void(*out = give(b.value));
    TORCH_CHECK(false, "the module has no parameter or buffer ", name);
  });
}

const char* nst_module_forward_pair(nst_module m, nst_tensor a, nst_tensor b, nst_tensor* out) {
  return guard([&] {
    c10::NoGradGuard off;
    const nst::Math math(tensor(a));
    const torch::jit::GraphOptimizerEnabledGuard plain(false);
    auto result = module(m).forward({tensor(a), tensor(b)});
    if (result.isTuple() && !result.toTupleRef().elements().empty()) result = result.toTupleRef().elements().back();
    if (result.isTensorList() && !result.toTensorList().empty()) result = result.toTensorVector().back();
    TORCH_CHECK(result.isTensor(), "forward returned ", result.tagKind(), ", neither a tensor nor several");
    *out = give(result.toTensor());
  });
}

const char* nst_module_forward(nst_module m, nst_tensor image, const char* names, int64_t count,
                               nst_tensor* out) {
  return guard([&] {
    c10::List<std::string> layers;
    std::istringstream lines(names);
    for (std::string line; std::getline(lines, line);) layers.push_back(line);
    const nst::Math math(tensor(image));
    // The executor's fuser refuses devices that it does not know, sooner or later, by the
    // values that it has seen; and a convolution gains nothing of it.
    const torch::jit::GraphOptimizerEnabledGuard plain(false);
    auto result = module(m).forward({tensor(image), layers});
    TORCH_CHECK(result.isTensorList(), "forward returned ", result.tagKind(), ", not a list of tensors");
    auto features = result.toTensorVector();
    TORCH_CHECK(static_cast<int64_t>(features.size()) == count, "forward returned ",
                features.size(), " tensors for ", count, " layers");
    for (int64_t i = 0; i < count; i++) out[i] = give(std::move(features[i]));
  });
}
