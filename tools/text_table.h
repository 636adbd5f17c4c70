// A table on the terminal: columns as wide as their widest cell.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace switchyard::tools {

class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : rows_{std::move(header)} {}

  /// As many cells as the header; the first is left-aligned, the others right-aligned.
  void add_row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  /// A line between the rows before and after.
  void add_rule() { rows_.emplace_back(); }
  void print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;  // an empty one is a rule
};

}  // namespace switchyard::tools
