#include "tools/mpi_job.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "switchyard/errors.h"

#ifdef SWITCHYARD_MPI
#include "switchyard/mpi_communicator.h"
#endif

namespace switchyard::tools {
namespace {

bool is_listener = false;

}  // namespace

#ifdef SWITCHYARD_MPI
namespace {

std::unique_ptr<MpiRuntime> runtime;

}  // namespace

struct MpiJob::State {
  std::unique_ptr<Communicator> communicator = make_mpi_world_communicator();
};

bool MpiJob::is_here() { return is_launched_by_mpi(); }

MpiJob::MpiJob() {
  if (!runtime) runtime = std::make_unique<MpiRuntime>();
  state_ = std::make_unique<State>();
  is_listener = state_->communicator->rank() != 0;
}

Communicator& MpiJob::communicator() { return *state_->communicator; }

void MpiJob::leave() { runtime.reset(); }
#else
struct MpiJob::State {};

bool MpiJob::is_here() { return false; }

MpiJob::MpiJob() { throw Unavailable("this build does not know MPI"); }

Communicator& MpiJob::communicator() { throw Unavailable("this build does not know MPI"); }

void MpiJob::leave() {}
#endif

MpiJob::~MpiJob() = default;

void MpiJob::agree(const std::string& refusal) {
  std::array<char, 512> mine{};
  std::copy_n(refusal.begin(), std::min(refusal.size(), mine.size() - 1), mine.begin());
  std::vector<std::array<char, 512>> all(static_cast<std::size_t>(communicator().size()));
  communicator().all_gather("start", std::as_bytes(std::span(mine)),
                            std::as_writable_bytes(std::span(all)));
  for (const std::array<char, 512>& theirs : all) {
    if (theirs[0] != '\0') throw InvalidArgument(theirs.data());
  }
}

bool MpiJob::is_speaker() { return !is_listener; }

}  // namespace switchyard::tools
