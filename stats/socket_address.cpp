#include "stats/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "stats/refuse.h"
#include "switchyard/errors.h"

namespace switchyard::stats {
namespace {

constexpr char kLoopback[] = "127.0.0.1";

/// The host before ":PORT".
std::string host_of(std::string_view text, std::string_view host) {
  if (host.empty() || host == "localhost") return kLoopback;
  std::string name(host);
  in_addr parsed{};
  if (inet_pton(AF_INET, name.c_str(), &parsed) != 1) {
    refuse("address is ", text, ": ", host, " is no IPv4 address and not localhost");
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
  Socket() : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  [[nodiscard]] int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// As the system's calls take it.
struct SystemAddress {
  explicit SystemAddress(const SocketAddress& address) {
    in4.sin_family = AF_INET;
    in4.sin_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET, address.host.c_str(), &in4.sin_addr);
  }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&in4); }

  sockaddr_in in4{};
  socklen_t size = sizeof(in4);
};

}  // namespace

std::string SocketAddress::text() const { return host + ":" + std::to_string(port); }

SocketAddress parse_socket_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const bool has_host = colon != std::string_view::npos;
  const std::string_view host = has_host ? text.substr(0, colon) : std::string_view();
  const std::string_view port = has_host ? text.substr(colon + 1) : text;
  return {host_of(text, host), port_of(text, port)};
}

int find_port(const SocketAddress& address) {
  SystemAddress system(address);
  const Socket listener;
  const int reuse = 1;  // a port whose last connections are still closing is free
  if (listener.get() < 0 ||
      setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)) != 0 ||
      bind(listener.get(), system.get(), system.size) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), system.get(), &system.size) != 0) {
    throw Unavailable("cannot listen on " + address.text() + ": " +
                      std::system_category().message(errno));
  }
  return ntohs(system.in4.sin_port);
}

void knock(const SocketAddress& address) {
  SystemAddress system(address);
  const Socket visitor;
  if (visitor.get() >= 0) static_cast<void>(connect(visitor.get(), system.get(), system.size));
}

}  // namespace switchyard::stats
