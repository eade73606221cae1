// Groups of threads, as far as gsplat's kernels ask for them.
#pragma once
#include "emulator.h"

namespace cooperative_groups {

template <class T>
struct plus {
  T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct greater {
  T operator()(T a, T b) const { return a > b ? a : b; }
};

struct grid_group {
  uint64_t thread_rank() const {
    const dim3 b = blockIdx, g = gridDim;
    return (uint64_t(b.z * g.y + b.y) * g.x + b.x) * emulator::threads() + emulator::current;
  }
};
inline grid_group this_grid() { return {}; }

struct thread_block {
  dim3 group_index() const { return blockIdx; }
  dim3 thread_index() const { return threadIdx; }
  uint32_t size() const { return emulator::threads(); }
  uint32_t thread_rank() const { return emulator::current; }
  void sync() const { emulator::block_sync(); }
};
inline thread_block this_thread_block() { return {}; }

template <uint32_t N>
struct thread_block_tile {
  static_assert(N == emulator::WARP);
  uint32_t thread_rank() const { return emulator::lane(); }
  bool any(bool predicate) const {
    return emulator::collective<bool>(predicate, [](const auto& all) {
      return std::any_of(all.begin(), all.end(), [](bool one) { return one; });
    });
  }
};
template <uint32_t N>
thread_block_tile<N> tiled_partition(thread_block) {
  return {};
}

// A partition by a label may hold one thread each: what its threads add up is added by atomics either way.
struct alone {
  uint32_t thread_rank() const { return 0; }
};
template <class T>
alone labeled_partition(thread_block_tile<emulator::WARP>, T) {
  return {};
}

template <class T, class Op>
T reduce(alone, T value, Op) {
  return value;
}
template <class T, class Op>
T reduce(thread_block_tile<emulator::WARP>, T value, Op op) {
  return emulator::collective<T>(value, [op](auto all) {
    for (uint32_t step = all.size() / 2; step; step /= 2)
      for (uint32_t lane = 0; lane < step; lane++) all[lane] = op(all[lane], all[lane + step]);
    return all[0];
  });
}

}  // namespace cooperative_groups
