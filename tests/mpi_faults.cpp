// What ranks do to each other: each mode has one rank misbehave, and every rank prints what it was
// told. mpi_faults_test starts this and reads it.
#include <csignal>

#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "nccl/mpi_header.h"
#include "switchyard/errors.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/mpi_communicator.h"

namespace switchyard::test {
namespace {

constexpr int64_t kTimeoutMs = 2000;

void sleep_ms(int64_t time) { std::this_thread::sleep_for(std::chrono::milliseconds(time)); }

/// As many rows to and from each rank as the tables say.
struct Exchange {
  Exchange(Communicator& group, const std::vector<int64_t>& sent_counts,
           const std::vector<int64_t>& received_counts, int64_t bytes = 8)
      : communicator(group),
        row_bytes(bytes),
        sent_offsets(sums(sent_counts)),
        received_offsets(sums(received_counts)),
        sent_memory(static_cast<std::size_t>(sent_offsets.back() * bytes + 1)),
        received_memory(static_cast<std::size_t>(received_offsets.back() * bytes + 1)) {}

  static std::vector<int64_t> sums(const std::vector<int64_t>& counts) {
    std::vector<int64_t> offsets{0};
    for (const int64_t count : counts) offsets.push_back(offsets.back() + count);
    return offsets;
  }
  static VectorView<const int64_t> view(const std::vector<int64_t>& values) {
    return {values.data(), static_cast<int64_t>(values.size())};
  }
  void start(const char* phase) {
    communicator.start_all_to_all(
        phase, {{sent_memory.data(), sent_offsets.back(), row_bytes}, {}, view(sent_offsets)},
        {{received_memory.data(), received_offsets.back(), row_bytes},
         view(received_offsets),
         {},
         {}});
  }
  void run(const char* phase) {
    start(phase);
    communicator.finish_all_to_all();
  }

