# Outside packages. A missing one stops here with the name of the option that does without it.

find_package(hwy REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Threads REQUIRED)
if(SWITCHYARD_TOOLS OR SWITCHYARD_BENCHMARKS)
  find_package(CLI11 REQUIRED)
endif()
if(SWITCHYARD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(SWITCHYARD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
foreach(package IN ITEMS OPENMP:OpenMP_CXX CUDA:CUDAToolkit MPI:MPI_CXX
        PROMETHEUS:prometheus-cpp)
  string(REPLACE ":" ";" package "${package}")
  list(GET package 0 option_name)
  list(GET package 1 found_name)
  if(SWITCHYARD_${option_name} AND NOT ${found_name}_FOUND)
    message(FATAL_ERROR "SWITCHYARD_${option_name} is ON but ${found_name} was not found; "
                        "install it or pass -DSWITCHYARD_${option_name}=OFF")
  endif()
endforeach()
if(SWITCHYARD_NCCL AND NOT SWITCHYARD_NCCL_INCLUDE_DIR)
  message(FATAL_ERROR "SWITCHYARD_NCCL is ON but nccl.h was not found; "
                      "install it or pass -DSWITCHYARD_NCCL=OFF")
endif()
