// The CPU backend is what a program tests.
#include "hwy/targets.h"
#include "tests/backend_variants.h"

namespace switchyard::test {

const std::vector<BackendVariant>& backend_variants() {
  static ThreadPool two(2);
  static ThreadPool five(5);
  static const std::vector<BackendVariant> kVariants = [] {
    std::vector<BackendVariant> all;
    for (const int64_t target : cpu_targets()) {
      const std::string name = hwy::TargetName(target);
      all.push_back({name + ", 1 thread", Backend::kCpu, target, {1, nullptr}});
      all.push_back({name + ", 2 threads", Backend::kCpu, target, {2, &two}});
      all.push_back({name + ", 5 threads", Backend::kCpu, target, {5, &five}});
    }
    // The backend's own threads, where it is built with them.
    all.push_back(
        {"best target, 3 threads of its own", Backend::kCpu, cpu_targets().front(), {3, nullptr}});
    return all;
  }();
  return kVariants;
}

}  // namespace switchyard::test
