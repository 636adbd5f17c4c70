// The exceptions that the library throws: one type for each party that can be at fault.
#pragma once

#include <stdexcept>
#include <string>

namespace switchyard {

/// Base of every exception thrown by the library.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller passed something that the documented contract forbids. The message names the
/// argument, its value and the limit. Nothing has been written to any output.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// A file could not be read or written, or its contents are not what its format promises.
class IoError : public Error {
 public:
  using Error::Error;
};

/// The request is well formed, but this build or this machine cannot serve it.
class Unavailable : public Error {
 public:
  using Error::Error;
};

/// A CUDA call failed; the message holds the call and CUDA's own text.
class CudaError : public Error {
 public:
  using Error::Error;
};

/// An exchange between ranks failed; the message names rank, peer and phase.
class CommunicationError : public Error {
 public:
  using Error::Error;
};

}  // namespace switchyard
