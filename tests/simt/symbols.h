// Names and source lines for addresses in the program's code.
#pragma once

#include <string>

namespace switchyard::simt {

/// "switchyard::cuda::route_kernel<8>" for a function's address, from the symbol table, so that
/// functions of unnamed namespaces have names too.
std::string function_name(const void* function);

/// "routing_kernels.cuh:42" for an address in code, "" where it is not known. Asks addr2line.
std::string source_line(const void* code);

}  // namespace switchyard::simt
