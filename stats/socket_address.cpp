#include "stats/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include "stats/refuse.h"
#include "switchyard/errors.h"

namespace switchyard::stats {
namespace {

constexpr char kLoopback[] = "127.0.0.1";

bool is_address(int family, const std::string& host) {
  in6_addr parsed{};
  return inet_pton(family, host.c_str(), &parsed) == 1;
}

/// The host before ":PORT", without brackets.
std::string host_of(std::string_view text, std::string_view host) {
  if (host.empty() || host == "localhost") return kLoopback;
  const bool has_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  std::string name(has_brackets ? host.substr(1, host.size() - 2) : host);
  if (!is_address(has_brackets ? AF_INET6 : AF_INET, name)) {
    refuse("address is ", text, ": ", host,
           " is no IPv4 address, no IPv6 address in brackets and not localhost");
  }
  return name;
}

int port_of(std::string_view text, std::string_view digits) {
  int port = -1;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, port);
  if (error != std::errc() || stop != end || port < 0 || port > 65535) {
    refuse("address is ", text, ": its port is \"", digits, "\", must be in [0, 65535]");
  }
  return port;
}

/// A socket that is closed again.
class Socket {
 public:
  explicit Socket(int family) : descriptor_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  [[nodiscard]] int get() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

std::string SocketAddress::text() const {
  return (is_ipv6() ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

SocketAddress parse_socket_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const bool has_host = colon != std::string_view::npos;
  const std::string_view host = has_host ? text.substr(0, colon) : std::string_view();
  const std::string_view port = has_host ? text.substr(colon + 1) : text;
  return {host_of(text, host), port_of(text, port)};
}

int find_port(const SocketAddress& address) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (address.is_ipv6()) {
    auto* const in6 = reinterpret_cast<sockaddr_in6*>(&storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET6, address.host.c_str(), &in6->sin6_addr);
    size = sizeof(*in6);
  } else {
    auto* const in4 = reinterpret_cast<sockaddr_in*>(&storage);
    in4->sin_family = AF_INET;
    in4->sin_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET, address.host.c_str(), &in4->sin_addr);
    size = sizeof(*in4);
  }
  auto* const any = reinterpret_cast<sockaddr*>(&storage);
  const Socket listener(storage.ss_family);
  const int reuse = 1;  // a port whose last connections are still closing is free
  if (listener.get() < 0 ||
      setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)) != 0 ||
      bind(listener.get(), any, size) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), any, &size) != 0) {
    throw Unavailable("cannot listen on " + address.text() + ": " +
                      std::system_category().message(errno));
  }
  return ntohs(address.is_ipv6() ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                 : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
}

}  // namespace switchyard::stats
