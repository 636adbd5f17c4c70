# Installs the build tree to an empty prefix, then configures, builds and runs the example that the
# README shows, outside the project.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    string(JOIN " " command ${ARGN})
    message(FATAL_ERROR "${command}\nfailed with ${status}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${work_dir})
set(prefix ${work_dir}/prefix)
run(${CMAKE_COMMAND} --install ${build_dir} --prefix ${prefix})

# A package that names the tree it was built in works on no other machine.
file(GLOB_RECURSE package_files ${prefix}/*.cmake)
if(NOT package_files)
  message(FATAL_ERROR "no package files below ${prefix}")
endif()
foreach(package_file IN LISTS package_files)
  file(READ ${package_file} content)
  string(FIND "${content}" "${project_dir}/" position)
  if(NOT position EQUAL -1)
    message(FATAL_ERROR "${package_file} names ${project_dir}")
  endif()
endforeach()

file(COPY ${source_dir}/ ${project_dir}/examples/route_a_batch.cpp DESTINATION ${work_dir}/source)
run(${CMAKE_COMMAND} -S ${work_dir}/source -B ${work_dir}/build -G ${generator}
    -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_CXX_FLAGS=${flags}
    -D CMAKE_PREFIX_PATH=${prefix} -D BUILD_SHARED_LIBS=${shared})
run(${CMAKE_COMMAND} --build ${work_dir}/build)
run(${work_dir}/build/consumer)
set(expected "expert 1: 0.7311\nexpert 3: 0.2689\nexpert 0: 0.5000\nexpert 1: 0.5000\n")
if(NOT output STREQUAL expected)
  message(FATAL_ERROR "the consumer printed\n${output}instead of\n${expected}")
endif()

# The MPI transport is a component, which a program without MPI does not see.
file(COPY ${source_dir}/../mpi_consumer/ DESTINATION ${work_dir}/mpi_source)
set(mpi_arguments
    -S ${work_dir}/mpi_source -B ${work_dir}/mpi_build -G ${generator} -D CMAKE_BUILD_TYPE=Release
    -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_CXX_FLAGS=${flags} -D CMAKE_PREFIX_PATH=${prefix}
    -D BUILD_SHARED_LIBS=${shared})
if(mpi)
  run(${CMAKE_COMMAND} ${mpi_arguments})
  run(${CMAKE_COMMAND} --build ${work_dir}/mpi_build)
  run(${work_dir}/mpi_build/mpi_consumer)
  if(NOT output STREQUAL "not launched by MPI; MPI is not running; MpiRuntime starts it\n")
    message(FATAL_ERROR "the MPI consumer printed ${output}")
  endif()
else()
  execute_process(COMMAND ${CMAKE_COMMAND} ${mpi_arguments} RESULT_VARIABLE status OUTPUT_QUIET
                  ERROR_QUIET)
  if(status EQUAL 0)
    message(FATAL_ERROR "a package without MPI offers the component mpi")
  endif()
endif()

# So is the exporter for Prometheus.
if(prometheus)
  file(COPY ${source_dir}/../prometheus_consumer/ DESTINATION ${work_dir}/prometheus_source)
  run(${CMAKE_COMMAND} -S ${work_dir}/prometheus_source -B ${work_dir}/prometheus_build -G ${generator}
      -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_CXX_FLAGS=${flags}
      -D CMAKE_PREFIX_PATH=${prefix} -D BUILD_SHARED_LIBS=${shared})
  run(${CMAKE_COMMAND} --build ${work_dir}/prometheus_build)
  run(${work_dir}/prometheus_build/prometheus_consumer)
  if(NOT output STREQUAL "listens at 127.0.0.1:\n")
    message(FATAL_ERROR "the exporter's consumer printed ${output}")
  endif()
endif()

# And so is the NCCL transport. That it is linked is all that can be seen without a GPU.
if(nccl)
  file(COPY ${source_dir}/../nccl_consumer/ DESTINATION ${work_dir}/nccl_source)
  run(${CMAKE_COMMAND} -S ${work_dir}/nccl_source -B ${work_dir}/nccl_build -G ${generator}
      -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_CXX_FLAGS=${flags}
      -D CMAKE_PREFIX_PATH=${prefix} -D BUILD_SHARED_LIBS=${shared})
  run(${CMAKE_COMMAND} --build ${work_dir}/nccl_build)
  run(${work_dir}/nccl_build/nccl_consumer)
  if(NOT output STREQUAL "size is 0, must be 1 or more\n" AND NOT output MATCHES "^no CUDA device")
    message(FATAL_ERROR "the NCCL consumer printed ${output}")
  endif()
endif()
