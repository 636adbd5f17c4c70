#include "tools/text_table.h"

#include <algorithm>
#include <numeric>

namespace switchyard::tools {

void TextTable::print(std::ostream& out) const {
  static constexpr std::size_t kGap = 2;
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const std::size_t total =
      std::accumulate(widths.begin(), widths.end(), kGap * (widths.size() - 1));
  const auto rule = [&] { out << std::string(total, '-') << '\n'; };
  for (const auto& row : rows_) {
    if (row.empty()) {
      rule();
      continue;
    }
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      if (i > 0) line.append(kGap, ' ');
      line += i == 0 ? row[i] + padding : padding + row[i];
    }
    out << line << '\n';
    if (&row == &rows_.front()) rule();
  }
}

}  // namespace switchyard::tools
