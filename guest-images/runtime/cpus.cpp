#include "runtime/cpus.hpp"

#include <stddef.h>

#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/memory.hpp"

extern "C" {
struct TaskDescriptor {
    uint64_t low;
    uint64_t high;
};
extern TaskDescriptor gdt_task_states[MAX_CPUS];
extern guest::Cpu* volatile starting_cpu;
extern const char trampoline[];
extern const char trampoline_end[];
}

namespace guest {
namespace {

static_assert(sizeof(Cpu) == CPU_SIZE);
static_assert(offsetof(Cpu, timer_ticks) == CPU_TIMER_TICKS && offsetof(Cpu, ipis) == CPU_IPIS);
static_assert(offsetof(Cpu, entry) == CPU_ENTRY && offsetof(Cpu, user_stack) == CPU_USER_STACK);
static_assert(offsetof(Cpu, task_selector) == CPU_TASK_SELECTOR);

constexpr uint64_t kUserStack = 16384;
constexpr uint64_t kFaultStack = 4096;
constexpr uint64_t kPatienceUs = 10000000;

// SDM volume 3 section 7.7. The I/O bitmap of zero bits opens every port to CPL 3.
struct [[gnu::packed]] TaskState {
    uint32_t reserved0;
    uint64_t ring0_stack;
    uint64_t ring1_stack;
    uint64_t ring2_stack;
    uint64_t reserved1;
    uint64_t interrupt_stacks[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t bitmap_offset;
    uint8_t bitmap[8192];
    uint8_t bitmap_end;
};
static_assert(offsetof(TaskState, bitmap) == 104);

constinit Work work_of_others = nullptr;

TaskDescriptor describe(const TaskState& state) {
    constexpr uint64_t kAvailable = 0x89;
    constexpr uint64_t kLimit = sizeof(TaskState) - 1;
    const auto base = reinterpret_cast<uint64_t>(&state);
    return {(base >> 24 & 0xff) << 56 | kAvailable << 40 | (base & 0xffffff) << 16 | kLimit, base >> 32};
}

uint64_t new_stack(uint64_t bytes) {
    return reinterpret_cast<uint64_t>(memory().take_contiguous(bytes)) + bytes;
}

void begin(Cpu& self) {
    start_lapic();
    enable_interrupts();
    self.online = true;
    work_of_others(self);
}

Cpu* prepare(uint32_t index) {
    auto* own = static_cast<Cpu*>(memory().take_contiguous(sizeof(Cpu)));
    own->entry = begin;
    own->user_stack = new_stack(kUserStack) - 8;
    own->task_selector = TASK_STATES + 16 * index;
    own->index = index;
    auto* state = static_cast<TaskState*>(memory().take_contiguous(sizeof(TaskState)));
    state->ring0_stack = reinterpret_cast<uint64_t>(own + 1);
    state->interrupt_stacks[0] = new_stack(kFaultStack);
    state->bitmap_offset = offsetof(TaskState, bitmap);
    state->bitmap_end = 0xff;
    gdt_task_states[index] = describe(*state);
    return own;
}

void wait_us(uint64_t us) {
    const uint64_t end = rdtsc() + tsc_from_us(us);
    while (rdtsc() < end) {
        relax();
    }
}

bool comes_online(const Cpu& other, uint64_t us) {
    const uint64_t end = rdtsc() + tsc_from_us(us);
    while (!other.online && rdtsc() < end) {
        relax();
    }
    return other.online;
}

// SDM volume 3 section 8.4.4.1: 10 ms after INIT a start-up IPI, and a second for CPUs that miss the first.
void start(Cpu& other, uint32_t page) {
    constexpr uint64_t kBetweenStartupsUs = 200;
    starting_cpu = &other;
    send_startup(other.index, page);
    if (!comes_online(other, kBetweenStartupsUs)) {
        send_startup(other.index, page);
    }
    if (!comes_online(other, kPatienceUs)) {
        fail(Fields().text("reason", "cpu_does_not_start").number("apic_id", other.index));
    }
}

// CPUID leaf 1, EBX 23:16, where EDX 28 says that it counts.
uint32_t cpus_by_cpuid() {
    const Cpuid leaf = cpuid(1);
    const uint32_t count = (leaf.edx & 1 << 28) != 0 ? leaf.ebx >> 16 & 0xff : 1;
    return count < 1 ? 1 : count > MAX_CPUS ? MAX_CPUS : count;
}

}  // namespace

uint32_t count_cpus(const Parameters& parameters) {
    const uint64_t count = parameters.number("cpus", cpus_by_cpuid());
    if (count < 1 || count > MAX_CPUS) {
        fail(Fields().text("reason", "bad_parameter").number("cpus", count));
    }
    return static_cast<uint32_t>(count);
}

void start_cpus(uint32_t count, Work work) {
    if (count == 1) {
        return;
    }
    work_of_others = work;
    const auto size = static_cast<uint64_t>(trampoline_end - trampoline);
    const auto page = static_cast<uint32_t>(memory().copy_low(trampoline, size) / kPageSize);
    Cpu* cpus[MAX_CPUS] = {};
    for (uint32_t index = 1; index < count; ++index) {
        cpus[index] = prepare(index);
        send_init(index);
    }
    wait_us(10000);
    for (uint32_t index = 1; index < count; ++index) {
        start(*cpus[index], page);
    }
}

}  // namespace guest
