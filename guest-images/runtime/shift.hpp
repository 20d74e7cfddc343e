#pragma once

#include <stdint.h>

#include "runtime/abi.h"

namespace guest {

// Lets the boot CPU stop what the others do, look at it at leisure, and let them go on. They rest at first.
class Shift {
  public:
    // On the boot CPU.
    void begin() { number_ = number_ + 1; }
    void end() { number_ = number_ + 1; }
    // Whether that CPU has stopped since end().
    bool rests(uint32_t cpu) const { return rests_[cpu].number == number_; }

    // On every CPU, before each piece of work: whether to do it. If not, rest() once nothing is half done.
    bool is_on() const { return number_ % 2 == 0; }
    void rest(uint32_t cpu) { rests_[cpu].number = number_; }

  private:
    struct alignas(64) Mark {
        volatile uint64_t number = 0;
    };

    volatile uint64_t number_ = 1;  // odd: all rest
    Mark rests_[MAX_CPUS];
};

}  // namespace guest
