// What every function of the C ABI stands on: the guard that turns exceptions
// into messages, and the handles' C++ types.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "nsttorch.h"

namespace nst {

// What a caller is told where there is no memory to copy a message into. It is not freed.
inline char kNoMemory[] = "out of memory: the host has none left";

// A copy that nst_message_free takes back; never NULL, which would be no error.
inline char* copy(const char* text) noexcept {
  char* out = strdup(text);
  return out != nullptr ? out : kNoMemory;
}
inline char* copy(const std::string& text) noexcept { return copy(text.c_str()); }

// Runs body; whatever it throws comes back as a message. "out of memory: " at
// its start is what package torch tells ErrOutOfMemory by.
template <class Body>
const char* guard(Body&& body) noexcept {
  try {
    try {
      std::forward<Body>(body)();
      return nullptr;
    } catch (const c10::OutOfMemoryError& e) {
      return copy(std::string("out of memory: ") + e.what_without_backtrace());
    } catch (const c10::Error& e) {
      return copy(e.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      return kNoMemory;
    } catch (const std::exception& e) {
      return copy(e.what());
    } catch (...) {
      return copy("an exception of a type unknown here");
    }
  } catch (...) {  // while a message was made
    return kNoMemory;
  }
}

// While there is one, libtorch's warnings of this thread are not printed: they are at length, and
// what matters of them is thrown too.
class Silence {
  struct : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  } silent;
  c10::WarningUtils::WarningHandlerGuard meanwhile{&silent};
};

// The object behind a handle.
template <class T>
T& object(void* handle, const char* what) {
  TORCH_CHECK(handle != nullptr, "the ", what, " is closed");
  return *static_cast<T*>(handle);
}

inline at::Tensor& tensor(nst_tensor t) { return object<at::Tensor>(t, "tensor"); }

// The sums of x [N,…] over all dimensions but the first, [N]: each as if it were
// alone (tensor.cc).
at::Tensor sums(const at::Tensor& x);

// The Euclidean norms of the same parts of x, [N] (tensor.cc).
at::Tensor norms(const at::Tensor& x);

inline nst_tensor give(at::Tensor t) { return new at::Tensor(std::move(t)); }

}  // namespace nst
