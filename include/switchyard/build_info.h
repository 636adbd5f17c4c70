// What this build and this machine offer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

inline constexpr int kVersionMajor = 0;
inline constexpr int kVersionMinor = 1;
inline constexpr int kVersionPatch = 0;

struct GpuInfo {
  int index = 0;
  std::string name;
  int compute_major = 0;
  int compute_minor = 0;
  int64_t memory_bytes = 0;
};

struct BuildInfo {
  std::string version;                   ///< "0.1.0"
  std::string compiler;                  ///< name and version
  bool openmp = false;                   ///< the CPU backend has its own threads
  std::string cuda;                      ///< toolkit version, empty without CUDA
  std::string nccl;                      ///< header version, empty without NCCL
  std::string mpi;                       ///< standard version, empty without MPI
  std::vector<std::string> backends;     ///< names accepted by this build and machine
  std::vector<std::string> cpu_targets;  ///< instruction sets compiled in and usable, best first
  std::vector<GpuInfo> gpus;
  std::string gpu_note;  ///< why `gpus` is empty, where it is
};

BuildInfo build_info();

}  // namespace switchyard
