// start_thread(): a thread with a name, or why the host has none left. For all but the vCPUs' own.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "vmm/base/result.hpp"

namespace vmm {

// `name`, cut to what the host shows: 15 characters. It has Slice::brief. Code::io: no more threads; nothing
// was called.
Result<std::thread> start_thread(std::string name, std::function<void()> function);

// In what pieces the calling thread takes its share of a CPU (sched_setattr(2), Linux 6.12; without effect
// before). Threads take over that of their maker. vCPUs have the kernel's own, some milliseconds; all others
// brief ones: where both want one CPU, the vCPU soon has it again, and what wakes to serve the guest comes
// before it.
enum class Slice : std::uint8_t { ordinary, brief };
void take_slices(Slice slice);

}  // namespace vmm
