// What CUDA gives to kernels, on one processor thread: one block after the other, each of its threads a fiber.
//
// A fiber runs until it waits at a barrier of its block or warp, or ends; then the next one of the block goes on. Threads
// of a block are in order of their number, so sums by atomics have one order, unlike on a GPU.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  uint32_t x, y, z;
  dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
  uint32_t x, y;
};

namespace emulator {

constexpr uint32_t WARP = 32;
constexpr size_t STACK = 256 * 1024;

struct Barrier {
  uint32_t arrived = 0, generation = 0;
};

struct Fiber {
  ucontext_t context;
  jmp_buf state;
  std::unique_ptr<char[]> stack{new char[STACK]};
  bool begun = false, running = false;
  const Barrier* waits_at = nullptr;
  uint32_t generation = 0;  // of that barrier when it began to wait
  uint32_t collectives = 0;  // operations of its warp in which it has taken part
};

struct Slot {
  alignas(16) char bytes[64];
};

struct Warp {
  Barrier barrier;
  uint32_t live = 0;
  std::array<std::array<Slot, WARP>, 2> shown;  // by each lane to the others; in two halves, used by turns
  uint32_t combined = 0;                        // the last collective whose answer is there
  Slot answer;
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Warp> warps;
inline jmp_buf scheduler;
inline dim3 block_size, block_index, grid_size;
inline uint32_t current = 0, live = 0, counted = 0, count = 0;
inline Barrier block_barrier;
inline std::vector<char> shared_memory;
inline std::function<void()> body;

inline uint32_t threads() { return block_size.x * block_size.y * block_size.z; }
inline dim3 thread_index() {
  return {current % block_size.x, current / block_size.x % block_size.y, current / (block_size.x * block_size.y)};
}
inline Warp& warp() { return warps[current / WARP]; }
inline uint32_t lane() { return current % WARP; }

inline void others_go_on() {
  if (_setjmp(fibers[current]->state) == 0) _longjmp(scheduler, 1);
}

// All that have not ended are there: CUDA takes threads that have returned for arrived.
inline bool open_if_full(Barrier& barrier, uint32_t wanted) {
  if (barrier.arrived < wanted) return false;
  barrier.arrived = 0;
  barrier.generation++;
  return true;
}

inline void wait(Barrier& barrier, uint32_t wanted) {
  barrier.arrived++;
  if (open_if_full(barrier, wanted)) return;
  fibers[current]->waits_at = &barrier;
  fibers[current]->generation = barrier.generation;
  others_go_on();
}

inline bool can_run(const Fiber& fiber) {
  return fiber.running && !(fiber.waits_at && fiber.waits_at->generation == fiber.generation);
}

inline void block_sync() {
  if (block_barrier.arrived + 1 >= live) {
    counted = count;
    count = 0;
  }
  wait(block_barrier, live);
}
inline void warp_sync() { wait(warp().barrier, warp().live); }

// What `combine` makes of the values of all lanes of the warp; of a lane that has ended, of its last one.
template <class Answer, class T, class Combine>
Answer collective(const T& value, Combine combine) {
  static_assert(sizeof(T) <= sizeof(Slot) && sizeof(Answer) <= sizeof(Slot));
  const uint32_t turn = ++fibers[current]->collectives;
  auto& shown = warp().shown[turn % 2];
  std::memcpy(&shown[lane()], &value, sizeof(T));
  warp_sync();
  if (warp().combined != turn) {
    std::array<T, WARP> all;
    for (uint32_t lane = 0; lane < WARP; lane++) std::memcpy(&all[lane], &shown[lane], sizeof(T));
    const Answer answer = combine(all);
    std::memcpy(&warp().answer, &answer, sizeof(Answer));
    warp().combined = turn;
  }
  Answer answer;
  std::memcpy(&answer, &warp().answer, sizeof(Answer));
  return answer;
}

inline void live_forever() {
  for (;;) {
    body();
    fibers[current]->running = false;
    live--;
    warp().live--;
    if (live) open_if_full(block_barrier, live);
    if (warp().live) open_if_full(warp().barrier, warp().live);
    others_go_on();
  }
}

inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  fiber.waits_at = nullptr;
  if (fiber.begun) _longjmp(fiber.state, 1);
  fiber.begun = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, live_forever, 0);
  setcontext(&fiber.context);
}

