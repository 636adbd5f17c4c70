// How long an exchange takes: a model of links, its parameters fitted from measured all-to-alls.
#pragma once

#include <cstdint>
#include <span>

#include "switchyard/traffic.h"

namespace switchyard {

/// Hockney's model of a link: a message of n bytes takes latency + n / bandwidth. (The
/// communication challenge for MPP, Parallel Computing 20, 1994.)
struct LinkCost {
  double latency_us = 0.0;      ///< of one message
  double bandwidth_gbps = 1.0;  ///< 1e9 bytes a second

  bool operator==(const LinkCost&) const = default;
};

/// Ranks of a node reach each other by one kind of link and ranks of other nodes by another, both
/// at once. A rank sends to one peer after another and receives meanwhile.
struct ExchangeCostModel {
  int32_t ranks_per_node = 8;
  LinkCost node{};
  LinkCost network{};
  /// The bandwidth of a node is all its ranks' together, as that of a memory, and rows that stay on
  /// their rank take their share of it. Else every rank has that bandwidth, in each direction.
  bool shares_node_bandwidth = false;
  /// With a memory's bandwidth: how often a row's bytes are read or written. An all-to-all, to
  /// which links are fitted, reads each once and writes it once. A dispatch that writes rows where
  /// they belong reads a token once for all its top_k rows, and a combine that reads them where
  /// they lie writes one: 1 + 1 / top_k.
  double row_passes = 2.0;
};

/// How the rows of an exchange get from rank to rank within a node; see ExpertExchange.
enum class RowWay {
  kLent,      ///< written and read where they lie on the other rank
  kStaged,    ///< through memory that the ranks share
  kMessages,  ///< of the transport's
};

/// ExchangeCostModel::row_passes of an exchange.
struct ExchangePasses {
  double dispatch = 2.0;
  double combine = 2.0;
};

/// @throws InvalidArgument  for fewer than 1 rank or choice a token.
ExchangePasses exchange_passes(RowWay way, int32_t num_ranks, int32_t top_k);

/// @throws InvalidArgument  for a bandwidth or row_passes not above 0, a negative latency, or fewer
///                          than 1 rank a node.
void validate(const ExchangeCostModel& model);

/// Time until the busiest rank is done. Row i of the traffic is rank i, of node i / ranks_per_node.
/// @throws InvalidArgument  for a refused model or a negative row size.
double predict_seconds(const ExchangeCostModel& model, const TrafficMatrix& traffic,
                       int64_t row_bytes);

/// A measured all-to-all in which each rank sends as much to every rank, itself among them.
struct ExchangeTiming {
  int32_t num_ranks = 0;
  int64_t bytes_per_rank = 0;  ///< that a rank sends in all
  double seconds = 0.0;
};

/// The link that explains the timings with the smallest relative error, by least squares.
/// @param shares_bandwidth  as ExchangeCostModel::shares_node_bandwidth.
/// @throws InvalidArgument  for fewer than two different sizes, a size or time that is not above 0,
///                          or a rank alone, unless bandwidth is shared: then its memory has one.
LinkCost fit_link(std::span<const ExchangeTiming> timings, bool shares_bandwidth);

/// The link as an exchange sees it in which a rank sends `bytes_per_rank`: caches make it another
/// one for other sizes. Fitted to the timings of one to four times as much, for all-to-alls that
/// are timed over and over find in caches what an exchange among other work does not; or to the two
/// sizes nearest to that.
/// @throws InvalidArgument  as fit_link().
LinkCost fit_link_near(int64_t bytes_per_rank, std::span<const ExchangeTiming> timings,
                       bool shares_bandwidth);

/// Measured all-to-alls; empty where there are none.
struct MeasuredLinks {
  std::span<const ExchangeTiming> node;     ///< between ranks of a node
  std::span<const ExchangeTiming> network;  ///< between ranks of as many nodes
};

/// Sets the links of `model` that have been measured to those that an exchange sees: by
/// fit_link_near() for all-to-alls that give the busiest rank, or a memory's node, as many bytes.
/// A link that carries nothing is fitted to the smallest.
/// @throws InvalidArgument  as fit_link() and predict_seconds().
void fit_links(ExchangeCostModel& model, const TrafficMatrix& traffic, int64_t row_bytes,
               const MeasuredLinks& measured);

}  // namespace switchyard
