// MPI's start and end, and whether it is fit for use.
#include "nccl/mpi_state.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "nccl/refuse.h"
#include "switchyard/mpi_communicator.h"

namespace switchyard {
namespace nccl {
namespace {

std::atomic<bool> has_failed = false;

/// Whether all processes are about to end MPI, after a failure that some may not have survived.
bool do_all_come() {
  constexpr std::chrono::seconds kPatience{1};
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  int is_done = 0;
  while (is_done == 0 && std::chrono::steady_clock::now() < deadline) {
    MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
    std::this_thread::yield();
  }
  return is_done != 0;
}

}  // namespace

std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return text_of("MPI error ", code);
  return {text, static_cast<std::size_t>(length)};
}

bool is_mpi_running() {
  int started = 0;
  int ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  return started != 0 && ended == 0;
}

void check_mpi_version(int major, int minor) {
  if (major > MPI_VERSION || (major == MPI_VERSION && minor >= MPI_SUBVERSION)) return;
  throw Unavailable(text_of("the MPI library is of version ", major, ".", minor,
                            ", must be at least its header's ", MPI_VERSION, ".", MPI_SUBVERSION));
}

void check_mpi_running() {
  if (!is_mpi_running()) throw Unavailable("MPI is not running; MpiRuntime starts it");
  int major = 0;
  int minor = 0;
  MPI_Get_version(&major, &minor);
  check_mpi_version(major, minor);
}

MPI_Comm duplicate_group(MPI_Comm comm, int rank, const CommunicatorOptions& options) {
  MPI_Comm owned = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Comm_idup(comm, &owned, &request);
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(options.timeout_ms);
  for (int is_done = 0;;) {
    MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
    if (is_done != 0) break;
    if (std::chrono::steady_clock::now() > deadline) {
      note_mpi_failure();
      throw CommunicationError(
          text_of("rank ", rank, ", creation of the group: not all ranks came in time"));
    }
    std::this_thread::yield();
  }
  MPI_Comm_set_errhandler(owned, MPI_ERRORS_RETURN);
  return owned;
}

void note_mpi_failure() noexcept { has_failed = true; }

}  // namespace nccl

MpiRuntime::MpiRuntime() {
  int ended = 0;
  MPI_Finalized(&ended);
  if (ended != 0) throw Unavailable("MPI has been ended, and cannot be started again");
  if (!nccl::is_mpi_running()) {
    int provided = 0;
    const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
    if (code != MPI_SUCCESS) throw Unavailable("MPI does not start: " + nccl::mpi_error_text(code));
    has_started_ = true;
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
}

MpiRuntime::~MpiRuntime() {
  if (!has_started_ || !nccl::is_mpi_running()) return;
  if (!nccl::has_failed || nccl::do_all_come()) MPI_Finalize();
}

bool is_launched_by_mpi() {
  // What the launchers of Open MPI, MPICH and PMIx (Slurm, prterun) set.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace switchyard
