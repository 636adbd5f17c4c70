// Which sanitizer a test was compiled with: what they make many times slower, tests do less of.
#pragma once

#if defined(__has_feature)
#define SWITCHYARD_TEST_HAS_FEATURE(name) __has_feature(name)
#else
#define SWITCHYARD_TEST_HAS_FEATURE(name) 0
#endif

namespace switchyard::test {

#if defined(__SANITIZE_THREAD__) || SWITCHYARD_TEST_HAS_FEATURE(thread_sanitizer)
constexpr bool kHasThreadSanitizer = true;
#else
constexpr bool kHasThreadSanitizer = false;
#endif

#if defined(__SANITIZE_ADDRESS__) || SWITCHYARD_TEST_HAS_FEATURE(address_sanitizer)
constexpr bool kHasSanitizer = true;
#else
constexpr bool kHasSanitizer = kHasThreadSanitizer;
#endif

/// How many of `count` cases to try: a quarter of them with a sanitizer, which looks for other
/// faults than wrong results.
constexpr int sanitized_share(int count) { return kHasSanitizer ? (count + 3) / 4 : count; }

}  // namespace switchyard::test

#undef SWITCHYARD_TEST_HAS_FEATURE
