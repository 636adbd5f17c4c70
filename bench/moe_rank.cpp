#include "bench/moe_rank.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "bench/median.h"
#include "bench/perf_ranks.h"
#include "switchyard/errors.h"
#ifdef SWITCHYARD_MPI
#include "bench/raw_alltoallv.h"
#endif

namespace switchyard::bench {

DataType element_type(const std::string& name) {
  if (name == "bf16") return DataType::kBFloat16;
  if (name == "f16") return DataType::kFloat16;
  if (name == "f32") return DataType::kFloat32;
  throw InvalidArgument("--dtype is '" + name + "', must be bf16, f16 or f32");
}

MoeRank::MoeRank(Communicator& communicator, const MoeOptions& options, const MoeChoices& choices)
    : communicator_(communicator),
      options_(options),
      choices_(choices),
      dtype_(element_type(options.element)),
      row_bytes_(options.hidden * size_of(dtype_)),
      backend_(communicator.backend()),
      stream_(backend_),
      exchange_(
          {.placement = ExpertPlacement::contiguous(choices.num_experts(), communicator.size()),
           .top_k = choices.top_k(),
           .max_tokens = *std::max_element(options.tokens.begin(), options.tokens.end()),
           .block_rows = options.block_rows,
           .deduplicate = options.deduplicate},
          communicator, {.num_threads = 1}),
      plan_(exchange_.make_plan()),
      plan_workspace_(exchange_.plan_workspace_bytes(), backend_) {}

MoeResult MoeRank::measure(int64_t num_tokens) {
  prepare(num_tokens);
  std::array<std::vector<double>, kNumWorks> times;
  for (int64_t i = -options_.warmup; i < options_.iterations; ++i) {
    for (std::size_t work = 0; work < kNumWorks; ++work) {
      const double taken = time(static_cast<Work>(work));
      if (i >= 0) times[work].push_back(taken);
    }
  }
  MoeResult result;
  result.tokens = num_tokens;
  result.rows = total_rows();
  result.bytes = result.rows * row_bytes_;
  for (std::size_t work = 0; work < kNumWorks; ++work) {
    result.seconds[work] = median(slowest(times[work]));
  }
  const TrafficMatrix traffic = traffic_of(exchange_.config().placement, plan_.slot_counts());
  result.traffic = summarize_traffic(traffic);
  predict(traffic, result);
  if (options_.deduplicate) {
    const AllToAllCounts counts = plan_.dispatch_counts();
    result.trips = sum(static_cast<double>(counts.send_offsets[communicator_.size()]));
  }
  if (options_.checks > 0) result.wrong = sum(static_cast<double>(count_wrong()));
  return result;
}

void MoeRank::replace(RankMemory& memory, RankMemory fresh) {
  // To release a GPU's memory waits for all work on it, which may be that of a rank who waits for
  // this one, where they share the GPU.
  if (backend_ == Backend::kCuda) retired_.push_back(std::move(memory));
  memory = std::move(fresh);
}

void MoeRank::prepare(int64_t num_tokens) {
  num_tokens_ = num_tokens;
  ids_ = choices_.tokens(communicator_.rank() * num_tokens, num_tokens);
  weights_.assign(ids_.size(), 1.0f / static_cast<float>(choices_.top_k()));
  replace(rank_ids_, RankMemory(ids_, backend_));
  replace(rank_weights_, RankMemory(weights_, backend_));
  replace(tokens_, RankMemory(num_tokens * row_bytes_, backend_));
  replace(combined_, RankMemory(num_tokens * row_bytes_, backend_));
  tokens_.fill_with(tokens_.size(), [&](std::span<std::byte> memory) {
    const TensorView rows{memory.data(), dtype_, num_tokens, options_.hidden, options_.hidden};
    for (int64_t token = 0; token < num_tokens; ++token) {
      for (int64_t i = 0; i < options_.hidden; ++i) {
        set_element(rows, token, i,
                    static_cast<float>((token * 31 + i * 7 + communicator_.rank()) % 251 - 125));
      }
    }
  });
  make_plan();
  const int64_t num_rows = plan_.num_expert_rows();
  expert_rows_ = {};
  if (!options_.private_rows) {
    expert_rows_ =
        communicator_.allocate_shared("rows", std::max<int64_t>(1, num_rows * row_bytes_));
  }
  if (expert_rows_.empty()) {
    replace(private_rows_, RankMemory(num_rows * row_bytes_, backend_));
    expert_rows_ = private_rows_.bytes();
  }
  replace(workspace_,
          RankMemory(std::max(exchange_.dispatch_workspace_bytes(plan_, row_bytes_),
                              exchange_.combine_workspace_bytes(plan_, options_.hidden, dtype_)),
                     backend_));
  const AllToAllCounts back = plan_.combine_counts();
  const int64_t received = back.send_offsets[communicator_.size()];
  const int64_t sent = back.recv_offsets[communicator_.size()];
  replace(raw_from_, RankMemory(sent * row_bytes_, backend_));
  replace(raw_to_, RankMemory(std::max(sent, received) * row_bytes_, backend_));
  // Of its own: what was moved before would be in the caches for the copy, and only for it.
  replace(copy_from_, RankMemory(sent * row_bytes_, backend_));
  replace(copy_to_, RankMemory(sent * row_bytes_, backend_));
  // Touched, so that no measurement finds fresh pages.
  for (const RankMemory* memory : {&raw_from_, &raw_to_, &copy_from_, &copy_to_}) {
    memory->fill(std::byte{1});
  }
  if (backend_ == Backend::kCpu) {
    std::fill(expert_rows_.begin(), expert_rows_.end(), std::byte{3});
  }
#ifdef SWITCHYARD_MPI
  if (std::string(communicator_.transport()) == "mpi") {
    raw_call_ = raw_alltoallv(raw_from_.data(), raw_to_.data(), back.inverse(), row_bytes_);
  }
#endif
}

void MoeRank::make_plan() {
  exchange_.plan({rank_ids_.as<int32_t>(), num_tokens_, choices_.top_k()}, plan_,
                 plan_workspace_.bytes(), stream_.view());
}

void MoeRank::dispatch() {
  exchange_.start_dispatch(plan_,
                           {tokens_.matrix(num_tokens_, row_bytes_),
                            {expert_rows_.data(), plan_.num_expert_rows(), row_bytes_}},
                           {}, workspace_.bytes(), stream_.view());
  exchange_.finish_dispatch(stream_.view());
}

void MoeRank::combine() {
  const TensorView answers{expert_rows_.data(), dtype_, plan_.num_expert_rows(), options_.hidden,
                           options_.hidden};
  const TensorView tokens{combined_.data(), dtype_, num_tokens_, options_.hidden, options_.hidden};
  exchange_.start_combine(
      plan_,
      {answers, MatrixView<const float>(rank_weights_.as<float>(), num_tokens_, choices_.top_k()),
       tokens},
      workspace_.bytes(), stream_.view());
  exchange_.finish_combine(stream_.view());
}

void MoeRank::raw() {
  if (raw_call_) return raw_call_();
  const AllToAllCounts counts = plan_.combine_counts().inverse();
  const int64_t sent = counts.send_offsets[communicator_.size()];
  const int64_t received = counts.recv_offsets[communicator_.size()];
  communicator_.start_all_to_all(
      "raw", {raw_from_.matrix(sent, row_bytes_), {}, counts.send_offsets},
      {raw_to_.matrix(received, row_bytes_), counts.recv_offsets, {}, {}}, stream_.view());
  communicator_.finish_all_to_all(stream_.view());
}

void MoeRank::copy() {
  if (backend_ == Backend::kCuda) {
    return copy_on_gpu(copy_to_.data(), copy_from_.data(), copy_from_.size(), stream_.view());
  }
  std::memcpy(copy_to_.data(), copy_from_.data(), static_cast<std::size_t>(copy_from_.size()));
}

double MoeRank::time(Work work) {
  communicator_.barrier("start");
  const auto start = std::chrono::steady_clock::now();
  switch (work) {
    case kPlan:
      make_plan();
      break;
    case kDispatch:
      dispatch();
      break;
    case kCombine:
      combine();
      break;
    case kRaw:
      raw();
      break;
    default:
      copy();
  }
  wait();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<double> MoeRank::slowest(const std::vector<double>& mine) {
  std::vector<double> all(mine.size() * static_cast<std::size_t>(communicator_.size()));
  communicator_.all_gather("times", std::as_bytes(std::span(mine)),
                           std::as_writable_bytes(std::span(all)));
  std::vector<double> most(mine.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    most[i % mine.size()] = std::max(most[i % mine.size()], all[i]);
  }
  return most;
}

int64_t MoeRank::sum(double mine) {
  double total = 0.0;
  for (const double value : gather_values(communicator_, mine)) total += value;
  return static_cast<int64_t>(total);
}

int64_t MoeRank::total_rows() {
  return sum(static_cast<double>(plan_.combine_counts().send_offsets[communicator_.size()]));
}

RowWay MoeRank::row_way() const {
  if (communicator_.can_lend(expert_rows_)) return RowWay::kLent;
  return backend_ == Backend::kCpu && communicator_.options().staging_bytes > 0 ? RowWay::kStaged
                                                                                : RowWay::kMessages;
}

void MoeRank::predict(const TrafficMatrix& traffic, MoeResult& result) {
  const int64_t bytes_per_rank = std::max<int64_t>(1, result.bytes / communicator_.size());
  std::vector<ExchangeTiming> timings = options_.links;
  if (timings.empty()) {
    // Processes use each other's memory at its speed, and send messages at that of MPI.
    const bool is_memory = backend_ == Backend::kCpu && !communicator_.shares_memory() &&
                           row_way() != RowWay::kMessages;
    timings = is_memory ? std::vector<ExchangeTiming>{{1, bytes_per_rank * communicator_.size(),
                                                       result.seconds[kCopy]}}
                        : measure_links(bytes_per_rank);
  }
  ExchangeCostModel model{.ranks_per_node = communicator_.size(),
                          .node = {},
                          .network = {},
                          .shares_node_bandwidth = backend_ == Backend::kCpu};
  try {
    fit_links(model, traffic, row_bytes_, {timings, {}});
  } catch (const InvalidArgument&) {
    return;
  }
  const ExchangePasses passes = exchange_passes(row_way(), communicator_.size(), choices_.top_k());
  model.row_passes = passes.dispatch;
  result.predicted_dispatch = predict_seconds(model, traffic, row_bytes_);
  model.row_passes = passes.combine;
  result.predicted_combine = predict_seconds(model, traffic.transposed(), row_bytes_);
}

std::vector<ExchangeTiming> MoeRank::measure_links(int64_t bytes_per_rank) {
  const int size = communicator_.size();
  std::vector<ExchangeTiming> timings;
  const int64_t least = std::max<int64_t>(1 << 12, bytes_per_rank);
  replace(link_from_, RankMemory(2 * least, backend_));
  replace(link_to_, RankMemory(2 * least, backend_));
  // Else all would be read from the one page that stands for memory nobody has written.
  for (const RankMemory* memory : {&link_from_, &link_to_}) memory->fill(std::byte{1});
  for (int64_t bytes = least; bytes <= 2 * least; bytes *= 2) {
    const int64_t block = bytes / size;
    std::vector<double> times;
    for (int i = 0; i < 7; ++i) {
      communicator_.barrier("fit");
      const auto start = std::chrono::steady_clock::now();
      communicator_.start_equal_all_to_all("fit", link_from_.matrix(size, block),
                                           link_to_.matrix(size, block), 1, stream_.view());
      communicator_.finish_all_to_all(stream_.view());
      wait();
      times.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    timings.push_back({size, block * size, median(slowest(times))});
  }
  return timings;
}

int64_t MoeRank::count_wrong() {
  if (backend_ == Backend::kCpu) {
    std::fill(expert_rows_.begin(), expert_rows_.end(), std::byte{0});
  } else {
    private_rows_.fill(std::byte{0});
  }
  combined_.fill(std::byte{0});
  dispatch();
  combine();
  wait();
  std::vector<std::byte> token_memory;
  std::vector<std::byte> combined_memory;
  const ConstTensorView tokens{tokens_.on_host(tokens_.size(), token_memory).data(), dtype_,
                               num_tokens_, options_.hidden, options_.hidden};
  const ConstTensorView combined{combined_.on_host(combined_.size(), combined_memory).data(),
                                 dtype_, num_tokens_, options_.hidden, options_.hidden};
  std::vector<float> expected_row(1);
  const TensorView rounded{expected_row.data(), dtype_, 1, 1, 1};
  int64_t wrong = 0;
  for (int64_t token = 0; token < num_tokens_; ++token) {
    for (int64_t i = 0; i < options_.hidden; ++i) {
      float expected = 0.0f;
      for (int32_t slot = 0; slot < choices_.top_k(); ++slot) {
        const auto at = static_cast<std::size_t>(token * choices_.top_k() + slot);
        if (ids_[at] < 0) continue;
        expected = std::fma(weights_[at], element_at(tokens, token, i), expected);
      }
      set_element(rounded, 0, 0, expected);
      wrong += element_at(combined, token, i) != element_at(rounded, 0, 0);
    }
  }
  return wrong;
}

}  // namespace switchyard::bench
