#pragma once
namespace at::cuda {
using CUDAStream = int;
inline CUDAStream getCurrentCUDAStream() { return 0; }
}  // namespace at::cuda
