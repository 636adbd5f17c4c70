// In the place of a header that FlashInfer downloads.
#pragma once

namespace batchedGemm::trtllm::gen {

enum class SfLayout { Linear, R8c4, R8c16, R128c4 };

}  // namespace batchedGemm::trtllm::gen
