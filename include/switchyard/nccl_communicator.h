// Ranks that are GPUs, over NCCL. In a library of its own, switchyard::nccl.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "switchyard/communicator.h"

struct ncclComm;  // what ncclComm_t points to; this header needs no NCCL

namespace switchyard {

/// By which the ranks of a group find each other: made on one rank, brought to all of them.
struct NcclUniqueId {
  std::array<std::byte, 128> bytes{};

  bool operator==(const NcclUniqueId&) const = default;
};

/// @throws Unavailable  when the NCCL found at run time is older than 2.18 or of another major
///                      version than the header that this was compiled with.
NcclUniqueId create_nccl_unique_id();

/// Writes hexadecimal digits; who reads the file sees it whole or not at all.
/// @throws IoError  naming the file.
void write_nccl_unique_id(const std::string& path, const NcclUniqueId& id);
/// Waits until the file is there.
/// @throws IoError  after timeout_ms, or when the file holds something else.
NcclUniqueId read_nccl_unique_id(const std::string& path, int64_t timeout_ms);

std::string to_hexadecimal(const NcclUniqueId& id);
/// @throws InvalidArgument  when the variable is not set, or not to 256 hexadecimal digits.
NcclUniqueId nccl_unique_id_from_environment(const char* variable);

/// This rank's end of a group on memory of the current device, whose rows may have no gaps. Every
/// rank calls this, each with a device of its own (from NCCL 2.30 on ranks can share one).
///
/// An exchange is in its stream when start_all_to_all() returns, and other work can be enqueued
/// behind it at once; a pair's first exchange and collective waits on the host until the peer has
/// come. What the ranks gather is compared: another phase or size is an error that names the peer.
/// The counts of an all-to-all are not: NCCL would hang, until the deadline of the next wait.
///
/// A CUDA graph can capture all-to-alls, from start to finish; nothing is allocated in them. NCCL
/// asks that every rank captures the same ones, and that all launch what they captured together, in
/// the same order among the group's other calls: a launch waits on the device for those of the
/// peers, and wait() for the launch, with its deadline. The end outlives the launches. A pair's
/// first all-to-all waits on the host for the peer as ever. Where ranks are threads of one process,
/// capture with cudaStreamCaptureModeThreadLocal: in the global mode what one thread may do amid
/// its capture the others may not either. What is gathered cannot be captured.
///
/// A failed end aborts its NCCL communicator. NCCL tells other ranks of that at most through a lost
/// connection, so they may learn it only by their own deadlines.
/// @throws Unavailable         as create_nccl_unique_id(), and without a CUDA device.
/// @throws CommunicationError  when not all ranks come in time, or NCCL refuses.
std::unique_ptr<Communicator> make_nccl_communicator(const NcclUniqueId& id, int rank, int size,
                                                     const CommunicatorOptions& options = {});

/// The same for the ranks of another group, over which the id travels; they may use it further.
/// @throws Unavailable  on every rank, when their NCCL versions differ or one has none.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& bootstrap,
                                                     const CommunicatorOptions& options = {});

/// An end that uses a communicator of the caller's, who does not use it at the same time, keeps it
/// longer than the end, and destroys it. It is never aborted here: after a failure, whose
/// operations may still occupy the device, the caller aborts it. With a blocking communicator the
/// waits inside NCCL's own calls have no deadline.
/// @throws InvalidArgument  for a null pointer, or when its device is not the current one.
std::unique_ptr<Communicator> borrow_nccl_communicator(ncclComm* comm,
                                                       const CommunicatorOptions& options = {});

}  // namespace switchyard
