// The system calls that each thread of `run` and `receive` may make: the one table of the sandbox.
// docs/sandbox.md shows it, and a test compares the two.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/base/thread.hpp"

namespace tools {

// One call, allowed to some roles. Whatever no rule of its role allows kills the process.
struct Rule {
    // Holds where `argument` (counted from 0) has the value `equals` in the bits of `mask`; always without
    // bits.
    struct Condition {
        unsigned argument = 0;
        std::uint64_t mask = 0;
        std::uint64_t equals = 0;
        const char* text = "";  // for people
    };

    const char* name;
    int number;
    unsigned roles;  // a bit for each ThreadRole
    Condition only{};
    int error = 0;  // not 0: instead of being allowed the call fails with this errno

    bool is_for(vmm::ThreadRole role) const { return (roles >> static_cast<unsigned>(role) & 1U) != 0; }
};

std::vector<Rule> sandbox_rules();

const char* name_of(vmm::ThreadRole role);

// As docs/sandbox.md has it.
std::string describe_rules();

}  // namespace tools
