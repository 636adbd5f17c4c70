#include "bench/perf_program.h"

#include <exception>
#include <iostream>
#include <new>
#include <string>

#include "switchyard/errors.h"

namespace switchyard::bench {

int run_perf_program(CLI::App& app, int argc, char** argv, const PerfProcess& process,
                     const std::function<bool()>& work) {
  constexpr int kFailure = 1;
  constexpr int kUsage = 2;
  const auto fail = [&](int exit_code, const std::string& what) {
    if (process.is_first() || exit_code == kFailure) {
      std::cerr << app.get_name() << ": " << what << '\n';
    }
    return exit_code;
  };
  try {
    app.parse(argc, argv);
    return work() ? 0 : kFailure;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return fail(kUsage, error.what());
    return process.is_first() ? app.exit(error) : 0;  // --help
  } catch (const CommunicationError& error) {
    return fail(kFailure, error.what());
  } catch (const CudaError& error) {
    return fail(kFailure, error.what());
  } catch (const Error& error) {
    return fail(kUsage, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kFailure, "out of memory");
  } catch (const std::exception& error) {
    return fail(kFailure, error.what());
  }
}

}  // namespace switchyard::bench
