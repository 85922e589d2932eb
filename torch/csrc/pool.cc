// Host memory for large tensors. An iteration takes and gives back the same
// gigabyte of feature maps as the one before; from the C library each would come
// as new pages, which the kernel clears and maps one by one: a fifth of the time.
// Here it is kept, cut and joined again, until nst_host_memory_trim.
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "guard.h"

namespace {

constexpr size_t kLeast = 256 << 10;  // smaller ones are the C library's
constexpr size_t kSegment = 2 << 20;  // what huge pages are made of

size_t round_up(size_t v, size_t to) { return (v + to - 1) / to * to; }

class Pool final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes < kLeast ? nullptr : take(round_up(bytes, 4096));
    if (data == nullptr) return c10::GetDefaultCPUAllocator()->allocate(bytes);
    return {data, data, &Pool::release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Pool::release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // Gives back to the system what no tensor uses.
  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = free_.begin(); it != free_.end();) {
      Block* b = it->second;
      const bool whole = b->before == nullptr && b->after == nullptr;
      it = whole ? free_.erase(it) : std::next(it);
      if (!whole) continue;
      munmap(b->data, b->size);
      delete b;
    }
  }

  static Pool& get() {
    static auto* pool = new Pool;  // tensors may be freed as the process ends
    return *pool;
  }

 private:
  // A part of a segment; its neighbours are the parts beside it.
  struct Block {
    char* data;
    size_t size;
    Block *before, *after;
    bool free;
  };

  void* take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = free_.lower_bound({size, nullptr});
    Block* b;
    if (best != free_.end()) {
      b = best->second;
      free_.erase(best);
    } else {
      const size_t whole = round_up(size, kSegment);
      void* data = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (data == MAP_FAILED) return nullptr;  // libtorch's allocator says what that means
      madvise(data, whole, MADV_HUGEPAGE);
      b = new Block{static_cast<char*>(data), whole, nullptr, nullptr, true};
    }
    if (b->size - size >= kLeast) {
      auto* rest = new Block{b->data + size, b->size - size, b, b->after, true};
      if (b->after != nullptr) b->after->before = rest;
      b->after = rest;
      b->size = size;
      free_.insert({rest->size, rest});
    }
    b->free = false;
    used_[b->data] = b;
    return b->data;
  }

  void give(Block* b) {
    b->free = true;
    auto join = [&](Block* first, Block* second) {  // keeps the first
      first->size += second->size;
      first->after = second->after;
      if (second->after != nullptr) second->after->before = first;
      delete second;
      return first;
    };
    if (b->after != nullptr && b->after->free) {
      free_.erase({b->after->size, b->after});
      b = join(b, b->after);
    }
    if (b->before != nullptr && b->before->free) {
      free_.erase({b->before->size, b->before});
      b = join(b->before, b);
    }
    free_.insert({b->size, b});
  }

  static void release(void* data) {
    auto& pool = get();
    {
      std::lock_guard<std::mutex> lock(pool.mutex_);
      auto found = pool.used_.find(data);
      if (found != pool.used_.end()) {
        Block* b = found->second;
        pool.used_.erase(found);
        pool.give(b);
        return;
      }
    }
    c10::GetDefaultCPUAllocator()->raw_deleter()(data);
  }

  std::mutex mutex_;
  std::set<std::pair<size_t, Block*>> free_;  // by size
  std::unordered_map<void*, Block*> used_;
};

// A higher priority than libtorch's own allocator.
const bool installed = [] {
  c10::SetCPUAllocator(&Pool::get(), 1);
  return true;
}();

}  // namespace

const char* nst_host_memory_trim(void) {
  return nst::guard([] { Pool::get().trim(); });
}
