// The smallest client that a scrape needs.
#pragma once

#include <string>

namespace switchyard::test {

/// The whole answer to GET `path` from 127.0.0.1, head and body; "" where nobody listens.
std::string http_get(int port, const std::string& path);

/// A port of this machine that nobody listened on just now; 0 where there is none.
int free_port();

}  // namespace switchyard::test
