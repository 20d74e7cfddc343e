#pragma once

#include <stdint.h>

#include "runtime/splitmix.hpp"
#include "runtime/text.hpp"

namespace workload {

// The registers of cpustate that only ring 0 reaches.

// Writes known values. A model specific register the host refuses is left out for ever.
void start_ring0_state(guest::SplitMix& values);

// Checks one register (ring 0 is slow where it is emulated) and gives it a new value, the next one each time.
bool check_next_ring0_state(guest::SplitMix& values, guest::Fields& failure);
bool check_all_ring0_state(guest::Fields& failure);

// How often all of them have been checked.
uint64_t ring0_rounds();

// How many model specific registers are watched, and how many the host refused.
void report_ring0_state(guest::Fields& fields);

}  // namespace workload
