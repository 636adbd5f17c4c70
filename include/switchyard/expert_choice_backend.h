// What a backend implements to let experts choose. ExpertChoiceRouter checks every argument first,
// so backends trust theirs.
#pragma once

#include "switchyard/expert_choice.h"

namespace switchyard {

class ExpertChoiceRouter::Implementation {
 public:
  explicit Implementation(const ExpertChoiceConfig& expert_choice_config, Backend router_backend)
      : config(expert_choice_config), backend(router_backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
                     std::span<std::byte> workspace, StreamView stream) const = 0;

  const ExpertChoiceConfig config;
  const Backend backend;
};

}  // namespace switchyard
