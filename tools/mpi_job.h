// This process as one of an MPI job, where a launcher started it as such.
#pragma once

#include <memory>
#include <string>

#include "switchyard/communicator.h"

namespace switchyard::tools {

class MpiJob {
 public:
  /// Whether mpirun or its like started this process and this build knows MPI.
  static bool is_here();

  /// Joins the others. From then on only rank 0 writes to the terminal, see is_speaker().
  MpiJob();
  ~MpiJob();
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  [[nodiscard]] Communicator& communicator();

  /// Collective: every process passes on what it refuses, "" for nothing.
  /// @throws InvalidArgument  on all of them, the same, when one refuses.
  void agree(const std::string& refusal);

  /// Whether this process is the one of its job that writes to the terminal; true without a job.
  static bool is_speaker();

  /// Waits for the others and ends MPI, where it was started. Not before all is said: the launcher
  /// ends every process when the first one ends with an error.
  static void leave();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::tools
