// The filters as the kernel takes them. Generated from sandbox_rules.cpp when vmm is built, by
// sandbox_compile.cpp.
#pragma once

#include <linux/filter.h>

#include <span>

#include "vmm/base/thread.hpp"

namespace tools {

std::span<const sock_filter> sandbox_program(vmm::ThreadRole role);

}  // namespace tools
