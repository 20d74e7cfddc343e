// start_thread(): a thread with a name, or why the host has none left.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "vmm/base/result.hpp"

namespace vmm {

// `name`, cut to what the host shows: 15 characters. Code::io: no more threads; nothing was called.
Result<std::thread> start_thread(std::string name, std::function<void()> function);

}  // namespace vmm
