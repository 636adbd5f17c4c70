// The machine's GPUs, for `switchyard info`.
#pragma once

#include <string>
#include <vector>

#include "switchyard/build_info.h"

namespace switchyard::cuda {

/// Toolkit version of this build, empty without CUDA.
std::string toolkit_version();

/// The GPUs of this machine; where there are none, `note` says why.
std::vector<GpuInfo> list_gpus(std::string& note);

}  // namespace switchyard::cuda
