# Flags for every target of the project, in one interface target.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(SWITCHYARD_CCACHE ccache)
mark_as_advanced(SWITCHYARD_CCACHE)
if(SWITCHYARD_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SWITCHYARD_CCACHE})
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(SWITCHYARD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SWITCHYARD_FUZZERS is ON but the compiler, ${CMAKE_CXX_COMPILER_ID}, has no "
                        "libFuzzer; configure with `cmake --preset fuzz` or pass -DSWITCHYARD_FUZZERS=OFF")
  endif()
  set(SWITCHYARD_SANITIZE fuzzer-no-link,address,undefined)
endif()

add_library(switchyard_flags INTERFACE)
target_compile_features(switchyard_flags INTERFACE cxx_std_20)
target_include_directories(switchyard_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)
# The contract's bits rest on explicit fused multiply-adds only.
target_compile_options(
  switchyard_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -ffp-contract=off
                             $<$<BOOL:${SWITCHYARD_WERROR}>:-Werror>)
# GCC 12 sees an overlap in "literal" + string that is not there.
target_compile_options(switchyard_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(SWITCHYARD_SANITIZE)
  # Instrumented, the standard library's own std::function looks uninitialised to GCC 12.
  target_compile_options(switchyard_flags
                         INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_compile_options(switchyard_flags INTERFACE -fsanitize=${SWITCHYARD_SANITIZE}
                                                    -fno-omit-frame-pointer
                                                    # A test must not pass over a finding.
                                                    -fno-sanitize-recover=all)
  target_link_options(switchyard_flags INTERFACE -fsanitize=${SWITCHYARD_SANITIZE})
endif()
# GCC's -Wconversion leaves changes of sign out.
target_compile_options(switchyard_flags INTERFACE $<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion>)