  Communicator& communicator;
  int64_t row_bytes;
  std::vector<int64_t> sent_offsets;
  std::vector<int64_t> received_offsets;
  std::vector<std::byte> sent_memory;
  std::vector<std::byte> received_memory;
};

std::vector<int64_t> each(const Communicator& communicator, int64_t count) {
  std::vector<int64_t> counts(static_cast<std::size_t>(communicator.size()), count);
  return counts;
}

bool is_last(const Communicator& communicator) {
  return communicator.rank() == communicator.size() - 1;
}

/// Two ranks; the second sends and expects what `counts` say, the first two rows each.
void disagree(Communicator& communicator, int64_t sent, int64_t received, int64_t row_bytes) {
  std::vector<int64_t> sent_counts = each(communicator, 2);
  std::vector<int64_t> received_counts = sent_counts;
  if (communicator.rank() == 1) {
    sent_counts[0] = sent;
    received_counts[0] = received;
  }
  Exchange(communicator, sent_counts, received_counts, row_bytes).run("combine");
  communicator.barrier("end");
}

using Mode = std::function<void(Communicator&)>;

const std::map<std::string, Mode>& modes() {
  static const std::map<std::string, Mode> kModes = {
      {"killed",  // amid an exchange of what no buffer holds
       [](Communicator& communicator) {
         communicator.barrier("plan");
         Exchange exchange(communicator, each(communicator, 1000), each(communicator, 1000), 4096);
         if (is_last(communicator)) std::raise(SIGKILL);
         exchange.run("dispatch");
       }},
      {"killed_waiting",
       [](Communicator& communicator) {
         communicator.barrier("plan");
         if (is_last(communicator)) std::raise(SIGKILL);
         communicator.barrier("dispatch");
       }},
      {"killed_exchanging",  // rows that lie in its own memory, in many turns
       [](Communicator& communicator) {
         constexpr int64_t kTokens = 64;
         constexpr int64_t kRowBytes = 64 << 10;
         ExpertExchange exchange(
             {.placement = ExpertPlacement::contiguous(communicator.size(), communicator.size()),
              .top_k = 1,
              .max_tokens = kTokens},
             communicator);
         AllToAllPlan plan = exchange.make_plan();
         std::vector<int32_t> ids;
         for (int32_t i = 0; i < kTokens; ++i) ids.push_back(i % communicator.size());
         std::vector<std::byte> workspace(
             static_cast<std::size_t>(exchange.plan_workspace_bytes()));
         exchange.plan({ids.data(), kTokens, 1}, plan, workspace);
         const std::vector<std::byte> tokens(kTokens * kRowBytes);
         std::vector<std::byte> expert_rows(kTokens * kRowBytes);
         workspace.resize(
             static_cast<std::size_t>(exchange.dispatch_workspace_bytes(plan, kRowBytes)));
         exchange.start_dispatch(
             plan, {{tokens.data(), kTokens, kRowBytes}, {expert_rows.data(), kTokens, kRowBytes}},
             {}, workspace);
         if (is_last(communicator)) std::raise(SIGKILL);
         exchange.finish_dispatch();
       }},
      {"late",
       [](Communicator& communicator) {
         communicator.barrier("plan");
         if (is_last(communicator)) sleep_ms(kTimeoutMs + 1500);
         communicator.barrier("dispatch");
       }},
      {"late_rows",
       [](Communicator& communicator) {
         communicator.barrier("plan");
         Exchange exchange(communicator, each(communicator, 3), each(communicator, 3));
         if (is_last(communicator)) sleep_ms(kTimeoutMs + 1500);
         exchange.run("dispatch");
       }},
      {"late_taking",  // sends nothing and takes nothing
       [](Communicator& communicator) {
         communicator.barrier("plan");
         const bool last = is_last(communicator);
         std::vector<int64_t> sent = each(communicator, 0);
         if (!last) sent.back() = 100;
         Exchange exchange(communicator, sent, each(communicator, last ? 100 : 0), 4096);
         exchange.received_offsets.back() -= last ? 100 : 0;
         if (last) sleep_ms(kTimeoutMs + 1500);
         exchange.run("dispatch");
       }},
      {"slow_but_in_time",
       [](Communicator& communicator) {
         if (is_last(communicator)) sleep_ms(500);
         communicator.barrier("plan");
         if (communicator.rank() == 0) sleep_ms(500);
         Exchange(communicator, each(communicator, 3), each(communicator, 3)).run("dispatch");
         communicator.barrier("end");
       }},
      {"other_phase",
       [](Communicator& communicator) {
         communicator.barrier(is_last(communicator) ? "combine" : "dispatch");
       }},
      {"other_exchange",
       [](Communicator& communicator) {
         Exchange(communicator, each(communicator, 3), each(communicator, 3))
             .run(is_last(communicator) ? "combine" : "dispatch");
       }},
      {"gather_amid_exchange",
       [](Communicator& communicator) {
         if (is_last(communicator)) return communicator.barrier("plan");
         Exchange(communicator, each(communicator, 3), each(communicator, 3)).run("dispatch");
       }},
      {"skipped_exchange",
       [](Communicator& communicator) {
         if (!is_last(communicator)) {
           Exchange(communicator, each(communicator, 0), each(communicator, 0)).run("dispatch");
         }
         communicator.barrier("plan");
       }},
      {"other_bytes",
       [](Communicator& communicator) {
         const std::vector<std::byte> mine(is_last(communicator) ? 8 : 4);
         std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(communicator.size()));
         communicator.all_gather("plan", mine, all);
       }},
      {"many_other_bytes",  // more than the first message holds
       [](Communicator& communicator) {
         const std::vector<std::byte> mine(is_last(communicator) ? 80'000 : 40'000);
         std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(communicator.size()));
         communicator.all_gather("plan", mine, all);
       }},
      {"fewer_rows", [](Communicator& communicator) { disagree(communicator, 1, 2, 8); }},
      {"more_rows", [](Communicator& communicator) { disagree(communicator, 3, 2, 8); }},
      {"many_more_rows", [](Communicator& communicator) { disagree(communicator, 3, 2, 50'000); }},
      {"no_rows", [](Communicator& communicator) { disagree(communicator, 0, 2, 8); }},
      {"takes_no_rows", [](Communicator& communicator) { disagree(communicator, 2, 0, 8); }},
      {"takes_no_large_rows",
       [](Communicator& communicator) { disagree(communicator, 2, 0, 50'000); }},
      {"own_rows",
       [](Communicator& communicator) {
         std::vector<int64_t> sent = each(communicator, 2);
         sent[static_cast<std::size_t>(communicator.rank())] = 3;
         Exchange(communicator, sent, each(communicator, 2)).run("dispatch");
       }},
      {"abort",
       [](Communicator& communicator) {
         if (is_last(communicator)) {
           communicator.abort("the server stops");
           sleep_ms(100);  // until the others have read it
           return;
         }
         communicator.barrier("plan");
       }},
      {"throws",
       [](Communicator& communicator) {
         communicator.barrier("plan");
         if (is_last(communicator)) throw Error("out of luck");
         communicator.barrier("dispatch");
       }},
      {"throws_amid_exchange",  // the rows must outlive the group, which is destroyed on the way
       [](Communicator& communicator) {
         static std::unique_ptr<Exchange> exchange;
         exchange = std::make_unique<Exchange>(communicator, each(communicator, 100),
                                               each(communicator, 100), 4096);
         exchange->start("dispatch");
         if (is_last(communicator)) throw Error("out of luck");
         communicator.finish_all_to_all();
         communicator.barrier("dispatch");
       }},
      {"abort_twice",
       [](Communicator& communicator) {
         communicator.barrier("plan");
         communicator.abort("one");
         communicator.abort("two");
         communicator.barrier("dispatch");
       }},
      {"missing_at_creation",
       [](Communicator& communicator) {
         if (!is_last(communicator)) make_mpi_world_communicator({.timeout_ms = 500});
         sleep_ms(1000);
         communicator.abort("a rank is missing");  // so that nobody waits for it in MPI_Finalize
       }},
  };
  return kModes;
}

int run(const char* name) {
  const MpiRuntime runtime;
  std::string told = "done";
  const auto begin = std::chrono::steady_clock::now();
  try {
    const std::unique_ptr<Communicator> communicator =
        make_mpi_world_communicator({.timeout_ms = kTimeoutMs});
    modes().at(name)(*communicator);
  } catch (const Error& error) {
    told = error.what();
  }
  const auto time = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);
  // One write a line, so that ranks do not mix theirs.
  const std::string line = "told " + std::to_string(runtime.rank()) + " after " +
                           std::to_string(time.count()) + " ms: " + told + "\n";
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  return told == "done" ? 0 : 3;  // and no rank waits for one that is gone
}

}  // namespace
}  // namespace switchyard::test

int main(int argc, char** argv) {
  if (argc != 2 || !switchyard::test::modes().contains(argv[1])) {
    std::fputs("usage: mpi_faults MODE\n", stderr);
    return 2;
  }
  return switchyard::test::run(argv[1]);
}
