// What a call says when it refuses.
#pragma once

#include <string>

#include "switchyard/errors.h"

namespace switchyard::test {

/// The message of the error that `work` throws, "" where it throws none of that type.
template <typename ExpectedError = InvalidArgument, typename Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const ExpectedError& error) {
    return error.what();
  }
  return "";
}

}  // namespace switchyard::test
