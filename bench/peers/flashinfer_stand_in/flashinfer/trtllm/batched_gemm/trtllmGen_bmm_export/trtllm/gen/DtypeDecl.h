// In the place of a header that FlashInfer downloads: names of types, as far as its routing asks.
#pragma once

namespace batchedGemm::trtllm::gen {

enum class Dtype {
  Bfloat16,
  E2m1,
  E4m3,
  E5m2,
  Fp16,
  Fp32,
  Int8,
  Int32,
  MxE2m1,
  MxE4m3,
  UE8m0,
  UInt8
};

}  // namespace batchedGemm::trtllm::gen
