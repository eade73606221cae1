// Radix sorts of pairs, as far as gsplat asks for them: by the lowest bits of the key, stable.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace cub {

template <class T>
struct DoubleBuffer {
  T* buffers[2];
  int selector = 0;
  DoubleBuffer(T* current, T* other) : buffers{current, other} {}
};

template <class K, class V>
void sort_segment(DoubleBuffer<K>& keys, DoubleBuffer<V>& values, int64_t begin, int64_t end, int last_bit) {
  std::vector<int64_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  const uint64_t mask = last_bit >= 64 ? ~uint64_t(0) : (uint64_t(1) << last_bit) - 1;
  const K* key = keys.buffers[0];
  std::stable_sort(order.begin(), order.end(), [=](int64_t a, int64_t b) {
    return (uint64_t(key[a]) & mask) < (uint64_t(key[b]) & mask);
  });
  for (int64_t i = begin; i < end; i++) {
    keys.buffers[1][i] = key[order[i - begin]];
    values.buffers[1][i] = values.buffers[0][order[i - begin]];
  }
}

// Each is called twice: without a place for its own memory it says how much it needs, which is none.
struct DeviceRadixSort {
  template <class K, class V>
  static void SortPairs(void* place, size_t& bytes, DoubleBuffer<K>& keys, DoubleBuffer<V>& values, int64_t count, int,
                        int last_bit, int) {
    if (!place) {
      bytes = 1;
      return;
    }
    sort_segment(keys, values, 0, count, last_bit);
    keys.selector = values.selector = 1;
  }
};

struct DeviceSegmentedRadixSort {
  template <class K, class V, class O>
  static void SortPairs(void* place, size_t& bytes, DoubleBuffer<K>& keys, DoubleBuffer<V>& values, int64_t,
                        int64_t segments, const O* begins, const O* ends, int, int last_bit, int) {
    if (!place) {
      bytes = 1;
      return;
    }
    for (int64_t s = 0; s < segments; s++) sort_segment(keys, values, begins[s], ends[s], last_bit);
    keys.selector = values.selector = 1;
  }
};

}  // namespace cub
