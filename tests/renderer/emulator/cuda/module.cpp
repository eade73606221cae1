// gsplat's operators that `rasterization` calls, from its own sources, which are translated beside this file.
#include "emulator.h"

#include <torch/csrc/utils/pybind.h>

#include "Common.h"
#include "Ops.h"

#include "Projection.cpp"
#include "ProjectionEWA3DGSFused.cu"
#include "Intersect.cpp"
#include "IntersectTile.cu"
#include "Rasterization.cpp"
#include "RasterizeToPixels3DGSFwd.cu"
#include "RasterizeToPixels3DGSBwd.cu"
#include "SphericalHarmonics.cpp"
#include "SphericalHarmonicsCUDA.cu"
#include "Relocation.cpp"
#include "RelocationCUDA.cu"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  pybind11::enum_<gsplat::CameraModelType>(m, "CameraModelType")
      .value("PINHOLE", gsplat::CameraModelType::PINHOLE)
      .export_values();
#define OP(NAME) m.def(#NAME, &gsplat::NAME)
  OP(projection_ewa_3dgs_fused_fwd);
  OP(projection_ewa_3dgs_fused_bwd);
  OP(intersect_tile);
  OP(intersect_offset);
  OP(rasterize_to_pixels_3dgs_fwd);
  OP(rasterize_to_pixels_3dgs_bwd);
  OP(spherical_harmonics_fwd);
  OP(spherical_harmonics_bwd);
  OP(relocation);
}
