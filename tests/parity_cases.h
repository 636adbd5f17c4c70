// The behaviours of the systems that this library re-creates, as numbers.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::test {

/// The case `id` of cases.json; empty where the file is not on this machine.
inline std::optional<nlohmann::json> find_parity_case(const std::string& id) {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/../shared/parity/cases.json");
  if (!file) return std::nullopt;
  static const nlohmann::json kDocument = nlohmann::json::parse(file);
  for (const nlohmann::json& candidate : kDocument.at("cases")) {
    if (candidate.at("id") == id) return candidate;
  }
  ADD_FAILURE() << "no parity case " << id;
  return std::nullopt;
}

/// A number as the file spells it: those that JSON has no form for are strings.
inline float parity_float(const nlohmann::json& value) {
  if (!value.is_string()) return static_cast<float>(value.get<double>());
  const std::string& text = value.get_ref<const std::string&>();
  if (text == "NaN") return std::numeric_limits<float>::quiet_NaN();
  if (text == "inf") return std::numeric_limits<float>::infinity();
  if (text == "-inf") return -std::numeric_limits<float>::infinity();
  return -0.0f;
}

inline std::vector<float> parity_floats(const nlohmann::json& values) {
  std::vector<float> out;
  for (const nlohmann::json& value : values) out.push_back(parity_float(value));
  return out;
}

/// The file's rule: absolute up to 1, relative above.
inline double parity_tolerance(const nlohmann::json& parity_case, double expected) {
  return parity_case.at("tolerance").get<double>() * std::max(1.0, std::abs(expected));
}

}  // namespace switchyard::test

/// Declares `name` as the parity case `id`, or skips the test.
// NOLINTBEGIN(bugprone-macro-parentheses): a declared name takes none
#define SWITCHYARD_PARITY_CASE(name, id)                                                \
  const auto name##_found = ::switchyard::test::find_parity_case(id);                   \
  if (!name##_found) GTEST_SKIP() << "../shared/parity/cases.json is not here: " << id; \
  const nlohmann::json& name = *name##_found
// NOLINTEND(bugprone-macro-parentheses)
