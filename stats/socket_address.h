// Addresses to listen on.
#pragma once

#include <string>
#include <string_view>

namespace switchyard::stats {

struct SocketAddress {
  std::string host;  ///< IPv4
  int port = 0;

  [[nodiscard]] std::string text() const;  ///< "127.0.0.1:9464"
};

/// @param text  "HOST:PORT", ":PORT" or "PORT"; see PrometheusExporter.
/// @throws InvalidArgument  for another form.
SocketAddress parse_socket_address(std::string_view text);

/// Listens there for a moment.
/// @return the port: the address's, or a free one where that is 0.
/// @throws Unavailable  with the system's reason, when that cannot be.
int find_port(const SocketAddress& address);

/// Connects for a moment, which wakes who listens there. Nothing happens where nobody does.
void knock(const SocketAddress& address);

}  // namespace switchyard::stats
