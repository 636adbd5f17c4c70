# One static and one shared library out of the folders' objects; install and package config.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(objects
    $<TARGET_OBJECTS:switchyard_cpu> $<TARGET_OBJECTS:switchyard_cuda>
    $<TARGET_OBJECTS:switchyard_nccl> $<TARGET_OBJECTS:switchyard_stats>)

foreach(kind IN ITEMS STATIC SHARED)
  string(TOLOWER ${kind} suffix)
  set(target switchyard_${suffix})
  add_library(${target} ${kind} ${objects})
  add_library(switchyard::${target} ALIAS ${target})
  set_target_properties(
    ${target} PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME switchyard VERSION ${PROJECT_VERSION}
                         SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(
    ${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                     $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(
    ${target} PRIVATE $<BUILD_INTERFACE:switchyard_flags> hwy::hwy spdlog::spdlog Threads::Threads)
  if(SWITCHYARD_OPENMP)
    target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  endif()
  if(SWITCHYARD_CUDA)
    target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  endif()
endforeach()

# A symbol that is nowhere must fail here, not in the program that links the library. Sanitizers
# leave theirs to the program.
if(NOT SWITCHYARD_SANITIZE AND NOT APPLE)
  target_link_options(switchyard_shared PRIVATE LINKER:--no-undefined)
endif()

if(BUILD_SHARED_LIBS)
  add_library(switchyard::switchyard ALIAS switchyard_shared)
else()
  add_library(switchyard::switchyard ALIAS switchyard_static)
endif()

install(TARGETS switchyard_static switchyard_shared EXPORT switchyard_targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/switchyard
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/switchyard)
if(SWITCHYARD_MPI)
  install(TARGETS switchyard_mpi EXPORT switchyard_mpi_targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT switchyard_mpi_targets FILE switchyard-mpi-targets.cmake NAMESPACE switchyard::
          DESTINATION ${package_dir})
endif()
if(SWITCHYARD_PROMETHEUS)
  install(TARGETS switchyard_prometheus EXPORT switchyard_prometheus_targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT switchyard_prometheus_targets FILE switchyard-prometheus-targets.cmake
          NAMESPACE switchyard:: DESTINATION ${package_dir})
endif()
if(TARGET switchyard_nccl_transport)
  install(TARGETS switchyard_nccl_transport EXPORT switchyard_nccl_targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT switchyard_nccl_targets FILE switchyard-nccl-targets.cmake NAMESPACE switchyard::
          DESTINATION ${package_dir})
endif()
install(EXPORT switchyard_targets FILE switchyard-targets.cmake NAMESPACE switchyard:: DESTINATION ${package_dir})
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/switchyard-config.cmake.in
  ${PROJECT_BINARY_DIR}/switchyard-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/switchyard-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/switchyard-config.cmake
              ${PROJECT_BINARY_DIR}/switchyard-config-version.cmake DESTINATION ${package_dir})
