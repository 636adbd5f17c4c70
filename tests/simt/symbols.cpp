#include "tests/simt/symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <vector>

namespace switchyard::simt {
namespace {

/// The file that holds an address and where the address is in it.
struct Place {
  std::string path;
  uint64_t offset = 0;
};

Place place_of(const void* address) {
  Dl_info info{};
  link_map* map = nullptr;
  if (dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return {};
  // The program's own name may be relative to a directory that is no longer the current one.
  const bool is_program = map->l_name[0] == '\0';
  return {is_program ? "/proc/self/exe" : map->l_name,
          reinterpret_cast<uint64_t>(address) - map->l_addr};
}

using Symbols = std::map<uint64_t, std::string>;

template <class T>
T read_at(const std::vector<char>& file, uint64_t offset) {
  T value{};
  if (offset + sizeof value <= file.size()) std::memcpy(&value, &file[offset], sizeof value);
  return value;
}

/// The functions of an ELF file of this machine's kind, by address.
Symbols read_functions(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  const auto header = read_at<ElfW(Ehdr)>(file, 0);
  Symbols symbols;
  for (int i = 0; i < header.e_shnum; ++i) {
    const auto index = static_cast<uint64_t>(i);
    const auto section = read_at<ElfW(Shdr)>(file, header.e_shoff + index * sizeof(ElfW(Shdr)));
    if (section.sh_type != SHT_SYMTAB) continue;
    const auto names =
        read_at<ElfW(Shdr)>(file, header.e_shoff + section.sh_link * sizeof(ElfW(Shdr)));
    for (uint64_t at = 0; at + sizeof(ElfW(Sym)) <= section.sh_size; at += sizeof(ElfW(Sym))) {
      const auto symbol = read_at<ElfW(Sym)>(file, section.sh_offset + at);
      const uint64_t name = names.sh_offset + symbol.st_name;
      // Both word sizes keep the type in the low four bits.
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || name >= file.size()) continue;
      symbols.emplace(symbol.st_value, &file[name]);
    }
  }
  return symbols;
}

const Symbols& functions_of(const std::string& path) {
  static std::map<std::string, Symbols> files;
  const auto known = files.find(path);
  return known != files.end() ? known->second
                              : files.emplace(path, read_functions(path)).first->second;
}

void erase_all(std::string& text, const std::string& part) {
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part)) {
    text.erase(at, part.size());
  }
}

/// Without result, parameters and unnamed namespaces.
std::string demangled(const std::string& symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), &std::free);
  if (text == nullptr) return symbol;
  std::string name = text.get();
  erase_all(name, "(anonymous namespace)::");
  if (name.rfind("void ", 0) == 0) name.erase(0, std::strlen("void "));
  // Template arguments may hold parentheses, as in kernel<(Mode)1>(int).
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (depth == 0 && name[i] == '(') {
      name.resize(i);
      break;
    }
  }
  return name;
}

}  // namespace

std::string function_name(const void* function) {
  static std::map<const void*, std::string> names;
  const auto known = names.find(function);
  if (known != names.end()) return known->second;
  const Place place = place_of(function);
  const Symbols& symbols = functions_of(place.path);
  const auto symbol = symbols.find(place.offset);
  std::string name;
  if (symbol != symbols.end()) {
    name = demangled(symbol->second);
  } else {
    std::ostringstream text;
    text << "at " << function;
    name = text.str();
  }
  return names.emplace(function, name).first->second;
}

std::string source_line(const void* code) {
  const Place place = place_of(code);
  if (place.path.empty()) return {};
  char program[4096] = "";
  if (readlink(place.path.c_str(), program, sizeof program - 1) <= 0) {
    std::snprintf(program, sizeof program, "%s", place.path.c_str());
  }
  std::ostringstream command;
  command << "addr2line -s -e '" << program << "' 0x" << std::hex << place.offset << " 2>/dev/null";
  FILE* pipe = popen(command.str().c_str(), "r");
  if (pipe == nullptr) return {};
  char line[1024] = "";
  const bool has_line = std::fgets(line, sizeof line, pipe) != nullptr;
  pclose(pipe);
  if (!has_line || line[0] == '?') return {};
  line[std::strcspn(line, " \n")] = '\0';
  return line;
}

}  // namespace switchyard::simt
