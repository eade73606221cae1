#pragma once
#include <ATen/DeviceGuard.h>
namespace at::cuda {
struct OptionalCUDAGuard {
  template <class T>
  explicit OptionalCUDAGuard(T&&) {}
};
}  // namespace at::cuda
