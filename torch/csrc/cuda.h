// libnstcuda.so (csrc/cuda), as libnsttorch.so sees it.
#pragma once

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace nst {

// Its functions, once it is loaded; each has the shape of nsttorch.h's.
struct Cuda {
  const char* (*graph_begin)(int32_t index, void** out) = nullptr;
  const char* (*graph_end)(void* graph) = nullptr;
  const char* (*graph_replay)(void* graph) = nullptr;
  void (*graph_free)(void* graph) = nullptr;
  const char* (*why)(char** text) = nullptr;
  const char* (*card)(int32_t index, char** name) = nullptr;
  const char* (*bus)(int32_t index, char** bus) = nullptr;
  const char* (*capability)(int32_t index, int32_t* capability) = nullptr;
  const char* (*limit)(int32_t index, int64_t bytes) = nullptr;
  const char* (*lost)(int32_t any, char** why) = nullptr;
  std::string missing = "CUDA is not loaded";  // why there is none
};

Cuda& cuda();

// Throws what a function of that shape returned.
inline void check(const char* message) {
  if (message == nullptr) return;
  const std::string text = message;
  std::free(const_cast<char*>(message));
  TORCH_CHECK_WITH(OutOfMemoryError, text.rfind("out of memory", 0) != 0, text);
  TORCH_CHECK(false, text);
}

// Whether an exception is a shortage of memory, or that the device is lost.
inline bool is_of_device(const std::exception& e) {
  const std::string what = e.what();
  if (dynamic_cast<const c10::OutOfMemoryError*>(&e) != nullptr || what.find("out of memory") != std::string::npos ||
      what.find("ALLOC") != std::string::npos || what.find("_NOT_INITIALIZED") != std::string::npos)
    return true;
  char* why = nullptr;
  if (cuda().lost != nullptr) check(cuda().lost(0, &why));
  std::free(why);
  return why != nullptr;
}

}  // namespace nst
