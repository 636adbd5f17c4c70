#include "switchyard/exchange_cost.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "nccl/refuse.h"

namespace switchyard {

using nccl::refuse;

namespace {

// ExchangeCostModel::row_passes of the all-to-alls that links are fitted to.
constexpr double kLinkPasses = 2.0;

/// What one rank has to do over one kind of link.
struct LinkLoad {
  int64_t messages_sent = 0;
  int64_t messages_received = 0;
  int64_t rows_sent = 0;
  int64_t rows_received = 0;

  [[nodiscard]] double latency(const LinkCost& link) const {
    return link.latency_us * 1e-6 * static_cast<double>(std::max(messages_sent, messages_received));
  }
  [[nodiscard]] double transfer(const LinkCost& link, int64_t row_bytes) const {
    return static_cast<double>(std::max(rows_sent, rows_received) * row_bytes) /
           (link.bandwidth_gbps * 1e9);
  }
};

struct Loads {
  std::vector<LinkLoad> node;      // [num_ranks]
  std::vector<LinkLoad> network;   // [num_ranks]
  std::vector<int64_t> node_rows;  // [num_nodes] that stay in the node, on their rank even
};

Loads loads_of(const TrafficMatrix& traffic, int32_t ranks_per_node) {
  const int32_t num_ranks = traffic.num_ranks();
  const auto count = static_cast<std::size_t>(num_ranks);
  Loads loads{std::vector<LinkLoad>(count), std::vector<LinkLoad>(count),
              std::vector<int64_t>((count + static_cast<std::size_t>(ranks_per_node) - 1) /
                                   static_cast<std::size_t>(ranks_per_node))};
  for (int32_t source = 0; source < num_ranks; ++source) {
    const int32_t node = source / ranks_per_node;
    for (int32_t destination = 0; destination < num_ranks; ++destination) {
      const int64_t rows = traffic.at(source, destination);
      if (rows == 0) continue;
      const bool stays = destination / ranks_per_node == node;
      if (stays) loads.node_rows[static_cast<std::size_t>(node)] += rows;
      if (source == destination) continue;
      std::vector<LinkLoad>& links = stays ? loads.node : loads.network;
      LinkLoad& from = links[static_cast<std::size_t>(source)];
      LinkLoad& to = links[static_cast<std::size_t>(destination)];
      ++from.messages_sent;
      from.rows_sent += rows;
      ++to.messages_received;
      to.rows_received += rows;
    }
  }
  return loads;
}

int64_t largest(const std::vector<int64_t>& rows) {
  return rows.empty() ? 0 : *std::max_element(rows.begin(), rows.end());
}

/// The most rows that a rank sends or receives.
int64_t busiest(const std::vector<LinkLoad>& loads) {
  int64_t most = 0;
  for (const LinkLoad& load : loads) most = std::max({most, load.rows_sent, load.rows_received});
  return most;
}

void check_row_bytes(int64_t row_bytes) {
  if (row_bytes < 0) refuse("row_bytes is ", row_bytes, ", must be 0 or more");
}

void check_link(const char* name, const LinkCost& link) {
  if (!std::isfinite(link.latency_us) || link.latency_us < 0.0) {
    refuse(name, ".latency_us is ", link.latency_us, ", must be finite and 0 or more");
  }
  if (!std::isfinite(link.bandwidth_gbps) || link.bandwidth_gbps <= 0.0) {
    refuse(name, ".bandwidth_gbps is ", link.bandwidth_gbps, ", must be finite and above 0");
  }
}

}  // namespace

ExchangePasses exchange_passes(RowWay way, int32_t num_ranks, int32_t top_k) {
  if (num_ranks < 1) refuse("num_ranks is ", num_ranks, ", must be 1 or more");
  if (top_k < 1) refuse("top_k is ", top_k, ", must be 1 or more");
  const double a_token = 1.0 / top_k;  // of a row's bytes
  switch (way) {
    case RowWay::kLent:
      return {1.0 + a_token, 1.0 + a_token};
    case RowWay::kStaged: {
      // What travels is written and read once more: tokens once, answers each.
      const double travelling = 1.0 - 1.0 / num_ranks;
      return {1.0 + a_token + 2.0 * travelling * a_token, 1.0 + a_token + 2.0 * travelling};
    }
    case RowWay::kMessages:
      // Answers arrive in memory from which they are added up.
      return {2.0, 3.0 + a_token};
  }
  refuse("way is ", static_cast<int>(way), ", must be one of the three");
}

void validate(const ExchangeCostModel& model) {
  if (model.ranks_per_node < 1) {
    refuse("ranks_per_node is ", model.ranks_per_node, ", must be 1 or more");
  }
  check_link("node", model.node);
  check_link("network", model.network);
  if (!std::isfinite(model.row_passes) || model.row_passes <= 0.0) {
    refuse("row_passes is ", model.row_passes, ", must be finite and above 0");
  }
}

double predict_seconds(const ExchangeCostModel& model, const TrafficMatrix& traffic,
                       int64_t row_bytes) {
  validate(model);
  check_row_bytes(row_bytes);
  const Loads loads = loads_of(traffic, model.ranks_per_node);
  double slowest = 0.0;
  for (std::size_t rank = 0; rank < loads.node.size(); ++rank) {
    double inside = loads.node[rank].latency(model.node);
    if (model.shares_node_bandwidth) {
      const int64_t rows = loads.node_rows[rank / static_cast<std::size_t>(model.ranks_per_node)];
      inside += static_cast<double>(rows * row_bytes) * (model.row_passes / kLinkPasses) /
                (model.node.bandwidth_gbps * 1e9);
    } else {
      inside += loads.node[rank].transfer(model.node, row_bytes);
    }
    const double outside = loads.network[rank].latency(model.network) +
                           loads.network[rank].transfer(model.network, row_bytes);
    slowest = std::max({slowest, inside, outside});
  }
  return slowest;
}

LinkCost fit_link(std::span<const ExchangeTiming> timings, bool shares_bandwidth) {
  // Of seconds = latency * messages + bytes / bandwidth, each equation divided by its seconds.
  double mm = 0.0;
  double mb = 0.0;
  double bb = 0.0;
  double m = 0.0;
  double b = 0.0;
  for (std::size_t i = 0; i < timings.size(); ++i) {
    const ExchangeTiming& timing = timings[i];
    const int32_t least = shares_bandwidth ? 1 : 2;
    if (timing.num_ranks < least) {
      refuse("timings[", i, "].num_ranks is ", timing.num_ranks, ", must be ", least, " or more");
    }
    if (timing.bytes_per_rank < 1 || !(timing.seconds > 0.0)) {
      refuse("timings[", i, "] is ", timing.bytes_per_rank, " bytes in ", timing.seconds,
             " s, both must be above 0");
    }
    const double peers = timing.num_ranks - 1;
    const double moved = static_cast<double>(timing.bytes_per_rank) *
                         (shares_bandwidth ? timing.num_ranks : peers / timing.num_ranks);
    const double messages = peers / timing.seconds;
    const double bytes = moved / timing.seconds;
    mm += messages * messages;
    mb += messages * bytes;
    bb += bytes * bytes;
    m += messages;
    b += bytes;
  }
  if (mm == 0.0 && bb > 0.0) return {0.0, 1e-9 * bb / b};  // no messages: the line through 0
  const double determinant = mm * bb - mb * mb;
  if (timings.size() < 2 || determinant <= 1e-9 * mm * bb) {
    refuse("timings hold ", timings.size(), " measurements, must hold two of different sizes");
  }
  double latency = (m * bb - b * mb) / determinant;
  double seconds_per_byte = (b * mm - m * mb) / determinant;
  if (latency < 0.0) {  // the line through 0 then
    latency = 0.0;
    seconds_per_byte = b / bb;
  } else if (seconds_per_byte <= 0.0) {
    refuse("timings do not grow with the size");
  }
  return {latency * 1e6, 1e-9 / seconds_per_byte};
}

LinkCost fit_link_near(int64_t bytes_per_rank, std::span<const ExchangeTiming> timings,
                       bool shares_bandwidth) {
  if (bytes_per_rank < 1) refuse("bytes_per_rank is ", bytes_per_rank, ", must be 1 or more");
  // In doublings, from the middle of what is to be taken.
  const double middle = 2.0 * static_cast<double>(bytes_per_rank);
  const auto distance = [&](int64_t bytes) {
    return bytes < 1 ? std::numeric_limits<double>::infinity()
                     : std::abs(std::log2(static_cast<double>(bytes) / middle));
  };
  std::vector<int64_t> sizes;
  for (const ExchangeTiming& timing : timings) sizes.push_back(timing.bytes_per_rank);
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  std::stable_sort(sizes.begin(), sizes.end(),
                   [&](int64_t a, int64_t b) { return distance(a) < distance(b); });
  const double reach = sizes.size() < 2 ? 0.0 : std::max(1.0, distance(sizes[1]));
  std::vector<ExchangeTiming> near;
  std::copy_if(timings.begin(), timings.end(), std::back_inserter(near),
               [&](const ExchangeTiming& timing) {
                 return sizes.size() < 2 || distance(timing.bytes_per_rank) <= reach;
               });
  return fit_link(near, shares_bandwidth);
}

void fit_links(ExchangeCostModel& model, const TrafficMatrix& traffic, int64_t row_bytes,
               const MeasuredLinks& measured) {
  validate(model);
  check_row_bytes(row_bytes);
  if (measured.node.empty() && measured.network.empty()) return;
  const Loads loads = loads_of(traffic, model.ranks_per_node);
  // What every rank sends in an all-to-all with as much for one of them, or for all together.
  const auto bytes_of = [&](std::span<const ExchangeTiming> timings, int64_t rows, bool is_shared) {
    const double ranks = std::max(1, timings.front().num_ranks);
    const double bytes = static_cast<double>(rows * row_bytes);
    const double each = is_shared ? bytes / ranks : bytes * ranks / std::max(1.0, ranks - 1.0);
    return std::max<int64_t>(1, std::llround(each));
  };
  if (!measured.node.empty()) {
    const int64_t rows =
        model.shares_node_bandwidth ? largest(loads.node_rows) : busiest(loads.node);
    model.node = fit_link_near(bytes_of(measured.node, rows, model.shares_node_bandwidth),
                               measured.node, model.shares_node_bandwidth);
  }
  if (!measured.network.empty()) {
    model.network = fit_link_near(bytes_of(measured.network, busiest(loads.network), false),
                                  measured.network, false);
  }
}

}  // namespace switchyard
