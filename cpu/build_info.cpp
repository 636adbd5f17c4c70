#include "switchyard/build_info.h"

#include "cpu/backend_registry.h"
#include "cuda/devices.h"
#include "hwy/targets.h"
#include "nccl/versions.h"

namespace switchyard {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
         std::to_string(__clang_patchlevel__);
#elif defined(__GNUC__)
  return "GCC " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
         std::to_string(__GNUC_PATCHLEVEL__);
#else
  return "unknown";
#endif
}

/// Highway gives the better target the lower bit.
std::vector<std::string> cpu_targets() {
  std::vector<std::string> names;
  const auto targets = static_cast<uint64_t>(hwy::SupportedTargets() & HWY_TARGETS);
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t target = uint64_t{1} << bit;
    if ((targets & target) != 0) names.emplace_back(hwy::TargetName(static_cast<int64_t>(target)));
  }
  return names;
}

}  // namespace

BuildInfo build_info() {
  BuildInfo info;
  info.version = std::to_string(kVersionMajor) + "." + std::to_string(kVersionMinor) + "." +
                 std::to_string(kVersionPatch);
  info.compiler = compiler();
#ifdef SWITCHYARD_OPENMP
  info.openmp = true;
#endif
  info.cuda = cuda::toolkit_version();
  info.nccl = nccl::nccl_version();
  info.mpi = nccl::mpi_version();
  for (const Backend backend : cpu::available_backends())
    info.backends.emplace_back(name_of(backend));
  info.cpu_targets = cpu_targets();
  info.gpus = cuda::list_gpus(info.gpu_note);
  return info;
}

}  // namespace switchyard
