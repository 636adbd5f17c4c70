// Ranks that are processes: each runs every test, in the same order. mpirun starts them.
#include "switchyard/mpi_communicator.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <climits>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "nccl/mpi_header.h"
#include "nccl/mpi_rows.h"
#include "nccl/mpi_state.h"
#include "switchyard/errors.h"
#include "tests/communicator_case.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

int64_t uneven(int source, int destination) { return (source * 5 + destination * 3) % 11; }
int64_t none(int, int) { return 0; }
int64_t all_to_last(int source, int destination) { return destination == 3 ? source + 2 : 0; }
int64_t last_sends_nothing(int source, int destination) { return source == 3 ? 0 : destination; }
int64_t many(int source, int destination) { return 40 + source + destination; }

class MpiRanks : public testing::Test {
 protected:
  void SetUp() override { communicator_ = make_mpi_world_communicator({.timeout_ms = 20'000}); }
  void TearDown() override { communicator_.reset(); }

  std::unique_ptr<Communicator> communicator_;
};

TEST_F(MpiRanks, SayWhatTheyAre) {
  EXPECT_TRUE(is_launched_by_mpi());
  const MpiRuntime again;  // does not start MPI twice, nor end it
  EXPECT_EQ(again.rank(), communicator_->rank());
  EXPECT_EQ(again.size(), communicator_->size());
  EXPECT_STREQ(communicator_->transport(), "mpi");
  EXPECT_FALSE(communicator_->shares_memory());
  EXPECT_EQ(communicator_->options().timeout_ms, 20'000);
}

TEST_F(MpiRanks, ExchangeRows) {
  for (const RowCount count : {uneven, none, all_to_last, last_sends_nothing, many}) {
    for (const int64_t row_bytes : {0, 1, 16, 300, 1500, 9000}) {
      check_all_to_all(*communicator_, count, row_bytes, false);
      check_all_to_all(*communicator_, count, row_bytes, true);
    }
  }
}

TEST_F(MpiRanks, GatherInOrder) {
  for (int repeat = 0; repeat < 100; ++repeat) check_all_gather(*communicator_, repeat % 7);
  // Around what the first message holds, and more than MPI sends without asking.
  for (const int64_t bytes : {3900, 3950, 3968, 3969, 3992, 4000, 4096, 5000, 300'000}) {
    check_all_gather(*communicator_, bytes);
  }
  communicator_->barrier("test");
}

/// Dense rows that follow each other in memory are one message, sent as they lie.
TEST_F(MpiRanks, ExchangeDenseRows) {
  const auto size = static_cast<std::size_t>(communicator_->size());
  constexpr int64_t kRows = 50;
  constexpr int64_t kRowBytes = 1000;
  const auto count = static_cast<int64_t>(size) * kRows;
  std::vector<std::byte> memory(static_cast<std::size_t>(count * kRowBytes),
                                static_cast<std::byte>(communicator_->rank() + 1));
  std::vector<std::byte> received(memory.size());
  std::vector<int64_t> offsets(size + 1);
  for (std::size_t i = 0; i <= size; ++i) offsets[i] = static_cast<int64_t>(i) * kRows;
  const VectorView<const int64_t> view(offsets.data(), static_cast<int64_t>(offsets.size()));
  communicator_->start_all_to_all("test", {{memory.data(), count, kRowBytes}, {}, view},
                                  {{received.data(), count, kRowBytes}, view, {}, {}});
  communicator_->finish_all_to_all();
  for (std::size_t i = 0; i < received.size(); ++i) {
    ASSERT_EQ(received[i], static_cast<std::byte>(i / (kRows * kRowBytes) + 1)) << "byte " << i;
  }
}

TEST_F(MpiRanks, SeveralGroupsWorkSideBySide) {
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -communicator_->rank(), &reversed);
  {
    const auto other = make_mpi_communicator(MPI_Comm_c2f(reversed));
    MPI_Comm_free(&reversed);  // the group has its own
    EXPECT_EQ(other->rank(), communicator_->size() - 1 - communicator_->rank());
    check_all_to_all(*other, uneven, 16, true);
    check_all_to_all(*communicator_, uneven, 16, true);
    check_all_gather(*other, 8);
  }
  check_all_gather(*communicator_, 8);
}

TEST_F(MpiRanks, GroupsComeAndGo) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto other = make_mpi_world_communicator();
    check_all_gather(*other, 3);
  }
}

TEST_F(MpiRanks, AFailedGroupSaysSo) {
  const int last = communicator_->size() - 1;
  if (communicator_->rank() == last) communicator_->abort("the server stops");
  for (int repeat = 0; repeat < 2; ++repeat) {
    try {
      communicator_->barrier("plan");
      ADD_FAILURE() << "a failed group works";
    } catch (const CommunicationError& error) {
      EXPECT_NE(std::string(error.what()).find("the server stops"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_NE(communicator_->failure().find("the server stops"), std::string::npos);
}

TEST_F(MpiRanks, RefuseWhatIsNoGroup) {
  const int null = MPI_Comm_c2f(MPI_COMM_NULL);
  EXPECT_EQ(refusal<InvalidArgument>([&] { make_mpi_communicator(null); }),
            "fortran_handle is " + std::to_string(null) + ", must be an intracommunicator's");
  EXPECT_EQ(refusal<InvalidArgument>([] { make_mpi_world_communicator({.timeout_ms = 0}); }),
            "timeout_ms is 0, must be 1 or more");
  std::byte private_memory{};
  EXPECT_EQ(refusal<InvalidArgument>([&] { communicator_->lend("test", &private_memory, {}); }),
            "mine is not memory that mpi ranks share");
}

TEST(MpiVersion, OlderThanTheHeaderIsRefused) {
  nccl::check_mpi_version(MPI_VERSION, MPI_SUBVERSION);
  nccl::check_mpi_version(MPI_VERSION + 1, 0);
  EXPECT_NE(refusal<Unavailable>([] {
              nccl::check_mpi_version(2, 2);
            }).find("the MPI library is of version 2.2, must be at least its header's"),
            std::string::npos);
  EXPECT_EQ(nccl::mpi_error_text(MPI_ERR_TRUNCATE).find("MPI_ERR_TRUNCATE"), 0u);
}

int64_t size_of(const nccl::MpiType& type) {
  MPI_Count size = 0;
  MPI_Type_size_x(type.get(), &size);
  return size;
}

TEST(MpiTypes, CountPastInt) {
  constexpr int64_t kLarge = int64_t{5} << 30;
  EXPECT_EQ(size_of(nccl::MpiType::of_bytes(kLarge + 7)), kLarge + 7);
  EXPECT_EQ(size_of(nccl::MpiType::of_bytes(INT_MAX)), INT_MAX);
  // Addresses only: types are made by arithmetic.
  constexpr int64_t kReserved = 3 * kLarge + 5;
  void* const reserved =
      ::mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(reserved, MAP_FAILED);
  auto* const base = static_cast<std::byte*>(reserved);
  const nccl::MpiType apart =
      nccl::MpiType::of_pieces({{base, kLarge}, {base + 2 * kLarge, 3}, {base + 3 * kLarge, 5}});
  EXPECT_EQ(size_of(apart), kLarge + 8);
  MPI_Count lower = 0;
  MPI_Count extent = 0;
  MPI_Type_get_extent_x(apart.get(), &lower, &extent);
  EXPECT_EQ(extent, kReserved);
  ::munmap(reserved, kReserved);
}

TEST(MpiTypes, NeighboursAreOnePiece) {
  std::byte memory[16];
  nccl::Pieces pieces;
  pieces.add(memory, 4);
  pieces.add(memory + 4, 4);
  pieces.add(memory + 8, 0);
  pieces.add(memory + 12, 4);
  EXPECT_EQ(pieces.all().size(), 2u);
  EXPECT_EQ(pieces.num_bytes(), 12);
}

/// Failures of ranks that print nothing else.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.failed()) std::cerr << "rank " << rank_ << ": " << result.message() << std::endl;
  }

 private:
  int rank_;
};

}  // namespace
}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    switchyard::make_mpi_world_communicator();
    std::cerr << "a group before MPI is started\n";
    return 1;
  } catch (const switchyard::Unavailable&) {
  }
  const switchyard::MpiRuntime runtime;
  if (runtime.rank() > 0) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new switchyard::test::FailurePrinter(runtime.rank()));
  }
  return RUN_ALL_TESTS();
}
