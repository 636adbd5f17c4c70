# Flags for every target of the project, in one interface target.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(SWITCHYARD_CCACHE ccache)
mark_as_advanced(SWITCHYARD_CCACHE)
if(SWITCHYARD_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SWITCHYARD_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SWITCHYARD_CCACHE})
  if(SWITCHYARD_PRECOMPILE)
    # ccache asks for both before it serves what includes precompiled headers.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
                                    CCACHE_SLOPPINESS=pch_defines,time_macros ${SWITCHYARD_CCACHE})
    add_compile_options("$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
  endif()
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
set(cxx_options -Wall -Wextra -Wconversion -Wshadow $<$<BOOL:${SWITCHYARD_WERROR}>:-Werror>
                -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees an overlap in "literal" + string that is not there.
  list(APPEND cxx_options -Wno-restrict)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    # What GCC generates for a class lacks the features of Highway's NEON target, which include AES.
    list(APPEND cxx_options -march=armv8-a+crypto)
  endif()
  if(SWITCHYARD_SANITIZE)
    # Instrumented, the standard library's own std::function looks uninitialised to GCC 12.
    list(APPEND cxx_options -Wno-maybe-uninitialized)
  endif()
elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # GCC's -Wconversion leaves changes of sign out.
  list(APPEND cxx_options -Wno-sign-conversion)
endif()
if(SWITCHYARD_SANITIZE)
  # A test must not pass over a finding.
  list(APPEND cxx_options -fsanitize=${SWITCHYARD_SANITIZE} -fno-omit-frame-pointer
       -fno-sanitize-recover=all)
  target_link_options(switchyard_flags INTERFACE -fsanitize=${SWITCHYARD_SANITIZE})
endif()
target_compile_options(switchyard_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>")
if(SWITCHYARD_CUDA)
  # CMake 3.25 does not know that nvcc 13 has C++20. Library functions that the contract uses are
  # constexpr and not marked for devices. Warning 554 objects to views of const elements.
  set(cuda_options -std=c++20 --fmad=false --expt-relaxed-constexpr -diag-suppress=554
                   -Xcompiler=-Wall,-Wextra,-ffp-contract=off
                   $<$<BOOL:${SWITCHYARD_WERROR}>:-Werror=all-warnings>)
  target_compile_options(switchyard_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
endif()
