// `switchyard info`: what this build and this machine offer.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "switchyard/build_info.h"
#include "switchyard/model_presets.h"
#include "tools/commands.h"
#include "tools/format.h"

namespace switchyard::tools {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const BuildInfo& info) {
  Json gpus = Json::array();
  for (const GpuInfo& gpu : info.gpus) {
    gpus.push_back({{"index", gpu.index},
                    {"name", gpu.name},
                    {"compute_capability",
                     std::to_string(gpu.compute_major) + "." + std::to_string(gpu.compute_minor)},
                    {"memory_bytes", gpu.memory_bytes}});
  }
  Json models = Json::array();
  for (const ModelPreset& preset : model_presets()) models.push_back(preset.name);
  return {{"version", info.version},    {"compiler", info.compiler},
          {"openmp", info.openmp},      {"cuda", info.cuda},
          {"nccl", info.nccl},          {"mpi", info.mpi},
          {"backends", info.backends},  {"cpu_targets", info.cpu_targets},
          {"gpus", std::move(gpus)},    {"gpu_note", info.gpu_note},
          {"models", std::move(models)}};
}

template <typename List>
std::string join(const List& list) {
  std::string text;
  for (const auto& item : list) text.append(text.empty() ? "" : ", ").append(item);
  return text.empty() ? "none" : text;
}

void print(const BuildInfo& info) {
  const auto line = [](const char* name, const std::string& value) {
    std::cout << name << std::string(13 - std::string_view(name).size(), ' ') << value << '\n';
  };
  const auto version = [](const std::string& text) { return text.empty() ? "not in build" : text; };
  line("switchyard", info.version);
  line("compiler", info.compiler);
  line("OpenMP", info.openmp ? "yes" : "no");
  line("CUDA", version(info.cuda));
  line("NCCL", version(info.nccl));
  line("MPI", version(info.mpi));
  line("backends", join(info.backends));
  line("CPU targets", join(info.cpu_targets));
  if (info.gpus.empty()) line("GPUs", "none (" + info.gpu_note + ")");
  for (const GpuInfo& gpu : info.gpus) {
    line(gpu.index == 0 ? "GPUs" : "",
         std::to_string(gpu.index) + ": " + gpu.name + ", compute " +
             std::to_string(gpu.compute_major) + "." + std::to_string(gpu.compute_minor) + ", " +
             format_fixed(static_cast<double>(gpu.memory_bytes) / (1 << 30), 1) + " GiB");
  }
  std::string models;
  std::size_t column = 0;
  for (const ModelPreset& preset : model_presets()) {
    if (column + preset.name.size() > 84) {
      models.append(",\n").append(13, ' ');
      column = 0;
    } else if (column > 0) {
      models.append(", ");
    }
    models.append(preset.name);
    column += preset.name.size() + 2;
  }
  line("models", models);
}

}  // namespace

void add_info_command(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("info", "Build, backends, CPU targets, GPUs and model presets");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([json] {
    const BuildInfo info = build_info();
    if (*json) {
      std::cout << to_json(info).dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    } else {
      print(info);
    }
  });
}

}  // namespace switchyard::tools
