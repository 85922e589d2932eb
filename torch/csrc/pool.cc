// Host memory for large tensors. An iteration takes and gives back the same
// gigabyte of feature maps as the one before; from the C library each would come
// as new pages, which the kernel clears and maps one by one: a quarter of the
// time. Here they come from one range of addresses, in which what lies side by
// side can be joined and cut anew, and which keeps its pages until
// nst_host_memory_trim.
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "guard.h"

namespace {

constexpr size_t kLeast = 256 << 10;    // smaller ones are the C library's
constexpr size_t kPage = 4096;
// Addresses, not memory: twice what the machine has, so that asking for more
// fails as it should.
size_t range() { return 2 * static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// What the tensors of all threads may have once this thread asks for more; 0: no limit.
// Runs beside each other have limits of their own.
thread_local size_t limit = 0;

class Pool final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes < kLeast ? nullptr : take((bytes + kPage - 1) / kPage * kPage);
    if (data == nullptr) return c10::GetDefaultCPUAllocator()->allocate(bytes);
    return {data, data, &Pool::release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Pool::release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // Gives back to the system what no tensor uses.
  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    forget();
    malloc_trim(0);
  }

  // What is in use, and was at most since begin_peak.
  std::pair<size_t, size_t> use() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {in_use_, peak_};
  }
  void begin_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = in_use_;
  }
  static Pool& get() {
    static auto* pool = new Pool;  // tensors may be freed as the process ends
    return *pool;
  }

 private:
  Pool() {
    const size_t size = range();
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return;  // addresses are limited: all is the C library's
    madvise(data, size, MADV_HUGEPAGE);
    insert(static_cast<char*>(data), size);
  }

  // Free parts are known by size, of equal ones the lowest first, and by where
  // they begin and end.
  void insert(char* start, size_t size) {
    free_.insert({size, start});
    begins_[start] = size;
    ends_[start + size] = size;
  }
  void erase(char* start, size_t size) {
    free_.erase({size, start});
    begins_.erase(start);
    ends_.erase(start + size);
  }

  // Takes the smallest free part that is large enough; the largest is what has
  // never been used.
  void* take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK_WITH(OutOfMemoryError, limit == 0 || in_use_ + size <= limit, "tensors may have ", limit,
                     " bytes of host memory; ", size, " more than ", in_use_, " are asked for");
    if (limit > 0 && in_use_ + dirty_ + size > limit) forget();
    auto best = free_.lower_bound({size, nullptr});
    if (best == free_.end()) return nullptr;  // libtorch's allocator says what that means
    const auto [whole, start] = *best;
    used_[start] = size;
    erase(start, whole);
    if (whole > size) insert(start + size, whole - size);
    in_use_ += size;  // not before it is so: the maps may find no memory
    peak_ = std::max(peak_, in_use_);
    dirty_ -= std::min(dirty_, size);
    return start;
  }

  static void release(void* data) {
    auto& pool = get();
    {
      std::lock_guard<std::mutex> lock(pool.mutex_);
      auto found = pool.used_.find(static_cast<char*>(data));
      if (found != pool.used_.end()) {
        auto start = found->first;
        auto size = found->second;
        pool.used_.erase(found);
        pool.in_use_ -= size;
        pool.dirty_ += size;
        if (auto after = pool.begins_.find(start + size); after != pool.begins_.end()) {
          const size_t more = after->second;
          pool.erase(start + size, more);
          size += more;
        }
        if (auto before = pool.ends_.find(start); before != pool.ends_.end()) {
          const size_t more = before->second;
          pool.erase(start - more, more);
          start -= more;
          size += more;
        }
        pool.insert(start, size);
        return;
      }
    }
    c10::GetDefaultCPUAllocator()->raw_deleter()(data);
  }

  void forget() {
    for (const auto& [size, start] : free_) madvise(start, size, MADV_DONTNEED);
    dirty_ = 0;
  }

  std::mutex mutex_;
  size_t in_use_ = 0, peak_ = 0;
  size_t dirty_ = 0;  // of what is free, about what the system has given pages for
  std::set<std::pair<size_t, char*>> free_;
  std::unordered_map<char*, size_t> begins_, ends_, used_;
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

const char* nst_host_memory(int64_t* in_use, int64_t* peak) {
  return nst::guard([&] {
    const auto [now, most] = Pool::get().use();
    *in_use = static_cast<int64_t>(now);
    *peak = static_cast<int64_t>(most);
  });
}

const char* nst_host_memory_reset_peak(void) {
  return nst::guard([] { Pool::get().begin_peak(); });
}

const char* nst_host_memory_limit(int64_t bytes) {
  return nst::guard([&] { limit = static_cast<size_t>(bytes); });
}
