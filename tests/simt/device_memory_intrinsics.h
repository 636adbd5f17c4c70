// CUDA's loads and stores with a say in caching; on the host they only check alignment.
#pragma once

#include <type_traits>

#include "tests/simt/device_hooks.h"

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
namespace switchyard::simt {

template <class T>
T checked_load(const T* address) {
  static_assert(sizeof(T) <= 16);
  require_alignment(address, sizeof(T));
  return *address;
}

template <class T>
void checked_store(T* address, const T& value) {
  static_assert(sizeof(T) <= 16);
  require_alignment(address, sizeof(T));
  *address = value;
}

}  // namespace switchyard::simt

template <class T>
T __ldg(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
T __ldcs(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
T __ldcg(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
T __ldca(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
T __ldlu(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
T __ldcv(const T* address) {
  return switchyard::simt::checked_load(address);
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  switchyard::simt::checked_store(address, value);
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
  switchyard::simt::checked_store(address, value);
}
template <class T>
void __stwb(T* address, std::type_identity_t<T> value) {
  switchyard::simt::checked_store(address, value);
}
template <class T>
void __stwt(T* address, std::type_identity_t<T> value) {
  switchyard::simt::checked_store(address, value);
}
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)