// Let the lanes of a warp run until each of them has ended or waits for another warp; whether any of them could.
inline bool run_warp(uint32_t first, uint32_t end) {
  for (bool ever = false;; ever = true) {
    bool gone_on = false;
    for (current = first; current < end; current++) {
      if (!can_run(*fibers[current])) continue;
      gone_on = true;
      resume(*fibers[current]);
    }
    if (!gone_on) return ever;
  }
}

inline void run_block() {
  const uint32_t all = threads();
  live = all;
  count = 0;
  block_barrier = {};
  while (fibers.size() < all) fibers.push_back(std::make_unique<Fiber>());
  warps.assign((all + WARP - 1) / WARP, Warp());
  for (uint32_t thread = 0; thread < all; thread++) {
    fibers[thread]->running = true;
    fibers[thread]->collectives = 0;
    warps[thread / WARP].live++;
  }
  while (live) {
    bool gone_on = false;
    for (uint32_t first = 0; first < all; first += WARP) gone_on |= run_warp(first, std::min(first + WARP, all));
    TORCH_CHECK(gone_on, live, " threads of a block wait for each other for ever");
  }
}

// kernel<<<grid, block, bytes, stream>>>(...) is launch(grid, block, bytes, stream, [&] { kernel(...); }).
inline void launch(dim3 grid, dim3 block, size_t bytes, int, std::function<void()> kernel) {
  grid_size = grid;
  block_size = block;
  body = std::move(kernel);
  for (uint32_t z = 0; z < grid.z; z++)
    for (uint32_t y = 0; y < grid.y; y++)
      for (uint32_t x = 0; x < grid.x; x++) {
        block_index = {x, y, z};
        shared_memory.assign(bytes, char(0xff));  // NaN, as what a GPU leaves there may be anything
        run_block();
      }
}

// Fresh memory of a GPU holds anything; here what shows most.
inline at::Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor fresh = at::empty(sizes, options);
  if (fresh.is_floating_point()) return fresh.fill_(std::numeric_limits<float>::quiet_NaN());
  return fresh.fill_(fresh.scalar_type() == at::kLong ? INT64_MAX : fresh.scalar_type() == at::kInt ? INT32_MAX : 1);
}

// Conversions saturate on a GPU, and NaN becomes 0; on a processor they are undefined.
template <class To>
To converted(float x) {
  if (x != x) return 0;
  if (x >= float(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  if (x <= float(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  return To(x);
}

}  // namespace emulator

#define threadIdx emulator::thread_index()
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

inline void __syncthreads() { emulator::block_sync(); }
inline void __syncwarp() { emulator::warp_sync(); }
inline uint32_t __syncthreads_count(bool predicate) {
  emulator::count += predicate;
  emulator::block_sync();
  return emulator::counted;
}
inline float __expf(float x) { return exp2f(x * 1.4426950408889634f); }
inline float __logf(float x) { return log2f(x) * 0.6931471805599453f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }

#undef AT_DISPATCH_FLOATING_TYPES
#define AT_DISPATCH_FLOATING_TYPES(TYPE, NAME, ...)                      \
  [&] {                                                                  \
    TORCH_CHECK((TYPE) == at::kFloat, NAME, " is compiled for float32"); \
    using scalar_t = float;                                              \
    return __VA_ARGS__();                                                \
  }()

enum { cudaSuccess, cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class... A>
int cudaFuncSetAttribute(A&&...) {
  return cudaSuccess;
}

namespace gsplat {
using std::abs;
using std::ceil;
using std::floor;
using std::sqrt;
template <class A, class B>
auto min(A a, B b) {
  std::common_type_t<A, B> x = a, y = b;
  if constexpr (std::is_floating_point_v<decltype(x)>) return decltype(x)(std::fmin(x, y));
  else return x < y ? x : y;
}
template <class A, class B>
auto max(A a, B b) {
  std::common_type_t<A, B> x = a, y = b;
  if constexpr (std::is_floating_point_v<decltype(x)>) return decltype(x)(std::fmax(x, y));
  else return x > y ? x : y;
}
template <class T, class V>
void gpuAtomicAdd(T* place, V value) {
  *place += value;
}
}  // namespace gsplat
